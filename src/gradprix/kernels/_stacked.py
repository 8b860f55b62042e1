"""Many copies of a rule at once: one row of every stacked tensor for each network, with its own hyperparameters."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradprix.rules import Rule
from gradprix.utils.devices import placed

from ._compile import kernel
from ._eager import start
from ._hoisting import split
from ._launch import STORED, Work, wide


class Stacked:
    """A rule that steps the rows of stacked tensors, each with its own numbers and all with the same options.

    On the CPU it is a compiled kernel, elsewhere the rule itself, on all parameters put together in one tensor.
    A row's result does not depend on the other rows, to the bit: its scalars are computed alone, in float64,
    and the rest is element by element.

    Args:
        rule: the rule.
        rows: one mapping of all hyperparameters for each row.
        params: the parameters, `[stack, ...]` each, contiguous and of one dtype, stepped in place.
        first: where in the stack its rows begin.
        compiled: whether `torch.compile` makes one where there is no kernel.
    """

    def __init__(
        self,
        rule: Rule,
        rows: Sequence[Mapping[str, Any]],
        params: Sequence[Tensor],
        first: int = 0,
        compiled: bool = False,
    ) -> None:
        self.rule, self.params, self.first, self.t = rule, list(params), first, 0
        self.split = split(rule, rows[0])
        self.rows = [SimpleNamespace(**row) for row in rows]
        self.rates = [row["lr"] for row in rows]
        self.numbers: list[tuple[float, ...]] = []
        self.state: list[list[Tensor]] = []  # of each array that a kernel takes, after parameters and gradients
        self.dtype, self.device = self.params[0].dtype, self.params[0].device
        fused = self.dtype in STORED and self.device.type == "cpu"
        self.kernel = kernel(self.split, STORED[self.dtype]) if fused else None
        self.run = self.split.on_tensors
        if compiled and self.kernel is None:
            self.run = torch.compile(self.run, dynamic=True)

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

    def remembered(self, row: int, k: int) -> dict[str, Any]:
        """What it remembers of a row of the kth parameter, by the rule's own names."""
        shape, sizes = self.params[k].shape[1:], self._sizes()
        columns = dict(zip(self.split.tensors, self.state, strict=False))  # bfloat16 has one more
        if self.kernel is None:
            found = {name: torch.split(x[row], sizes)[k].view(shape) for name, (x,) in columns.items()}
        else:
            found = {name: column[k][row] for name, column in columns.items()}
        return {**dict(zip(self.split.numbers, self.numbers[row], strict=True)), **found}

    def _sizes(self) -> list[int]:
        """Elements in a row of each parameter."""
        return [x[0].numel() for x in self.params]

    def _own(self, x: Tensor) -> Tensor:
        """Its own rows."""
        return x[self.first : self.first + len(self.rows)]

    def _start(self, gradients: Sequence[Tensor]) -> None:
        def before(name: str, x: Tensor, g: Tensor) -> list[Any]:
            spec = self.rule.state[name]
            return [start(spec, vars(h), a, b) for h, a, b in zip(self.rows, x.to(wide(x.dtype)), g, strict=True)]

        pairs = [(self._own(x), self._own(g)) for x, g in zip(self.params, gradients, strict=True)]
        if self.kernel is None:
            pairs = [(self._together(self.params), self._together(gradients))]
        self.numbers = list(zip(*(before(name, *pairs[0]) for name in self.split.numbers), strict=True))
        self.numbers = self.numbers or [()] * len(self.rows)
        self.state = [[torch.stack(before(name, x, g)) for x, g in pairs] for name in self.split.tensors]
        if self.dtype is torch.bfloat16:
            self.state.append([torch.zeros_like(x) for x, _ in pairs])
        self._lay_out()

    def _lay_out(self) -> None:
        """Make the table of a kernel's work, in which each row of each parameter is a tensor of its own."""
        if self.kernel is None:
            return
        count, sizes = len(self.rows), self._sizes()
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

    def _together(self, tensors: Sequence[Tensor]) -> Tensor:
        """All of its own rows in one tensor, `[rows, elements]`: a GPU takes as long to begin as to do a small one."""
        return torch.cat([self._own(x).reshape(len(self.rows), x[0].numel()) for x in tensors], dim=1)

    def _step_eagerly(self, gradients: Sequence[Tensor], constants: Tensor) -> None:
        kind = wide(self.dtype)
        x, g = self._together(self.params).to(kind), self._together(gradients).to(kind)
        columns = placed(constants.to(kind), self.device).T.unsqueeze(-1)
        state, half = [column[0] for column in self.state], self.dtype is torch.bfloat16
        if half:  # what is more than half of the parameter's last digit is of another value, as in a kernel
            low = state.pop().to(kind)
            x = torch.where(low.abs() <= x.abs() * 2**-8, x + low, x)
        moved, *after = self.run(x, g, *state, *columns)
        if half:
            after.append((moved - moved.to(self.dtype).to(kind)).to(self.dtype))
        self.state = [[value] for value in after]
        for own, part in zip(map(self._own, self.params), moved.split(self._sizes(), dim=1), strict=True):
            own.copy_(part.view(own.shape))
