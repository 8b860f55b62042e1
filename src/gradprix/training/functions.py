"""User-defined autograd functions in a stack: run model by model where torch has no batching rule for them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor
from torch.autograd import Function

from .vmap_op import VmapFunction, is_nested

MODULE: Any = torch.autograd.function


@contextlib.contextmanager
def functions_by_model() -> Iterator[None]:
    """Have `Function.apply` within `vmap` call a function once per model, unless it has its own batching rule.

    A function without `setup_context` whose `apply` was looked up before keeps torch's, which needs a batching rule.
    """
    original_apply, original_call = Function.__dict__["apply"], MODULE.custom_function_call

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        stacked = any(isinstance(arg, Tensor) and is_batchedtensor(arg) for arg in args)
        if not stacked or kwargs or _has_batching_rule(cls) or is_nested():
            return original_apply.__func__(cls, *args, **kwargs)
        return VmapFunction.apply(_by_model, cls, *args)  # type: ignore[no-untyped-call]

    def custom_function_call(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return (
            original_call(cls, *args, **kwargs)
            if _has_batching_rule(cls) or is_nested()
            else apply(cls, *args, **kwargs)
        )

    Function.apply = classmethod(apply)  # type: ignore[assignment,method-assign]
    MODULE.custom_function_call = custom_function_call  # for functions whose `apply` was looked up before
    try:
        yield
    finally:
        MODULE.custom_function_call = original_call
        Function.apply = original_apply  # type: ignore[method-assign]


def _has_batching_rule(cls: type[Function]) -> bool:
    return bool(getattr(cls, "generate_vmap_rule", False)) or cls.vmap is not Function.vmap


def _by_model(cls: type[Function], *stacks: Any) -> Any:
    models = next(len(x) for x in stacks if isinstance(x, Tensor))
    call: Any = cls.apply
    results = [call(*(x[i] if isinstance(x, Tensor) else x for x in stacks)) for i in range(models)]
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    return tuple(torch.stack(each) for each in zip(*results, strict=True))
