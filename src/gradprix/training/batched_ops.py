"""Stacked versions of operations of `torch.nn.functional`.

`vmap`'s batching rules are general and often slow: they turn a linear layer into a product and a separate sum, a large
convolution into a grouped one, and attention into a loop. The stacked versions in this module replace the most
expensive operations while a step is traced. Each computes a row from that row alone, in an order that does not depend
on the number of rows. If a stacked version does not support the given arguments, torch's function runs.
"""

import math
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor
from torch._functorch.autograd_function import custom_function_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gradprix.utils.devices import CPU

from .convolution import convolution, pool, transposed
from .functions import run_by_model
from .group_norm import group_norm
from .recurrent import gru_cell, lstm_cell, recurrent, rnn_cell
from .reductions import WIDER, sums_of_rows
from .vmap_op import VmapFunction, as_in_autocast, is_nested

Operation = Callable[..., Any]
aten = torch.ops.aten
STACKED_VERSIONS: dict[Any, Operation] = {}
"""Maps functions of torch to their stacked versions, which take the same arguments and return `NotImplemented` for
those that they do not support."""
FACTORIES = {torch.zeros: "new_zeros", torch.ones: "new_ones", torch.empty: "new_empty", torch.full: "new_full"}
"""Maps functions that create a tensor to the method of a stacked tensor that creates one tensor per model."""


class StackedOperations(TorchFunctionMode):
    """Mode that replaces torch's functions by their stacked versions when they are called on stacked tensors in `vmap`.

    Attributes:
        like: a stacked tensor; if set, `torch.zeros` and similar functions create one tensor per model, which may be
            written in place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.like: Tensor | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the stacked version of a function, if there is one, or the function itself."""
        kwargs = dict(kwargs or {})
        if function in STACKED_VERSIONS and "input" in kwargs:  # torch's name for the first argument
            args = kwargs.pop("input"), *args
        result = NotImplemented
        if function in FACTORIES:
            result = self._create_tensor(function, *args, **kwargs)
        elif function is custom_function_call:
            result = run_by_model(*args, **kwargs)
        elif function in STACKED_VERSIONS and any(map(_is_stacked, args)) and not is_nested():
            with self:
                result = STACKED_VERSIONS[function](*args, **kwargs)
        if result is not NotImplemented:
            return result
        if isinstance(function, FunctionType) and function.__globals__ is vars(functional):
            with self:
                return _without_dispatch(function)(*args, **kwargs)
        return function(*args, **kwargs)

    def _create_tensor(
        self, function: Operation, *size: Any, dtype: torch.dtype | None = None, device: Any = None, **kwargs: Any
    ) -> Any:
        if self.like is None or kwargs.get("out") is not None or is_nested():
            return NotImplemented
        if dtype is None:
            dtype = function(*size, device="meta", **kwargs).dtype
        return getattr(self.like, FACTORIES[function])(*size, dtype=dtype, device=device or CPU, **kwargs)


def _is_stacked(value: Any) -> bool:
    return isinstance(value, Tensor) and is_batchedtensor(value)


@cache
def _without_dispatch(function: FunctionType) -> FunctionType:
    """Return a copy of a function of `torch.nn.functional` that does not call `__torch_function__` itself.

    Torch deactivates a mode while the mode handles a function. The mode would then not see the functions that are
    called inside, such as the linear layers of `multi_head_attention_forward`. If it is activated again, the original
    function would call the mode once more instead of running.
    """
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    own_globals = {**function.__globals__, **dict.fromkeys(checks, lambda *_: False)}
    copy = FunctionType(function.__code__, own_globals, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def register(function: Operation) -> Operation:
    """Register a stacked version of the function of the same name in `torch.nn.functional`."""
    STACKED_VERSIONS[getattr(functional, function.__name__)] = function
    return function


# A layer


@register
def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Set elements to zero at random, in the order of the input's memory as torch does on the CPU.

    `vmap` draws the mask in row-major order, so that a model with transposed tensors would not equal a plain loop.
    """
    if not training or inplace or not 0 < p < 1:
        return NotImplemented
    return x * torch.empty_like(x).bernoulli_(1 - p).div_(1 - p)


@register
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """Compute `x Wᵀ + b` in one fused product."""
    return VmapFunction.apply(_Linear.apply, *as_in_autocast(x, weight, bias))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = x.reshape(len(x), -1, x.shape[-1])
        ctx.save_for_backward(flat, weight)
        ctx.shape = x.shape
        out = torch.bmm(flat, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), flat, weight.mT)
        # Not a view, so that it may be changed in place.
        shaped: Tensor = aten._unsafe_view(out, [*x.shape[:-1], out.shape[-1]])
        return shaped

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        flat, weight = ctx.saved_tensors
        g = g.reshape(len(g), -1, g.shape[-1])
        need_x, need_weight, need_bias = ctx.needs_input_grad
        return (
            torch.bmm(g, weight).view(ctx.shape) if need_x else None,
            torch.bmm(g.mT, flat) if need_weight else None,
            sums_of_rows(g) if need_bias else None,
        )


# Embeddings: vmap's rule drops `padding_idx` (torch 2.13)


@register
def embedding(
    x: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Look up the embeddings of all models in the concatenation of the models' tables."""
    if max_norm is not None or scale_grad_by_freq:  # sparse gradients hold the same numbers as dense ones
        return NotImplemented
    return VmapFunction.apply(_Embedding.apply, x, weight, padding_idx)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        rows, size = weight.shape[:2]
        offsets = torch.arange(rows, device=x.device).view(-1, *[1] * (x.dim() - 1)) * size
        index = x + offsets
        ctx.save_for_backward(index)
        ctx.table_info = weight.shape, padding
        return torch.embedding(weight.reshape(rows * size, -1), index)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        (rows, size, width), padding = ctx.table_info
        whole = torch.ops.aten.embedding_dense_backward(g.contiguous(), index, rows * size, -1, False)
        grad = whole.view(rows, size, width)
        if padding is not None:
            grad[:, padding].zero_()
        return None, grad, None


# A loss

IGNORE_INDEX = -100
"""Default `ignore_index` of torch's cross-entropy."""


@register
def cross_entropy(x: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Compute each model's mean cross-entropy for targets that are class indices."""
    if args or kwargs or x.dim() < 2 or target.is_floating_point():
        return NotImplemented
    return VmapFunction.apply(_mean_cross_entropy, x, target)


def _mean_cross_entropy(x: Tensor, target: Tensor) -> Tensor:
    each = functional.cross_entropy(x.flatten(0, 1), target.flatten(0, 1), reduction="none").view(len(x), -1)
    return each.sum(1) / (target.reshape(len(x), -1) != IGNORE_INDEX).sum(1)


@register
def gaussian_nll_loss(
    x: Tensor, target: Tensor, var: Tensor, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """Compute the Gaussian negative log-likelihood.

    For a negative variance the loss is NaN. Torch raises an error instead, but its check depends on the data.
    """
    if not isinstance(var, Tensor):
        return NotImplemented
    if var.shape != x.shape and var.shape == x.shape[:-1]:
        var = var.unsqueeze(-1)
    var = torch.where(var < 0, torch.nan, var)
    bounded = var + (var.clamp(min=eps) - var).detach()  # as in torch, clamping has no gradient
    loss = 0.5 * (bounded.log() + (x - target) ** 2 / bounded)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return loss if reduction == "none" else getattr(loss, reduction)()


# Images

for _dims in (1, 2, 3):
    STACKED_VERSIONS[getattr(functional, f"conv{_dims}d")] = convolution(_dims, linear)
    STACKED_VERSIONS[getattr(functional, f"conv_transpose{_dims}d")] = transposed(_dims)
for _pool in (functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d):
    STACKED_VERSIONS[_pool] = pool(_pool)
register(group_norm)


@register
def batch_norm(x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Normalize tensors of reduced precision in float32, as torch does; its batching rule requires a single dtype."""
    if x.dtype not in WIDER:
        return NotImplemented
    return functional.batch_norm(x.to(WIDER[x.dtype]), *args, **kwargs).to(x.dtype)


# Operations without a batching rule, decomposed into operations that have one


for _name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
    _operation = getattr(torch.ops.aten, _name).input
    _layer = _operation.py_kernels[torch._C.DispatchKey.CompositeImplicitAutograd]
    STACKED_VERSIONS[getattr(torch, _name)] = recurrent(_layer)
STACKED_VERSIONS[torch.lstm_cell] = lstm_cell
STACKED_VERSIONS[torch.gru_cell] = gru_cell
STACKED_VERSIONS[torch.rnn_tanh_cell] = rnn_cell(torch.tanh)
STACKED_VERSIONS[torch.rnn_relu_cell] = rnn_cell(torch.relu)


@register
def normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Any:
    """Normalize a tensor into `out`, as in the power iteration of spectral norm; torch handles calls without `out`."""
    return NotImplemented if out is None else out.copy_(functional.normalize(x, p, dim, eps))


def _set_where(x: Tensor, mask: Any, value: Any) -> Any:
    """Assign a number to the elements that a boolean mask selects.

    Assignments of tensors are not supported, since their shape depends on the mask, which differs between models.
    """
    if not (isinstance(mask, Tensor) and mask.dtype is torch.bool and not (isinstance(value, Tensor) and value.dim())):
        return NotImplemented
    return x.masked_fill_(mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim())), value)


STACKED_VERSIONS[Tensor.__setitem__] = _set_where


def _with_any_layout(original: Operation) -> Operation:
    """Return a version of `Tensor.to` or `Tensor.contiguous` that ignores channels-last memory formats.

    A stacked tensor cannot have these formats, and they do not affect the results.
    """

    def run(x: Tensor, *args: Any, memory_format: Any = torch.preserve_format, **kwargs: Any) -> Any:
        if memory_format in (torch.channels_last, torch.channels_last_3d):
            return original(x, *args, **kwargs) if args or kwargs else x
        return NotImplemented

    return run


for _method in (Tensor.to, Tensor.contiguous):
    STACKED_VERSIONS[_method] = _with_any_layout(_method)


def _requires_grad(x: Tensor, requires_grad: bool = True) -> Tensor:
    """Leave a tensor as it is: gradients reach the parameters in any case.

    Libraries call `requires_grad_` on the inputs of checkpointed layers. A model that differentiates with respect to
    such a tensor fails, since the tensor is no leaf of a stack.
    """
    return x


STACKED_VERSIONS[Tensor.requires_grad_] = _requires_grad
