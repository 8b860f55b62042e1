"""Reference implementation of a step: the rule's Python function, applied to tensors of any device and dtype."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gradprix.rules import Rule, State
from gradprix.rules.gradient_preprocessing import preprocessing

Value = Tensor | float


def eager_step(
    rule: Rule, values: Mapping[str, Any], t: int, x: Tensor, g: Tensor, state: Mapping[str, Value]
) -> tuple[Tensor, dict[str, Value]]:
    """Perform one step of a rule on one tensor, out of place.

    Args:
        rule: the rule.
        values: all hyperparameters.
        t: step number, from 1.
        x: parameter, of any shape.
        g: gradient, of the same shape.
        state: optimizer state by name; missing entries are initialized.

    Returns:
        The new parameter and the new state.
    """
    h = SimpleNamespace(**values)
    specs = rule.active_state(values)
    before = {name: state[name] if name in state else init_state(spec, values, x, g) for name, spec in specs.items()}
    updated = x
    for function in preprocessing(rule):
        updated, g = function(h, t, updated, g)
    updated, *after = rule(h, t, updated, g, *(before.get(name) for name in rule.state))
    return updated, {n: _copy_if_aliased(value, x, g) for n, value in zip(rule.state, after, strict=True) if n in specs}


def compute_evaluation_point(
    rule: Rule, values: Mapping[str, Any], t: int, x: Tensor, state: Mapping[str, Value]
) -> Tensor:
    """Return the point at which to evaluate the model, which may differ from the training point.

    Args:
        rule: the rule.
        values: all hyperparameters.
        t: number of the last step.
        x: parameter at the training point.
        state: complete optimizer state by name.
    """
    if rule.evaluate is None or rule.evaluation is None:
        return x
    point: Tensor = rule.evaluate(SimpleNamespace(**values), t, x, *(state[name] for name in rule.evaluation.state))
    return point


def _copy_if_aliased(value: Any, x: Tensor, g: Tensor) -> Any:
    """Return a state value, copied if it is the parameter or the gradient, which are modified in place."""
    return value.clone() if value is x or value is g else value


def init_state(spec: State, values: Mapping[str, Any], x: Tensor, g: Tensor) -> Value:
    """Return the initial value of an optimizer state.

    Args:
        spec: specification of the state.
        values: all hyperparameters.
        x: parameter.
        g: first gradient.

    Returns:
        A number for scalar state, otherwise a tensor of the parameter's shape.
    """
    init = spec.init
    if init == "x" or init == "g":
        return (x if init == "x" else g).clone()
    number = float(values[init]) if isinstance(init, str) else init
    return number if spec.kind == "scalar" else torch.full_like(x, number)
