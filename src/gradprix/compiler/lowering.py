"""Lowering of torch's operations to values and instructions of a row program."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch._decomp import decomposition_table
from torch.utils._pytree import tree_map_only

from .builder import Builder, dtype_name
from .ir import UnsupportedError, Value

Lowering = Callable[..., Any]
Function = TypeVar("Function", bound=Lowering)
LOWERINGS: dict[Any, Lowering] = {}
"""Lowerings by operation: each takes the builder and the operation's arguments, with values in place of tensors."""


def register(*targets: Any) -> Callable[[Function], Function]:
    """Return a decorator that registers a lowering for operations of torch."""

    def add(function: Function) -> Function:
        for target in targets:
            LOWERINGS[target] = function
        return function

    return add


def decomposition(function: Any) -> Callable[..., Any] | None:
    """Return torch's decomposition of an operation; None if the operation has a lowering or torch has none."""
    if function in LOWERINGS:
        return None
    if function.namespace == "prims":
        return getattr(function, "impl_aten", None)
    table: Any = decomposition_table
    simpler: Callable[..., Any] | None = table.get(function)
    return function.decompose if simpler is None and function._can_decompose() else simpler


def lower(builder: Builder, target: Any, args: Sequence[Any], kwargs: dict[str, Any], dtype: torch.dtype | None) -> Any:
    """Lower an operation and return the value of its result.

    Operations on bfloat16 compute in float32 and round their result, so that no lowering has to know bfloat16.

    Args:
        builder: the builder of the program.
        target: the operation.
        args: its positional arguments.
        kwargs: its keyword arguments.
        dtype: the type of torch's result, to which the value is converted; no conversion when None.

    Raises:
        UnsupportedError: for an operation that row programs do not support.
    """
    if target not in LOWERINGS:
        raise UnsupportedError(str(target))
    args, kwargs = tree_map_only(Value, builder.without_bfloat16, (tuple(args), kwargs))
    result = LOWERINGS[target](builder, *args, **kwargs)
    if isinstance(result, Value) and dtype is not None:
        result = builder.convert(result, dtype_name(dtype))
    return result
