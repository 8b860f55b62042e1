"""Construction of optimizers from classes and functions, which take parameters or a model."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from .combined_optimizer import CombinedOptimizer

PARAMETERS = ("params", "parameters")
"""Names of the first argument of a function that gets a model's parameters, as a class of torch does."""
TOTAL_STEPS = ("total_steps", "num_iterations", "num_training_steps")
"""Names of an argument whose value is the number of steps of a run, unless it has a default."""
MakeOptimizer = Callable[..., Any]
"""Class, or function that returns an optimizer or a list of them."""


def takes_model(make: MakeOptimizer) -> bool:
    """Return True if a class or function is called with a model, and False if it is called with parameters.

    It takes a model if its first argument is called `model` or annotated as `nn.Module`.

    Raises:
        ValueError: for a function whose first argument is neither a model nor `params`.

    Example:
        >>> takes_model(torch.optim.AdamW), takes_model(lambda model, lr: torch.optim.AdamW(model.parameters(), lr))
        (False, True)
    """
    first = next(iter(inspect.signature(make).parameters.values()), None)
    if first is not None and (first.name == "model" or _is_module(first.annotation)):
        return True
    if not isinstance(make, type) and (first is None or first.name not in PARAMETERS):
        given = "has no arguments" if first is None else f"has {first.name} as its first argument"
        raise ValueError(
            f"{name_of(make)} {given}: call it model, to get the model of a run, or params, to get a list of the "
            "model's parameters, as in def muon(model, lr): ..."
        )
    return False


def required_steps(make: MakeOptimizer) -> list[str]:
    """Return the arguments without a default whose value is the number of steps of a run; see `TOTAL_STEPS`."""
    return [
        name
        for name, parameter in inspect.signature(make).parameters.items()
        if name in TOTAL_STEPS and parameter.default is inspect.Parameter.empty
    ]


def call_maker(
    make: MakeOptimizer, given: Any, values: Mapping[str, Any], total_steps: int | None = None
) -> torch.optim.Optimizer:
    """Call a class or function that makes optimizers.

    Args:
        make: the class or function. The optimizers of a list are combined into one.
        given: a model if `takes_model(make)`, otherwise parameters or parameter groups.
        values: the other arguments.
        total_steps: number of steps of the run; None if it is not known.

    Raises:
        TypeError: if the function returns something else.
        ValueError: if it needs the number of steps where it is not known.
    """
    missing = [name for name in required_steps(make) if name not in values]
    if missing and total_steps is None:
        raise ValueError(
            f"{name_of(make)} needs {missing[0]}, the number of steps of a run, which only the training loop knows: "
            "call make_optimizer(..., total_steps=...)."
        )
    made = make(given, **dict.fromkeys(missing, total_steps), **values)
    optimizers = list(made) if isinstance(made, list | tuple) else [made]
    if not optimizers or not all(isinstance(each, torch.optim.Optimizer) for each in optimizers):
        raise TypeError(
            f"{name_of(make)} returns {made!r}: it must return a torch.optim.Optimizer, or a list of them that share "
            "no parameter."
        )
    return optimizers[0] if len(optimizers) == 1 else CombinedOptimizer(optimizers)


def name_of(make: MakeOptimizer) -> str:
    """Return the name of a class or function; for a `functools.partial`, of what it calls."""
    while hasattr(make, "func"):
        make = make.func
    return str(getattr(make, "__name__", type(make).__name__))


def _is_module(annotation: Any) -> bool:
    """Return True if an annotation is `nn.Module`, a subclass, or a string that ends with this name."""
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2] == nn.Module.__name__
    return isinstance(annotation, type) and issubclass(annotation, nn.Module)
