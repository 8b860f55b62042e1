"""Who is stepped how: by one kernel call for many, or alone by the rule itself."""

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradprix.kernels import STORED, kernel, split
from gradprix.rules import Rule

from ._eager_step import refuse, step_alone, step_dtype
from ._kernel_batch import Table, fits_kernel
from ._overlap import Extent, Written, extents, overlapping
from ._sequential_step import step_in_turn

Groups = Sequence[Mapping[str, Any]]
Values = Sequence[Mapping[str, Any]]


class Layout:
    """How parameters are stepped, for as long as they, their gradients and the options stay what they are.

    Args:
        rules: what steps each group.
        groups: the optimizer's parameter groups.
        state: the optimizer's state.
        values: each group's hyperparameters.
    """

    @torch.no_grad()
    def __init__(self, rules: Sequence[Rule], groups: Groups, state: Any, values: Values) -> None:
        self.rules, self.state, self.seen = rules, state, _seen(groups, values)
        self.counted_in = list(map(step_dtype, groups))
        self.params = [x for group in groups for x in group["params"]]
        self.idle = [x for x in self.params if x.grad is None]
        active = [(x, n) for n, group in enumerate(groups) for x in group["params"] if x.grad is not None]
        new = [x for x, _ in active if x not in state]
        for x, number in active:
            refuse(rules[number], values[number], x, state[x])
        self.alone: list[tuple[Tensor, int]] = []
        self.in_turn: dict[int, list[Tensor]] = {}
        together: dict[Any, list[tuple[Tensor, int]]] = {}
        overlap = overlapping([x for x, _ in active], [state[x] for x, _ in active])
        for (x, number), overlaps in zip(active, overlap, strict=True):
            rule, group = rules[number], groups[number]
            if overlaps:
                self.in_turn.setdefault(number, []).append(x)
            elif (
                rule.scope == "element"
                and group.get("fused") is not False
                and fits_kernel(rule, values[number], x, state[x])
            ):
                key = rule, split(rule, values[number]), x.dtype, step_dtype(group)
                together.setdefault(key, []).append((x, number))
            else:
                self.alone.append((x, number))
        self.tables = []
        for (rule, halves, dtype, counted_in), params in together.items():
            compiled = kernel(halves, STORED[dtype])
            if compiled is None:
                self.alone += params
            else:
                self.tables.append(Table(rule, halves, compiled, params, state, values, counted_in))
        self.lasts = not self.in_turn and all(state[x] or not _remembers(rules[n], values[n]) for x, n in self.alone)
        self.written = Written(chain.from_iterable([x, *state[x].values()] for x, _ in active))
        self.places = self._alone_extents()
        self._forget_empty(new)
        self.keys, self.cells = list(state), list(state.values())

    def holds(self, groups: Groups, state: Any, values: Values) -> bool:
        """Whether this is still how they are stepped. All of it is the user's to change, so all of it is looked at."""
        return (
            self.lasts
            and state is self.state
            and self.seen == _seen(groups, values)
            and all(map(is_, chain.from_iterable(map(itemgetter("params"), groups)), self.params))
            and len(state) == len(self.keys)
            and all(map(is_, state, self.keys))
            and all(map(is_, state.values(), self.cells))
            and all(x.grad is None for x in self.idle)
            and all(table.fits(self.written) for table in self.tables)
            and self._alone_stays()
        )

    def _alone_stays(self) -> bool:
        """Return whether what no kernel steps lies where it was, and its gradients apart from all that is written."""
        if not self.alone:
            return True
        gradients = np.array(extents(x.grad for x, _ in self.alone), dtype=np.int64).reshape(-1, 2)
        return self._alone_extents() == self.places and not self.written.meets(*gradients.T)

    def _alone_extents(self) -> list[Extent]:
        return extents(chain.from_iterable([x, *self.state.get(x, {}).values()] for x, _ in self.alone))

    def step(self, values: Values) -> None:
        """Step every parameter that has a gradient.

        Raises:
            RuntimeError: for a gradient that a rule cannot step, before anything is changed.
        """
        for x, number in self.alone:
            refuse(self.rules[number], values[number], x, self.state.get(x, {}))
        for table in self.tables:
            table.step(values)
        if self.alone or self.in_turn:
            self._step_alone(values)

    @torch.no_grad()
    def _step_alone(self, values: Values) -> None:
        new = [x for x in self.params if x not in self.state]
        for x, number in self.alone:
            if x.grad is not None:
                step_alone(self.rules[number], values[number], x, self.state[x], self.counted_in[number])
        for number, params in self.in_turn.items():
            step_in_turn(self.rules[number], values[number], params, self.state, self.counted_in[number])
        self._forget_empty(new)

    def _forget_empty(self, new: list[Tensor]) -> None:
        """Leave no entry of the state that a rule without state made: torch makes none."""
        for x in new:
            if not self.state.get(x, True):
                del self.state[x]


def _remembers(rule: Rule, values: Mapping[str, Any]) -> bool:
    """Return whether parameters have state after their first step."""
    return rule.counts_steps or bool(rule.kept(values))


def _seen(groups: Groups, values: Values) -> list[Any]:
    """What decides the form of a step: which options are on, and how many parameters there are."""
    forms = [[bool(value) for value in v.values()] for v in values]
    return [(len(group["params"]), group.get("fused"), form) for group, form in zip(groups, forms, strict=True)]
