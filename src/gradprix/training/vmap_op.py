"""Calls of functions of whole stacks from the user's code, which runs inside `vmap` and sees a single model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import get_interpreter_stack


class VmapFunction(torch.autograd.Function):
    """Autograd function that calls another function with whole stacks.

    Within `vmap`, `VmapFunction.apply(function, *args)` calls `function` with stacked tensors, whose first dimension is
    the rows.
    """

    generate_vmap_rule = False

    @staticmethod
    def forward(*args: Any) -> Any:
        """Raise an error, because this class is used within `vmap` only."""
        raise NotImplementedError("a part of the model runs again during the backward pass, which a stack cannot")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Call the function with stacked tensors, whose first dimension is the rows."""
        rows = info.batch_size
        stacked = [_rows_first(arg, dim, rows) for arg, dim in zip(args, in_dims[1:], strict=True)]
        return function(*stacked), 0


def _rows_first(value: Any, dim: int | None, rows: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.expand(rows, *value.shape) if dim is None else value.movedim(dim, 0)


def as_in_autocast(*args: Any) -> tuple[Any, ...]:
    """Convert the arguments of a matrix product to the dtype that `torch.autocast` has chosen; no change without it."""
    device = next(x.device.type for x in args if isinstance(x, Tensor))
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return args
    dtype = torch.get_autocast_dtype(device)
    eligible = [isinstance(x, Tensor) and x.is_floating_point() and x.dtype is not torch.float64 for x in args]
    return tuple(x.to(dtype) if chosen else x for x, chosen in zip(args, eligible, strict=True))


def is_nested() -> bool:
    """Return True if the model's own code uses a transform of `torch.func`, which adds a dimension to tensors."""
    return len(get_interpreter_stack() or ()) > 1
