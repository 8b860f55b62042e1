"""Tracing of a training or evaluation step of stacked models into a graph.

For small models, `vmap` and autograd cost far more time than the arithmetic. They run once, and the resulting graph of
plain operations on stacked tensors is then executed in every step.
"""

import contextlib
import logging
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx import GraphModule
from torch.utils._pytree import TreeSpec, tree_unflatten

from gradprix.compiler import RowFunction
from gradprix.tasks import Task
from gradprix.tasks.rng import RngState, get_rng_state, init_model
from gradprix.tasks.task import called_with
from gradprix.utils.devices import CPU, placed

from .batched_ops import StackedOperations
from .functions import without_setup_context
from .outputs import Output
from .recorder import Recorder, peak, simplify
from .rng import StackedRng
from .row_independence import unreviewed
from .torchscript import to_torchscript

logger = logging.getLogger(__name__)
Layouts = tuple[tuple[tuple[int, ...], torch.dtype, torch.device], ...]
TENSOR = object()
"""Placeholder for a tensor among the leaves of an output."""
REPEATABLE: set[tuple[Task, str]] = set()
"""Tasks whose steps are known to repeat the same operations every time."""


@dataclass(frozen=True)
class TracedStep:
    """A traced step.

    Args:
        graph: the operations, on a list of tensors.
        noise: True if they draw random numbers.
        peak: estimated peak memory in bytes while it runs, without its arguments.
        outputs: the output of a model, with `TENSOR` for each tensor that the graph computes; None for a graph of
            gradients.
        unreviewed: names of operations that are not known to be row-invariant.
    """

    graph: Callable[..., Sequence[Any]]
    noise: bool
    peak: int
    outputs: Output | None
    unreviewed: frozenset[str] = frozenset()

    def __call__(self, noise: StackedRng | None, *args: Tensor) -> Any:
        """Run the step, with random numbers from `noise`."""
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
def trace_step(
    task: Task,
    kind: str,
    names: tuple[str, ...],
    parameters: int,
    layouts: Layouts,
    spec: TreeSpec,
    compiled: bool = False,
) -> TracedStep:
    """Trace a step of stacked models.

    Args:
        task: the problem.
        kind: `"train"` for `[losses, *gradients]`, with None for a parameter that the loss does not use; `"score"` for
            `(output of each row, losses)`.
        names: names of the parameters to differentiate by, then of the other parameters and the buffers.
        parameters: number of parameters to differentiate by.
        layouts: stacked shape, dtype and device of each of these, then of inputs and targets.
        spec: the structure of inputs and targets.
        compiled: compile the operations, which takes many seconds and changes rounding.

    Raises:
        ValueError: for a loss that is not a scalar, or a model that changes its own attributes in a step.
    """
    model = init_model(task.model, 0)
    model.train(kind == "train")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("The stateless API can't be used with Jitted modules")
    if any(x._backward_hooks or x._post_accumulate_grad_hooks for x in model.parameters()):
        raise ValueError("it has hooks on its parameters, which are not those of a stack")
    step = _Step(model, task.loss, names, parameters, spec)
    attributes_before = _attributes(model)
    arguments = [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in layouts]
    record = step.train if kind == "train" else step.score
    with RngState(torch.Generator()) as rng_state, _without_dynamo():
        recorders = [_record_step(arguments, record, step)]
        changed = _changed_attributes(attributes_before, model)
        if (task, kind) not in REPEATABLE:
            # One repetition shows that a step is repeatable, and costs as much as the first recording.
            rewritten = [place for place, value in changed.items() if isinstance(value, Tensor)]
            for place in rewritten:  # harmless if the model always writes the attribute before it reads it
                module, _, name = place.rpartition(".")
                setattr(model.get_submodule(module), name, _Unreadable())
            try:
                recorders.append(_record_step(arguments, record, step))
            except Exception as error:
                if rewritten:
                    raise ValueError(_format_changes(rewritten)) from error
                raise
        other_states = get_rng_state()[1:]
    if any(repr(now) != repr(then) for now, then in zip(other_states, rng_state[1:], strict=True)):
        raise ValueError("it draws random numbers of Python or NumPy, which networks in a stack would share")
    if attributes := [
        place for place, value in _changed_attributes(attributes_before, model).items() if not isinstance(value, Tensor)
    ]:
        raise ValueError(_format_changes(attributes))
    if not all(recorder.equals(recorders[0]) for recorder in recorders):
        raise ValueError(_format_changes(list(changed)) if changed else "it does something else each time it runs")
    REPEATABLE.add((task, kind))
    graph = recorders[0].graph
    noise = simplify(graph)
    module_of_graph = GraphModule(recorders[0].constants, graph)
    run: Callable[..., Sequence[Any]] = module_of_graph
    if compiled:
        run = torch.compile(module_of_graph, dynamic=False)
    elif all(x.device.type == "cpu" for x in arguments) and (
        rows := _compile_rows(
            task, kind, names, parameters, tuple((shape[1:], dtype) for shape, dtype, _ in layouts), spec
        )
    ):
        peak_bytes = rows.function.peak(len(arguments[0]))
        return TracedStep(partial(_run_rows, rows.function, run), False, peak_bytes, rows.outputs)
    elif not noise and all(x.device.type == "cpu" for x in arguments):  # on a GPU, TorchScript fuses operations
        run = to_torchscript(module_of_graph, arguments)
    return TracedStep(run, noise, peak(graph), step.outputs, unreviewed(graph))


@dataclass(frozen=True)
class _CompiledStep:
    """A step of one model in machine code, with the output of the model as in `TracedStep`."""

    function: RowFunction
    outputs: Output | None


@lru_cache(maxsize=64)
def _compile_rows(
    task: Task,
    kind: str,
    names: tuple[str, ...],
    parameters: int,
    layouts: tuple[tuple[tuple[int, ...], torch.dtype], ...],
    spec: TreeSpec,
) -> _CompiledStep | None:
    """Compile a step of one model, given shapes and dtypes of its tensors; see `trace_step` for the arguments.

    Returns:
        None if it has operations that programs do not have; torch's operations on stacked tensors run then.
    """
    model = init_model(task.model, 0)
    model.train(kind == "train")
    step = _Step(model, task.loss, names, parameters, spec)
    arguments = [torch.zeros(shape, dtype=dtype) for shape, dtype in layouts]
    for x in arguments[:parameters]:
        x.requires_grad_(kind == "train")
    with RngState(torch.Generator()), _without_dynamo():
        try:
            function = RowFunction(step.train_one if kind == "train" else step.score_one, arguments)
        except Exception as error:  # whatever it is, the other way remains
            logger.debug("a step of %s is not compiled: %s: %s", task.name, type(error).__name__, error)
            return None
    return _CompiledStep(function, step.outputs)


def _run_rows(function: RowFunction, fallback: Callable[..., Sequence[Any]], *args: Tensor) -> Sequence[Any]:
    """Run a compiled step; if an index is out of range, torch's operation may explain it better."""
    try:
        return function(*args)
    except IndexError:
        fallback(*(x.clone() for x in args))
        raise


@dataclass
class _Step:
    """The recorded function: a step of stacked models with a flat list of tensors as arguments."""

    model: nn.Module
    loss: Callable[[Any, Any], Any]
    names: tuple[str, ...]
    parameters: int
    spec: TreeSpec
    outputs: Output | None = None
    operations: StackedOperations = field(default_factory=StackedOperations)
    needs_own_tensors: bool = False

    def train(self, *args: Tensor) -> Any:
        """Return the losses and the gradient of each parameter."""
        parameters = [x.detach().requires_grad_() for x in args[: self.parameters]]
        losses = vmap(self._losses, randomness="different")(*self._unflatten((*parameters, *args[self.parameters :])))
        if losses.dim() != 1:
            raise ValueError(f"the loss of a batch has the shape {tuple(losses.shape[1:])}, not one number")
        gradients = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        return [losses, *(None if g is None else g.contiguous() for g in gradients)]

    def score(self, *args: Tensor) -> Any:
        """Return the tensors of the outputs, and the losses."""
        with torch.no_grad():
            stacks, losses = vmap(self._score, randomness="different")(*self._unflatten(args))
        return [*stacks, losses]

    def train_one(self, *args: Tensor) -> Any:
        """Return the loss of one model and the gradient of each parameter."""
        loss = self._losses(*self._unflatten(args))
        return [loss, *torch.autograd.grad(loss, args[: self.parameters], allow_unused=True)]

    def score_one(self, *args: Tensor) -> Any:
        """Return the tensors of one model's output, and its loss."""
        with torch.no_grad():
            tensors, loss = self._score(*self._unflatten(args))
        return [*tensors, loss]

    def _unflatten(self, args: Sequence[Tensor]) -> tuple[dict[str, Tensor], Any, Any]:
        count = len(self.names)
        inputs, targets = tree_unflatten(args[count:], self.spec)
        return dict(zip(self.names, args[:count], strict=True)), inputs, targets

    def _score(self, tensors: dict[str, Tensor], inputs: Any, targets: Any) -> tuple[list[Tensor], Any]:
        output, loss = self._forward(tensors, inputs, targets)
        usable_output = Output.from_value(output).usable()
        self.outputs = Output(
            [TENSOR if isinstance(x, Tensor) else x for x in usable_output.leaves], usable_output.build
        )
        return [x for x in usable_output.leaves if isinstance(x, Tensor)], loss

    def _losses(self, tensors: dict[str, Tensor], inputs: Any, targets: Any) -> Any:
        return self._forward(tensors, inputs, targets)[1]

    def _forward(self, tensors: dict[str, Tensor], inputs: Any, targets: Any) -> tuple[Any, Any]:
        def check_buffers(*_: Any) -> None:
            if new := [name for name, buffer in self.model.named_buffers() if buffer is not tensors[name]]:
                raise ValueError(f"it puts other tensors in the place of its buffers {', '.join(new)}")

        self.operations.like = next(iter(tensors.values())) if self.needs_own_tensors else None
        with self.model.register_forward_hook(check_buffers):
            output = functional_call(self.model, tensors, *called_with(inputs))
        return output, self.loss(output, targets)


class _Unreadable:
    """Placeholder for an attribute from the previous step; reading it raises an error."""

    def __bool__(self) -> bool:
        raise TypeError("a network of a stack keeps nothing from step to step")


def _record_step(arguments: list[Tensor], record: Callable[..., Any], step: "_Step") -> Recorder:
    """Record a step; if it writes into a tensor created in `forward`, record it again with one tensor per model."""
    for step.needs_own_tensors in (False, True):
        recorder = Recorder(arguments)
        try:
            with step.operations, without_setup_context():
                recorder.record(record)
            break
        except RuntimeError as error:
            if step.needs_own_tensors or not any(
                words in str(error) for words in ("inplace arithmetic", "inplace randomness")
            ):
                raise
    return recorder


def _without_dynamo() -> contextlib.AbstractContextManager[Any]:
    """Disable `torch.compile` in user modules, since a step is recorded operation by operation."""
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()


def _format_changes(places: list[str]) -> str:
    return f"it changes {', '.join(places)} as it runs, which networks in a stack would share"


def _changed_attributes(attributes_before: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Return the model's changed attributes by path."""
    attributes_now = _attributes(model)
    places = [place for place, value in attributes_now.items() if attributes_before.get(place, "") != value]
    values = dict(_iterate_attributes(model))
    return {place: values[place] for place in places}


def _iterate_attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield a model's attributes and buffers, without parameters, by path."""
    for place, module in model.named_modules():
        attributes = {name: value for name, value in vars(module).items() if name not in PLAIN}
        for name, value in (attributes | dict(module.named_buffers(recurse=False))).items():
            yield f"{place}.{name}".lstrip("."), value


def _attributes(model: nn.Module) -> dict[str, Any]:
    """Return the identities of a model's attributes, to compare with those after a step."""
    return {place: _identity(value) for place, value in _iterate_attributes(model)}


PLAIN = frozenset(vars(nn.Module()))


def _identity(value: Any) -> Any:
    """Return a value that compares equal as long as neither the object nor a container's items are replaced."""
    if isinstance(value, dict):
        return [(key, _identity_of_item(item)) for key, item in value.items()]
    return [_identity_of_item(item) for item in value] if isinstance(value, list | tuple | set) else id(value)


def _identity_of_item(item: Any) -> int | str:
    # Recurrent layers also list their weights, and `functional_call` leaves its own in that list.
    return "tensor" if isinstance(item, Tensor | weakref.ref) else id(item)
