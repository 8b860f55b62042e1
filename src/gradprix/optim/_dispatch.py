"""Dispatch of parameters to batched kernels, the eager step, or the sequential step."""

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradprix.kernels import STORED, kernel, split
from gradprix.rules import Rule

from ._eager_step import refuse, step_dtype, step_eagerly
from ._kernel_batch import Table, fits_kernel
from ._overlap import Extent, Written, extents, overlapping
from ._sequential_step import step_sequentially

Groups = Sequence[Mapping[str, Any]]
Values = Sequence[Mapping[str, Any]]


class Layout:
    """Assignment of parameters to implementations, valid while parameters, gradients and options are unchanged.

    Args:
        rules: rule of each group.
        groups: parameter groups of the optimizer.
        state: state of the optimizer.
        values: hyperparameters of each group.
    """

    @torch.no_grad()
    def __init__(self, rules: Sequence[Rule], groups: Groups, state: Any, values: Values) -> None:
        self.rules, self.state, self.key = rules, state, _layout_key(groups, values)
        self.counted_in = list(map(step_dtype, groups))
        self.params = [x for group in groups for x in group["params"]]
        self.idle = [x for x in self.params if x.grad is None]
        active = [(x, n) for n, group in enumerate(groups) for x in group["params"] if x.grad is not None]
        new = [x for x, _ in active if x not in state]
        for x, number in active:
            refuse(rules[number], values[number], x, state[x])
        self.eager: list[tuple[Tensor, int]] = []
        self.sequential: dict[int, list[Tensor]] = {}
        batches: dict[Any, list[tuple[Tensor, int]]] = {}
        overlap = overlapping([x for x, _ in active], [state[x] for x, _ in active])
        for (x, number), overlaps in zip(active, overlap, strict=True):
            rule, group = rules[number], groups[number]
            if overlaps:
                self.sequential.setdefault(number, []).append(x)
            elif (
                rule.scope == "element"
                and group.get("fused") is not False
                and fits_kernel(rule, values[number], x, state[x])
            ):
                key = rule, split(rule, values[number]), x.dtype, step_dtype(group)
                batches.setdefault(key, []).append((x, number))
            else:
                self.eager.append((x, number))
        self.tables = []
        for (rule, halves, dtype, counted_in), params in batches.items():
            compiled = kernel(halves, STORED[dtype])
            if compiled is None:
                self.eager += params
            else:
                self.tables.append(Table(rule, halves, compiled, params, state, values, counted_in))
        self.reusable = not self.sequential and all(
            state[x] or not _has_state(rules[n], values[n]) for x, n in self.eager
        )
        self.written = Written(chain.from_iterable([x, *state[x].values()] for x, _ in active))
        self.places = self._eager_extents()
        self._remove_empty(new)
        self.keys, self.cells = list(state), list(state.values())

    def holds(self, groups: Groups, state: Any, values: Values) -> bool:
        """Return whether the layout is still valid; users may change anything, so everything is compared."""
        return (
            self.reusable
            and state is self.state
            and self.key == _layout_key(groups, values)
            and all(map(is_, chain.from_iterable(map(itemgetter("params"), groups)), self.params))
            and len(state) == len(self.keys)
            and all(map(is_, state, self.keys))
            and all(map(is_, state.values(), self.cells))
            and all(x.grad is None for x in self.idle)
            and all(table.fits(self.written) for table in self.tables)
            and self._eager_is_unchanged()
        )

    def _eager_is_unchanged(self) -> bool:
        """Return whether eagerly stepped tensors have not moved, and their gradients overlap with no written memory."""
        if not self.eager:
            return True
        gradients = np.array(extents(x.grad for x, _ in self.eager), dtype=np.int64).reshape(-1, 2)
        return self._eager_extents() == self.places and not self.written.meets(*gradients.T)

    def _eager_extents(self) -> list[Extent]:
        return extents(chain.from_iterable([x, *self.state.get(x, {}).values()] for x, _ in self.eager))

    def step(self, values: Values) -> None:
        """Step every parameter that has a gradient.

        Raises:
            RuntimeError: if a rule does not support a gradient; nothing has been modified then.
        """
        for x, number in self.eager:
            refuse(self.rules[number], values[number], x, self.state.get(x, {}))
        for table in self.tables:
            table.step(values)
        if self.eager or self.sequential:
            self._step_eagerly(values)

    @torch.no_grad()
    def _step_eagerly(self, values: Values) -> None:
        new = [x for x in self.params if x not in self.state]
        for x, number in self.eager:
            if x.grad is not None:
                step_eagerly(self.rules[number], values[number], x, self.state[x], self.counted_in[number])
        for number, params in self.sequential.items():
            step_sequentially(self.rules[number], values[number], params, self.state, self.counted_in[number])
        self._remove_empty(new)

    def _remove_empty(self, new: list[Tensor]) -> None:
        """Remove empty state entries of rules without state, which torch does not create."""
        for x in new:
            if not self.state.get(x, True):
                del self.state[x]


def _has_state(rule: Rule, values: Mapping[str, Any]) -> bool:
    """Return whether parameters have state after their first step."""
    return rule.counts_steps or bool(rule.active_state(values))


def _layout_key(groups: Groups, values: Values) -> list[Any]:
    """Return what determines the layout: options that are on, and numbers of parameters."""
    forms = [[bool(value) for value in v.values()] for v in values]
    return [(len(group["params"]), group.get("fused"), form) for group, form in zip(groups, forms, strict=True)]
