"""The reference: the rule's own function, on whatever tensors it is given."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gradprix.rules import Rule, State
from gradprix.rules.gradient_preprocessing import around

Value = Tensor | float


def eager(
    rule: Rule, values: Mapping[str, Any], t: int, x: Tensor, g: Tensor, state: Mapping[str, Value]
) -> tuple[Tensor, dict[str, Value]]:
    """One step of a rule on one tensor; nothing is changed in place.

    Args:
        rule: the rule.
        values: all of its hyperparameters.
        t: the step, from 1.
        x: the parameter, of any shape.
        g: its gradient, of the same shape.
        state: what the rule remembers, by the rule's own names; what is missing starts at its initial value.

    Returns:
        The new parameter and the new state.
    """
    h = SimpleNamespace(**values)
    kept = rule.kept(values)
    before = {name: state[name] if name in state else start(spec, values, x, g) for name, spec in kept.items()}
    moved = x
    for function in around(rule):
        moved, g = function(h, t, moved, g)
    moved, *after = rule(h, t, moved, g, *(before.get(name) for name in rule.state))
    return moved, {n: own(value, x, g) for n, value in zip(rule.state, after, strict=True) if n in kept}


def evaluated(rule: Rule, values: Mapping[str, Any], t: int, x: Tensor, state: Mapping[str, Value]) -> Tensor:
    """The point at which to evaluate the model, in place of the one that is trained.

    Args:
        rule: the rule.
        values: all of its hyperparameters.
        t: the last step taken.
        x: the parameter being trained.
        state: what the rule remembers, by the rule's own names, none missing.
    """
    if rule.evaluate is None or rule.evaluation is None:
        return x
    point: Tensor = rule.evaluate(SimpleNamespace(**values), t, x, *(state[name] for name in rule.evaluation.state))
    return point


def own(value: Any, x: Tensor, g: Tensor) -> Any:
    """A state that is the parameter or the gradient itself, copied: those two change in place."""
    return value.clone() if value is x or value is g else value


def start(spec: State, values: Mapping[str, Any], x: Tensor, g: Tensor) -> Value:
    """A state before the first step."""
    init = spec.init
    if init == "x" or init == "g":
        return (x if init == "x" else g).clone()
    number = float(values[init]) if isinstance(init, str) else init
    return number if spec.kind == "scalar" else torch.full_like(x, number)
