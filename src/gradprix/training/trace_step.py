"""Tracing of a training or evaluation step of stacked models into a graph.

For small models, `vmap` and autograd cost far more time than the arithmetic. They run once, and the resulting graph of
plain operations on stacked tensors is then executed in every step.
"""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from gradprix.compiler import IndexedRows, RowFunction, UnsupportedError
from gradprix.utils.devices import CPU, placed

from .outputs import Output
from .record_step import TENSOR, StepSpec, record_model, record_stack
from .recorder import peak, simplify
from .rng import StackedRng
from .row_independence import unreviewed
from .torchscript import to_torchscript

logger = logging.getLogger(__name__)
Rows = Tensor | IndexedRows


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
    recorder, outputs = record_stack(spec, rows)
    graph = recorder.graph
    noise = simplify(graph)
    module_of_graph = GraphModule(recorder.constants, graph)
    operations: Callable[..., Sequence[Any]] = module_of_graph
    if compiled:
        operations = torch.compile(module_of_graph, dynamic=False)
    elif not noise and spec.on_cpu:  # on a GPU, TorchScript fuses operations
        operations = to_torchscript(module_of_graph, recorder.given)

    def run(source: StackedRng, args: Sequence[Rows]) -> Sequence[Any]:
        return operations(*map(expanded, args), *[source] * noise)

    return TracedStep(run, peak(graph), outputs, unreviewed(graph))


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
    if not spec.on_cpu:
        return None
    collects_garbage = gc.isenabled()
    gc.disable()  # it would take a third of the time, since a recording has many objects and little garbage
    try:
        recording, outputs = record_model(spec)
        function = RowFunction(recording)
        if spec.kind == "score" and not all(function.present) and (function.draws or any(function.changed)):
            raise UnsupportedError("outputs that programs do not have, of a step that cannot be repeated")
        return _CompiledStep(function, outputs)
    except Exception as error:  # whatever it is, the other way remains
        logger.debug("a step of %s is not compiled: %s: %s", spec.task.name, type(error).__name__, error)
        return None
    finally:
        if collects_garbage:
            gc.enable()


def _run_rows(spec: StepSpec, function: RowFunction, noise: StackedRng, args: Sequence[Rows]) -> Sequence[Any]:
    """Run a compiled step.

    Torch's operations compute outputs that programs cannot, and may explain better why an index is out of range.
    """

    def run_stack() -> Sequence[Any]:
        with torch.enable_grad():
            step = _trace_stack(spec, len(args[0]))
        return step.run(noise, [expanded(x).clone() for x in args])

    try:
        results = function(*args, *noise.draw_all(function.draws))
    except IndexError:
        run_stack()
        raise
    if spec.kind == "score" and any(x is None for x in results):
        return [y if x is None else x for x, y in zip(results, run_stack(), strict=True)]
    return results


def expanded(x: Rows) -> Tensor:
    """Return a stack as a tensor."""
    return x.expanded() if isinstance(x, IndexedRows) else x
