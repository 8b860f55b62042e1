"""User-defined autograd functions in a stack: functions without a batching rule run model by model."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import _add_batch_dim, get_interpreter_stack, is_batchedtensor
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
from torch.autograd import Function
from torch.distributions.dirichlet import _Dirichlet

from .vmap_op import VmapFunction, is_nested

WITH_LEADING_DIMENSIONS = frozenset([_Dirichlet])
"""Autograd functions of torch that accept any number of leading dimensions, and hence a stack. They draw random
numbers, so each model needs its own result even if it calls them with constants."""


def run_by_model(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """Call an autograd function once per model within `vmap`.

    Args:
        cls: the subclass of `torch.autograd.Function`.
        args: its arguments, of which some are stacked.
        kwargs: keyword arguments, which are not supported.

    Returns:
        The stacked results. `NotImplemented` if torch must call the function: no argument is stacked, the function has
        a batching rule, there are keyword arguments, or the model uses transforms of `torch.func` itself.
    """
    if cls in WITH_LEADING_DIMENSIONS and not is_nested():
        return VmapFunction.apply(cls.apply, *map(_stacked, args))  # type: ignore[no-untyped-call]
    is_stacked = any(isinstance(arg, Tensor) and is_batchedtensor(arg) for arg in args)
    has_batching_rule = getattr(cls, "generate_vmap_rule", False) or cls.vmap is not Function.vmap
    if not is_stacked or kwargs or has_batching_rule or is_nested():
        return NotImplemented
    return VmapFunction.apply(_run_each, cls, *args)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def without_setup_context() -> Iterator[None]:
    """Temporarily allow autograd functions without `setup_context` within `vmap`.

    `Function.apply` rejects such functions before it calls any mode, so this context manager replaces `Function.apply`.
    User code that holds a reference to the original method, such as `square = Square.apply`, still gets torch's error.
    """
    original = Function.__dict__["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        result = run_by_model(cls, *args, **kwargs) if get_interpreter_stack() else NotImplemented
        return original.__func__(cls, *args, **kwargs) if result is NotImplemented else result

    Function.apply = classmethod(apply)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Function.apply = original  # type: ignore[method-assign]


def _run_each(cls: type[Function], *stacks: Any) -> Any:
    models = next(len(x) for x in stacks if isinstance(x, Tensor))
    call: Any = cls.apply
    results = [call(*(x[i] if isinstance(x, Tensor) else x for x in stacks)) for i in range(models)]
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    return tuple(torch.stack(each) for each in zip(*results, strict=True))


def _stacked(x: Any) -> Any:
    """Return a constant as a stacked tensor, within `vmap`."""
    if not isinstance(x, Tensor) or is_batchedtensor(x):
        return x
    interpreter: Any = retrieve_current_functorch_interpreter()
    return _add_batch_dim(x.expand(interpreter.batch_size(), *x.shape), 0, interpreter.level())
