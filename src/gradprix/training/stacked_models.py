"""Models of a stack that run together, as one traced program."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten

from gradprix.compiler import IndexedRows, RowCall, RowFunction
from gradprix.tasks import Task
from gradprix.tasks.rng import init_model, stream

from .outputs import Output
from .record_step import StepSpec
from .rng import StackedRng
from .trace_step import Rows, TracedStep, trace_step

Tensors = Mapping[str, Tensor]


class StackedModels:
    """Models of a stack that run together, as one traced program.

    Args:
        task: the task, with its model and loss.
        seeds: the seed of each row.
        compiled: compile the traced steps with `torch.compile`.
    """

    def __init__(self, task: Task, seeds: Sequence[int], compiled: bool = False) -> None:
        self.task, self.compiled = task, compiled
        self.seeds = list(dict.fromkeys(seeds))
        self.noise = self._start_noise([self.seeds.index(seed) for seed in seeds], "noise")
        self.traced_steps: dict[Any, TracedStep] = {}

    def _start_noise(self, index: Sequence[int], purpose: str) -> StackedRng:
        """Return new random streams, given the index of each row's seed."""
        return StackedRng(index, [stream(seed, purpose) for seed in self.seeds])

    @contextmanager
    def evaluation_streams(self) -> Iterator[None]:
        """Draw the random numbers of an evaluation; see `ModelStack`."""
        training, self.noise = self.noise, self._start_noise(self.noise.seeds, "evaluation noise")
        try:
            yield
        finally:
            self.noise = training

    def gradients(
        self, parameters: Tensors, buffers: Tensors, inputs: Any, targets: Any
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the losses, `[rows]`, and the stacked gradients of the parameters; those of unused ones are None."""
        losses, *gradients = self._run("train", parameters, buffers, inputs, targets)
        return losses, gradients

    def outputs(self, parameters: Tensors, buffers: Tensors, inputs: Any, targets: Any) -> tuple[list[Output], Tensor]:
        """Return the output of each row, on the CPU, and the losses, `[rows]`."""
        result: tuple[list[Output], Tensor] = self._run("score", parameters, buffers, inputs, targets)
        return result

    def row_call(self, parameters: Tensors, buffers: Tensors, inputs: Any, targets: Any) -> RowCall | None:
        """Prepare a computation of the gradients that runs row by row.

        All rows use the same memory for their gradients, one after the other.

        Returns:
            A call whose results are the losses, `[rows]`, and the gradient of each parameter, `[1, ...]`. None if the
            step is not compiled to machine code or the loss does not use all parameters.
        """
        examples, structure = tree_flatten((inputs, targets))
        function = self._traced_step("train", parameters, buffers, examples, structure).function
        if function is None or not all(function.present):
            return None
        args = *parameters.values(), *buffers.values(), *examples, *self.draw(function)
        return RowCall(function, args, range(1, len(function.present)))

    def draw(self, function: RowFunction) -> list[IndexedRows]:
        """Draw the random numbers that a compiled step takes as its last arguments."""
        return self.noise.draw_all(function.draws)

    def select_rows(self, index: Tensor) -> None:
        """Keep only the rows at `index`."""
        self.noise.select_seeds([self.noise.seeds[i] for i in index.tolist()])

    def traced_step(self, kind: str, parameters: Tensors, buffers: Tensors, inputs: Any, targets: Any) -> TracedStep:
        """Return the traced step for tensors of these shapes; see `StepSpec` for the kinds."""
        return self._traced_step(kind, parameters, buffers, *tree_flatten((inputs, targets)))

    def _traced_step(
        self, kind: str, parameters: Tensors, buffers: Tensors, examples: list[Rows], structure: TreeSpec
    ) -> TracedStep:
        key = (kind, len(parameters), *(x.shape for x in examples))
        if key not in self.traced_steps:
            tensors = *parameters.values(), *buffers.values(), *examples
            layouts = tuple((tuple(x.shape[1:]), x.dtype, x.device) for x in tensors)
            step = StepSpec(
                self.task,
                kind,
                (*parameters, *buffers),
                len(parameters),
                layouts,
                structure,
                constants=self._constants(buffers),
            )
            self.traced_steps[key] = trace_step(step, len(tensors[0]), self.compiled)
        return self.traced_steps[key]

    def _constants(self, buffers: Tensors) -> tuple[str, ...]:
        """Return the names of those buffers of integers that have the same values in all rows, and for seed 0."""
        names = [name for name, x in buffers.items() if x.dim() > 1 and not (x.is_floating_point() or x.is_complex())]
        if not names:
            return ()
        model = init_model(self.task.build, 0)
        own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return tuple(name for name in names if name in own and bool((buffers[name].cpu() == own[name].cpu()).all()))

    def _run(self, kind: str, parameters: Tensors, buffers: Tensors, inputs: Any, targets: Any) -> Any:
        examples, structure = tree_flatten((inputs, targets))
        run = self._traced_step(kind, parameters, buffers, examples, structure)
        return run(self.noise, *parameters.values(), *buffers.values(), *examples)
