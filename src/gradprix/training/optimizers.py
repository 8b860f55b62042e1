"""What steps the rows of a stack: a rule all of its rows at once, any other optimizer each row by itself."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from gradprix.kernels import Stacked
from gradprix.tasks.rng import Luck, stream

from .rng import lent
from .torch_optimizer_adapter import Anyone, switch_mode
from .trial import Trial, form


class Each:
    """Any optimizer, once for each row, on parameters that are the rows of the stack.

    Args:
        make: `make(params, **values)`.
        rows: what it is called with for each row.
        seeds: each row's, for what it draws at random.
        params: the parameters, `[stack, ...]` each, stepped in place.
        first: where in the stack its rows begin.
    """

    def __init__(
        self,
        make: Callable[..., torch.optim.Optimizer],
        rows: Sequence[Mapping[str, Any]],
        seeds: Sequence[int],
        params: Sequence[Tensor],
        first: int = 0,
    ) -> None:
        self.first, self.stack = first, list(params)
        self.params = [[nn.Parameter(x[first + row]) for x in params] for row in range(len(rows))]
        self.luck = [Luck(stream(seed, "optimizer")) for seed in seeds]
        self.optimizers = [make(own, **values) for own, values in zip(self.params, rows, strict=True)]
        if any("lr" not in group for optimizer in self.optimizers for group in optimizer.param_groups):
            raise ValueError("it keeps no lr in its groups, which a schedule could change")
        self.turn("train")
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def step(self, gradients: Sequence[Tensor], factor: float = 1.0) -> None:
        """Step every row once, with its learning rate times `factor`."""
        every = zip(self.params, self.optimizers, self.rates, self.luck, strict=True)
        for row, (own, optimizer, rates, luck) in enumerate(every, start=self.first):
            for x, g in zip(own, gradients, strict=True):
                x.grad = g[row]
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            given = [group["lr"] for group in optimizer.param_groups]
            # As in a plain loop: some switch gradients off themselves, and some on.
            with lent(luck, self.stack[0].device), torch.enable_grad():
                optimizer.step()
            if [group["lr"] for group in optimizer.param_groups] != given:
                raise ValueError(
                    "it changes its own learning rate, which is a task's to schedule. A training loop of your own can "
                    "race it"
                )
            for x, stack in zip(own, self.stack, strict=True):
                if x.data_ptr() != stack[row].data_ptr():  # it has put another tensor in the place of the row
                    x.data = stack[row].copy_(x.detach())

    def keep(self, index: Tensor, params: Sequence[Tensor], first: int = 0) -> None:
        """Go on with some of the rows alone, which now begin there in these parameters."""
        chosen, self.first = index.tolist(), first
        self.params = [self.params[i] for i in chosen]
        self.optimizers = [self.optimizers[i] for i in chosen]
        self.rates = [self.rates[i] for i in chosen]
        self.luck, self.stack = [self.luck[i] for i in chosen], list(params)
        for row, own in enumerate(self.params, start=first):
            for x, stack in zip(own, params, strict=True):
                x.data = stack[row]

    def turn(self, to: str) -> None:
        """Call `eval` or `train` of optimizers that evaluate the model at another point than they train."""
        for optimizer in self.optimizers:
            switch_mode(optimizer, to)


class Steppers:
    """What steps all rows of a lane.

    Args:
        trials: one a row, those of one form side by side.
        params: the parameters, `[rows, ...]` each, stepped in place.
        compiled: whether rules are compiled by torch where they have no kernel.
    """

    def __init__(self, trials: Sequence[Trial], params: Sequence[Tensor], compiled: bool = False) -> None:
        self.each: list[tuple[slice, list[int], Stacked | Each]] = []
        for _, group in groupby(range(len(trials)), key=lambda row: form(trials[row])):
            rows = list(group)
            block, optimizer = slice(rows[0], rows[-1] + 1), trials[rows[0]].rule
            values, seeds = [trials[row].values for row in rows], [trials[row].seed for row in rows]
            if isinstance(optimizer, Anyone):
                everything = list(range(len(params)))
                self.each.append((block, everything, Each(optimizer.make, values, seeds, params, block.start)))
                continue
            for dtype in dict.fromkeys(x.dtype for x in params):
                chosen = [k for k, x in enumerate(params) if x.dtype is dtype]
                stacked = Stacked(optimizer, values, [params[k] for k in chosen], block.start, compiled)
                self.each.append((block, chosen, stacked))

    def step(self, gradients: Sequence[Tensor], factor: float) -> None:
        """Step every row once, with its learning rate times `factor`."""
        for _, chosen, stepper in self.each:
            stepper.step([gradients[k] for k in chosen], factor)

    def keep(self, index: Tensor, params: Sequence[Tensor]) -> None:
        """Go on with some of the rows alone, in order, whose parameters are now these."""
        left, start = [], 0
        for block, chosen, stepper in self.each:
            own = index[(index >= block.start) & (index < block.stop)] - block.start
            if len(own):
                start = int((index < block.start).sum())
                now = slice(start, start + len(own))
                stepper.keep(own, [params[k] for k in chosen], start)
                left.append((now, chosen, stepper))
        self.each = left

    def turn(self, to: str) -> None:
        """Go to the point to evaluate at (`"eval"`), or back to the one that is trained (`"train"`)."""
        for _, _, stepper in self.each:
            if isinstance(stepper, Each):
                stepper.turn(to)
