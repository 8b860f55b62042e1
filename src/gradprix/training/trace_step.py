"""Tracing of a training or evaluation step of stacked models into a graph.

For small models, `vmap` and autograd cost far more time than the arithmetic. They run once, and the resulting graph of
plain operations on stacked tensors is then executed in every step.
"""

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from .stacking_errors import depends_on_values
from .torchscript import to_torchscript

logger = logging.getLogger(__name__)
Rows = Tensor | IndexedRows


@dataclass(frozen=True)
class TracedStep:
    """A traced training or evaluation step of stacked models.

    Args:
        run: runs the step, given the source of random numbers and a list of tensors.
        peak: estimated peak memory in bytes while the step runs, without its arguments.
        outputs: the output of a model, with `TENSOR` in place of each tensor; None for a training step.
        unreviewed: names of operations that are not known to be row-invariant.
        function: the step as machine code; None if the step runs as operations of torch.
    """

    run: Callable[[StackedRng, Sequence[Rows]], Sequence[Any]]
    peak: int
    outputs: Output | None
    unreviewed: frozenset[str] = frozenset()
    function: RowFunction | None = None

    def __call__(self, noise: StackedRng, *args: Rows) -> Any:
        """Run the step, with random numbers from `noise`.

        Returns:
            `[losses, *gradients]` for a training step; the output of each row and the losses for an evaluation step.
        """
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
        compiled: compile the operations with `torch.compile`, which takes many seconds and changes rounding.

    If the step depends on values of tensors, it is traced without the checks that libraries leave out of compiled
    models, such as whether an attention mask masks anything.

    Raises:
        ValueError: for a loss that is not a scalar, or a model that changes its own attributes in a step.
    """
    try:
        return _trace_step(spec, rows, compiled)
    except Exception as error:
        if depends_on_values(error):
            with contextlib.suppress(Exception):  # the first error is reported
                return _trace_step(replace(spec, checks_values=False), rows, compiled)
        raise


def _trace_step(spec: StepSpec, rows: int, compiled: bool) -> TracedStep:
    """Trace a step as machine code for each row, or else as operations of torch on stacked tensors."""
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
    """A step of one model as machine code; `outputs` is as in `TracedStep`."""

    function: RowFunction
    outputs: Output | None


@lru_cache(maxsize=64)
def _compile_rows(spec: StepSpec) -> _CompiledStep | None:
    """Compile a step of one model to machine code.

    Returns:
        The compiled step. None if the step uses operations that row programs do not support, or if it fails; the step
        is then traced as operations of torch, which also gives a better error message.
    """
    if not spec.on_cpu:
        return None
    collects_garbage = gc.isenabled()
    gc.disable()  # collections would take a third of the time: a recording has many objects and little garbage
    try:
        recording, outputs = record_model(spec)
        function = RowFunction(recording)
        if spec.kind == "score" and not all(function.present) and (function.draws or any(function.changed)):
            raise UnsupportedError("outputs that programs do not have, of a step that cannot be repeated")
        return _CompiledStep(function, outputs)
    except Exception as error:  # any error: the step may still run as operations of torch
        logger.debug("a step of %s is not compiled: %s: %s", spec.task.name, type(error).__name__, error)
        return None
    finally:
        if collects_garbage:
            gc.enable()


def _run_rows(spec: StepSpec, function: RowFunction, noise: StackedRng, args: Sequence[Rows]) -> Sequence[Any]:
    """Run a compiled step.

    Outputs that a row program cannot compute are computed by torch's operations. These also run if an index is out of
    range, since their error message may be better.
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
    """Return a stack as one tensor, with a copy of the examples for each row."""
    return x.expanded() if isinstance(x, IndexedRows) else x
