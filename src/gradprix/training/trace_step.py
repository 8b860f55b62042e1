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
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx import GraphModule
from torch.utils._pytree import TreeSpec, tree_unflatten

from gradprix.compiler import DTYPES, IndexedRows, Recording, RowFunction, UnsupportedError
from gradprix.tasks import Task
from gradprix.tasks.rng import RngState, get_rng_state, init_model
from gradprix.tasks.task import called_with
from gradprix.utils.devices import CPU, placed

from .batched_ops import StackedOperations
from .functions import without_setup_context
from .outputs import Output
from .recorder import Recorder, peak, simplify
from .rng import FILLS, StackedRng
from .row_independence import unreviewed
from .torchscript import to_torchscript

logger = logging.getLogger(__name__)
Layouts = tuple[tuple[tuple[int, ...], torch.dtype, torch.device], ...]
Rows = Tensor | IndexedRows
Recorded = TypeVar("Recorded", Recorder, Recording)
TENSOR = object()
"""Placeholder for a tensor among the leaves of an output."""
REPEATABLE: set[tuple[Task, str]] = set()
"""Tasks whose steps are known to repeat the same operations every time."""


@dataclass(frozen=True)
class TracedStep:
    """A traced step.

    Args:
        run: the operations, on a list of tensors, with the source of random numbers.
        peak: estimated peak memory in bytes while it runs, without its arguments.
        outputs: the output of a model, with `TENSOR` for each tensor that the step computes; None for a step of
            gradients.
        unreviewed: names of operations that are not known to be row-invariant.
        function: the step in machine code; None for operations of torch.
    """

    run: Callable[[StackedRng, Sequence[Rows]], Sequence[Any]]
    peak: int
    outputs: Output | None
    unreviewed: frozenset[str] = frozenset()
    function: RowFunction | None = None

    def __call__(self, noise: StackedRng, *args: Rows) -> Any:
        """Run the step, with random numbers from `noise`."""
        with torch.no_grad():
            results = self.run(noise, args)
        if self.outputs is None:
            return results
        *stacks, losses = results
        rows = zip(*(x.unbind() for x in placed(stacks, CPU)), strict=True) if stacks else [()] * len(losses)
        return [self._output(self.outputs, iter(row)) for row in rows], losses

    @staticmethod
    def _output(template: Output, tensors: Iterator[Tensor]) -> Output:
        return Output([next(tensors) if leaf is TENSOR else leaf for leaf in template.leaves], template.build)


@dataclass(frozen=True)
class StepSpec:
    """A step to trace.

    Args:
        task: the problem.
        kind: `"train"` for `[losses, *gradients]`, with None for a parameter that the loss does not use; `"score"` for
            `(output of each row, losses)`.
        names: names of the parameters to differentiate by, then of the other parameters and the buffers.
        parameters: number of parameters to differentiate by.
        layouts: shape for one model, dtype and device of each of these, then of inputs and targets.
        structure: the structure of inputs and targets.
    """

    task: Task
    kind: str
    names: tuple[str, ...]
    parameters: int
    layouts: Layouts
    structure: TreeSpec


@lru_cache(maxsize=64)
def trace_step(spec: StepSpec, rows: int, compiled: bool = False) -> TracedStep:
    """Trace a step of stacked models.

    Args:
        spec: the step.
        rows: number of models.
        compiled: compile the operations with torch, which takes many seconds and changes rounding.

    Raises:
        ValueError: for a loss that is not a scalar, or a model that changes its own attributes in a step.
    """
    if not compiled and (step := _compile_rows(spec)):
        run = partial(_run_rows, spec, step.function)
        return TracedStep(run, step.function.peak(rows), step.outputs, function=step.function)
    return _trace_stack(spec, rows, compiled)


@lru_cache(maxsize=64)
def _trace_stack(spec: StepSpec, rows: int, compiled: bool = False) -> TracedStep:
    """Trace a step as operations of torch on stacked tensors."""
    model = _model(spec)
    step = _Step(model, spec.task.loss, spec.names, spec.parameters, spec.structure)
    arguments = [torch.zeros((rows, *shape), dtype=dtype, device=device) for shape, dtype, device in spec.layouts]
    record = step.train if spec.kind == "train" else step.score
    recorder = _record_repeatedly(spec, model, lambda: _record_step(arguments, record, step))
    graph = recorder.graph
    noise = simplify(graph)
    module_of_graph = GraphModule(recorder.constants, graph)
    operations: Callable[..., Sequence[Any]] = module_of_graph
    if compiled:
        operations = torch.compile(module_of_graph, dynamic=False)
    elif not noise and _on_cpu(spec):  # on a GPU, TorchScript fuses operations
        operations = to_torchscript(module_of_graph, arguments)

    def run(source: StackedRng, args: Sequence[Rows]) -> Sequence[Any]:
        return operations(*map(expanded, args), *[source] * noise)

    return TracedStep(run, peak(graph), step.outputs, unreviewed(graph))


@dataclass(frozen=True)
class _CompiledStep:
    """A step of one model in machine code, with the output of the model as in `TracedStep`."""

    function: RowFunction
    outputs: Output | None


@lru_cache(maxsize=64)
def _compile_rows(spec: StepSpec) -> _CompiledStep | None:
    """Compile a step of one model.

    Returns:
        None if it has operations that programs do not have, or fails; torch's operations on stacked tensors run then,
        or explain why.
    """
    if not _on_cpu(spec):
        return None
    try:
        model = _model(spec)
        step = _Step(model, spec.task.loss, spec.names, spec.parameters, spec.structure)
        function = step.train_one if spec.kind == "train" else step.score_one

        def record() -> Recording:
            arguments = [torch.zeros(shape, dtype=dtype) for shape, dtype, _ in spec.layouts]
            for x in arguments[: spec.parameters]:
                x.requires_grad_(spec.kind == "train")
            return Recording(function, arguments, FILLS)

        recording = _record_repeatedly(spec, model, record)
        if spec.kind == "score" and recording.draws and not all(recording.present):
            raise UnsupportedError("random numbers, and outputs that programs do not have")
        return _CompiledStep(RowFunction(recording), step.outputs)
    except Exception as error:  # whatever it is, the other way remains
        logger.debug("a step of %s is not compiled: %s: %s", spec.task.name, type(error).__name__, error)
        return None


def _run_rows(spec: StepSpec, function: RowFunction, noise: StackedRng, args: Sequence[Rows]) -> Sequence[Any]:
    """Run a compiled step.

    Torch's operations compute outputs that programs cannot, and may explain better why an index is out of range.
    """

    def run_stack() -> Sequence[Any]:
        return _trace_stack(spec, len(args[0])).run(noise, [expanded(x).clone() for x in args])

    try:
        results = function(*args, *noise.draw_all(function.draws))
    except IndexError:
        run_stack()
        raise
    if spec.kind == "score" and any(x is None for x in results):
        return [y if x is None else x for x, y in zip(results, run_stack(), strict=True)]
    return results


def _on_cpu(spec: StepSpec) -> bool:
    return all(device.type == "cpu" for _, _, device in spec.layouts)


def _model(spec: StepSpec) -> nn.Module:
    """Return the task's model in the mode of the step.

    Raises:
        ValueError: if it cannot be stacked.
    """
    model = init_model(spec.task.model, 0)
    model.train(spec.kind == "train")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("The stateless API can't be used with Jitted modules")
    if any(x._backward_hooks or x._post_accumulate_grad_hooks for x in model.parameters()):
        raise ValueError("it has hooks on its parameters, which are not those of a stack")
    return model


def _record_repeatedly(spec: StepSpec, model: nn.Module, record: Callable[[], Recorded]) -> Recorded:
    """Record a step twice, unless its task is known to repeat the same operations.

    Raises:
        ValueError: if the model changes its own attributes, or does something else each time.
    """
    attributes_before = _attributes(model)
    with RngState(torch.Generator()) as rng_state, _without_dynamo():
        recordings = [record()]
        changed = _changed_attributes(attributes_before, model)
        if (spec.task, spec.kind) not in REPEATABLE:
            # One repetition shows that a step is repeatable, and costs as much as the first recording.
            rewritten = [place for place, value in changed.items() if isinstance(value, Tensor)]
            for place in rewritten:  # harmless if the model always writes the attribute before it reads it
                module, _, name = place.rpartition(".")
                setattr(model.get_submodule(module), name, _Unreadable())
            try:
                recordings.append(record())
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
    if not all(recording.equals(recordings[0]) for recording in recordings):
        raise ValueError(_format_changes(list(changed)) if changed else "it does something else each time it runs")
    REPEATABLE.add((spec.task, spec.kind))
    return recordings[0]


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
        """Return the tensors of one model's output, None for those of types that programs lack, and its loss."""
        with torch.no_grad():
            tensors, loss = self._score(*self._unflatten(args))
        return [*(x if x.dtype in DTYPES else None for x in tensors), loss]

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


def expanded(x: Rows) -> Tensor:
    """Return a stack as a tensor."""
    return x.expanded() if isinstance(x, IndexedRows) else x


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
