"""Batches of parameters that a single kernel call steps."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradprix.kernels import STORAGE_DTYPES, Kernel, KernelCall, SplitRule, compute_dtype, init_state
from gradprix.rules import Rule

from ._eager_step import COMPENSATION, scalar_dtype, steps_taken
from ._overlap import WrittenMemory
from ._scalars import Scalars, is_number, zeros

Values = Mapping[str, Any]
GRADIENT, SIZE = attrgetter("grad"), attrgetter("nbytes")  # no gradient of another dtype has the same size in torch
PLAIN_TYPES = {nn.Parameter, Tensor}


def fits_kernel(rule: Rule, values: Values, x: Tensor, state: Mapping[str, Any]) -> bool:
    """Return True if a compiled kernel can step a parameter.

    The parameter, its gradient and its state must be plain, dense, contiguous CPU tensors of supported dtypes, and the
    parameter must not be empty.
    """
    return (
        _is_plain(x, x.dtype)
        and x.dtype in STORAGE_DTYPES
        and x.numel() > 0
        and _is_usable_gradient(x.grad, x)
        and all(_is_usable_state(state.get(spec.key), spec.kind, x) for spec in rule.active_state(values).values())
        and (not isinstance(state.get("step"), Tensor) or is_number(state["step"]))
    )


def _is_plain(tensor: Tensor, dtype: torch.dtype) -> bool:
    return (
        type(tensor) in PLAIN_TYPES
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and tensor.dtype is dtype
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and not tensor.is_inference()
    )


def _is_usable_gradient(g: Tensor | None, x: Tensor) -> bool:
    return (
        g is not None
        and type(g) in PLAIN_TYPES
        and g.layout is torch.strided
        and g.dtype is x.dtype
        and g.shape == x.shape
        and g.is_contiguous()
        and not g.is_neg()
        and g.data_ptr() != 0  # torch's zero tensors without memory have the address 0
    )


def _is_usable_state(value: Any, kind: str, x: Tensor) -> bool:
    if not isinstance(value, Tensor):
        return True  # a missing state is initialized later
    return is_number(value) if kind == "scalar" else _is_plain(value, compute_dtype(x.dtype))


class ParameterBatch:
    """Parameters with the same rule, options and dtype, and their state, which one kernel call steps together.

    The addresses of gradients are read before each step and are valid only during that step; those of parameters and
    state must not change (see `is_valid`). The division of the elements into chunks is made once.

    Args:
        rule: the rule.
        split_rule: the rule, split under the options.
        kernel: kernel compiled from `split_rule` for the dtype.
        params: parameters, each with the index of its group.
        state: state of the optimizer; missing entries are added.
        values: hyperparameters of each group.
        count_dtype: dtype of new step counts.
    """

    def __init__(
        self,
        rule: Rule,
        split_rule: SplitRule,
        kernel: Kernel,
        params: Sequence[tuple[Tensor, int]],
        state: Any,
        values: Sequence[Values],
        count_dtype: torch.dtype,
    ) -> None:
        self.count_dtype = count_dtype
        self.rule, self.split, self.kernel = rule, split_rule, kernel
        self.params = [x for x, _ in params]
        self.dtype = self.params[0].dtype
        self.states = [state[x] for x in self.params]
        taken = [steps_taken(rule, h) for h in self.states]
        keys = [*(["step"] if rule.counts_steps else []), *(rule.state[n].key for n in split_rule.numbers)]
        columns = [self._numbers(key, params, taken, values) for key in keys]
        names = [rule.state[name].key for name in split_rule.tensors]
        arrays = [self._element_state(name, params, values) for name in split_rule.tensors]
        if self.dtype is torch.bfloat16:
            names, arrays = [*names, COMPENSATION], [*arrays, self._compensation()]
        else:
            _ = [h.pop(COMPENSATION, None) for h in self.states]
        self.sizes = list(map(SIZE, self.params))
        self.lengths = np.array(self.sizes)
        # A gradient may have a pending negation (the imaginary part of a conjugate). Such a tensor is contiguous only
        # if it has one element, so only gradients of single elements are checked for it.
        self.single = [x for x in self.params if x.numel() == 1]
        rows = [list(map(Tensor.data_ptr, column)) for column in (self.params, *arrays)]
        pointers = np.ascontiguousarray(np.insert(np.array(rows, dtype=np.int64), 1, 0, axis=0).T)
        self._group_rows(params, taken, keys, columns)
        cells = [(h, name) for name in (*names, *keys) for h in self.states]
        self.cells = tuple(zip(*cells, strict=True)) or ((), ())
        self.tensors = [t for column in (*arrays, *columns) for t in column]  # referenced: keeps addresses valid
        self.addresses = list(map(Tensor.data_ptr, [*self.params, *self.tensors]))
        constants = np.empty((len(self.row_states), len(split_rule.constants)))
        self.kernel_call = KernelCall(list(map(Tensor.numel, self.params)), self.row_indices, pointers, constants)
        self._set_gradients(list(map(GRADIENT, self.params)))
        self.checked_starts = self.kernel_call.pointers[:, 1].tobytes()

    def _element_state(self, name: str, params: Any, values: Sequence[Values]) -> list[Tensor]:
        spec = self.rule.state[name]
        for (x, group), h in zip(params, self.states, strict=True):
            if not isinstance(h.get(spec.key), Tensor):
                like = x.to(compute_dtype(x.dtype)) if compute_dtype(x.dtype) is not x.dtype else x
                h[spec.key] = init_state(spec, values[group], like, x.grad)
        return [h[spec.key] for h in self.states]

    def _compensation(self) -> list[Tensor]:
        for x, h in zip(self.params, self.states, strict=True):
            low = h.get(COMPENSATION)
            fits = low is not None and low.dtype is x.dtype and low.shape == x.shape
            h[COMPENSATION] = low.contiguous() if fits else torch.zeros_like(x, memory_format=torch.contiguous_format)
        return [h[COMPENSATION] for h in self.states]

    def _numbers(self, key: str, params: Any, taken: list[int], values: Sequence[Values]) -> list[Tensor]:
        """Return the scalar state under `key` of each parameter; missing values are initialized."""
        missing = [i for i, h in enumerate(self.states) if not isinstance(h.get(key), Tensor)]
        spec = next((spec for spec in self.rule.state.values() if spec.key == key), None)
        dtype = scalar_dtype(self.rule, self.params[0], self.count_dtype) if spec else self.count_dtype
        for i, tensor in zip(missing, zeros(len(missing), dtype), strict=True):
            x, group = params[i]
            first = float(init_state(spec, values[group], x, x)) if spec else taken[i]
            given = self.states[i].get(key) if spec else None
            self.states[i][key] = tensor.fill_(first if given is None else float(given))
        return [h[key] for h in self.states]

    def _group_rows(self, params: Any, taken: list[int], keys: list[str], columns: list[list[Tensor]]) -> None:
        """Assign one row of constants to all parameters of a group that have equal step counts and scalar state."""
        scalars = dict(zip(keys, map(Scalars, columns), strict=True))
        self.steps = scalars.pop("step", None)
        self.numbers = list(scalars.values())
        taken = taken if self.steps is None else self.steps.known.astype(int).tolist()
        # The dtype belongs to a row's key, since equal values of different dtypes are rounded differently later.
        facts = [a.tolist() for column in self.numbers for a in (column.known, column.narrow)]
        rows: dict[tuple[Any, ...], int] = {}
        keyed = [(group, t, *numbers) for (_, group), t, *numbers in zip(params, taken, *facts, strict=True)]
        self.row_indices = [rows.setdefault(key, len(rows)) for key in keyed]
        self.first_indices = [self.row_indices.index(row) for row in range(len(rows))]
        # For each row: group, number of steps taken, and scalar state.
        self.row_states = [(group, t, tuple(numbers[::2])) for group, t, *numbers in rows]

    def is_valid(self, written: WrittenMemory) -> bool:
        """Return True if the batch can be stepped again: parameters and state are at the same addresses, unmodified.

        Gradients may have been replaced by tensors of the same kind; their addresses are updated here.

        Args:
            written: memory written by the step, which gradients must not overlap.
        """
        gradients: list[Any] = list(map(GRADIENT, self.params))
        try:
            plain = (
                set(map(type, gradients)) <= PLAIN_TYPES
                and all(map(Tensor.is_contiguous, gradients))
                and list(map(SIZE, gradients)) == self.sizes
                and not any(x.grad.is_neg() for x in self.single)  # type: ignore[union-attr]
            )
            self._set_gradients(gradients)
            tensors: list[Any] = [*self.params, *map(dict.get, *self.cells)]
            there = list(map(Tensor.data_ptr, tensors)) == self.addresses
        except (TypeError, RuntimeError):  # a tensor is missing, or has a layout without strides
            return False
        return (
            plain
            and there
            and bool(self.kernel_call.pointers.all())
            and self._gradients_are_separate(written)
            and (self.steps is None or self.steps.is_unchanged())
            and all(column.is_unchanged() for column in self.numbers)
        )

    def _gradients_are_separate(self, written: WrittenMemory) -> bool:
        starts = self.kernel_call.pointers[:, 1]
        if starts.tobytes() != self.checked_starts:
            if written.meets(starts, starts + self.lengths):
                return False
            self.checked_starts = starts.tobytes()
        return True

    def _set_gradients(self, gradients: list[Tensor]) -> None:
        self.gradients = gradients  # referenced while their addresses are in use
        self.kernel_call.pointers[:, 1] = np.fromiter(map(Tensor.data_ptr, gradients), np.int64, len(gradients))

    def step(self, values: Sequence[Values]) -> None:
        """Step every parameter once, with the gradients that `is_valid` has checked."""
        if self.steps:
            self.steps.increment()  # before the kernel call, since other processes may share the step counts
        for i, (group, t, numbers) in enumerate(self.row_states):
            constants, after = self.split.scalars(SimpleNamespace(**values[group]), t + 1, *numbers)
            self.kernel_call.constants[i] = constants
            self.row_states[i] = (group, t + 1 if self.steps else 1, after)
        self.kernel_call.run(self.kernel)
        self.gradients = []
        torch.autograd.graph.increment_version(self.params)
        for k, column in enumerate(self.numbers):
            column.write([self.row_states[row][2][k] for row in self.row_indices])
        if self.numbers:
            stored = [[column.known[i] for column in self.numbers] for i in self.first_indices]
            self.row_states = [
                (group, t, tuple(map(float, n))) for (group, t, _), n in zip(self.row_states, stored, strict=True)
            ]
