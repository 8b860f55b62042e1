"""Batches of parameters that foreach calls step, on any device."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradprix.kernels import ForeachCall, compute_dtype
from gradprix.rules import Rule

from ._batch import PLAIN_TYPES, Batch, Values
from ._eager_step import COMPENSATION
from ._overlap import WrittenMemory, extents, local
from ._row_scalars import DeviceRowScalars, RowScalars
from ._scalars import NUMERIC, is_number

DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
KIND = attrgetter("layout", "dtype", "device")


def fits_foreach(rule: Rule, values: Values, x: Tensor, state: Mapping[str, Any]) -> bool:
    """Return True if foreach calls can step a parameter.

    The parameter, its gradient and its state must be dense floating-point tensors on one device. They may be
    distributed, in which case all must be divided in the same way: the part of this process is stepped.
    """
    dtype, specs = compute_dtype(x.dtype), rule.active_state(values).values()
    elements = [state.get(spec.key) for spec in specs if spec.kind == "element"]
    try:
        return (
            x.dtype in DTYPES
            and not _has_partial_sums(x)
            and _is_usable(x, x, x.dtype)
            and _is_usable(x.grad, x, x.dtype)
            and all(_is_usable(tensor, x, dtype) for tensor in elements if isinstance(tensor, Tensor))
            and all(is_number(tensor) or _is_on_device(tensor, x) for tensor in _scalars(rule, values, state))
        )
    except RuntimeError:  # a tensor subclass without memory
        return False


def _is_usable(tensor: Any, x: Tensor, dtype: torch.dtype) -> bool:
    """Return True if a tensor can be stepped together with the parameter `x`."""
    part = local(tensor)
    return (
        type(part) in PLAIN_TYPES
        and KIND(part) == (torch.strided, dtype, local(x).device)
        and tensor.shape == x.shape
        and _distribution(tensor) == _distribution(x)
        and (part.numel() == 0 or part.data_ptr() != 0)  # zero tensors have no memory
        and not part.is_neg()
        and not part.is_inference()
    )


def _distribution(tensor: Any) -> Any:
    """Return how a distributed tensor is divided; None for other tensors."""
    return None if local(tensor) is tensor else (tensor.device_mesh, tensor.placements)


def _has_partial_sums(x: Tensor) -> bool:
    """Return True for a distributed tensor that is the sum of the parts of all processes."""
    distribution = _distribution(x)
    return distribution is not None and any(placement.is_partial() for placement in distribution[1])


def has_device_scalars(rule: Rule, values: Values, x: Tensor, state: Mapping[str, Any], capturable: bool) -> bool:
    """Return True if step count and scalar state of a parameter belong on its device.

    They do in a group with `capturable=True`, and if they are there, as in checkpoints of fused optimizers.
    """
    device_scalars = any(_is_on_device(tensor, x) for tensor in _scalars(rule, values, state))
    return device_scalars or (capturable and local(x).device.type != "mps")


def _scalars(rule: Rule, values: Values, state: Mapping[str, Any]) -> list[Tensor]:
    """Return the step count and the scalar state of a parameter, as far as they exist."""
    keys = ["step", *(spec.key for spec in rule.active_state(values).values() if spec.kind == "scalar")]
    return [state[key] for key in keys if isinstance(state.get(key), Tensor)]


def _is_on_device(tensor: Tensor, x: Tensor) -> bool:
    """Return True if a tensor is a scalar on the device of the parameter `x`, which is neither the CPU nor `mps`."""
    # `mps` has no float64, in which scalars are computed.
    return (
        tensor.device.type not in ("cpu", "mps")
        and tensor.device == local(x).device
        and tensor.numel() == 1
        and tensor.dtype in NUMERIC
    )


class ForeachBatch(Batch):
    """Parameters with the same rule, options, dtype and device, which are stepped together, in slices.

    Args:
        on_device: True to compute scalars on the device, False to compute them on the CPU.
        *args: arguments of `Batch`.
    """

    def __init__(self, on_device: bool, *args: Any) -> None:
        self.scalars_class: type[RowScalars] = DeviceRowScalars if on_device else RowScalars
        super().__init__(*args)
        columns = [list(map(local, column)) for column in (self.params, *self.arrays.values())]
        self.calls = []
        for row in range(self.scalars.row_count):
            members = [i for i, other in enumerate(self.scalars.row_indices) if other == row]
            params, *state = ([column[i] for i in members] for column in columns)
            compensation = state.pop() if COMPENSATION in self.arrays else None
            self.calls.append((members, ForeachCall(self.split, params, state, compensation)))
        self.layout = _layout([*self.params, *self.tensors])
        self.distributed = [x for x in self.params if local(x) is not x]
        parts = list(map(local, self.params))
        self.kind, self.shapes = KIND(parts[0]), list(map(Tensor.size, parts))
        self.checked = _layout([x.grad for x in self.params])

    def is_valid(self, written: WrittenMemory) -> bool:
        try:
            gradients = [local(x.grad) for x in self.params]
            return (
                set(map(type, gradients)) <= PLAIN_TYPES
                and set(map(KIND, gradients)) == {self.kind}
                and list(map(Tensor.size, gradients)) == self.shapes
                and all(_distribution(x.grad) == _distribution(x) for x in self.distributed)
                and not any(map(Tensor.is_neg, gradients))
                and self._are_separate(gradients, written)
                and _layout([*self.params, *self.current_tensors()]) == self.layout
                and self.scalars.is_unchanged()
            )
        except (TypeError, RuntimeError):  # a tensor is missing, or has no memory
            return False

    def _are_separate(self, gradients: list[Tensor], written: WrittenMemory) -> bool:
        layout = _layout(gradients)
        if layout != self.checked:
            if any(not start and size.numel() for start, size, _ in zip(*layout, strict=True)) or written.meets(
                *np.array(extents(gradients), dtype=np.int64).reshape(-1, 2).T
            ):
                return False
            self.checked = layout
        return True

    @torch.no_grad()
    def step(self, values: Sequence[Values]) -> None:
        gradients = [local(x.grad) for x in self.params]
        for (members, call), constants in zip(self.calls, self.scalars.advance(values), strict=True):
            call.run([gradients[i] for i in members], constants)


def _layout(tensors: Sequence[Any]) -> list[list[Any]]:
    """Return the addresses, shapes and strides of tensors.

    Raises:
        TypeError: if one is not a tensor.
    """
    parts = list(map(local, tensors))
    return [list(map(get, parts)) for get in (Tensor.data_ptr, Tensor.size, Tensor.stride)]
