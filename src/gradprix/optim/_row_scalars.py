"""Step counts and scalar state of parameters that are stepped together, and the constants that follow from them."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradprix.kernels import SplitRule, compute_dtype, init_state
from gradprix.rules import Rule

from ._eager_step import scalar_dtype, steps_taken
from ._overlap import local
from ._scalars import DeviceScalars, Scalars, zeros

Values = Mapping[str, Any]
Members = Sequence[tuple[Tensor, int]]


class RowScalars:
    """Step counts and scalar state of parameters with the same rule and options, in the memory of the CPU.

    Parameters of one group with equal step counts and scalar state form a *row*. They have the same constants, which
    are computed once per step, in float64.

    Args:
        rule: rule of the parameters.
        split_rule: the rule, split under the options.
        params: parameters, each with the index of its group.
        states: state of each parameter; missing scalars are added.
        values: hyperparameters of each group.
        count_dtype: dtype of new step counts.

    Attributes:
        columns: for each state key of a scalar, the tensors of all parameters.
        row_indices: row of each parameter.
        row_count: number of rows.
        held: scalar state that kernels update, by name.
    """

    columns_class: ClassVar[type[Scalars] | type[DeviceScalars]] = Scalars

    def __init__(
        self,
        rule: Rule,
        split_rule: SplitRule,
        params: Members,
        states: Sequence[dict[str, Any]],
        values: Sequence[Values],
        count_dtype: torch.dtype,
    ) -> None:
        self.rule, self.split, self.count_dtype = rule, split_rule, count_dtype
        self.dtype = compute_dtype(params[0][0].dtype)
        taken = [steps_taken(rule, state) for state in states]
        held = {name: rule.state[name].key for name in split_rule.held if not rule.state[name].shared}
        numbers = [rule.state[name].key for name in split_rule.numbers]
        keys = [*(["step"] if rule.counts_steps else []), *numbers, *held.values()]
        self.columns = {key: self._prepare(key, params, states, taken, values) for key in keys}
        scalars = {key: self.columns_class(column) for key, column in self.columns.items()}
        self.steps = scalars.pop("step", None)
        self.held = {name: scalars.pop(key) for name, key in held.items()}
        self.numbers = list(scalars.values())
        taken = taken if self.steps is None else self.steps.known.astype(int).tolist()
        # The dtype belongs to a row's key, since equal values of different dtypes are rounded differently later.
        facts = [a.tolist() for column in self.numbers for a in (column.known, column.narrow)]
        rows: dict[tuple[Any, ...], int] = {}
        keyed = [(group, t, *numbers) for (_, group), t, *numbers in zip(params, taken, *facts, strict=True)]
        self.row_indices = [rows.setdefault(key, len(rows)) for key in keyed]
        self.row_count = len(rows)
        self.first_indices = [self.row_indices.index(row) for row in range(len(rows))]
        # For each row: group, number of steps taken, and scalar state.
        self.row_states = [(group, t, tuple(numbers[::2])) for group, t, *numbers in rows]

    def _prepare(
        self,
        key: str,
        params: Members,
        states: Sequence[dict[str, Any]],
        taken: Sequence[int],
        values: Sequence[Values],
    ) -> list[Tensor]:
        """Return the scalar under `key` of each parameter; missing values are initialized."""
        missing = [i for i, state in enumerate(states) if not isinstance(state.get(key), Tensor)]
        spec = next((spec for spec in self.rule.state.values() if spec.key == key), None)
        dtype = scalar_dtype(self.rule, params[0][0], self.count_dtype) if spec else self.count_dtype
        for i, tensor in zip(missing, zeros(len(missing), dtype), strict=True):
            x, group = params[i]
            first = float(init_state(spec, values[group], x, x)) if spec else taken[i]
            given = states[i].get(key) if spec else None
            states[i][key] = tensor.fill_(first if given is None else float(given))
        return [state[key] for state in states]

    def is_unchanged(self) -> bool:
        """Return True if the tensors still hold the values that `advance` has written."""
        return (self.steps is None or self.steps.is_unchanged()) and all(
            column.is_unchanged() for column in (*self.numbers, *self.held.values())
        )

    def advance(self, values: Sequence[Values]) -> list[tuple[Any, ...]]:
        """Count a step, update the scalar state, and return the constants of each row.

        Args:
            values: hyperparameters of each group.
        """
        if self.steps:
            self.steps.increment()  # before the step, since other processes may share the step counts
        rows = []
        for i, (group, t, numbers) in enumerate(self.row_states):
            constants, after = self.split.scalars(SimpleNamespace(**values[group]), t + 1, *numbers)
            rows.append(constants)
            self.row_states[i] = (group, t + 1 if self.steps else 1, after)
        for k, column in enumerate(self.numbers):
            column.write([self.row_states[row][2][k] for row in self.row_indices])
        if self.numbers:
            stored = [[column.known[i] for column in self.numbers] for i in self.first_indices]
            self.row_states = [
                (group, t, tuple(map(float, n))) for (group, t, _), n in zip(self.row_states, stored, strict=True)
            ]
        return rows


class DeviceRowScalars(RowScalars):
    """Step counts and scalar state on the device of the parameters, where constants are computed without waiting.

    A step can therefore be captured, for example in a CUDA graph, and repeated with the step counts of that time.
    Scalar state that is elsewhere is moved to the device.
    """

    columns_class = DeviceScalars

    def _prepare(
        self,
        key: str,
        params: Members,
        states: Sequence[dict[str, Any]],
        taken: Sequence[int],
        values: Sequence[Values],
    ) -> list[Tensor]:
        super()._prepare(key, params, states, taken, values)
        for state, (x, _) in zip(states, params, strict=True):
            state[key] = state[key].to(local(x).device)
        return [state[key] for state in states]

    def advance(self, values: Sequence[Values]) -> list[tuple[Any, ...]]:
        """Count a step, update the scalar state, and return the constants of each row as tensors on the device.

        Args:
            values: hyperparameters of each group, numbers or tensors on the device.
        """
        if self.steps:
            self.steps.increment()
        rows, after = [], []
        for i, (group, taken, _) in enumerate(self.row_states):
            first = self.first_indices[i]
            h = {name: v.double() if isinstance(v, Tensor) else v for name, v in values[group].items()}
            t = self.steps.tensors[first].double().reshape(()) if self.steps else taken + 1
            numbers = [column.tensors[first].double().reshape(()) for column in self.numbers]
            constants, own = self.split.scalars(SimpleNamespace(**h), t, *numbers)
            rows.append(self._in_compute_dtype(constants))
            after.append(own)
            self.row_states[i] = (group, 1, ())
        for k, column in enumerate(self.numbers):
            column.write([after[row][k] for row in self.row_indices])
        return rows

    def _in_compute_dtype(self, constants: Sequence[Any]) -> tuple[Any, ...]:
        """Round constants that are tensors to the dtype of computation; conditions and numbers are left as they are."""
        tensors = [c for c in constants if isinstance(c, Tensor) and c.dtype is torch.float64]
        rounded = iter(torch.stack(tensors).to(self.dtype).unbind() if tensors else ())
        is_rounded = (isinstance(c, Tensor) and c.dtype is torch.float64 for c in constants)
        return tuple(next(rounded) if r else c for r, c in zip(is_rounded, constants, strict=True))
