"""Group normalization of a stack.

Torch's batching rule requests a channels-last memory format, which a stacked tensor does not have. In this version,
every sum is over elements of one model only, and the models are the outermost dimension in memory.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .vmap_op import VmapFunction

aten = torch.ops.aten


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Any:
    """Compute `torch.nn.functional.group_norm` for stacked tensors."""
    return VmapFunction.apply(_normalized, x, num_groups, weight, bias, eps)  # type: ignore[no-untyped-call]


def _normalized(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    models, batch, channels = x.shape[:3]
    flat = x.reshape(models, batch, channels, -1).contiguous()
    normalized: Tensor = _GroupNorm.apply(flat, weight, bias, groups, eps)  # type: ignore[no-untyped-call]
    return normalized.view(x.shape)


class _GroupNorm(torch.autograd.Function):
    """Normalize `x [models, batch, channels, pixels]`, contiguous, with `weight` and `bias` `[models, channels]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float) -> Tensor:
        models, batch, channels, pixels = x.shape
        ctx.sizes = models * batch, channels, pixels, groups
        normalized, mean, rstd = aten.native_group_norm(x.flatten(0, 1), None, None, *ctx.sizes, eps)
        y: Tensor = normalized.view(x.shape)
        ctx.save_for_backward(x, y, mean, rstd, weight)
        if weight is not None:
            y = y * weight[:, None, :, None]
        if bias is not None:
            y = y + bias[:, None, :, None]
        return y.clone() if y._is_view() else y  # a view of a function's output may not be changed in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        x, y, mean, rstd, weight = ctx.saved_tensors
        g = g.contiguous()
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        g_x = None
        if need_x:
            inner = (g if weight is None else g * weight[:, None, :, None]).flatten(0, 1)
            wanted = [True, False, False]
            g_x, *_ = aten.native_group_norm_backward(inner, x.flatten(0, 1), mean, rstd, None, *ctx.sizes, wanted)
            g_x = g_x.view(x.shape)
        g_weight = (g * y).sum((1, 3)) if need_weight else None
        return g_x, g_weight, g.sum((1, 3)) if need_bias else None, None, None
