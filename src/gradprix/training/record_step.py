"""Recording of a training or evaluation step as a sequence of operations.

The step of one model is recorded for compilation to machine code, the step of stacked models for execution by torch. A
step is rejected if it does not perform the same operations every time, or if it changes attributes of the model other
than tensors.
"""

import contextlib
import hashlib
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import TreeSpec, tree_unflatten

from gradprix.compiler import DTYPES, Recording
from gradprix.tasks import Task
from gradprix.tasks.model_with_loss import ModelWithLoss
from gradprix.tasks.rng import RngState, get_rng_state, init_model
from gradprix.tasks.task import called_with
from gradprix.utils.files import cache_folder

from .batched_ops import StackedOperations
from .checkpointing import without_checkpointing
from .functions import without_setup_context
from .gradient_mode import needs_gradients
from .outputs import Output
from .provenance import versions
from .recorder import Recorder
from .rng import FILLS

Layouts = tuple[tuple[tuple[int, ...], torch.dtype, torch.device], ...]
Recorded = TypeVar("Recorded", Recorder, Recording)
RECORDING: ContextVar[bool] = ContextVar("recording", default=False)
"""True while a step is recorded, with tensors of arbitrary values: a NaN among them says nothing of the model."""
TENSOR = object()
"""Placeholder for a tensor among the leaves of an output."""
REPEATABLE: set[tuple[Task, str]] = set()
"""Tasks and kinds of steps that are known to perform the same operations every time. The cache folder holds those of
earlier races."""


@dataclass(frozen=True)
class StepSpec:
    """Specification of a step to trace.

    Args:
        task: the task.
        kind: `"train"` for a step that returns `[losses, *gradients]`, with None as the gradient of a parameter that
            the loss does not use; `"score"` for a step that returns `(output of each row, losses)`.
        names: names of the trained parameters, followed by those of the other parameters and the buffers.
        parameters: number of trained parameters.
        layouts: shape for one model, dtype and device of each tensor in `names`, followed by those of inputs and
            targets.
        structure: the pytree structure of inputs and targets.
        checks_values: run checks of the values of tensors, as when a model runs by itself. Libraries leave them out of
            a model that is compiled by `torch.compile`.
        constants: names of buffers of integers, such as the edges of a graph, that are the same for all seeds. They are
            constants of a step that does not check values.
    """

    task: Task
    kind: str
    names: tuple[str, ...]
    parameters: int
    layouts: Layouts
    structure: TreeSpec = field(hash=False)  # that of torch 2.6 has no hash
    checks_values: bool = True
    constants: tuple[str, ...] = ()

    @property
    def on_cpu(self) -> bool:
        """True if all tensors are on the CPU."""
        return all(device.type == "cpu" for _, _, device in self.layouts)


def record_model(spec: StepSpec) -> tuple[Recording, Output | None]:
    """Record the step of one model.

    Returns:
        The recording, and the model's output with `TENSOR` in place of each tensor (None for a training step).

    Raises:
        UnsupportedError: if the step uses operations that row programs do not support.
        ValueError: if the step does not perform the same operations every time, or changes attributes of the model
            other than tensors.
    """
    model = _model(spec)
    step = _Step(model, spec, spec.kind == "score" and needs_gradients(spec.task))
    function = step.train_one if spec.kind == "train" else step.score_one
    # Arguments are zeros in the first recording and ones in the second, so that a constant that was computed from them
    # differs. Both are valid indices.
    fills = iter((torch.zeros, torch.ones))

    def record() -> Recording:
        make = next(fills)
        arguments = [make(shape, dtype=dtype) for shape, dtype, _ in spec.layouts]
        for x in arguments[: spec.parameters]:
            x.requires_grad_(spec.kind == "train")
        return Recording(function, arguments, FILLS)

    return _record_repeatedly(spec, model, record), step.outputs


def record_stack(spec: StepSpec, rows: int) -> tuple[Recorder, Output | None]:
    """Record the operations of a training step of `rows` models that are stacked along a leading dimension.

    Returns:
        The recording and the outputs of the step, as `record_model` returns them for a single model.
    """
    vmap(torch.neg)(torch.zeros(1))  # the first call imports modules, which run operations in torch 2.6
    model = _model(spec)
    step = _Step(model, spec, spec.kind == "score" and needs_gradients(spec.task))
    arguments = [torch.zeros((rows, *shape), dtype=dtype, device=device) for shape, dtype, device in spec.layouts]
    function = step.train if spec.kind == "train" else step.score
    return _record_repeatedly(spec, model, lambda: _record_step(arguments, function, step)), step.outputs


def _model(spec: StepSpec) -> nn.Module:
    """Return the task's model in training or evaluation mode, depending on the step.

    Raises:
        ValueError: if the model cannot be stacked, since it is a TorchScript module or its parameters have hooks.
    """
    model = init_model(spec.task.build, 0)
    model.train(spec.kind == "train")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("The stateless API can't be used with Jitted modules")
    if any(x._backward_hooks or x._post_accumulate_grad_hooks for x in model.parameters()):
        raise ValueError("it has hooks on its parameters, which are not those of a stack")
    return model


def _record_repeatedly(spec: StepSpec, model: nn.Module, record: Callable[[], Recorded]) -> Recorded:
    """Record a step, twice unless it is known to perform the same operations every time.

    Raises:
        ValueError: if the two recordings differ, or if the step changes attributes of the model or draws random numbers
            of Python or NumPy.
    """
    attributes_before = _attributes(model)
    constants = [] if spec.checks_values else [model.get_buffer(name) for name in spec.constants]
    versions_before = [x._version for x in constants]
    with RngState(torch.Generator()) as rng_state, _recording_context(spec):
        recordings = [record()]
        changed = _changed_attributes(attributes_before, model)
        if not _is_repeatable(spec):
            # A second recording shows whether the step is repeatable; it takes as long as the first.
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
        raise ValueError(
            "it draws random numbers of Python or NumPy, which networks in a stack would share: draw tensors with "
            "torch, as by torch.rand(()) or torch.distributions.Beta(a, b).sample()"
        )
    if [x._version for x in constants] != versions_before:
        raise ValueError(_format_changes(list(spec.constants)))
    if attributes := [
        place for place, value in _changed_attributes(attributes_before, model).items() if not isinstance(value, Tensor)
    ]:
        raise ValueError(_format_changes(attributes))
    if not all(recording.equals(recordings[0]) for recording in recordings[1:]):
        raise ValueError(_format_changes(list(changed)) if changed else "it does something else each time it runs")
    if len(recordings) > 1:
        _note_repeatable(spec)
    return recordings[0]


def _is_repeatable(spec: StepSpec) -> bool:
    """Return True if a process of this machine has found that the step performs the same operations every time."""
    key = spec.task, spec.kind
    if key not in REPEATABLE and (file := _note_file(spec)) is not None and file.exists():
        REPEATABLE.add(key)
    return key in REPEATABLE


def _note_repeatable(spec: StepSpec) -> None:
    REPEATABLE.add((spec.task, spec.kind))
    if (file := _note_file(spec)) is not None:
        with contextlib.suppress(OSError):
            file.touch(0o600)


def _note_file(spec: StepSpec) -> Path | None:
    folder = cache_folder("repeatable")
    key = repr((spec.task.fingerprint, spec.kind, versions(), sys.version))
    return None if folder is None else folder / hashlib.sha256(key.encode()).hexdigest()[:24]


@dataclass
class _Step:
    """The recorded functions: a step of one model or of stacked models, with a flat list of tensors as arguments.

    Attributes:
        model: the model.
        spec: the step.
        scores_with_gradients: enable gradients in evaluation, for a model that differentiates in its forward pass.
        outputs: the model's output with `TENSOR` in place of each tensor; None before an evaluation step has run.
        operations: the mode that runs the stacked versions of torch's functions.
        needs_own_tensors: create a tensor per model where `forward` creates a tensor, so that it can be written in
            place.
    """

    model: nn.Module
    spec: StepSpec
    scores_with_gradients: bool
    outputs: Output | None = None
    operations: StackedOperations = field(default_factory=StackedOperations)
    needs_own_tensors: bool = False

    def train(self, *args: Tensor) -> Any:
        """Return the losses of stacked models and the gradient of each parameter."""
        parameters = [x.detach().requires_grad_() for x in args[: self.spec.parameters]]
        losses = vmap(self._losses, randomness="different")(
            *self._unflatten((*parameters, *args[self.spec.parameters :]))
        )
        if losses.dim() != 1:
            raise ValueError(f"the loss of a batch has the shape {tuple(losses.shape[1:])}, not one number")
        gradients = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        return [losses, *(None if g is None else g.contiguous() for g in gradients)]

    def score(self, *args: Tensor) -> Any:
        """Return the tensors in the outputs of stacked models, followed by the losses."""
        with torch.set_grad_enabled(self.scores_with_gradients):
            stacks, losses = vmap(self._score, randomness="different")(*self._unflatten(args))
        return [*stacks, losses]

    def train_one(self, *args: Tensor) -> Any:
        """Return the loss of one model and the gradient of each parameter."""
        loss = self._losses(*self._unflatten(args))
        if loss.dim():
            raise ValueError(f"the loss of a batch has the shape {tuple(loss.shape)}, not one number")
        return [loss, *torch.autograd.grad(loss, args[: self.spec.parameters], allow_unused=True)]

    def score_one(self, *args: Tensor) -> Any:
        """Return the tensors in one model's output, followed by its loss.

        Tensors of dtypes that row programs do not support are replaced by None.
        """
        with torch.set_grad_enabled(self.scores_with_gradients):
            tensors, loss = self._score(*self._unflatten(args))
        return [*(x if x.dtype in DTYPES else None for x in tensors), loss]

    def _unflatten(self, args: Sequence[Tensor]) -> tuple[dict[str, Tensor], Any, Any]:
        names, constants = self.spec.names, () if self.spec.checks_values else self.spec.constants
        inputs, targets = tree_unflatten(args[len(names) :], self.spec.structure)
        tensors = zip(names, args[: len(names)], strict=True)
        return {name: x for name, x in tensors if name not in constants}, inputs, targets

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
        def check_buffers(prefix: str, module: nn.Module, *_: Any) -> None:
            buffers = module.named_buffers(prefix)
            if new := [name for name, buffer in buffers if buffer is not tensors.get(name, buffer)]:
                raise ValueError(f"it puts other tensors in the place of its buffers {', '.join(new)}")

        self.operations.like = next(iter(tensors.values())) if self.needs_own_tensors else None
        with self.model.register_forward_hook(partial(check_buffers, "")):
            output = functional_call(self.model, tensors, *called_with(inputs))
        if not isinstance(self.model, ModelWithLoss):
            return output, self.spec.task.loss(output, targets)
        with contextlib.ExitStack() as stack:
            if isinstance(self.model.loss, nn.Module):
                stack.enter_context(self.model.loss.register_forward_hook(partial(check_buffers, "loss")))
            return output, self.model.loss_at(tensors, output, targets)


class _Unreadable:
    """Placeholder for a tensor that the previous step assigned to an attribute; reading it raises an error."""

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


@contextlib.contextmanager
def _recording_context(spec: StepSpec) -> Iterator[None]:
    """Change torch while a step is recorded: no `torch.compile` and no recomputation of activations.

    `torch.compiler.is_compiling` returns True if the step is recorded without checks of values.
    """
    before, token = torch.compiler._is_compiling_flag, RECORDING.set(True)
    torch.compiler._is_compiling_flag = not spec.checks_values
    try:
        with _without_dynamo(), without_checkpointing():
            yield
    finally:
        torch.compiler._is_compiling_flag = before
        RECORDING.reset(token)


def _without_dynamo() -> contextlib.AbstractContextManager[Any]:
    """Disable `torch.compile` in user modules, since a step is recorded operation by operation."""
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()


def _format_changes(places: list[str]) -> str:
    return f"it changes {', '.join(places)} as it runs, which networks in a stack would share"


def _changed_attributes(attributes_before: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Return the attributes of a model that differ from `attributes_before`, by path."""
    attributes_now = _attributes(model)
    places = [place for place, value in attributes_now.items() if attributes_before.get(place, "") != value]
    values = dict(_iterate_attributes(model))
    return {place: values[place] for place in places}


def _iterate_attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield a model's attributes and buffers, without parameters, by path."""
    for place, module in model.named_modules():
        attributes = {name: value for name, value in vars(module).items() if name not in MODULE_ATTRIBUTES}
        for name, value in (attributes | dict(module.named_buffers(recurse=False))).items():
            yield f"{place}.{name}".lstrip("."), value


def _attributes(model: nn.Module) -> dict[str, Any]:
    """Return the identities of a model's attributes, to compare with those after a step."""
    return {place: _identity(value) for place, value in _iterate_attributes(model)}


MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
"""Attributes that every module has."""


def _identity(value: Any) -> Any:
    """Return an identifier of a value that changes if the object, or an item of a container, is replaced."""
    if isinstance(value, dict):
        return [(key, _identity_of_item(item)) for key, item in value.items()]
    return [_identity_of_item(item) for item in value] if isinstance(value, list | tuple | set) else id(value)


def _identity_of_item(item: Any) -> int | str:
    # Recurrent layers also keep their weights in a list, in which `functional_call` leaves other tensors.
    return "tensor" if isinstance(item, Tensor | weakref.ref) else id(item)
