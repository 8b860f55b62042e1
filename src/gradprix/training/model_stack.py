"""Outputs, losses and gradients of a stack of models, each of which is one row of every tensor."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map

from gradprix.tasks import Task
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.tasks.task import called_with
from gradprix.tasks.tensors import dense
from gradprix.utils.devices import CPU, exact, placed

from .gradient_mode import needs_gradients
from .outputs import Output
from .rng import StackedRng, use_rng_state
from .trace_step import TracedStep, program

Tensors = Mapping[str, Tensor]
FUNCTORCH: Any = torch._C._functorch


class StackedModels:
    """All rows of a stack as one program.

    Args:
        task: the problem, with its model and loss.
        seeds: the seed of each row.
        compiled: compile the program.
    """

    def __init__(self, task: Task, seeds: Sequence[int], compiled: bool = False) -> None:
        self.task, self.compiled = task, compiled
        unique_seeds = list(dict.fromkeys(seeds))
        self.noise = StackedRng(
            [unique_seeds.index(seed) for seed in seeds], [stream(seed, "noise") for seed in unique_seeds]
        )
        self.programs: dict[Any, TracedStep] = {}

    def gradients(
        self, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the losses, `[rows]`, and the stacked gradients of the leaves; None for unused leaves."""
        losses, *gradients = self._run("train", leaves, rest, inputs, targets)
        return losses, gradients

    def outputs(self, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any) -> tuple[list[Output], Tensor]:
        """Return the output of each row, on the CPU, and the losses, `[rows]`."""
        result: tuple[list[Output], Tensor] = self._run("score", leaves, rest, inputs, targets)
        return result

    def keep(self, index: Tensor) -> None:
        """Continue with a subset of the rows."""
        self.noise.choose([self.noise.seeds[i] for i in index.tolist()])

    def program(self, what: str, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any) -> TracedStep:
        """Return the traced program for tensors of these shapes; see `trace_step.program` for the arguments."""
        return self._program(what, leaves, rest, *tree_flatten((inputs, targets)))

    def _program(self, what: str, leaves: Tensors, rest: Tensors, examples: list[Tensor], spec: TreeSpec) -> TracedStep:
        key = (what, len(leaves), *(x.shape for x in examples))
        if key not in self.programs:
            layouts = tuple((tuple(x.shape), x.dtype, x.device) for x in (*leaves.values(), *rest.values(), *examples))
            self.programs[key] = program(self.task, what, (*leaves, *rest), len(leaves), layouts, spec, self.compiled)
        return self.programs[key]

    def _run(self, what: str, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any) -> Any:
        examples, spec = tree_flatten((inputs, targets))
        run = self._program(what, leaves, rest, examples, spec)
        return run(self.noise, *leaves.values(), *rest.values(), *examples)


class SequentialModels:
    """Rows that run one after the other as ordinary models, for models that cannot be stacked.

    Parameters and buffers of the models are aliases of the rows of the stacks; the optimizer steps the stacks.

    Args:
        task: the problem, with its model and loss.
        seeds: the seed of each row.
        device: the device of the rows.
        made: newly initialized models by seed, if there are any, since initialization may be slow.
    """

    def __init__(
        self, task: Task, seeds: Sequence[int], device: torch.device = CPU, made: Mapping[int, nn.Module] | None = None
    ) -> None:
        self.task, self.device = task, device
        unused = dict(made or {})
        models = [unused.pop(seed) if seed in unused else init_model(task.model, seed) for seed in seeds]
        self.models = [model.to(device) for model in models]
        self.rng_states = [RngState(stream(seed, "noise")) for seed in seeds]
        self.stacks: dict[str, Tensor] = {}

    def gradients(
        self, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the losses, `[rows]`, and the stacked gradients of the leaves; zero for unused leaves."""
        losses, gradients = [], [torch.zeros_like(x) for x in leaves.values()]
        self._alias_rows(leaves, rest)
        for row, model in enumerate(self.models):
            model.train()
            with use_rng_state(self.rng_states[row], self.device):
                loss = self.task.loss(self._output(model, row, inputs), tree_map(itemgetter(row), targets))
                if loss.dim() != 0:
                    raise ValueError(f"the loss of a batch has the shape {tuple(loss.shape)}, not one number")
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            parameters = dict(model.named_parameters(remove_duplicate=False))
            for name, stacked_gradient in zip(leaves, gradients, strict=True):
                x = parameters[name]
                if x.grad is not None:
                    stacked_gradient[row] = dense(x.grad)
                    x.grad = None
        self._alias_rows(leaves, rest)
        return torch.stack(losses), list(gradients)

    def outputs(self, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any) -> tuple[list[Output], Tensor]:
        """Return the output of each row, on the CPU, and the losses, `[rows]`."""
        outputs, losses = [], []
        self._alias_rows(leaves, rest)
        for row, model in enumerate(self.models):
            model.eval()
            with use_rng_state(self.rng_states[row], self.device), torch.set_grad_enabled(needs_gradients(self.task)):
                output = self._output(model, row, inputs)
                losses.append(self.task.loss(output, tree_map(itemgetter(row), targets)).detach())
            usable_output = Output.of(output).usable()
            outputs.append(Output(placed(usable_output.leaves, CPU), usable_output.build))
        self._alias_rows(leaves, rest)
        return outputs, torch.stack(losses)

    def keep(self, index: Tensor) -> None:
        """Continue with a subset of the rows."""
        chosen = index.tolist()
        self.models, self.rng_states = [self.models[i] for i in chosen], [self.rng_states[i] for i in chosen]

    def _output(self, model: nn.Module, row: int, inputs: Any) -> Any:
        args, kwargs = called_with(tree_map(itemgetter(row), inputs))
        return model(*args, **kwargs)

    def _alias_rows(self, leaves: Tensors, rest: Tensors) -> None:
        """Alias parameters and buffers to the stacks' rows; copy tensors that a model has replaced into their rows."""
        stacks = {**rest, **leaves}
        is_same_stack = self.stacks.keys() == stacks.keys() and all(
            self.stacks[name] is stack for name, stack in stacks.items()
        )
        for row, model in enumerate(self.models):
            tensors = _parameters_and_buffers(model)
            for name, stack in stacks.items():
                x, row_tensor = tensors[name], stack[row]
                if x.data_ptr() != row_tensor.data_ptr():
                    if is_same_stack and x.shape != row_tensor.shape:
                        raise ValueError(f"its buffer {name} changes its shape as it runs; the rows of a race cannot")
                    if is_same_stack:
                        row_tensor.copy_(x.detach())
                    x.data = row_tensor
        self.stacks = stacks


def _parameters_and_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a model, including a TorchScript one."""
    return dict(model.named_buffers(remove_duplicate=False)) | dict(model.named_parameters(remove_duplicate=False))


@contextlib.contextmanager
def quiet(device: str = "cpu") -> Iterator[None]:
    """Set the runtime options for training a stack.

    One thread, denormals flushed to zero, exact arithmetic on GPUs, and no warnings from torch, which would concern the
    traced program and not the user's code.

    Args:
        device: the device of the stack.
    """
    threads, fast = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal second moments make a step ten times slower
    torch.backends.mha.set_fastpath_enabled(False)
    profiling = torch._C._jit_set_profiling_executor(False)  # a step's shapes never change
    # C++ emits this warning past Python's filters. Preflight measures whether the fallback is slow.
    FUNCTORCH._set_vmap_fallback_warning_enabled(False)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), exact(torch.device(device)):
            warnings.simplefilter("ignore")
            yield
    finally:
        FUNCTORCH._set_vmap_fallback_warning_enabled(True)
        torch._C._jit_set_profiling_executor(profiling)
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
