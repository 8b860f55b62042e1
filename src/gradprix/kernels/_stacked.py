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
        params: the parameters, `[stack, ...]` each, contiguous and of one dtype, stepped in place.
        first: where in the stack its rows begin.
    """

    def __init__(self, rule: Rule, rows: Sequence[Mapping[str, Any]], params: Sequence[Tensor], first: int = 0) -> None:
        self.rule, self.params, self.first, self.t = rule, list(params), first, 0
        self.split = split(rule, rows[0])
        self.rows = [SimpleNamespace(**row) for row in rows]
        self.rates = [row["lr"] for row in rows]
        self.numbers: list[tuple[float, ...]] = []
        self.state: list[list[Tensor]] = []  # of each array that a kernel takes, after parameters and gradients
        self.dtype = self.params[0].dtype
        self.kernel = kernel(self.split, STORED[self.dtype]) if self.dtype in STORED else None

    def step(self, gradients: Sequence[Tensor], factor: float = 1.0) -> None:
        """Step every row once, with its learning rate times `factor`.

        Args:
            gradients: of the parameters' shapes, contiguous.
            factor: what the schedule makes of the learning rates.
        """
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
            self.work.pointers[:, 1] = self._addresses(gradients, self.offsets)
            self.work.run(self.kernel)

    def keep(self, index: Tensor, params: Sequence[Tensor], first: int = 0) -> None:
        """Go on with some of the rows alone, which now begin there in these parameters."""
        chosen = index.tolist()
        self.params, self.first = list(params), first
        self.rows, self.rates, self.numbers = (
            [values[i] for i in chosen] for values in (self.rows, self.rates, self.numbers)
        )
        self.state = [[tensor[index] for tensor in column] for column in self.state]
        self._lay_out()

    def _own(self, x: Tensor) -> Tensor:
        """Its own rows."""
        return x[self.first : self.first + len(self.rows)]

    def _start(self, gradients: Sequence[Tensor]) -> None:
        def before(name: str, x: Tensor, g: Tensor) -> list[Any]:
            spec = self.rule.state[name]
            return [start(spec, vars(h), a, b) for h, a, b in zip(self.rows, x.to(wide(x.dtype)), g, strict=True)]

        pairs = [(self._own(x), self._own(g)) for x, g in zip(self.params, gradients, strict=True)]
        self.numbers = list(zip(*(before(name, *pairs[0]) for name in self.split.numbers), strict=True))
        self.numbers = self.numbers or [()] * len(self.rows)
        self.state = [[torch.stack(before(name, x, g)) for x, g in pairs] for name in self.split.tensors]
        if self.kernel is not None and self.dtype is torch.bfloat16:
            self.state.append([torch.zeros_like(x) for x, _ in pairs])
        self._lay_out()

    def _lay_out(self) -> None:
        """Make the table of a kernel's work, in which each row of each parameter is a tensor of its own."""
        count = len(self.rows)
        sizes = [x[0].numel() for x in self.params]
        self.offsets = self._offsets(self.params, self.first)
        arrays = [self._addresses(self.params, self.offsets)] * 2  # gradients come anew each time
        arrays += [self._addresses(column, self._offsets(column, 0)) for column in self.state]
        constants = np.empty((count, len(self.split.constants)))
        every = [size for size in sizes for _ in range(count)]
        self.work = Work(every, [*range(count)] * len(sizes), np.stack(arrays, axis=1), constants)

    def _offsets(self, tensors: Sequence[Tensor], first: int) -> NDArray[np.int64]:
        """How far from its beginning each row of each tensor is, in bytes: `[tensors, rows]`."""
        sizes = np.array([x[0].numel() * x.element_size() for x in tensors], dtype=np.int64)
        return sizes[:, None] * np.arange(first, first + len(self.rows))

    def _addresses(self, tensors: Sequence[Tensor], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each row of each tensor is."""
        starts = np.array([x.data_ptr() for x in tensors], dtype=np.int64)
        return (starts[:, None] + offsets).ravel()

    def _step_eagerly(self, gradients: Sequence[Tensor], constants: Tensor) -> None:
        for k, (x, g) in enumerate(zip(map(self._own, self.params), map(self._own, gradients), strict=True)):
            full = x.to(wide(x.dtype))
            columns = constants.to(full.dtype).T.reshape(-1, len(self.rows), *[1] * (x.dim() - 1))
            state = [column[k] for column in self.state]
            moved, *after = self.split.on_tensors(full, g.to(full.dtype), *state, *columns)
            for column, value in zip(self.state, after, strict=True):
                column[k] = own(value, full, g)
            x.copy_(moved)
