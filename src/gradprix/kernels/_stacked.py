"""Many copies of a rule at once: one row of every stacked tensor for each network, with its own hyperparameters."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradprix.rules import Rule

from ._compile import kernel
from ._eager import own, start
from ._fused import STORED, Work, wide
from ._split import split


class Stacked:
    """A rule that steps the rows of stacked tensors, each with its own numbers and all with the same options.

    A row's result does not depend on the other rows, to the bit: its scalars are computed alone, in float64,
    and the rest is element by element.

    Args:
        rule: the rule.
        rows: one mapping of all hyperparameters for each row.
        params: the parameters, `[rows, ...]` each, contiguous and of one dtype, stepped in place.
    """

    def __init__(self, rule: Rule, rows: Sequence[Mapping[str, Any]], params: Sequence[Tensor]) -> None:
        self.rule, self.params, self.t = rule, list(params), 0
        self.split = split(rule, rows[0])
        self.rows = [SimpleNamespace(**row) for row in rows]
        self.rates = [row["lr"] for row in rows]
        self.numbers: list[tuple[float, ...]] = []
        self.state: list[list[Tensor]] = []  # of each array that a kernel takes, after parameters and gradients
        self.dtype = self.params[0].dtype
        self.kernel = kernel(self.split, STORED[self.dtype]) if self.dtype in STORED else None

    def step(self, gradients: Sequence[Tensor], factor: float = 1.0) -> None:
        """Step every row once, against gradients of the parameters' shapes, with its learning rate times `factor`."""
        gradients = [g.contiguous() for g in gradients]
        if self.t == 0:
            self._start(gradients)
        self.t += 1
        constants = []
        for i, (h, rate) in enumerate(zip(self.rows, self.rates, strict=True)):
            h.lr = rate * factor
            row, self.numbers[i] = self.split.scalars(h, self.t, *self.numbers[i])
            constants.append(row)
        if self.kernel is None:
            self._step_eagerly(gradients, torch.tensor(constants, dtype=torch.float64))
        else:
            self.work.constants[:] = constants
            self.work.pointers[:, 1] = self._addresses(gradients)
            self.work.run(self.kernel)

    def keep(self, index: Tensor, params: Sequence[Tensor]) -> None:
        """Go on with some of the rows alone, whose parameters are now these."""
        chosen = index.tolist()
        self.params = list(params)
        self.rows, self.rates, self.numbers = (
            [values[i] for i in chosen] for values in (self.rows, self.rates, self.numbers)
        )
        self.state = [[tensor[index] for tensor in column] for column in self.state]
        self._lay_out()

    def _start(self, gradients: list[Tensor]) -> None:
        def first(name: str, x: Tensor, g: Tensor) -> list[Any]:
            spec = self.rule.state[name]
            return [start(spec, vars(h), a, b) for h, a, b in zip(self.rows, x.to(wide(x.dtype)), g, strict=True)]

        numbers = [first(name, self.params[0], gradients[0]) for name in self.split.numbers]
        self.numbers = list(zip(*numbers, strict=True)) or [()] * len(self.rows)
        pairs = list(zip(self.params, gradients, strict=True))
        self.state = [[torch.stack(first(name, x, g)) for x, g in pairs] for name in self.split.tensors]
        if self.kernel is not None and self.dtype is torch.bfloat16:
            self.state.append([torch.zeros_like(x) for x in self.params])
        self._lay_out()

    def _lay_out(self) -> None:
        """Make the table of a kernel's work, in which each row of each parameter is a tensor of its own."""
        count = len(self.rows)
        sizes = [x[0].numel() for x in self.params for _ in range(count)]
        arrays = [self.params, self.params, *self.state]  # gradients come anew each time
        pointers = np.stack([self._addresses(tensors) for tensors in arrays], axis=1)
        constants = np.empty((count, len(self.split.constants)))
        self.work = Work(sizes, [*range(count)] * len(self.params), pointers, constants)

    def _addresses(self, tensors: Sequence[Tensor]) -> NDArray[np.int64]:
        """Where each row of each tensor is."""
        count = np.arange(len(self.rows))
        return np.concatenate([x.data_ptr() + count * (x[0].numel() * x.element_size()) for x in tensors])

    def _step_eagerly(self, gradients: list[Tensor], constants: Tensor) -> None:
        for k, (x, g) in enumerate(zip(self.params, gradients, strict=True)):
            full = x.to(wide(x.dtype))
            columns = constants.to(full.dtype).T.reshape(-1, len(self.rows), *[1] * (x.dim() - 1))
            state = [column[k] for column in self.state]
            moved, *after = self.split.on_tensors(full, g.to(full.dtype), *state, *columns)
            for column, value in zip(self.state, after, strict=True):
                column[k] = own(value, full, g)
            x.copy_(moved)
