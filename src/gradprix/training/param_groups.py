"""Parameter groups whose learning rate or weight decay is given as a factor of the optimizer's."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import nn

from .optimizer_factories import MakeOptimizer, call_maker, name_of, takes_model

FACTORS = {"lr_factor": "lr", "weight_decay_factor": "weight_decay"}
"""Keys of a parameter group and the hyperparameters that they multiply."""


def build_optimizer(
    make: MakeOptimizer,
    params: Iterable[Any] | nn.Module,
    values: Mapping[str, Any],
    check: Callable[[Mapping[str, Any]], None] = lambda group: None,
    total_steps: int | None = None,
) -> torch.optim.Optimizer:
    """Construct an optimizer and resolve the factors in its parameter groups.

    A group `{"params": ..., "lr_factor": 0.1}` gets a tenth of the optimizer's learning rate, and
    `"weight_decay_factor"` multiplies its weight decay. The factor stays in the group. Groups that
    `optimizer.add_param_group` adds later are resolved in the same way.

    Args:
        make: the optimizer class, or a function that makes optimizers.
        params: parameters, named parameters, parameter groups, or a model. A model is required if `takes_model(make)`;
            then the class or function makes the groups.
        values: the arguments of the class.
        check: called with each parameter group before its factors are resolved; raises an error to reject the group.
        total_steps: number of steps of the run, for a class that asks for it; None if it is not known.

    Raises:
        TypeError: for a factor that is not a number, for the name of a parameter, or if `make` takes a model and gets
            something else.
        ValueError: for a factor that is negative or not finite.
    """
    if takes_model(make):
        if not isinstance(params, nn.Module):
            raise TypeError(f"{name_of(make)} takes a model: call make_optimizer(model), not make_optimizer(params).")
        return call_maker(make, params, values, total_steps)
    if isinstance(params, nn.Module):
        params = [x for x in params.parameters() if x.requires_grad]
    defaults = {name: parameter.default for name, parameter in inspect.signature(make).parameters.items()}
    base = {name: values.get(name, defaults.get(name)) for name in FACTORS.values()}

    def resolve(group: Any) -> Any:
        if not isinstance(group, Mapping):
            return group
        check(group)
        return resolve_factors(_require_tensors(group), base)

    optimizer = call_maker(make, [resolve(group) for group in params], values, total_steps)
    # Patch the instance: torch neither pickles nor copies the attribute, and the class stays unchanged.
    optimizer.add_param_group = partial(_add_param_group, optimizer.add_param_group, resolve)  # type: ignore[method-assign]
    return optimizer


def _require_tensors(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a parameter group whose parameters are in a list, after checking that none of them is a name.

    Raises:
        TypeError: for the name of a parameter.
    """
    params = group.get("params")
    if not isinstance(params, Iterable) or isinstance(params, torch.Tensor):
        return group
    listed = [params] if isinstance(params, str) else list(params)
    if name := next((each for each in listed if isinstance(each, str)), None):
        raise TypeError(
            f"a parameter group has the name {name!r} in params, which only the groups of a task can have: give the "
            f"parameter, as in model.get_parameter({name!r})."
        )
    return {**group, "params": listed}


def resolve_factors(group: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a parameter group with the hyperparameters that its factors define.

    Args:
        group: a parameter group.
        base: the optimizer's hyperparameters, which the factors multiply. A factor has no effect if the optimizer lacks
            the hyperparameter.

    Raises:
        TypeError: for a factor that is not a number.
        ValueError: for a factor that is negative or not finite, or given together with the value that it defines.
    """
    resolved = dict(group)
    for key, name in FACTORS.items():
        if key not in group:
            continue
        factor = group[key]
        if isinstance(factor, bool) or not isinstance(factor, Real):
            raise TypeError(f"a parameter group has {key} = {factor!r}: give a number, 0 or more, such as 0.1.")
        if not 0 <= float(factor) < math.inf:
            raise ValueError(f"a parameter group has {key} = {factor!r}: it must be 0 or more, and finite.")
        if name in group:
            raise ValueError(f"a parameter group has both {name} and {key}: leave one of them out.")
        if isinstance(base.get(name), Real):
            resolved[name] = float(factor) * base[name]
    return resolved


def group_hyperparameters(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of a rule for a parameter group; a setting that the rule lacks has no effect.

    Args:
        settings: the group without its parameters, such as `{"lr_factor": 0.1, "weight_decay": 0.0}`.
        values: all hyperparameters of the rule.
    """
    resolved = resolve_factors(settings, values)
    return {**values, **{name: value for name, value in resolved.items() if name in values}}


def _add_param_group(add: Callable[[Any], None], resolve: Callable[[Any], Any], param_group: dict[str, Any]) -> None:
    add(resolve(param_group))
