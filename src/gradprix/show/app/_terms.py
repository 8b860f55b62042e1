"""One optimizer's descent, laid open step by step: what it saw, what it remembers, what it computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradprix.explain import Equation, Trace, equations, trace
from gradprix.kernels import start as begun
from gradprix.kernels import terms
from gradprix.rules import Rule

from ._run import Numbers, rate, surface
from ._state import Racer, Setting


@dataclass(frozen=True)
class Step:
    """One step, laid open.

    Args:
        t: its number, from 1.
        x: before it, `[2]`.
        after: after it, `[2]`.
        g: the gradient.
        state: what the rule remembers after it, by its own names.
        equations: what was computed.
    """

    t: int
    x: Numbers
    after: Numbers
    g: Numbers
    state: Mapping[str, Numbers]
    equations: tuple[Equation, ...]


@lru_cache(maxsize=16)
def traced(setting: Setting, racer: Racer) -> Trace:
    """One optimizer's descent with every term of it."""
    landscape = surface(setting.surface, setting.parameters, setting.noise)
    own = {**racer.entry.fixed, **dict(racer.own), "lr": rate(racer, setting)}
    return trace(racer.rule, landscape, setting.steps, start=setting.start, seed=setting.seed, **own)


def step(found: Trace, t: int) -> Step:
    """A step of a descent.

    Args:
        found: the descent.
        t: which step, from 1.
    """
    layer, rule = found.x, found.rule
    x, g, kept = layer.points[t - 1], layer.gradients[t - 1], rule.kept(found.values)
    if t == 1:
        before = {name: begun(spec, found.values, x, g) for name, spec in kept.items()}
    else:
        before = {name: _number(layer.terms[name][t - 2]) for name in kept}
    state = {
        name: np.asarray(layer.terms[name][t - 1], dtype=np.float64)
        for name, spec in kept.items()
        if spec.kind == "element"
    }
    said = tuple(equations(rule, found.values, t, x, g, before))
    return Step(t, x.numpy(), layer.points[t].numpy(), g.numpy(), state, said)


def _number(value: Tensor) -> Any:
    return value if value.dim() else value.item()


@lru_cache(maxsize=256)
def kinds(rule: Rule, given: tuple[tuple[str, Any], ...]) -> dict[str, tuple[str, int]]:
    """What the rule's memories are, found by asking the rule.

    A memory that turns round when all gradients do is a mean or a sum of them; one that does not is of their sizes,
    and by how it grows when they are doubled one sees of which power.

    Args:
        rule: the rule.
        given: its hyperparameters.

    Returns:
        For each memory of elements, `"mean"` or `"size"` and the power, 0 where it is measured in other units.
    """
    hyper = {**dict(given), "weight_decay": 0.0}
    kept = rule.kept(hyper)

    def after(scale: float) -> dict[str, Tensor]:
        x = torch.zeros(2, dtype=torch.float64)
        state: dict[str, Any] = {}
        for t, slope in enumerate((1e3, 1.3e3, 0.9e3), 1):  # so large that no ε is seen
            g = scale * slope * torch.tensor([1.0, 0.7], dtype=torch.float64)
            if t == 1:
                state = {name: begun(spec, hyper, x, g) for name, spec in kept.items()}
            moved = terms(rule, hyper, t, x, g, state)
            state = {name: moved.get(name, state[name]) for name in kept}
        return {name: torch.as_tensor(state[name]) for name, spec in kept.items() if spec.kind == "element"}

    once, turned, doubled = after(1.0), after(-1.0), after(2.0)
    found = {}
    for name, value in once.items():
        if not bool((value != 0).any()):
            continue
        power = round(float((doubled[name] / value).abs().log2().nan_to_num(0).mean()))
        if torch.allclose(turned[name], -value):
            found[name] = ("mean", power)
        elif torch.allclose(turned[name], value):
            found[name] = ("size", power)
    return found
