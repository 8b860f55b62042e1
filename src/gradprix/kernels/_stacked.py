"""Many copies of a rule at once: one row of a matrix for each network, with its own hyperparameters."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gradprix.rules import Rule

from ._eager import own, start
from ._split import split


class Stacked:
    """A rule that steps the rows of a matrix, each with its own numbers and all with the same options.

    A row's result does not depend on the other rows, to the bit: its scalars are computed alone, in float64,
    and the rest is element by element.

    Args:
        rule: the rule.
        rows: one mapping of all hyperparameters for each row.
        x: the parameters, `[rows, weights]`, stepped in place.
    """

    def __init__(self, rule: Rule, rows: Sequence[Mapping[str, Any]], x: Tensor) -> None:
        self.rule, self.x, self.t = rule, x, 0
        self.halves = split(rule, rows[0])
        self.rows = [SimpleNamespace(**row) for row in rows]
        self.numbers: list[tuple[float, ...]] = []
        self.tensors: list[Tensor] = []
        self.rates = [row["lr"] for row in rows]

    def step(self, g: Tensor, factor: float = 1.0) -> None:
        """Step every row once, against gradients `[rows, weights]`, with its learning rate times `factor`."""
        if self.t == 0:
            self._start(g)
        self.t += 1
        constants = []
        for i, (h, rate) in enumerate(zip(self.rows, self.rates, strict=True)):
            h.lr = rate * factor
            row, self.numbers[i] = self.halves.scalars(h, self.t, *self.numbers[i])
            constants.append(row)
        columns = torch.tensor(constants, dtype=torch.float64).to(self.x.dtype).T.unsqueeze(-1)
        x, *after = self.halves.on_tensors(self.x, g, *self.tensors, *columns)
        self.tensors = [own(state, self.x, g) for state in after]
        self.x.copy_(x)

    def _start(self, g: Tensor) -> None:
        def first(name: str) -> list[Any]:
            spec = self.rule.state[name]
            return [start(spec, vars(h), x, line) for h, x, line in zip(self.rows, self.x, g, strict=True)]

        self.numbers = list(zip(*map(first, self.halves.numbers), strict=True)) or [()] * len(self.rows)
        self.tensors = [torch.stack(first(name)) for name in self.halves.tensors]
