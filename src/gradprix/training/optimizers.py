"""Optimizers of a stack: a rule updates all of its rows in one call, any other optimizer updates one row at a time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradprix.kernels import StackedRule
from gradprix.tasks.rng import RngState, stream

from .param_groups import build_optimizer, group_hyperparameters
from .rng import use_rng_state
from .torch_optimizer_adapter import TorchOptimizerAdapter, switch_mode
from .trial import Trial


@dataclass(frozen=True)
class IndexGroup:
    """Parameter group of a stack.

    Args:
        indices: indices of the group's parameters.
        settings: as in `gradprix.tasks.parameter_groups.ParameterGroup`.
    """

    indices: Sequence[int]
    settings: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self, params: Sequence[nn.Parameter]) -> dict[str, Any]:
        """Return the group of one model as a dictionary of torch."""
        return {"params": [params[k] for k in self.indices], **self.settings}


class PerRowOptimizers:
    """Optimizers of any class, one instance per row; their parameters alias rows of the stacked parameters.

    Args:
        make: constructs an optimizer: `make(params, **values)`.
        rows: the hyperparameters of each row.
        seeds: the seed of each row, for random numbers drawn by the optimizer.
        params: the stacked parameters, `[stack, ...]` each, updated in place.
        first: index in the stack of the first row.
        groups: parameter groups; by default, all parameters are in one.
    """

    def __init__(
        self,
        make: Callable[..., torch.optim.Optimizer],
        rows: Sequence[Mapping[str, Any]],
        seeds: Sequence[int],
        params: Sequence[Tensor],
        first: int = 0,
        groups: Sequence[IndexGroup] = (),
    ) -> None:
        self.first, self.stack = first, list(params)
        self.params = [[nn.Parameter(x[first + row]) for x in params] for row in range(len(rows))]
        self.rng_states = [RngState(stream(seed, "optimizer")) for seed in seeds]
        self.optimizers = [
            build_optimizer(make, [group.to_dict(row_params) for group in groups], values)
            if groups
            else make(row_params, **values)
            for row_params, values in zip(self.params, rows, strict=True)
        ]
        if any("lr" not in group for optimizer in self.optimizers for group in optimizer.param_groups):
            raise ValueError("it keeps no lr in its groups, which a schedule could change")
        self.switch_mode("train")
        self.learning_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def step(self, gradients: Sequence[Tensor], factor: float = 1.0, missing: Collection[tuple[int, int]] = ()) -> None:
        """Perform one optimizer step of every row, with its learning rate multiplied by `factor`.

        Args:
            gradients: the gradient of each parameter, `[stack, ...]`.
            factor: multiplier of the learning rates.
            missing: index of the parameter and row of each parameter that has no gradient in this step.
        """
        instances = zip(self.params, self.optimizers, self.learning_rates, self.rng_states, strict=True)
        for row, (row_params, optimizer, learning_rates, rng_state) in enumerate(instances, start=self.first):
            for k, (x, g) in enumerate(zip(row_params, gradients, strict=True)):
                x.grad = None if (k, row) in missing else g[row]
            for group, learning_rate in zip(optimizer.param_groups, learning_rates, strict=True):
                group["lr"] = learning_rate * factor
            expected = [group["lr"] for group in optimizer.param_groups]
            # Gradients are enabled, as in a plain training loop; optimizers that must not record a graph disable them.
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
        """Keep only the rows at `index`; they are now the rows of `params` from row `first` on."""
        chosen, self.first = index.tolist(), first
        self.params = [self.params[i] for i in chosen]
        self.optimizers = [self.optimizers[i] for i in chosen]
        self.learning_rates = [self.learning_rates[i] for i in chosen]
        self.rng_states, self.stack = [self.rng_states[i] for i in chosen], list(params)
        for row, row_params in enumerate(self.params, start=first):
            for x, stack in zip(row_params, params, strict=True):
                x.data = stack[row]

    def switch_mode(self, mode: str) -> None:
        """Call the method `train` or `eval` of optimizers that evaluate the model at other weights than they train."""
        for optimizer in self.optimizers:
            switch_mode(optimizer, mode)


class StackedOptimizers:
    """The optimizers of all rows of a stack.

    Args:
        trials: the trial of each row; trials with equal `update_key` must be adjacent.
        params: the parameters, `[rows, ...]` each, updated in place.
        compiled: compile rules that have no kernel with `torch.compile`.
        groups: parameter groups; by default, all parameters are in one.

    Attributes:
        blocks: groups of adjacent rows: the rows, the indices of the parameters, and the optimizers that update them.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        params: Sequence[Tensor],
        compiled: bool = False,
        groups: Sequence[IndexGroup] = (),
    ) -> None:
        rule_groups = groups or [IndexGroup(range(len(params)))]
        self.blocks: list[tuple[slice, list[int], StackedRule | PerRowOptimizers]] = []
        for _, group in groupby(range(len(trials)), key=lambda row: trials[row].update_key):
            rows = list(group)
            block, optimizer = slice(rows[0], rows[-1] + 1), trials[rows[0]].rule
            values, seeds = [trials[row].values for row in rows], [trials[row].seed for row in rows]
            if isinstance(optimizer, TorchOptimizerAdapter):
                all_params = list(range(len(params)))
                self.blocks.append(
                    (block, all_params, PerRowOptimizers(optimizer.make, values, seeds, params, block.start, groups))
                )
                continue
            for own_group, dtype in product(rule_groups, dict.fromkeys(x.dtype for x in params)):
                if chosen := [k for k in own_group.indices if params[k].dtype is dtype]:
                    own_values = [group_hyperparameters(own_group.settings, row_values) for row_values in values]
                    stacked = StackedRule(optimizer, own_values, [params[k] for k in chosen], block.start, compiled)
                    self.blocks.append((block, chosen, stacked))

    def step(self, gradients: Sequence[Tensor], factor: float, missing: Collection[tuple[int, int]] = ()) -> None:
        """Perform one optimizer step of every row, with its learning rate multiplied by `factor`.

        As in torch, a parameter without a gradient keeps its values and its state, and its steps are not counted.

        Args:
            gradients: the gradient of each parameter, `[rows, ...]`.
            factor: multiplier of the learning rates.
            missing: index of the parameter and row of each parameter that has no gradient in this step.
        """
        if missing:
            self._separate({k for k, _ in missing})
        for block, chosen, stepper in self.blocks:
            own_gradients = [gradients[k] for k in chosen]
            if isinstance(stepper, PerRowOptimizers):
                stepper.step(own_gradients, factor, missing)
            elif (chosen[0], block.start) not in missing:
                stepper.step(own_gradients, factor)

    def _separate(self, indices: set[int]) -> None:
        """Update parameters that lack a gradient in some steps by rules of their own, one for each row."""
        blocks: list[tuple[slice, list[int], StackedRule | PerRowOptimizers]] = []
        for block, chosen, stepper in self.blocks:
            remaining = chosen
            if isinstance(stepper, StackedRule) and len(chosen) * (block.stop - block.start) > 1:
                for k in indices & set(chosen):
                    rules = stepper.split_off(remaining.index(k))
                    remaining = [each for each in remaining if each != k]
                    blocks += [(slice(row, row + 1), [k], rule) for row, rule in enumerate(rules, start=block.start)]
            if remaining:
                blocks.append((block, remaining, stepper))
        self.blocks = blocks

    @property
    def have_kernels(self) -> bool:
        """True if all parameters of every row are updated by compiled kernels."""
        return all(isinstance(stepper, StackedRule) and stepper.kernel is not None for _, _, stepper in self.blocks)

    def prepare_step(self, gradients: Sequence[Tensor], factor: float) -> None:
        """Prepare a step that runs row by row; see `StackedRule.prepare_step`.

        This requires `have_kernels` and a completed first step.
        """
        addresses = [x.data_ptr() for x in gradients]
        for _, chosen, stepper in self.blocks:
            if isinstance(stepper, StackedRule):
                stepper.prepare_step([addresses[k] for k in chosen], factor)

    def calls_by_row(self) -> NDArray[np.int64]:
        """Return the kernel calls that update each row after `prepare_step`, `[rows, calls, 4]`; see `run_calls`."""
        rows = []
        for _, blocks in groupby(self.blocks, key=lambda block: block[0].start):
            calls = [stepper.calls_by_row() for _, _, stepper in blocks if isinstance(stepper, StackedRule)]
            rows.append(np.concatenate(calls, axis=1))
        return np.concatenate(rows)

    def select_rows(self, index: Tensor, params: Sequence[Tensor]) -> None:
        """Keep only the rows at `index`, in ascending order; their parameters are now `params`."""
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
        """Switch optimizers such as Schedule-Free ones to the weights at which the model is evaluated."""
        self._switch_mode("eval")

    def train(self) -> None:
        """Switch these optimizers back to the weights that are trained."""
        self._switch_mode("train")

    def _switch_mode(self, mode: str) -> None:
        for _, _, stepper in self.blocks:
            if isinstance(stepper, PerRowOptimizers):
                stepper.switch_mode(mode)

    def rule_state(self, row: int) -> dict[int, dict[str, Any]]:
        """Return the optimizer state of a row by parameter index; empty if the row's optimizer is not a rule."""
        return {
            index: stepper.row_state(row - block.start, k)
            for block, chosen, stepper in self.blocks
            if isinstance(stepper, StackedRule) and block.start <= row < block.stop
            for k, index in enumerate(chosen)
        }
