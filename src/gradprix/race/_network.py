"""A network of which every row of a stack holds the weights of one: outputs, losses and gradients of all rows."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from gradprix.tasks import Task
from gradprix.tasks._seeds import fresh, stream

from ._noise import Drawing, Noise
from ._program import Program, program
from ._stacking import stacking

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Form:
    """How the networks of a race are trained, decided once for all of them: each way rounds in its own way.

    Args:
        stacked: whether they go together as one program, or one at a time.
        compiled: whether the stacked program is compiled.
        why: what a user should know about it: why they go one at a time.
    """

    stacked: bool = True
    compiled: bool = False
    why: str = ""

    def describe(self) -> str:
        """In words, as the plan has it."""
        if not self.stacked:
            return f"one at a time: {self.why}"
        return "stacked, one row a network" + ", compiled" * self.compiled


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
        self, leaves: Tensors, rest: Tensors, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The loss of each row, and the gradients of the leaves, stacked; None for a leaf that nothing uses."""
        losses, *gradients = self._run("train", leaves, rest, inputs, targets)
        return losses, gradients

    def outputs(self, leaves: Tensors, rest: Tensors, inputs: Tensor, targets: Tensor) -> tuple[Any, Tensor]:
        """The outputs of each row and its loss."""
        found: tuple[Any, Tensor] = self._run("score", leaves, rest, inputs, targets)
        return found

    def keep(self, index: Tensor) -> None:
        """Go on with some of the rows alone."""
        self.noise.choose([self.noise.seeds[i] for i in index.tolist()])

    def program(self, what: str, leaves: Tensors, rest: Tensors, inputs: Tensor, targets: Tensor) -> Program:
        """What runs on tensors of these shapes; the arguments are those of `_program.program`."""
        key = (what, len(leaves), inputs.shape, targets.shape)
        if key not in self.programs:
            like = tuple((tuple(x.shape), x.dtype) for x in (*leaves.values(), *rest.values(), inputs, targets))
            self.programs[key] = program(self.task, what, (*leaves, *rest), len(leaves), like, self.compiled)
        return self.programs[key]

    def _run(self, what: str, leaves: Tensors, rest: Tensors, inputs: Tensor, targets: Tensor) -> Any:
        run = self.program(what, leaves, rest, inputs, targets)
        return run(self.noise, *leaves.values(), *rest.values(), inputs, targets)


class Apart:
    """One row after the other, for what cannot be stacked.

    Args:
        task: the problem, whose network and loss it is.
        seeds: each row's.
    """

    def __init__(self, task: Task, seeds: Sequence[int]) -> None:
        self.task = task
        self.models = [fresh(task.model, seed) for seed in seeds]
        self.generators = [stream(seed, "noise") for seed in seeds]

    def gradients(
        self, leaves: Tensors, rest: Tensors, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The loss of each row, and the gradients of the leaves, stacked; None for a leaf that nothing uses."""
        losses, rows = [], []
        for row, model in enumerate(self.models):
            model.train()
            params = {name: leaf.detach()[row].requires_grad_() for name, leaf in leaves.items()}
            with Drawing(self.generators[row]):
                loss = self.task.loss(self._output(params, rest, inputs, row), targets[row])
            if loss.dim() != 0:
                raise ValueError(f"the loss of a batch has the shape {tuple(loss.shape)}, not one number")
            rows.append(torch.autograd.grad(loss, list(params.values()), allow_unused=True))
            losses.append(loss.detach())
        return torch.stack(losses), [_stack(column) for column in zip(*rows, strict=True)]

    def outputs(self, leaves: Tensors, rest: Tensors, inputs: Tensor, targets: Tensor) -> tuple[Any, Tensor]:
        """The outputs of each row and its loss."""
        outputs, losses = [], []
        for row, model in enumerate(self.models):
            model.eval()
            with Drawing(self.generators[row]), torch.no_grad():
                outputs.append(self._output({name: leaf[row] for name, leaf in leaves.items()}, rest, inputs, row))
                losses.append(self.task.loss(outputs[-1], targets[row]))
        return tree_map(lambda *parts: torch.stack(parts), *outputs), torch.stack(losses)

    def keep(self, index: Tensor) -> None:
        """Go on with some of the rows alone."""
        chosen = index.tolist()
        self.models, self.generators = ([values[i] for i in chosen] for values in (self.models, self.generators))

    def _output(self, params: Tensors, rest: Tensors, inputs: Tensor, row: int) -> Any:
        own = {**params, **{name: x[row] for name, x in rest.items()}}
        return functional_call(self.models[row], own, (inputs[row],))


def _stack(parts: Sequence[Tensor | None]) -> Tensor | None:
    like = next((part for part in parts if part is not None), None)
    return None if like is None else torch.stack([torch.zeros_like(like) if p is None else p for p in parts])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What every lane runs under.

    One thread, no time lost on numbers too small to matter, operations in forms that stack, and none of torch's
    warnings, which are about a program that is not the user's.
    """
    threads, fast = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # vanishing second moments make a step ten times slower
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), stacking():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
