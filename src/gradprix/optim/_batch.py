"""Parameters that are stepped together, and their state."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from gradprix.kernels import SplitRule, compute_dtype, init_state
from gradprix.rules import Rule

from ._eager_step import COMPENSATION
from ._overlap import WrittenMemory
from ._row_scalars import RowScalars

Values = Mapping[str, Any]
GRADIENT = attrgetter("grad")
PLAIN_TYPES = {nn.Parameter, Tensor}


class Batch(ABC):
    """Parameters with the same rule, options and dtype, and their state; missing state is initialized.

    Args:
        rule: the rule.
        split_rule: the rule, split under the options.
        params: parameters, each with the index of its group.
        state: state of the optimizer; missing entries are added.
        values: hyperparameters of each group.
        count_dtype: dtype of new step counts.

    Attributes:
        arrays: for each element state, the tensors of all parameters; for half precision, then their rounding errors.
        tensors: all tensors of the state.
    """

    scalars_class: type[RowScalars] = RowScalars

    def __init__(
        self,
        rule: Rule,
        split_rule: SplitRule,
        params: Sequence[tuple[Tensor, int]],
        state: Any,
        values: Sequence[Values],
        count_dtype: torch.dtype,
    ) -> None:
        self.rule, self.split = rule, split_rule
        self.params, self.group_indices = [x for x, _ in params], [group for _, group in params]
        self.dtype = self.params[0].dtype
        self.states = [state[x] for x in self.params]
        self.scalars = self.scalars_class(rule, split_rule, params, self.states, values, count_dtype)
        self.arrays = {rule.state[n].key: self._element_state(n, params, values) for n in split_rule.tensors}
        if compute_dtype(self.dtype) is not self.dtype:
            self.arrays[COMPENSATION] = self._compensation()
        else:
            _ = [h.pop(COMPENSATION, None) for h in self.states]
        columns = {**self.arrays, **self.scalars.columns}
        self.tensors = [tensor for column in columns.values() for tensor in column]
        self._cells: Any = tuple(zip(*((h, name) for name in columns for h in self.states), strict=True)) or ((), ())

    @abstractmethod
    def is_valid(self, written: WrittenMemory) -> bool:
        """Return True if the batch can be stepped again: parameters and state are unmodified, gradients are usable.

        Args:
            written: memory written by the step, which gradients must not overlap.
        """

    @abstractmethod
    def step(self, values: Sequence[Values]) -> None:
        """Step every parameter once, with the gradients that `is_valid` has checked."""

    def current_tensors(self) -> list[Any]:
        """Return what the state holds now in place of each of `tensors`; None if it is missing."""
        return list(map(dict.get, *self._cells))

    def _element_state(self, name: str, params: Any, values: Sequence[Values]) -> list[Tensor]:
        spec, dtype = self.rule.state[name], compute_dtype(self.dtype)
        for (x, group), h in zip(params, self.states, strict=True):
            if not isinstance(h.get(spec.key), Tensor):
                h[spec.key] = init_state(spec, values[group], x.detach().to(dtype), x.grad.to(dtype))
        return [h[spec.key] for h in self.states]

    def _compensation(self) -> list[Tensor]:
        for x, h in zip(self.params, self.states, strict=True):
            low = h.get(COMPENSATION)
            fits = low is not None and low.dtype is x.dtype and low.shape == x.shape
            h[COMPENSATION] = low.contiguous() if fits else torch.zeros_like(x, memory_format=torch.contiguous_format)
        return [h[COMPENSATION] for h in self.states]
