"""Entries of a race: optimizers with their fixed hyperparameters, search space and batch size."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gradprix import optim
from gradprix.optim.variants import option_defaults
from gradprix.rules import Axis, Rule
from gradprix.tasks.schedules import SCHEDULES
from gradprix.training.optimizer_factories import required_steps, takes_model
from gradprix.training.torch_optimizer_adapter import CLASSES, TorchOptimizerAdapter, constructor_arguments

FEWEST_TRIALS = (10, 40)
"""Numbers of trials from which on a first and a second hyperparameter are tuned besides the learning rate."""
ALL_EXAMPLES = 0
"""Value of `Entry.batch_size` that stands for full-batch training."""


@dataclass(frozen=True)
class Entry:
    """Optimizer with its configuration in a race.

    Args:
        name: name of the entry, unique in a race.
        rule: rule, subclass of `torch.optim.Optimizer`, or function that makes an optimizer. A function is called as
            `function(model, **hyperparameters)` if its first argument is `model` (by name, or by the annotation
            `nn.Module`), and with a list of parameters if it is `params`; so is a class. A function may return a list
            of optimizers that share no parameter. An argument `total_steps` without a default gets the number of steps
            of the run (also called `num_iterations` or `num_training_steps`).
        fixed: values of hyperparameters and options that are not tuned and differ from the defaults of the rule or
            class.
        space: search range of each tuned hyperparameter. It contains `lr`, unless `lr` is fixed or the optimizer has
            none, and may contain `batch_size`, `schedule`, `clip_norm` and `sam_rho`. `{}` tunes nothing: the entry has
            one tuning trial. Default: only `lr`, with the rule's search range.
        batch_size: number of examples per step. None means the batch size of the task, 0 full-batch training.
        offset: upward shift of the learning-rate grid, in grid steps, from 0 to 1.
        about: one-line description. Default: the summary of the rule.
        replicate: number of the replicate, which selects the tuning seeds. A/A tests compare entries that differ only
            in `offset` and `replicate`.
        schedule: learning-rate schedule. None means that of the task; `"constant"` suits an optimizer that changes its
            learning rate itself.
        closure: call `step(closure)` with a closure that computes the loss and the gradients of the batch again. Not
            needed for a class whose `step` has a `closure` without a default. The race then trains one model at a time.
        sam_rho: radius of the neighbourhood of sharpness-aware minimization (SAM, arXiv:2010.01412): each step follows
            the gradient at the weights plus `sam_rho` times the normalized gradient. None does not.

    Raises:
        TypeError: if `rule` is none of these.
        ValueError: if a value is out of range, or a hyperparameter is missing or both fixed and tuned.

    Example:
        >>> from gradprix.spaces import Log
        >>> def muon(model, lr):
        ...     hidden = [x for x in model.parameters() if x.ndim == 2]
        ...     others = [x for x in model.parameters() if x.ndim != 2]
        ...     return [torch.optim.Muon(hidden, lr=lr), torch.optim.AdamW(others, lr=0.1 * lr)]
        >>> Entry("muon", muon, space={"lr": Log(1e-3, 1)}).code(lr=0.02)
        'gradprix.race.entry.muon(model, lr=0.02)'
    """

    name: str
    rule: Rule | TorchOptimizerAdapter
    fixed: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Axis] = None  # type: ignore[assignment]  # never None after __post_init__
    batch_size: int | None = None
    offset: float = 0.0
    replicate: int = 0
    about: str = ""
    schedule: str | None = None
    closure: bool = False
    sam_rho: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", as_steppable(self.rule))
        if isinstance(self.rule, Rule) and self.fixed.keys() & option_defaults(self.rule):
            # Options of the class, which select variants of the rule.
            object.__setattr__(self, "rule", TorchOptimizerAdapter(optim.from_rule(self.rule)))
        if self.closure:
            object.__setattr__(self, "rule", self._with_closure())
        if isinstance(self.rule, Rule) and "betas" in self.fixed:
            fixed = {name: value for name, value in self.fixed.items() if name != "betas"}
            fixed |= dict(zip(self.rule.betas, self.fixed["betas"], strict=True))
            object.__setattr__(self, "fixed", fixed)
        if self.space is None:
            if "lr" not in self.rule.axes:
                raise ValueError(
                    f"{self.rule.name} takes no lr, which is what a race tunes. If it has no learning rate to tune, "
                    f"give gp.Entry({self.name!r}, {self.rule.name}, space={{}}). If it wraps another optimizer, give "
                    f"a function that makes both: lambda params, lr: {self.rule.name}(Other(params, lr=lr))."
                )
            object.__setattr__(self, "space", {"lr": self.rule.axes["lr"]})
        if not self.about:
            object.__setattr__(self, "about", self.rule.summary)
        if self.space and "lr" in self.rule.axes and "lr" not in {*self.space, *self.fixed}:
            raise ValueError(
                f"entry {self.name!r}: space = {', '.join(self.space)}: it must include lr, unless lr is fixed."
            )
        try:
            json.dumps(dict(self.fixed))
        except TypeError as error:
            raise ValueError(
                f"entry {self.name!r}: {error}, and fixed hyperparameters are saved as JSON. Give numbers, strings "
                "and lists of them, or set other values as defaults of the class."
            ) from error
        if self.batch_size is not None and self.batch_size < 0:
            raise ValueError(
                f"entry {self.name!r}: batch_size = {self.batch_size}: it must be at least 1, or 0 for full batches."
            )
        if self.schedule is not None and self.schedule not in SCHEDULES:
            raise ValueError(f"entry {self.name!r}: schedule = {self.schedule!r}: give {', '.join(SCHEDULES)}.")
        if self.sam_rho is not None and not 0 < self.sam_rho < math.inf:
            raise ValueError(f"entry {self.name!r}: sam_rho = {self.sam_rho}: it must be above 0, such as 0.05.")
        if tuned := self.space.keys() & self.fixed.keys():
            raise ValueError(f"entry {self.name!r}: {', '.join(tuned)} is both fixed and tuned. Remove it from one.")
        if not 0 <= self.replicate < 90 or not 0 <= self.offset < 1:
            raise ValueError(f"entry {self.name!r}: replicate must be from 0 to 89 and offset from 0 to 1.")
        for share in (0.0, 1.0):
            self.values(**{name: axis.from_unit(share) for name, axis in self.space.items()})

    def _with_closure(self) -> TorchOptimizerAdapter:
        """Return the optimizer, with a closure in each step."""
        if not isinstance(self.rule, TorchOptimizerAdapter):
            raise ValueError(f"entry {self.name!r}: {self.rule.name} computes no gradients: leave closure out.")
        return replace(self.rule, closure=True)

    def values(self, lr: float | None = None, **tuned: Any) -> dict[str, Any]:
        """Return the values of all hyperparameters of the rule, given those of the tuned hyperparameters."""
        return self.rule.values(**{**self.fixed, **self._given(lr, tuned)})

    def tuning(self, names: Sequence[str], training: Mapping[str, Axis]) -> "Entry":
        """Return a copy of the entry that tunes more hyperparameters than the learning rate.

        Args:
            names: names of the hyperparameters to tune. Those that the entry does not use are ignored.
            training: search ranges of batch size, schedule and gradient clipping.

        An entry that tunes nothing stays as it is, and a fixed learning rate stays fixed.
        """
        if not self.space:
            return self
        axes = {**self.rule.axes, **training, **self.space}
        used = [name for name in names if name in training or self._uses(name)]
        space = {name: axes[name] for name in [*["lr"] * ("lr" in self.space), *used] if name in axes}
        fixed = {name: value for name, value in self.fixed.items() if name not in space}
        return replace(self, space=space, fixed=fixed)

    def _uses(self, name: str) -> bool:
        """Return True for weight decay, and for a hyperparameter that is not switched off by a value of zero."""
        return name == "weight_decay" or bool({**self.rule_defaults, **self.values(**self._default_lr)}.get(name))

    def recommended_tuning(self, trials: int, fixed: Collection[str] = ()) -> list[str]:
        """Return the hyperparameters to tune besides the learning rate with a number of trials.

        None with fewer than 10 trials, one with fewer than 40, otherwise two: as in the Deep Learning Tuning Playbook
        (Godbole et al. 2023, https://github.com/google-research/tuning_playbook), which adds the second one from 25
        trials on, all of them at different points; here a third of the trials repeats the best points.

        Args:
            trials: number of tuning trials.
            fixed: hyperparameters that are not to be tuned.
        """
        count = sum(trials >= fewest for fewest in FEWEST_TRIALS)
        return [name for name in self.rule.tuned if self._uses(name) and name not in fixed][:count]

    @property
    def rule_defaults(self) -> dict[str, Any]:
        """Default values of the hyperparameters of the rule or class, with the elements of `betas` by name."""
        return self.rule.defaults if isinstance(self.rule, TorchOptimizerAdapter) else dict(self.rule.hyperparameters)

    @property
    def has_default_rate(self) -> bool:
        """True if the learning rate of the rule has a default."""
        return isinstance(self.rule.hyperparameters.get("lr"), int | float)

    @property
    def default_rate(self) -> float:
        """Default learning rate of the rule, or the middle of the search range if the rule has no default.

        NaN if the optimizer has no learning rate.
        """
        lr = self.fixed.get("lr", self.rule.hyperparameters.get("lr"))
        if isinstance(lr, int | float):
            return float(lr)
        return float(self.space["lr"].from_unit(0.5)) if "lr" in self.space else math.nan

    @property
    def _default_lr(self) -> dict[str, float]:
        """The default learning rate, by name; empty if it is not tuned."""
        return {"lr": self.default_rate} if "lr" in self.space else {}

    @property
    def optimizer(self) -> str:
        """Name of the optimizer.

        This is the name of a class in `gradprix.optim`, the full name of a class from another package, or
        `from_rule(rule)` for a rule without a class.
        """
        if isinstance(self.rule, TorchOptimizerAdapter):
            ours = getattr(optim, self.rule.name, None) is self.rule.make
            return self.rule.name if ours else self.rule.full_name
        return CLASSES.get(self.rule, f"from_rule({self.rule.name})")

    def arguments(self, lr: float | None = None, **tuned: Any) -> dict[str, Any]:
        """Return the constructor arguments of the optimizer's class, named as in torch."""
        given = {} if lr is None else {"lr": lr}
        return constructor_arguments(self.rule, {**given, **self.fixed, **self._given(lr, tuned)})

    def code(self, lr: float | None = None, **tuned: Any) -> str:
        """Return the constructor call of the optimizer as source code."""
        arguments = [f"{name}={value!r}" for name, value in self.arguments(lr, **tuned).items()]
        first = "params"
        if isinstance(self.rule, TorchOptimizerAdapter):
            first = "model" if takes_model(self.rule.make) else "params"
            arguments += [f"{name}=..." for name in required_steps(self.rule.make) if name not in self.fixed]
        home = "" if "." in self.optimizer else "gradprix.optim."
        return f"{home}{self.optimizer}({', '.join([first, *arguments])})"

    def _given(self, lr: float | None, tuned: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of tuned hyperparameters of the optimizer, with the learning rate if there is one."""
        return _optimizer_values(tuned) | ({} if lr is None else {"lr": lr})


TRAINING = ("batch_size", "schedule", "clip_norm", "sam_rho")
"""Names of the tunable hyperparameters that belong to the training, not to the optimizer."""


def _optimizer_values(tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tuned values without those that belong to the training."""
    return {name: value for name, value in tuned.items() if name not in TRAINING}


def as_steppable(given: Any) -> Rule | TorchOptimizerAdapter:
    """Convert a rule or an optimizer class to an object that can train models in a race.

    Args:
        given: rule, subclass of `torch.optim.Optimizer`, function that makes an optimizer, or `TorchOptimizerAdapter`.

    Returns:
        A rule, if a kernel can step a whole stack of models with it; otherwise an adapter that constructs an optimizer
        for each model.

    Raises:
        TypeError: if the object has another type.
        ValueError: if the class cannot be raced.
    """
    if isinstance(given, TorchOptimizerAdapter):
        return given
    if isinstance(given, type) and issubclass(given, torch.optim.Optimizer):
        rule = rule_of(given)
        return rule if rule is not None and _stacks(rule) else TorchOptimizerAdapter(given)
    if not isinstance(given, Rule):
        if not callable(given) or isinstance(given, type):
            raise TypeError(
                f"{given!r} is neither a gp.rule nor a subclass of torch.optim.Optimizer, and no function(model, lr) "
                "that makes an optimizer."
            )
        return TorchOptimizerAdapter(given)
    return (
        given
        if _stacks(given)
        else TorchOptimizerAdapter(getattr(optim, CLASSES[given]) if given in CLASSES else optim.from_rule(given))
    )


def rule_of(given: Any) -> Rule | None:
    """Return the rule from which an optimizer class was made.

    Returns None for other classes, including subclasses of such a class, which may override the step.
    """
    rule = getattr(given, "rule", None)
    return rule if isinstance(rule, Rule) and optim.from_rule(rule) is given else None


def _stacks(rule: Rule) -> bool:
    """Return True if a kernel can step a whole stack of models with a rule: if the rule is elementwise."""
    return rule.scope == "element"


def twin(entry: Entry, number: int) -> Entry:
    """Return a replicate of an entry, for A/A tests.

    The replicate has a shifted learning-rate grid and other tuning seeds, and is otherwise identical.

    Args:
        entry: entry to replicate.
        number: number of the replicate.
    """
    golden = 0.618  # multiples, modulo 1, are evenly spread over a grid step
    return replace(entry, name=f"{entry.name}~{number}", offset=number * golden % 1, replicate=number)
