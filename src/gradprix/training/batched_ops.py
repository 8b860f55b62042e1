"""Operations in forms that stack well.

vmap stacks an operation in a form that fits every use of it: a layer becomes a product and then a sum, large
convolutions one in groups, attention a loop. For what networks spend their time in there are forms of our own here, in
the place of `torch.nn.functional`'s while a step is recorded. Each computes a row from that row alone, and in the
same order whatever the number of rows; what it has no form for goes to torch's function.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import _VF, Tensor
from torch._C._functorch import is_batchedtensor
from torch.nn import functional

from gradprix.utils.devices import CPU

from .convolution import convolution, pool, transposed
from .functions import functions_by_model
from .group_norm import group_norm
from .recurrent import lstm_cell, recurrent
from .reductions import sums_of_rows
from .vmap_op import Bridge, is_nested

Form = Callable[..., Any]
aten = torch.ops.aten
FORMS: dict[tuple[Any, str], Form] = {}
"""By the module and name of torch's function: takes what that takes, or answers `NotImplemented` if it does not fit."""


def form(function: Form) -> Form:
    """Declare a form of the function of the same name in `torch.nn.functional`."""
    FORMS[functional, function.__name__] = function
    return function


@contextlib.contextmanager
def stacking() -> Iterator[None]:
    """Put the forms in the place of torch's functions."""
    for (module, name), function in ORIGINALS.items():
        setattr(module, name, _either(FORMS[module, name], function))
    try:
        with functions_by_model():
            yield
    finally:
        for (module, name), function in ORIGINALS.items():
            setattr(module, name, function)


@contextlib.contextmanager
def own_tensors(like: Tensor) -> Iterator[None]:
    """Have `torch.zeros` and its kind make a tensor for each network, so that it can be written into.

    Args:
        like: any stacked tensor, within `vmap`.
    """
    made = {name: getattr(torch, name) for name in ("zeros", "ones", "empty", "full")}

    def own(name: str) -> Form:
        def function(*size: Any, dtype: torch.dtype | None = None, device: Any = None, **kwargs: Any) -> Any:
            if kwargs.get("out") is not None or is_nested():
                return made[name](*size, dtype=dtype, device=device, **kwargs)
            if dtype is None:
                dtype = made[name](*size, device="meta", **kwargs).dtype
            return getattr(like, f"new_{name}")(*size, dtype=dtype, device=device or CPU, **kwargs)

        return function

    for name in made:
        setattr(torch, name, own(name))
    try:
        yield
    finally:
        for name, function in made.items():
            setattr(torch, name, function)


def stacked(function: Form) -> Form:
    """What takes a function's place, if one of torch's is meant by it: who holds it, does not look it up."""
    for (module, name), theirs in ORIGINALS.items():
        if function is theirs:
            return _either(FORMS[module, name], theirs)
    return function


def _either(ours: Form, theirs: Form) -> Form:
    def function(*args: Any, **kwargs: Any) -> Any:
        if "input" in kwargs:  # as torch calls what comes first
            args = kwargs.pop("input"), *args
        if any(isinstance(arg, Tensor) and is_batchedtensor(arg) for arg in args) and not is_nested():
            found = ours(*args, **kwargs)
            if found is not NotImplemented:
                return found
        return theirs(*args, **kwargs)

    return function


# A layer


@form
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """`x Wᵀ + b`, the sum within the product."""
    return Bridge.apply(_Linear.apply, x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = x.reshape(len(x), -1, x.shape[-1])
        ctx.save_for_backward(flat, weight)
        ctx.shape = x.shape
        out = torch.bmm(flat, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), flat, weight.mT)
        # No view, so that it may be changed in place.
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


# A table of vectors, for which vmap forgets which of them is padding (torch 2.13)


@form
def embedding(
    x: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """The tables of all networks under one another."""
    if max_norm is not None or scale_grad_by_freq:  # sparse gradients hold the same numbers as these
        return NotImplemented
    return Bridge.apply(_Embedding.apply, x, weight, padding_idx)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        rows, size = weight.shape[:2]
        below = torch.arange(rows, device=x.device).view(-1, *[1] * (x.dim() - 1)) * size
        at = x + below
        ctx.save_for_backward(at)
        ctx.given = weight.shape, padding
        return torch.embedding(weight.reshape(rows * size, -1), at)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (at,) = ctx.saved_tensors
        (rows, size, width), padding = ctx.given
        whole = torch.ops.aten.embedding_dense_backward(g.contiguous(), at, rows * size, -1, False)
        found = whole.view(rows, size, width)
        if padding is not None:
            found[:, padding].zero_()
        return None, found, None


# A loss

_cross_entropy = functional.cross_entropy
IGNORED = -100
"""The target that torch leaves out of the mean."""


@form
def cross_entropy(x: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The mean over examples whose classes are given as numbers."""
    if args or kwargs or x.dim() < 2 or target.is_floating_point():
        return NotImplemented
    return Bridge.apply(_mean_cross_entropy, x, target)


def _mean_cross_entropy(x: Tensor, target: Tensor) -> Tensor:
    each = _cross_entropy(x.flatten(0, 1), target.flatten(0, 1), reduction="none").view(len(x), -1)
    return each.sum(1) / (target.reshape(len(x), -1) != IGNORED).sum(1)


@form
def gaussian_nll_loss(
    x: Tensor, target: Tensor, var: Tensor, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """Without the look at the variances' signs: where one is negative, torch raises, and here the loss is NaN."""
    if not isinstance(var, Tensor):
        return NotImplemented
    if var.shape != x.shape and var.shape == x.shape[:-1]:
        var = var.unsqueeze(-1)
    var = torch.where(var < 0, torch.nan, var)
    bounded = var + (var.clamp(min=eps) - var).detach()  # as torch does it, the bound has no gradient
    loss = 0.5 * (bounded.log() + (x - target) ** 2 / bounded)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return loss if reduction == "none" else getattr(loss, reduction)()


# Images

for _dims in (1, 2, 3):
    FORMS[functional, f"conv{_dims}d"] = convolution(_dims, linear)
    FORMS[functional, f"conv_transpose{_dims}d"] = transposed(_dims)
for _name in ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"):
    FORMS[functional, _name] = pool(getattr(functional, _name))
form(group_norm)


# What vmap does not know, in operations that it knows


for _name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
    _operation = getattr(torch.ops.aten, _name).input
    FORMS[_VF, _name] = recurrent(_operation.py_kernels[torch._C.DispatchKey.CompositeImplicitAutograd])

FORMS[_VF, "lstm_cell"] = lstm_cell(linear)

_normalize = functional.normalize


@form
def normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Any:
    """With `out`, as the power iteration of spectral norm has it."""
    return NotImplemented if out is None else out.copy_(_normalize(x, p, dim, eps))


def _set_where(x: Tensor, at: Any, value: Any) -> Any:
    """Set a number where a mask says so: the only use of a mask as an index that has the same shape for all models."""
    if not (isinstance(at, Tensor) and at.dtype is torch.bool and not (isinstance(value, Tensor) and value.dim())):
        return NotImplemented
    return x.masked_fill_(at.reshape(*at.shape, *[1] * (x.dim() - at.dim())), value)


FORMS[Tensor, "__setitem__"] = _set_where


def _with_any_layout(name: str) -> Form:
    """Leave out a memory format, which says nothing of what is computed, and which a stacked tensor cannot have."""
    theirs = getattr(Tensor, name)

    def run(x: Tensor, *args: Any, memory_format: Any = torch.preserve_format, **kwargs: Any) -> Any:
        if memory_format in (torch.channels_last, torch.channels_last_3d):
            return theirs(x, *args, **kwargs) if args or kwargs else x
        return NotImplemented

    return run


for _name in ("to", "contiguous"):
    FORMS[Tensor, _name] = _with_any_layout(_name)

ORIGINALS = {place: getattr(*place) for place in FORMS}
