"""Who is stepped how: by one kernel call for many, or alone by the rule itself."""

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor

from gradprix.kernels import STORED, kernel, split
from gradprix.rules import Rule

from ._alone import refuse, step_alone, step_dtype
from ._table import Table, fits_kernel

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
        self.idle: list[Tensor] = []
        self.alone: list[tuple[Tensor, int]] = []
        together: dict[Any, list[tuple[Tensor, int]]] = {}
        for number, (rule, group) in enumerate(zip(rules, groups, strict=True)):
            for x in group["params"]:
                if x.grad is None:
                    self.idle.append(x)
                elif rule.scope == "element" and group.get("fused") is not False and fits_kernel(x):
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
        self.params = [x for group in groups for x in group["params"]]
        self.keys, self.cells = list(state), list(state.values())

    def holds(self, groups: Groups, state: Any, values: Values) -> bool:
        """Whether this is still how they are stepped. All of it is the user's to change, so all of it is looked at."""
        return (
            state is self.state
            and self.seen == _seen(groups, values)
            and all(map(is_, chain.from_iterable(map(itemgetter("params"), groups)), self.params))
            and len(state) == len(self.keys)
            and all(map(is_, state, self.keys))
            and all(map(is_, state.values(), self.cells))
            and all(x.grad is None for x in self.idle)
            and all(table.fits() for table in self.tables)
        )

    def step(self, values: Values) -> None:
        """Step every parameter that has a gradient.

        Raises:
            RuntimeError: for a gradient that a rule cannot step, before anything is changed.
        """
        for x, number in self.alone:
            refuse(self.rules[number], x)
        for table in self.tables:
            table.step(values)
        if self.alone:
            self._step_alone(values)

    @torch.no_grad()
    def _step_alone(self, values: Values) -> None:
        for x, number in self.alone:
            if x.grad is not None:
                held = self.state.get(x, {})
                step_alone(self.rules[number], values[number], x, held, self.counted_in[number])
                if held:
                    self.state[x] = held


def _seen(groups: Groups, values: Values) -> list[Any]:
    """What decides the form of a step: which options are on, and how many parameters there are."""
    forms = [[bool(value) for value in v.values()] for v in values]
    return [(len(group["params"]), group.get("fused"), form) for group, form in zip(groups, forms, strict=True)]
