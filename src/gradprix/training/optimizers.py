"""Optimizers of a stack: a rule steps all of its rows in one call, any other optimizer steps each row by itself."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradprix.kernels import StackedRule
from gradprix.tasks.rng import RngState, stream

from .rng import use_rng_state
from .torch_optimizer_adapter import TorchOptimizerAdapter, switch_mode
from .trial import Trial


class PerRowOptimizers:
    """One instance of any optimizer class per row, on parameters that alias the rows of the stack.

    Args:
        make: `make(params, **values)`.
        rows: the hyperparameters of each row.
        seeds: the seed of each row, for random numbers drawn by the optimizer.
        params: the parameters, `[stack, ...]` each, stepped in place.
        first: index of the first row in the stack.
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
        self.rng_states = [RngState(stream(seed, "optimizer")) for seed in seeds]
        self.optimizers = [make(row_params, **values) for row_params, values in zip(self.params, rows, strict=True)]
        if any("lr" not in group for optimizer in self.optimizers for group in optimizer.param_groups):
            raise ValueError("it keeps no lr in its groups, which a schedule could change")
        self.switch_mode("train")
        self.learning_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def step(self, gradients: Sequence[Tensor], factor: float = 1.0) -> None:
        """Step every row once, with its learning rate times `factor`."""
        instances = zip(self.params, self.optimizers, self.learning_rates, self.rng_states, strict=True)
        for row, (row_params, optimizer, learning_rates, rng_state) in enumerate(instances, start=self.first):
            for x, g in zip(row_params, gradients, strict=True):
                x.grad = g[row]
            for group, learning_rate in zip(optimizer.param_groups, learning_rates, strict=True):
                group["lr"] = learning_rate * factor
            expected = [group["lr"] for group in optimizer.param_groups]
            # As in a plain training loop: some optimizers disable gradients themselves, others enable them.
            with use_rng_state(rng_state, self.stack[0].device), torch.enable_grad():
                optimizer.step()
            if [group["lr"] for group in optimizer.param_groups] != expected:
                raise ValueError(
                    "it changes its own learning rate, which is a task's to schedule. A training loop of your own can "
                    "race it"
                )
            for x, stack in zip(row_params, self.stack, strict=True):
                if x.data_ptr() != stack[row].data_ptr():  # the optimizer replaced the row's tensor
                    x.data = stack[row].copy_(x.detach())

    def select_rows(self, index: Tensor, params: Sequence[Tensor], first: int = 0) -> None:
        """Continue with a subset of the rows, which now start at row `first` of `params`."""
        chosen, self.first = index.tolist(), first
        self.params = [self.params[i] for i in chosen]
        self.optimizers = [self.optimizers[i] for i in chosen]
        self.learning_rates = [self.learning_rates[i] for i in chosen]
        self.rng_states, self.stack = [self.rng_states[i] for i in chosen], list(params)
        for row, row_params in enumerate(self.params, start=first):
            for x, stack in zip(row_params, params, strict=True):
                x.data = stack[row]

    def switch_mode(self, mode: str) -> None:
        """Call `train` or `eval` of optimizers that evaluate at another point than they train at."""
        for optimizer in self.optimizers:
            switch_mode(optimizer, mode)


class StackedOptimizers:
    """The optimizers of all rows of a stack.

    Args:
        trials: one per row, those with the same `update_key` adjacent.
        params: the parameters, `[rows, ...]` each, stepped in place.
        compiled: compile rules with torch where they have no kernel.
    """

    def __init__(self, trials: Sequence[Trial], params: Sequence[Tensor], compiled: bool = False) -> None:
        self.count = len(params)
        self.blocks: list[tuple[slice, list[int], StackedRule | PerRowOptimizers]] = []
        for _, group in groupby(range(len(trials)), key=lambda row: trials[row].update_key):
            rows = list(group)
            block, optimizer = slice(rows[0], rows[-1] + 1), trials[rows[0]].rule
            values, seeds = [trials[row].values for row in rows], [trials[row].seed for row in rows]
            if isinstance(optimizer, TorchOptimizerAdapter):
                all_params = list(range(len(params)))
                self.blocks.append(
                    (block, all_params, PerRowOptimizers(optimizer.make, values, seeds, params, block.start))
                )
                continue
            for dtype in dict.fromkeys(x.dtype for x in params):
                chosen = [k for k, x in enumerate(params) if x.dtype is dtype]
                stacked = StackedRule(optimizer, values, [params[k] for k in chosen], block.start, compiled)
                self.blocks.append((block, chosen, stacked))

    def step(self, gradients: Sequence[Tensor], factor: float) -> None:
        """Step every row once, with its learning rate times `factor`."""
        for _, chosen, stepper in self.blocks:
            stepper.step([gradients[k] for k in chosen], factor)

    @property
    def have_kernels(self) -> bool:
        """True if every row is stepped by a kernel, for all parameters at once."""
        return all(
            isinstance(stepper, StackedRule) and stepper.kernel is not None and len(chosen) == self.count
            for _, chosen, stepper in self.blocks
        )

    def prepare_step(self, gradients: Sequence[Tensor], factor: float) -> None:
        """Prepare a step row by row; see `StackedRule.prepare_step`. Only if `have_kernels`, after the first step."""
        addresses = [x.data_ptr() for x in gradients]
        for stepper in self._rules:
            stepper.prepare_step(addresses, factor)

    def calls_by_row(self) -> NDArray[np.int64]:
        """Return the call that steps a row once it is prepared, for each row; see `run_calls`."""
        return np.concatenate([stepper.calls_by_row() for stepper in self._rules])

    @property
    def _rules(self) -> list[StackedRule]:
        return [stepper for _, _, stepper in self.blocks if isinstance(stepper, StackedRule)]

    def select_rows(self, index: Tensor, params: Sequence[Tensor]) -> None:
        """Continue with a subset of the rows, in order, whose parameters are now `params`."""
        remaining, start = [], 0
        for block, chosen, stepper in self.blocks:
            block_rows = index[(index >= block.start) & (index < block.stop)] - block.start
            if len(block_rows):
                start = int((index < block.start).sum())
                new_block = slice(start, start + len(block_rows))
                stepper.select_rows(block_rows, [params[k] for k in chosen], start)
                remaining.append((new_block, chosen, stepper))
        self.blocks = remaining

    def eval(self) -> None:
        """Switch to the weights to evaluate."""
        self._switch_mode("eval")

    def train(self) -> None:
        """Switch back to the weights that are trained."""
        self._switch_mode("train")

    def _switch_mode(self, mode: str) -> None:
        for _, _, stepper in self.blocks:
            if isinstance(stepper, PerRowOptimizers):
                stepper.switch_mode(mode)

    def rule_state(self, row: int) -> dict[int, dict[str, Any]]:
        """Return the state of a row by index of the parameter; empty if its optimizer is not a rule."""
        return {
            index: stepper.row_state(row - block.start, k)
            for block, chosen, stepper in self.blocks
            if isinstance(stepper, StackedRule) and block.start <= row < block.stop
            for k, index in enumerate(chosen)
        }
