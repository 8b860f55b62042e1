"""A step of a stack of networks, written out once as a list of operations.

Stacking networks, and finding their gradients, costs torch far more time than the arithmetic of small ones. So it is
done once: what comes of it is a graph of plain operations on stacked tensors, which is then run step after step.
"""

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx import GraphModule
from torch.utils._pytree import TreeSpec, tree_unflatten

from gradprix.tasks import Task
from gradprix.tasks.rng import Luck, fresh, luck
from gradprix.tasks.task import called_with
from gradprix.utils.devices import CPU, placed

from .batched_ops import own_tensors, stacked, stacking
from .outputs import Output
from .recorder import Recorder, peak, tidy
from .rng import Noise
from .row_independence import unreviewed
from .torchscript import scripted

Like = tuple[tuple[tuple[int, ...], torch.dtype, torch.device], ...]
TENSOR = object()
"""In the place of a tensor among the leaves of an output."""
STEADY: set[tuple[Task, str]] = set()
"""Tasks of which it is known that they do the same each time they run."""


@dataclass(frozen=True)
class Program:
    """A step, written out.

    Args:
        graph: the operations, on a list of tensors.
        noise: whether they draw random numbers.
        peak: about how many bytes it holds at most while it runs, besides what it is given.
        outputs: the output of a model, with `TENSOR` for each tensor that the graph computes; None for a graph of
            gradients.
        unreviewed: names of operations that are not known to compute each row in the same way wherever it is.
    """

    graph: Callable[..., Sequence[Any]]
    noise: bool
    peak: int
    outputs: Output | None
    unreviewed: frozenset[str] = frozenset()

    def __call__(self, noise: Noise | None, *args: Tensor) -> Any:
        """Run it, with random numbers from `noise`."""
        with torch.no_grad():
            results = self.graph(*args, *[noise] * self.noise)
        if self.outputs is None:
            return results
        *stacks, losses = results
        rows = zip(*(x.unbind() for x in placed(stacks, CPU)), strict=True) if stacks else [()] * len(losses)
        return [self._output(self.outputs, iter(row)) for row in rows], losses

    @staticmethod
    def _output(template: Output, tensors: Iterator[Tensor]) -> Output:
        return Output([next(tensors) if leaf is TENSOR else leaf for leaf in template.leaves], template.build)


@lru_cache(maxsize=64)
def program(
    task: Task, what: str, names: tuple[str, ...], leaves: int, like: Like, spec: TreeSpec, compiled: bool = False
) -> Program:
    """Write a step of stacked networks out.

    Args:
        task: the problem.
        what: `"train"` for `[losses, *gradients]`, with None for a leaf that nothing uses; `"score"` for
            `(output of each row, losses)`.
        names: of the leaves (what gradients are wanted of), then of the other parameters and of the buffers.
        leaves: how many of the names are leaves.
        like: the stacked shape, the dtype and the device of each of these, then of inputs and targets.
        spec: how inputs and targets are put together.
        compiled: whether to compile the operations, which takes many seconds, and rounds in other places.

    Raises:
        ValueError: for a loss that is not one number, or a model that changes its own attributes as it runs.
    """
    model = fresh(task.model, 0)
    model.train(what == "train")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("The stateless API can't be used with Jitted modules")
    if any(x._backward_hooks or x._post_accumulate_grad_hooks for x in model.parameters()):
        raise ValueError("it has hooks on its parameters, which are not those of a stack")
    step = _Step(model, stacked(task.loss), names, leaves, spec)
    before = _attributes(model)
    given = [torch.zeros(shape, dtype=kind, device=device) for shape, kind, device in like]
    record = step.train if what == "train" else step.score
    with Luck(torch.Generator()) as lent, _without_dynamo():
        recorders = [_recorded(given, record, step)]
        changed = _changed(before, model)
        if (task, what) not in STEADY:
            # Once is enough to know that it does the same each time: it costs as much again.
            rewritten = [place for place, value in changed.items() if isinstance(value, Tensor)]
            for place in rewritten:  # no matter, if the model always writes it before it reads it
                module, _, name = place.rpartition(".")
                setattr(model.get_submodule(module), name, _Unreadable())
            try:
                recorders.append(_recorded(given, record, step))
            except Exception as error:
                if rewritten:
                    raise ValueError(_changes(rewritten)) from error
                raise
        others = luck()[1:]
    if any(repr(now) != repr(then) for now, then in zip(others, lent[1:], strict=True)):
        raise ValueError("it draws random numbers of Python or NumPy, which networks in a stack would share")
    if kept := [place for place, value in _changed(before, model).items() if not isinstance(value, Tensor)]:
        raise ValueError(_changes(kept))
    if not all(recorder.equals(recorders[0]) for recorder in recorders):
        raise ValueError(_changes(list(changed)) if changed else "it does something else each time it runs")
    STEADY.add((task, what))
    graph = recorders[0].graph
    noise = tidy(graph)
    made = GraphModule(recorders[0].constants, graph)
    run: Callable[..., Sequence[Any]] = made
    if compiled:
        run = torch.compile(made, dynamic=False)
    elif not noise and all(x.device.type == "cpu" for x in given):  # TorchScript joins operations on a GPU
        run = scripted(made, given)
    return Program(run, noise, peak(graph), step.outputs, unreviewed(graph))


@dataclass
class _Step:
    """What is recorded: a step of stacked networks, as a function of a flat list of tensors."""

    model: nn.Module
    loss: Callable[[Any, Any], Any]
    names: tuple[str, ...]
    leaves: int
    spec: TreeSpec
    outputs: Output | None = None
    own: bool = False

    def train(self, *args: Tensor) -> Any:
        """Losses, and the gradient of each leaf."""
        own = [x.detach().requires_grad_() for x in args[: self.leaves]]
        losses = vmap(self._losses, randomness="different")(*self._sorted((*own, *args[self.leaves :])))
        if losses.dim() != 1:
            raise ValueError(f"the loss of a batch has the shape {tuple(losses.shape[1:])}, not one number")
        gradients = torch.autograd.grad(losses.sum(), own, allow_unused=True)
        return [losses, *(None if g is None else g.contiguous() for g in gradients)]

    def score(self, *args: Tensor) -> Any:
        """The tensors of the outputs, and the losses."""
        with torch.no_grad():
            stacks, losses = vmap(self._score, randomness="different")(*self._sorted(args))
        return [*stacks, losses]

    def _sorted(self, args: Sequence[Tensor]) -> tuple[dict[str, Tensor], Any, Any]:
        count = len(self.names)
        inputs, targets = tree_unflatten(args[count:], self.spec)
        return dict(zip(self.names, args[:count], strict=True)), inputs, targets

    def _score(self, tensors: dict[str, Tensor], inputs: Any, targets: Any) -> tuple[list[Tensor], Any]:
        output, loss = self._scored(tensors, inputs, targets)
        found = Output.of(output).usable()
        self.outputs = Output([TENSOR if isinstance(x, Tensor) else x for x in found.leaves], found.build)
        return [x for x in found.leaves if isinstance(x, Tensor)], loss

    def _losses(self, tensors: dict[str, Tensor], inputs: Any, targets: Any) -> Any:
        return self._scored(tensors, inputs, targets)[1]

    def _scored(self, tensors: dict[str, Tensor], inputs: Any, targets: Any) -> tuple[Any, Any]:
        def look(*_: Any) -> None:
            if new := [name for name, buffer in self.model.named_buffers() if buffer is not tensors[name]]:
                raise ValueError(f"it puts other tensors in the place of its buffers {', '.join(new)}")

        like = next(iter(tensors.values()))
        with own_tensors(like) if self.own else contextlib.nullcontext():
            with self.model.register_forward_hook(look):
                found = functional_call(self.model, tensors, *called_with(inputs))
            return found, self.loss(found, targets)


class _Unreadable:
    """Stands for what a model has kept from the step before, of which nothing can be made."""

    def __bool__(self) -> bool:
        raise TypeError("a network of a stack keeps nothing from step to step")


def _recorded(given: list[Tensor], record: Callable[..., Any], step: "_Step") -> Recorder:
    """Record a step; where it writes into a tensor that forward makes, each network gets one of its own."""
    for own in (False, True):
        recorder, step.own = Recorder(given), own
        try:
            with stacking():
                recorder.record(record)
            break
        except RuntimeError as error:
            if own or not any(words in str(error) for words in ("inplace arithmetic", "inplace randomness")):
                raise
    return recorder


def _without_dynamo() -> contextlib.AbstractContextManager[Any]:
    """Run modules that a user has compiled as they are, for a stack of them is recorded operation by operation."""
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()


def _changes(places: list[str]) -> str:
    return f"it changes {', '.join(places)} as it runs, which networks in a stack would share"


def _changed(before: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Return what a model keeps that is not what it was, by place."""
    now = _attributes(model)
    places = [place for place, value in now.items() if before.get(place, "") != value]
    values = dict(_kept(model))
    return {place: values[place] for place in places}


def _kept(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield which things a model keeps, but for what parameters and buffers hold, by place."""
    for place, module in model.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in PLAIN}
        for name, value in (own | dict(module.named_buffers(recurse=False))).items():
            yield f"{place}.{name}".lstrip("."), value


def _attributes(model: nn.Module) -> dict[str, Any]:
    """Return what a model keeps, to be compared with what it keeps after it ran."""
    return {place: _identity(value) for place, value in _kept(model)}


PLAIN = frozenset(vars(nn.Module()))


def _identity(value: Any) -> Any:
    """What is equal as long as nobody has changed a value, nor a container of values."""
    if isinstance(value, dict):
        return [(key, _identity_of_item(item)) for key, item in value.items()]
    return [_identity_of_item(item) for item in value] if isinstance(value, list | tuple | set) else id(value)


def _identity_of_item(item: Any) -> int | str:
    # Recurrent layers keep their weights in a list, too, in which `functional_call` leaves the ones it puts in.
    return "tensor" if isinstance(item, Tensor | weakref.ref) else id(item)
