"""Batches of parameters that a single kernel call steps."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradprix.kernels import STORAGE_DTYPES, Kernel, KernelCall, KernelSequence, compute_dtype
from gradprix.rules import Rule

from ._batch import GRADIENT, PLAIN_TYPES, Batch, Values
from ._overlap import WrittenMemory
from ._scalars import is_number

SIZE = attrgetter("nbytes")  # no gradient of another dtype has the same size in torch


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
        and all(
            spec.shared or _is_usable_state(state.get(spec.key), spec.kind, x)
            for spec in rule.active_state(values).values()
        )
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


class KernelBatch(Batch):
    """Parameters with the same rule, options and dtype, and their state, which one kernel call steps together.

    The addresses of gradients are read before each step and are valid only during that step; those of parameters and
    state must not change (see `is_valid`). The division of the elements into chunks is made once.

    Args:
        kernel: kernel compiled from `split_rule` for the dtype.
        *args: arguments of `Batch`.
    """

    def __init__(self, kernel: Kernel | KernelSequence, *args: Any) -> None:
        super().__init__(*args)
        self.kernel = kernel
        self.sizes = list(map(SIZE, self.params))
        self.lengths = np.array(self.sizes)
        # A gradient may have a pending negation (the imaginary part of a conjugate). Such a tensor is contiguous only
        # if it has one element, so only gradients of single elements are checked for it.
        self.single = [x for x in self.params if x.numel() == 1]
        rows = [list(map(Tensor.data_ptr, column)) for column in (self.params, *self.arrays.values())]
        pointers = np.ascontiguousarray(np.insert(np.array(rows, dtype=np.int64), 1, 0, axis=0).T)
        self.addresses = list(map(Tensor.data_ptr, [*self.params, *self.tensors]))
        constants = np.empty((self.scalars.row_count, len(self.split.constants)))
        numels = list(map(Tensor.numel, self.params))
        self.kernel_call = self._make_call(numels, pointers, constants, self.group_indices)
        self._set_gradients(list(map(GRADIENT, self.params)))
        self.checked_starts = self.kernel_call.pointers[:, 1].tobytes()

    def _make_call(self, sizes: list[int], pointers: Any, constants: Any, groups: list[int]) -> KernelCall:
        return KernelCall(sizes, self.scalars.row_indices, pointers, constants)

    def is_valid(self, written: WrittenMemory) -> bool:
        # Gradients may have been replaced by tensors of the same kind; their addresses are updated here.
        gradients: list[Any] = list(map(GRADIENT, self.params))
        try:
            plain = (
                set(map(type, gradients)) <= PLAIN_TYPES
                and all(map(Tensor.is_contiguous, gradients))
                and all(map(Tensor.is_contiguous, self.params))  # not after `x.data = x.data.T`, at the same address
                and list(map(SIZE, gradients)) == self.sizes
                and not any(x.grad.is_neg() for x in self.single)  # type: ignore[union-attr]
            )
            self._set_gradients(gradients)
            tensors: list[Any] = [*self.params, *self.current_tensors()]
            there = list(map(Tensor.data_ptr, tensors)) == self.addresses
        except (TypeError, RuntimeError):  # a tensor is missing, or has a layout without strides
            return False
        return (
            plain
            and there
            and bool(self.kernel_call.pointers.all())
            and self._gradients_are_separate(written)
            and self.scalars.is_unchanged()
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
        for i, constants in enumerate(self.scalars.advance(values)):
            self.kernel_call.constants[i] = constants
        self.kernel_call.run(self.kernel)
        self.gradients = []
        torch.autograd.graph.increment_version(self.params)
