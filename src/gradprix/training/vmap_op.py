"""From the network that a user wrote, in which there are no rows, to the stack."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import get_interpreter_stack


class Bridge(torch.autograd.Function):
    """`Bridge.apply(function, *args)`: within `vmap`, what a function makes of whole stacks, rows first."""

    generate_vmap_rule = False

    @staticmethod
    def forward(*args: Any) -> Any:
        """Refuse: outside of a stack the function that it stands for is called itself."""
        raise NotImplementedError("only stacked tensors come here")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Call the function of stacks, rows first."""
        rows = info.batch_size
        stacked = [_rows_first(arg, dim, rows) for arg, dim in zip(args, in_dims[1:], strict=True)]
        return function(*stacked), 0


def _rows_first(value: Any, dim: int | None, rows: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.expand(rows, *value.shape) if dim is None else value.movedim(dim, 0)


def is_nested() -> bool:
    """Return whether the model itself uses a transform of `torch.func`, of whose dimensions a stack knows nothing."""
    return len(get_interpreter_stack() or ()) > 1
