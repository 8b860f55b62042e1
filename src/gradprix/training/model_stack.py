"""A network of which every row of a stack holds the weights of one: outputs, losses and gradients of all rows."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map

from gradprix.tasks import Task
from gradprix.tasks.rng import Luck, fresh, stream
from gradprix.tasks.task import called_with
from gradprix.tasks.tensors import dense
from gradprix.utils.devices import CPU, exact, placed

from .gradient_mode import needs_gradients
from .outputs import Output
from .rng import Noise, lent
from .trace_step import Program, program

Tensors = Mapping[str, Tensor]
FUNCTORCH: Any = torch._C._functorch


@dataclass(frozen=True)
class Form:
    """How the networks of a race are trained, decided once for all of them: each way rounds in its own way.

    Args:
        stacked: whether they go together as one program, or one at a time.
        compiled: whether the stacked program is compiled.
        why: what a user should know about it: why they go one at a time.
        device: where they are.
        refused: a GPU that there is, and why they are not there.
        widest: models in a stack at most, where wider ones were not checked; None where any may be.
    """

    stacked: bool = True
    compiled: bool = False
    why: str = ""
    device: str = "cpu"
    refused: str = ""
    widest: int | None = None

    def describe(self) -> str:
        """In words, as the plan has it."""
        how = "stacked, one row a network" + ", compiled" * self.compiled
        if not self.stacked:
            how = f"one at a time: {self.why}"
        if self.device != "cpu":
            how += f"; on {self.device}"
        return how + (f"; not on {self.refused}" if self.refused else "")


class Together:
    """All rows as one program.

    Args:
        task: the problem, whose network and loss it is.
        seeds: each row's.
        compiled: whether the program is compiled.
    """

    def __init__(self, task: Task, seeds: Sequence[int], compiled: bool = False) -> None:
        self.task, self.compiled = task, compiled
        known = list(dict.fromkeys(seeds))
        self.noise = Noise([known.index(seed) for seed in seeds], [stream(seed, "noise") for seed in known])
        self.programs: dict[Any, Program] = {}

    def gradients(
        self, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The loss of each row, and the gradients of the leaves, stacked; None for a leaf that nothing uses."""
        losses, *gradients = self._run("train", leaves, rest, inputs, targets)
        return losses, gradients

    def outputs(self, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any) -> tuple[list[Output], Tensor]:
        """The output of each row, on the CPU, and its loss."""
        found: tuple[list[Output], Tensor] = self._run("score", leaves, rest, inputs, targets)
        return found

    def keep(self, index: Tensor) -> None:
        """Go on with some of the rows alone."""
        self.noise.choose([self.noise.seeds[i] for i in index.tolist()])

    def program(self, what: str, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any) -> Program:
        """What runs on tensors of these shapes; the arguments are those of `_program.program`."""
        return self._program(what, leaves, rest, *tree_flatten((inputs, targets)))

    def _program(self, what: str, leaves: Tensors, rest: Tensors, examples: list[Tensor], spec: TreeSpec) -> Program:
        key = (what, len(leaves), *(x.shape for x in examples))
        if key not in self.programs:
            like = tuple((tuple(x.shape), x.dtype, x.device) for x in (*leaves.values(), *rest.values(), *examples))
            self.programs[key] = program(self.task, what, (*leaves, *rest), len(leaves), like, spec, self.compiled)
        return self.programs[key]

    def _run(self, what: str, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any) -> Any:
        examples, spec = tree_flatten((inputs, targets))
        run = self._program(what, leaves, rest, examples, spec)
        return run(self.noise, *leaves.values(), *rest.values(), *examples)


class Apart:
    """One row after the other, for what cannot be stacked: each a network as anybody would train it.

    Its parameters and buffers are the rows of the stacks, of which something else steps those of the parameters.

    Args:
        task: the problem, whose network and loss it is.
        seeds: each row's.
        device: where the rows are.
        made: new networks by their seed, if there are any: making one may take long.
    """

    def __init__(
        self, task: Task, seeds: Sequence[int], device: torch.device = CPU, made: Mapping[int, nn.Module] | None = None
    ) -> None:
        self.task, self.device = task, device
        unused = dict(made or {})
        models = [unused.pop(seed) if seed in unused else fresh(task.model, seed) for seed in seeds]
        self.models = [model.to(device) for model in models]
        self.luck = [Luck(stream(seed, "noise")) for seed in seeds]
        self.stacks: dict[str, Tensor] = {}

    def gradients(
        self, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The loss of each row, and the gradients of the leaves, stacked; zero for what a row does not use."""
        losses, gradients = [], [torch.zeros_like(x) for x in leaves.values()]
        self._place(leaves, rest)
        for row, model in enumerate(self.models):
            model.train()
            with lent(self.luck[row], self.device):
                loss = self.task.loss(self._output(model, row, inputs), tree_map(itemgetter(row), targets))
                if loss.dim() != 0:
                    raise ValueError(f"the loss of a batch has the shape {tuple(loss.shape)}, not one number")
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            own = dict(model.named_parameters(remove_duplicate=False))
            for name, into in zip(leaves, gradients, strict=True):
                x = own[name]
                if x.grad is not None:
                    into[row] = dense(x.grad)
                    x.grad = None
        self._place(leaves, rest)
        return torch.stack(losses), list(gradients)

    def outputs(self, leaves: Tensors, rest: Tensors, inputs: Any, targets: Any) -> tuple[list[Output], Tensor]:
        """The output of each row, on the CPU, and its loss."""
        outputs, losses = [], []
        self._place(leaves, rest)
        for row, model in enumerate(self.models):
            model.eval()
            with lent(self.luck[row], self.device), torch.set_grad_enabled(needs_gradients(self.task)):
                output = self._output(model, row, inputs)
                losses.append(self.task.loss(output, tree_map(itemgetter(row), targets)).detach())
            own = Output.of(output).usable()
            outputs.append(Output(placed(own.leaves, CPU), own.build))
        self._place(leaves, rest)
        return outputs, torch.stack(losses)

    def keep(self, index: Tensor) -> None:
        """Go on with some of the rows alone."""
        chosen = index.tolist()
        self.models, self.luck = [self.models[i] for i in chosen], [self.luck[i] for i in chosen]

    def _output(self, model: nn.Module, row: int, inputs: Any) -> Any:
        args, kwargs = called_with(tree_map(itemgetter(row), inputs))
        return model(*args, **kwargs)

    def _place(self, leaves: Tensors, rest: Tensors) -> None:
        """Have all that the networks hold be the rows; what one has put in the place of a row's goes into the row."""
        stacks = {**rest, **leaves}
        same = self.stacks.keys() == stacks.keys() and all(self.stacks[name] is stack for name, stack in stacks.items())
        for row, model in enumerate(self.models):
            held = _held(model)
            for name, stack in stacks.items():
                x, own = held[name], stack[row]
                if x.data_ptr() != own.data_ptr():
                    if same and x.shape != own.shape:
                        raise ValueError(f"its buffer {name} changes its shape as it runs; the rows of a race cannot")
                    if same:
                        own.copy_(x.detach())
                    x.data = own
        self.stacks = stacks


def _held(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a network, for a scripted one as well."""
    return dict(model.named_buffers(remove_duplicate=False)) | dict(model.named_parameters(remove_duplicate=False))


@contextlib.contextmanager
def quiet(device: str = "cpu") -> Iterator[None]:
    """What every lane runs under.

    One thread, no time lost on numbers too small to matter, and none of torch's warnings, which are about a program
    that is not the user's.

    Args:
        device: where the lane is.
    """
    threads, fast = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # vanishing second moments make a step ten times slower
    torch.backends.mha.set_fastpath_enabled(False)
    profiling = torch._C._jit_set_profiling_executor(False)  # a step's shapes are always the same
    # Said by C++, past Python's warnings. That it is slow, if it is, the check before a race finds out.
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
