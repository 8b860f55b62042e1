"""Stacked execution of a rule: one row of every stacked tensor per model, with its own hyperparameters."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradprix.rules import Rule
from gradprix.utils.devices import placed

from ._compile import compile_kernel
from ._eager import init_state
from ._hoisting import hoist_scalars
from ._launch import STORAGE_DTYPES, KernelCall, SequenceCall, compute_dtype
from ._passes import TensorPasses, number_table
from ._stacked_evaluation import evaluation_points


class StackedRule:
    """Rule applied to the rows of stacked tensors: numeric hyperparameters differ by row, options are shared.

    On the CPU, a step is a call of a compiled kernel. On other devices, the rule is applied to the concatenated
    parameters, or to each parameter if it has reductions. Results are bitwise row-invariant: the scalars of each row
    are computed separately, in float64, and all other operations are elementwise, or sums of `sum_in_blocks`.

    Args:
        rule: the rule.
        rows: all hyperparameters of each row.
        params: parameters, `[stack, ...]` each, contiguous and of one dtype, updated in place.
        first: index in the stack of the first row.
        compiled: use `torch.compile` if there is no kernel.
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
        self.split = hoist_scalars(rule, rows[0])
        self.rows = [SimpleNamespace(**row) for row in rows]
        self.rates = [row["lr"] for row in rows]
        self.numbers: list[tuple[float, ...]] = []
        self.state: list[list[Tensor]] = []  # per array of the kernel, after parameters and gradients
        self._gradients: list[int] | None = None  # addresses of gradients that all rows share
        self.dtype, self.device = self.params[0].dtype, self.params[0].device
        fused = self.dtype in STORAGE_DTYPES and self.device.type == "cpu"
        self.kernel = compile_kernel(self.split, STORAGE_DTYPES[self.dtype]) if fused else None
        self.trained: list[Tensor] = []  # the training point while the parameters hold the evaluation point
        self.passes: TensorPasses | None = None  # without a kernel, from the first step on
        self.compiled = compiled
        self.table = torch.empty(0, 0, 0)  # numbers of each tensor in float64, `[rows, tensors, columns]`
        # Without reductions, nothing on the device computes with numbers in float64; `mps` has no float64.
        is_on_device = self.split.columns and self.device.type != "mps"
        self.number_device = self.device if is_on_device else torch.device("cpu")

    def step(self, gradients: Sequence[Tensor], factor: float = 1.0) -> None:
        """Perform one optimizer step of every row.

        Args:
            gradients: contiguous gradients, of the shapes of the parameters.
            factor: learning-rate multiplier of the schedule.
        """
        if self.t == 0:
            for h, rate in zip(self.rows, self.rates, strict=True):
                h.lr = rate * factor  # state that begins at the learning rate begins at that of the first step
            self._start(gradients)
        constants = self._next_constants(factor)
        if self.kernel is None:
            numbers = torch.from_numpy(np.array(constants, dtype=np.float64).reshape(len(self.rows), -1))
            self._step_eagerly(gradients, placed(numbers, self.number_device))
        else:
            self.kernel_call.constants[:] = constants
            self.kernel_call.pointers[:, 1], self._gradients = self._addresses(gradients, self.offsets), None
            self.kernel_call.run(self.kernel)

    def prepare_step(self, addresses: list[int], factor: float = 1.0) -> None:
        """Prepare a step that runs row by row.

        All rows use the same memory for their gradients, one after the other. This requires that the rule has a kernel
        and that `step` has been called.

        Args:
            addresses: addresses of the gradients of one row, in the order of the parameters.
            factor: learning-rate multiplier of the schedule.
        """
        self.kernel_call.constants[:] = self._next_constants(factor)
        if addresses != self._gradients:
            self.kernel_call.pointers[:, 1] = np.tile(np.array(addresses, dtype=np.int64), len(self.rows))
            self._gradients = addresses

    def calls_by_row(self) -> NDArray[np.int64]:
        """Return the kernel calls that update each row after `prepare_step`, `[rows, calls, 4]`; see `run_calls`."""
        assert self.kernel is not None
        return self.kernel_call.calls_by_row(self.kernel)

    def _next_constants(self, factor: float) -> list[tuple[float, ...]]:
        """Advance the scalar state by a step and return the constants of each row."""
        self.t += 1
        constants = []
        for i, (h, rate) in enumerate(zip(self.rows, self.rates, strict=True)):
            h.lr = rate * factor
            row, self.numbers[i] = self.split.scalars(h, self.t, *self.numbers[i])
            constants.append(row)
        return constants

    def select_rows(self, index: Tensor, params: Sequence[Tensor], first: int = 0) -> None:
        """Keep only the rows at `index`; they are now in `params`, from row `first` on."""
        chosen = index.tolist()
        self.params, self.first = list(params), first
        self.rows, self.rates, self.numbers = (
            [values[i] for i in chosen] for values in (self.rows, self.rates, self.numbers)
        )
        self.state = [[tensor[index] for tensor in column] for column in self.state]
        self.table = self.table[chosen]
        self._prepare_kernel_call()

    def split_off(self, k: int) -> list["StackedRule"]:
        """Remove the k-th parameter, and return a rule for it in each row, with the state that it has here."""
        others, sizes = [i for i in range(len(self.params)) if i != k], self._sizes()
        columns = [torch.split(c[0], sizes, dim=1) if self.is_concatenated else c for c in self.state]
        removed = []
        for row, (h, rate) in enumerate(zip(self.rows, self.rates, strict=True)):
            values = [{**vars(h), "lr": rate}]
            one = StackedRule(self.rule, values, [self.params[k]], self.first + row, self.compiled)
            if self.t:
                one.t, one.numbers = self.t, [self.numbers[row]]
                one.state = [[column[k][row : row + 1].clone()] for column in columns]
                one.table = self.table[row : row + 1, k : k + 1].clone()
                one._prepare_kernel_call()
            removed.append(one)
        self.params = [self.params[i] for i in others]
        if self.t and others:
            remaining = [[column[i] for i in others] for column in columns]
            self.state = [[torch.cat(x, dim=1)] for x in remaining] if self.is_concatenated else remaining
            self.table = self.table[:, others]
            self._prepare_kernel_call()
        return removed

    def row_state(self, row: int, k: int) -> dict[str, Any]:
        """Return the optimizer state of the k-th parameter in a row, by name."""
        # In bfloat16, an array of rounding errors follows the state.
        columns = dict(zip(self.split.tensors, self.state, strict=False))
        tensors = {name: self._row_of(column, row, k) for name, column in columns.items()}
        held = {name: float(self.table[row, k, self._column(name)]) for name in self.split.held}
        return {**dict(zip(self.split.numbers, self.numbers[row], strict=True)), **held, **tensors}

    def compensation(self, row: int, k: int) -> Tensor | None:
        """Return the rounding errors of the k-th parameter in a row; None unless the parameters are in bfloat16."""
        return self._row_of(self.state[-1], row, k) if self.dtype is torch.bfloat16 else None

    def eval(self) -> None:
        """Set the parameters to the point at which the rule evaluates the model, until `train` is called."""
        if self.rule.evaluate is not None and self.t and not self.trained:
            # The training point is kept: computing it back from the evaluation point would change it by rounding.
            self.trained = [self._own_rows(x).clone() for x in self.params]
            self._set_params(evaluation_points(self))

    def train(self) -> None:
        """Restore the training point, which `eval` has stored."""
        self._set_params(self.trained)
        self.trained = []

    def _set_params(self, values: Sequence[Tensor]) -> None:
        for x, value in zip(self.params, values, strict=False):
            self._own_rows(x).copy_(value)

    @property
    def is_concatenated(self) -> bool:
        """True if the parameters of a row are stepped as one tensor."""
        return self.kernel is None and not self.split.columns

    def _row_of(self, column: Sequence[Tensor], row: int, k: int) -> Tensor:
        """Return the state of the k-th parameter in a row, given one array of the state."""
        own = torch.split(column[0][row], self._sizes())[k] if self.is_concatenated else column[k][row]
        return own.view(self.params[k].shape[1:])

    def _column(self, name: str) -> int:
        """Return the column of a scalar state in the table of numbers."""
        return self.split.columns.index(self.split.held[name][0])

    def _sizes(self) -> list[int]:
        """Return the number of elements per row of each parameter."""
        return [x[0].numel() for x in self.params]

    def _own_rows(self, x: Tensor) -> Tensor:
        """Return the rows of a stacked tensor that this rule updates."""
        return x[self.first : self.first + len(self.rows)]

    def _start(self, gradients: Sequence[Tensor]) -> None:
        """Initialize the state before the first step."""

        def before(name: str, x: Tensor, g: Tensor) -> list[Any]:
            spec = self.rule.state[name]
            return [
                init_state(spec, vars(h), a, b)
                for h, a, b in zip(self.rows, x.to(compute_dtype(x.dtype)), g, strict=True)
            ]

        pairs = [(self._own_rows(x), self._own_rows(g)) for x, g in zip(self.params, gradients, strict=True)]
        if self.is_concatenated:
            pairs = [(self._concatenate(self.params), self._concatenate(gradients))]
        self.numbers = list(zip(*(before(name, *pairs[0]) for name in self.split.numbers), strict=True))
        self.numbers = self.numbers or [()] * len(self.rows)
        self.state = [[torch.stack(before(name, x, g)) for x, g in pairs] for name in self.split.tensors]
        if self.dtype is torch.bfloat16:
            self.state.append([torch.zeros_like(x) for x, _ in pairs])
        table = torch.from_numpy(number_table(self.split, self._sizes(), [0] * len(self.params)))
        table = table.repeat(len(self.rows), 1, 1)
        for name in self.split.held:
            table[..., self._column(name)] = torch.tensor(before(name, *pairs[0]), dtype=table.dtype)[:, None]
        self.table = placed(table, self.number_device)
        self._prepare_kernel_call()

    def _prepare_kernel_call(self) -> None:
        """Prepare the kernel call, in which each row of each parameter is a separate tensor."""
        if self.kernel is None:
            return
        count, sizes = len(self.rows), self._sizes()
        self.offsets = self._offsets(self.params, self.first)
        arrays = [self._addresses(self.params, self.offsets)] * 2  # gradient addresses are replaced at each step
        arrays += [self._addresses(column, self._offsets(column, 0)) for column in self.state]
        constants = np.empty((count, len(self.split.constants)))
        rows = [row for row in range(count) for _ in sizes]
        shared = sizes * count, rows, np.stack(arrays, axis=1), constants
        self.kernel_call, self._gradients = KernelCall(*shared), None
        if self.split.columns:
            call = self.kernel_call = SequenceCall(self.split, *shared, rows)
            call.numbers[:] = self.table.reshape(call.numbers.shape).numpy()
            self.table = torch.from_numpy(call.numbers).view(self.table.shape)

    def _offsets(self, tensors: Sequence[Tensor], first: int) -> NDArray[np.int64]:
        """Return the offset of each row of each tensor in bytes, `[tensors, rows]`."""
        sizes = np.array([x[0].numel() * x.element_size() for x in tensors], dtype=np.int64)
        return sizes[:, None] * np.arange(first, first + len(self.rows))

    def _addresses(self, tensors: Sequence[Tensor], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the address of each row of each tensor, as a flat array in which the tensors of a row are adjacent."""
        starts = np.array([x.data_ptr() for x in tensors], dtype=np.int64)
        return (starts[:, None] + offsets).T.ravel()

    def _concatenate(self, tensors: Sequence[Tensor]) -> Tensor:
        """Concatenate the rows that this rule updates to `[rows, elements]`.

        On a GPU, separate operations on small tensors would take mostly launch overhead.
        """
        return torch.cat([self._own_rows(x).reshape(len(self.rows), x[0].numel()) for x in tensors], dim=1)

    def _step_eagerly(self, gradients: Sequence[Tensor], constants: Tensor) -> None:
        """Perform a step in operations of torch; `constants` is `[rows, constants]`."""
        kind, half = compute_dtype(self.dtype), self.dtype is torch.bfloat16
        inputs = []
        for i, (x, g) in enumerate(zip(self._blocks(self.params), self._blocks(gradients), strict=True)):
            state = [column[i].flatten(1) for column in self.state]
            x = x.to(kind)
            if half:  # a residual above half an ulp is stale, as in a kernel
                low = state.pop().to(kind)
                x = torch.where(low.abs() <= x.abs() * 2**-8, x + low, x)
            inputs.append([x, g.to(kind), *state])
        self.passes = self.passes or TensorPasses(self.split, self.compiled)
        outputs = self.passes.run(inputs, constants, self.table)
        if half:
            outputs = [[x, *state, (x - x.to(self.dtype).to(kind)).to(self.dtype)] for x, *state in outputs]
        self.state = [list(column) for column in zip(*(state for _, *state in outputs), strict=True)]
        updated = torch.cat([x for x, *_ in outputs], dim=1)
        for own, part in zip(map(self._own_rows, self.params), torch.split(updated, self._sizes(), dim=1), strict=True):
            own.copy_(part.view(own.shape))

    def _blocks(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors that are stepped together as `[rows, elements]`: all, or each for reductions."""
        if self.is_concatenated:
            return [self._concatenate(tensors)]
        return [self._own_rows(x).reshape(len(self.rows), -1) for x in tensors]
