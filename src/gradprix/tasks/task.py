"""Tasks: a model, data, a loss and a metric."""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence

from gradprix.utils.margins import absolute_margin

from .data import Data
from .fingerprint import fingerprint
from .model_with_loss import ModelWithLoss, is_built_for_each_run, new_loss
from .parameter_groups import NO_DECAY_NORMS, Groups
from .rng import init_model
from .schedules import SCHEDULES
from .tensors import suggest_fix

TRIAL_SETTINGS = frozenset(("batch_size", "epochs", "schedule", "clip_norm"))
"""Arguments of a task that are part of each trial instead of the task's fingerprint."""
OPTIONS = {"clip_norm": None, "accumulate": 1, "groups": None, "ema": None, "autocast": None}
"""Options of the training and the values with which they have no effect."""
NUMBERS = frozenset(("batch_size", "epochs", "baseline", "accumulate", "clip_norm", "ema"))
"""Arguments of a task that are numbers."""
After = Callable[[nn.Module, Any, Any], Mapping[str, Any]]
"""Function `after(network, inputs, targets)` that analyses a trained network; see `Task`."""


@dataclass(frozen=True)
class Metric:
    """The quantity that a race compares, measured on held-out examples after the last step.

    Args:
        name: name in sentences and on axes.
        score: function `score(outputs, targets) -> float`, called with all held-out examples at once.
        higher_is_better: direction of the metric.
        margin: smallest difference that matters, in the metric's units; if `relative`, as a fraction of the better
            entry's mean.
        relative: True if `margin` is a fraction of the better entry's mean.
        percent: True to format values as percentages.
    """

    name: str
    score: Callable[[Any, Any], float | Tensor]
    higher_is_better: bool
    margin: float
    relative: bool = False
    percent: bool = False

    def least(self, better: float) -> float:
        """Return the smallest difference that matters, in the metric's units, given the better of two means."""
        return absolute_margin(self.margin, self.relative, better)


class _LoaderBatchSize:
    """Default of `Task.batch_size`: the batch size of the loader that the examples come from."""

    def __get__(self, task: "Task | None", owner: type | None = None) -> int | None:
        if task is None:
            return None
        if task.loaded.batch_size is None:
            raise task.refused("it has no batch_size. Give Task(batch_size=32), or gp.Data.from_loader(loader).")
        return task.loaded.batch_size


@dataclass(frozen=True)
class Task:
    """A problem that optimizers race on.

    Args:
        name: short identifier; also the default folder of a race.
        model: function that returns a new network, with initial weights drawn from torch's global generator.
        loss: function `loss(outputs, targets) -> scalar tensor` that returns a mean over examples. The parameters of a
            loss that is an `nn.Module` are trained with those of the model. Such a loss, and one with buffers, is
            copied for each run. A subclass of `nn.Module`, or a `functools.partial` of one, is constructed for each
            run, with random numbers of its seed.
        metric: the quantity to compare.
        baseline: chance level, the metric of the best constant answer; also the score of a diverged run.
        data: function that loads the examples; called once per process.
        batch_size: examples per step, unless an entry has a batch size of its own. If it is left out, it is the batch
            size of the loader of the data (`Data.from_loader`).
        epochs: number of epochs; a number below 1 is the fraction of the training examples that is used, once.
        schedule: learning-rate schedule: `"cosine"`, `"linear"`, `"warmup"` or `"constant"`.
        about: description in one sentence.
        pretrained: True if networks start from the same weights for every seed, as in fine-tuning.
        entries: default entries of a race; the ten entries of the default bracket if empty.
        trials: default number of tuning trials per entry; the number of the race protocol if None.
        seeds: default number of final runs per entry; the number of the race protocol if None.
        after: `after(network, inputs, targets)` analyses a trained network and its test examples once, after the last
            step of a final run, and returns further results by name: numbers (the report shows their means over seeds,
            without a verdict), pictures (arrays `[height, width]` or `[height, width, 3]`, bytes or from 0 to 1) and
            texts (`{source: output}`). The report shows the pictures and texts of the first final seed.
        clip_norm: maximum norm of the gradient of all trained parameters, as in `torch.nn.utils.clip_grad_norm_`; None
            does not clip. It can be tuned.
        accumulate: number of micro-batches that a batch is split into. The gradient of a step is the mean of theirs,
            weighted by their numbers of examples, so that a step takes less memory.
        groups: function `groups(model)` that returns a list of parameter groups, each a dictionary with `params`
            (parameters or their names) and optionally `lr_factor`, and `weight_decay` or `weight_decay_factor`. The
            string `"no_decay_norms"` disables weight decay for biases, for parameters of norm layers and for those
            with fewer than two dimensions.
        ema: decay of an exponential moving average of the weights, such as 0.999. The metric of the averaged weights
            is reported beside that of the final runs, without a verdict; None averages nothing.
        autocast: `torch.bfloat16` computes the forward pass and the loss under `torch.autocast`, and the backward pass
            outside it, as PyTorch recommends; None does not.
        noise: approximate standard deviation over seeds of the difference between two tuned entries, in the metric's
            units, if known; only used to predict the detectable difference of a race.
        needs: resources that a stack of networks, trained together, requests on a cluster: `cpus`, `gpus` and `memory`
            (GB).
    """

    name: str
    model: Callable[[], nn.Module]
    loss: Callable[[Any, Any], Tensor]
    metric: Metric
    baseline: float
    data: Callable[[], Data]
    batch_size: int = _LoaderBatchSize()  # type: ignore[assignment]  # the descriptor returns an integer
    epochs: float = None  # type: ignore[assignment]  # required, but follows a default
    schedule: str = "cosine"
    about: str = ""
    noise: float | None = None
    pretrained: bool = False
    entries: tuple[str, ...] = ()
    trials: int | None = None
    seeds: int | None = None
    after: After | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    groups: Groups | None = None
    ema: float | None = None
    autocast: torch.dtype | None = None
    needs: Mapping[str, float] = field(default_factory=dict, compare=False)  # does not affect results

    def __post_init__(self) -> None:
        if self.epochs is None:
            raise TypeError(f"task {self.name!r} has no epochs: give the number of passes over the training examples.")
        if vars(self)["batch_size"] is None:
            del vars(self)["batch_size"]  # so that the descriptor is used
        self._check_types()
        for name in ("batch_size", "epochs"):
            value = vars(self).get(name, 1)
            if value < 1 and not (name == "epochs" and value > 0):
                raise ValueError(f"{name} = {value}: it must be 1 or more.")
        if not isinstance(size := vars(self).get("batch_size", 1), int):
            raise ValueError(f"batch_size = {size}: it must be a whole number.")
        if self.epochs > 1 and self.epochs % 1:
            raise ValueError(f"epochs = {self.epochs}: it must be a whole number, or below 1 a part of one epoch.")
        if not math.isfinite(self.baseline):
            raise ValueError(f"baseline = {self.baseline}: it must be the metric of the best constant answer.")
        if unknown := sorted(self.needs.keys() - {"cpus", "gpus", "memory"}):
            raise ValueError(f"needs: {unknown[0]} is none of cpus, gpus and memory.")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule = {self.schedule!r}: it must be one of {', '.join(SCHEDULES)}.")
        self._check_options()

    def _check_types(self) -> None:
        """Convert 0-d tensors and arrays, and floats that are whole numbers, to Python's numbers.

        Raises:
            TypeError: for an argument that is not a number.
        """
        for name in NUMBERS & vars(self).keys():
            value = vars(self)[name]
            if value is None and name in OPTIONS and OPTIONS[name] is None:
                continue
            if isinstance(value, bool) or not (isinstance(value, Real) or getattr(value, "shape", None) == ()):
                raise TypeError(f"{name} = {value!r}: it must be a number.")
            if not isinstance(value, int | float):
                value = float(value)
            is_count = name in ("batch_size", "accumulate", "epochs") and float(value).is_integer()
            vars(self)[name] = int(value) if is_count else value

    def _check_options(self) -> None:
        """Raise a ValueError for an option of the training that is out of range."""
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ValueError(
                f"clip_norm = {self.clip_norm}: it must be a number above 0, or None to train without clipping."
            )
        if not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise ValueError(f"accumulate = {self.accumulate}: it must be a whole number of micro-batches, 1 or more.")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema = {self.ema}: it is the decay of the average, from 0 to 1, such as 0.999.")
        if self.autocast not in (None, torch.bfloat16):
            raise ValueError(
                f"autocast = {self.autocast}: it must be torch.bfloat16 or None. float16 needs gradient scaling, which "
                "a training loop can do."
            )
        if not (self.groups is None or callable(self.groups) or self.groups == NO_DECAY_NORMS):
            raise ValueError(
                f"groups = {self.groups!r}: give a function groups(model) that returns a list of parameter groups, or "
                f"{NO_DECAY_NORMS!r}."
            )

    def change(self, **given: Any) -> "Task":
        """Return a copy with other values for the given arguments; arguments that are None keep their values."""
        given = {name: value for name, value in given.items() if value is not None}
        task = replace(self, **{"batch_size": vars(self).get("batch_size"), **given})
        cached = [] if "data" in given else ["loaded"]  # loading the examples again may be slow
        cached += ["fingerprint"] if given.keys() <= TRIAL_SETTINGS else []
        vars(task).update({name: vars(self)[name] for name in cached if name in vars(self)})
        return task

    @cached_property
    def loaded(self) -> Data:
        """The examples, loaded when first needed.

        Raises:
            TaskError: if the examples cannot be loaded.
        """
        if not callable(self.data):
            cure = suggest_fix(self.data) or "give a function, as in data=lambda: gp.Data(inputs, targets)."
            raise self.refused(f"its data is a {type(self.data).__name__}, not a function. {cure[0].upper()}{cure[1:]}")
        try:
            data: Any = self.data()
        except Exception as error:
            raise self.refused(f"its data cannot be loaded: {first_line(error)}.") from error
        if not isinstance(data, Data):
            what = type(data).__name__
            cure = suggest_fix(data) or "return gp.Data(inputs, targets) or gp.Data.from_dataset(dataset)."
            raise self.refused(f"data() returns a {what}. {cure[0].upper()}{cure[1:]}")
        return data

    def network(self, seed: int) -> nn.Module:
        """Build a network with the initial weights of a seed.

        Raises:
            TaskError: if the model cannot be built or is not supported.
        """
        try:
            model: Any = init_model(self.model, seed)
        except Exception as error:
            raise self.refused(f"model() fails: {first_line(error)}.") from error
        if not isinstance(model, nn.Module):
            what = type(model).__name__
            raise self.refused(f"model() returns a {what}. Return a new torch.nn.Module each time.")
        if self.includes_loss:
            try:
                with_loss = init_model(self.build, seed)
            except Exception as error:
                raise self.refused(f"its loss cannot be constructed: {first_line(error)}.") from error
            return self._require_dense(with_loss)
        return self._require_dense(model)

    def _require_dense(self, model: nn.Module) -> nn.Module:
        """Return the model, after checking that it has no lazy tensors and no sparse parameters."""
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        if lazy := [name for name, x in tensors.items() if is_lazy(x)]:
            raise self.refused(
                f"{lazy[0]} of its model is initialized by the first batch. Run a batch in model(), as in net = ...; "
                "net(example_inputs); return net, or give the layer its sizes."
            )
        if sparse := [name for name, x in model.named_parameters() if x.layout is not torch.strided]:
            raise self.refused(f"{sparse[0]} of its model is a sparse parameter. Make it dense, by .to_dense().")
        return model

    def build(self) -> nn.Module:
        """Build a network from torch's global generator; see `includes_loss`."""
        model: nn.Module = self.model()
        return ModelWithLoss(model, new_loss(self.loss), self.autocast) if self.includes_loss else model

    @cached_property
    def includes_loss(self) -> bool:
        """True if the loss is part of the network: if it has tensors of its own that change, or for autocast."""
        return self.autocast is not None or is_built_for_each_run(self.loss)

    def loss_of(self, model: nn.Module) -> Callable[[Any, Any], Tensor]:
        """Return the loss function of a network that `build` has returned."""
        if isinstance(model, ModelWithLoss):
            return model.compute_loss
        return self.loss

    @property
    def options(self) -> dict[str, float | int | str]:
        """The options of the training that are set, see `OPTIONS`; a function or dtype is given by its name."""
        set_options = {name: getattr(self, name) for name, usual in OPTIONS.items() if getattr(self, name) != usual}
        for name, value in set_options.items():
            if isinstance(value, torch.dtype):
                set_options[name] = str(value).removeprefix("torch.")
            elif callable(value):
                set_options[name] = getattr(value, "__name__", type(value).__name__)
        return set_options

    def micro_batch(self, size: int) -> int:
        """Return the number of examples of a forward and backward pass in a step with `size` examples."""
        return -(-size // self.accumulate)

    def refused(self, what: str) -> "TaskError":
        """Return the error to raise if the task cannot be raced, with the reason `what`."""
        return TaskError(f"task {self.name!r} cannot be raced: {what}")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the task: network, weights for seed 0, examples, and the code of its functions."""
        about = (self.name, self.loss, self.metric.name, self.metric.score, self.baseline, self.after)
        options = {name: getattr(self, name) for name in self.options if name not in TRIAL_SETTINGS}
        return fingerprint(*about, self.network(0), self.loaded.identity, *([options] if options else []))

    def __getstate__(self) -> dict[str, Any]:
        # Loaded examples are not pickled: each process loads its own.
        return {name: value for name, value in self.__dict__.items() if name != "loaded"}


class TaskError(ValueError):
    """Error raised if a task, or an optimizer on this task, cannot be raced."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error message."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def called_with(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments to call a model with.

    A tuple or list of inputs is unpacked into positional arguments, a mapping into keyword arguments. Other objects,
    such as a batch of graphs, are copied, since models may change them.
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    is_several = isinstance(inputs, tuple | list) and not isinstance(inputs, PackedSequence)
    return tuple(map(_own, inputs)) if is_several else (_own(inputs),), {}


def _own(value: Any) -> Any:
    return value if isinstance(value, Tensor | dict | list | tuple) else deepcopy(value)
