"""Optimizers of any class in a stack: one instance for each row, which is updated by itself."""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradprix.tasks.model_with_loss import trained_modules
from gradprix.tasks.rng import RngState, stream

from .closures import Batch, Closure, RowGradients
from .optimizer_factories import MakeOptimizer, takes_model
from .param_groups import build_optimizer
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


@dataclass(frozen=True)
class RowBuilder:
    """Constructor of the optimizers of single models of a stack.

    Args:
        names: names of the parameters.
        groups: parameter groups; by default, all parameters are in one.
        total_steps: number of steps of the run; None if it is not known.
        model: returns a model of the task, for optimizers that take a model.
    """

    names: Sequence[str] = ()
    groups: Sequence[IndexGroup] = ()
    total_steps: int | None = None
    model: Callable[[], nn.Module] | None = None

    def build(
        self, make: MakeOptimizer, values: Mapping[str, Any], row: Sequence[Tensor]
    ) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
        """Return an optimizer and its parameters, which alias tensors of a row.

        Args:
            make: class or function that makes the optimizer.
            values: its arguments.
            row: the parameters of the row.
        """
        if not takes_model(make) or self.model is None:
            params = [nn.Parameter(x) for x in row]
            given: Any = [group.to_dict(params) for group in self.groups] or params
        else:
            model = copy.deepcopy(self.model()).to(row[0].device)
            own, given = dict(model.named_parameters()), trained_modules(model)
            params = [own[name] for name in self.names]
            for x, values_of_row in zip(params, row, strict=True):
                x.data = values_of_row
        return build_optimizer(make, given, values, total_steps=self.total_steps), params


DEFAULT_BUILDER = RowBuilder()
"""Constructor of optimizers of parameters in one group."""


class PerRowOptimizers:
    """Optimizers of any class, one instance per row; their parameters alias rows of the stacked parameters.

    Args:
        trials: the trial of each row, all with the same `TorchOptimizerAdapter`.
        params: the stacked parameters, `[stack, ...]` each, updated in place.
        first: index in the stack of the first row.
        builder: constructs the optimizer of a row.
    """

    def __init__(self, trials: Sequence[Trial], params: Sequence[Tensor], first: int, builder: RowBuilder) -> None:
        self.first, self.stack = first, list(params)
        adapter = trials[0].rule
        assert isinstance(adapter, TorchOptimizerAdapter)
        self.uses_closure, self.is_scheduled = adapter.closure, trials[0].schedule != "constant"
        self.rng_states = [RngState(stream(trial.seed, "optimizer")) for trial in trials]
        pairs = [
            builder.build(adapter.make, trial.values, [x[first + row] for x in params])
            for row, trial in enumerate(trials)
        ]
        self.optimizers, self.params = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        if self.is_scheduled and "lr" in trials[0].values and any("lr" not in group for group in groups):
            raise ValueError(
                "it keeps no lr in its groups, which a schedule could change. Give gp.Entry(..., space={}) to train it "
                "with its own step sizes, or schedule='constant'"
            )
        self.train()
        self.learning_rates = [[group.get("lr") for group in optimizer.param_groups] for optimizer in self.optimizers]

    def step(
        self,
        gradients: Sequence[Tensor],
        factor: float = 1.0,
        missing: Collection[tuple[int, int]] = (),
        batch: Batch | None = None,
    ) -> None:
        """Perform one optimizer step of every row.

        Args:
            gradients: the gradient of each parameter, `[stack, ...]`.
            factor: the schedule's multiplier of the learning rates.
            missing: index of the parameter and row of each parameter that has no gradient in this step.
            batch: the current batch, for optimizers with a closure.
        """
        for row, (row_params, optimizer, rng_state) in enumerate(
            zip(self.params, self.optimizers, self.rng_states, strict=True), start=self.first
        ):
            for k, (x, g) in enumerate(zip(row_params, gradients, strict=True)):
                x.grad = None if (k, row) in missing else g[row]
            expected = self._schedule(row - self.first, factor)
            # Gradients are enabled, as in a plain training loop; optimizers that must not record a graph disable them.
            with use_rng_state(rng_state, self.stack[0].device), torch.enable_grad():
                if self.uses_closure and batch is not None:
                    optimizer.step(self._closure(row, batch))  # type: ignore[arg-type]  # returns a tensor
                else:
                    optimizer.step()
            if self.is_scheduled and [group.get("lr") for group in optimizer.param_groups] != expected:
                raise ValueError(
                    "it changes its own learning rate, which is a task's to schedule. Give gp.Entry(..., "
                    "schedule='constant') to leave the learning rate to the optimizer"
                )
            self._alias(row)

    def _schedule(self, index: int, factor: float) -> list[float | None]:
        """Multiply the initial learning rates of an optimizer by a factor and return the new ones."""
        groups = self.optimizers[index].param_groups
        for group, lr in zip(groups, self.learning_rates[index], strict=True):
            if self.is_scheduled and lr is not None:
                group["lr"] = lr * factor
        return [group.get("lr") for group in groups]

    def _closure(self, row: int, batch: Batch) -> Closure:
        """Return the closure of a row for the current batch."""

        def recompute() -> RowGradients:
            self._alias(row)
            return batch.recompute(row)

        return Closure(self.params[row - self.first], batch.losses[row], recompute)

    def _alias(self, row: int) -> None:
        """Make the parameters of a row alias the stack again, if the optimizer has replaced their tensors."""
        for x, stack in zip(self.params[row - self.first], self.stack, strict=True):
            if x.data_ptr() != stack[row].data_ptr():
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

    def eval(self) -> None:
        """Call the method `eval` of optimizers that evaluate the model at other weights than they train."""
        for optimizer in self.optimizers:
            switch_mode(optimizer, "eval")

    def train(self) -> None:
        """Call the method `train` of optimizers that evaluate the model at other weights than they train."""
        for optimizer in self.optimizers:
            switch_mode(optimizer, "train")
