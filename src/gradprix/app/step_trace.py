"""Trace of one optimizer: gradient, state and equations of every step."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from gradprix.explain import Equation, Trace, equations, trace
from gradprix.kernels import init_state as initial_state

from .state import Racer, Setting
from .trajectories import Numbers, learning_rate, surface


@dataclass(frozen=True)
class Step:
    """One step of a trace.

    Args:
        t: step number, from 1.
        x: point before the step, `[2]`.
        after: point after the step, `[2]`.
        g: gradient at the point before the step, `[2]`.
        state: elementwise state variables after the step, by the rule's names, `[2]` each.
        equations: equations with the numbers of the step.
    """

    t: int
    x: Numbers
    after: Numbers
    g: Numbers
    state: Mapping[str, Numbers]
    equations: tuple[Equation, ...]


@lru_cache(maxsize=16)
def cached_trace(setting: Setting, racer: Racer) -> Trace:
    """Return the trace of an optimizer on the surface of a setting, computing it if it is not cached."""
    landscape = surface(setting.surface, setting.parameters, setting.noise)
    own = {**racer.entry.fixed, **dict(racer.own), "lr": learning_rate(racer, setting)}
    return trace(racer.rule, landscape, setting.steps, start=setting.start, seed=setting.seed, **own)


def read_step(descent: Trace, t: int) -> Step:
    """Return one step of a trace, with its equations.

    Args:
        descent: the trace.
        t: step number, from 1.
    """
    layer, rule = descent.x, descent.rule
    x, g, specs = layer.points[t - 1], layer.gradients[t - 1], rule.active_state(descent.values)
    initial = {
        name: initial_state(spec, descent.values, layer.points[0], layer.gradients[0]) for name, spec in specs.items()
    }

    def state_after(steps: int) -> dict[str, Any]:
        """Return the state after a number of steps. Variables that the rule never assigns keep their initial value."""
        assigned = {name: _number(layer.terms[name][steps - 1]) for name in specs if steps and name in layer.terms}
        return {**initial, **assigned}

    before, after = state_after(t - 1), state_after(t)
    state = {name: np.asarray(after[name], dtype=np.float64) for name, spec in specs.items() if spec.kind == "element"}
    evaluated = tuple(equations(rule, descent.values, t, x, g, before))
    return Step(t, x.numpy(), layer.points[t].numpy(), g.numpy(), state, evaluated)


def _number(value: Tensor) -> Any:
    return value if value.dim() else value.item()
