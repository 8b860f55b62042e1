"""One optimizer's descent, laid open step by step: what it saw, what it remembers, what it computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from gradprix.explain import Equation, Trace, equations, trace
from gradprix.kernels import start as begun

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
