"""Bridge from the user's code, which sees one model inside `vmap`, to operations on whole stacks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import get_interpreter_stack


class VmapFunction(torch.autograd.Function):
    """`VmapFunction.apply(function, *args)`: within `vmap`, call a function with whole stacks, rows first."""

    generate_vmap_rule = False

    @staticmethod
    def forward(*args: Any) -> Any:
        """Raise an error: outside of `vmap` the function itself is called."""
        raise NotImplementedError("only stacked tensors come here")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Call the function with stacks, rows first."""
        rows = info.batch_size
        stacked = [_rows_first(arg, dim, rows) for arg, dim in zip(args, in_dims[1:], strict=True)]
        return function(*stacked), 0


def _rows_first(value: Any, dim: int | None, rows: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.expand(rows, *value.shape) if dim is None else value.movedim(dim, 0)


def is_nested() -> bool:
    """Return True if the model itself uses a transform of `torch.func`, whose dimensions are unknown to the stack."""
    return len(get_interpreter_stack() or ()) > 1
