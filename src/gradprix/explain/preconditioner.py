"""Preconditioner of a rule: its response to a constant gradient while its size statistics are frozen.

Size statistics are the state variables that measure the size of the gradients, such as Adam's second moment. As long as
they are constant, an adaptive rule is gradient descent with a learning rate per coordinate (Cohen et al. 2022,
arXiv:2207.14484, section 3). This learning rate is called the *gain* here, and is measured by applying the rule. So is
the largest product of gain and curvature at which the rule converges: 2 for gradient descent, 38 for Adam with
β₁ = 0.9.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gradprix.kernels import compute_terms, init_state
from gradprix.rules import Rule
from gradprix.rules.gradient_preprocessing import full_tree
from gradprix.rules.ir import names

STEADY = 150
"""Steps after which a moving average of gradients has converged: 0.9¹⁵⁰ is 1e-7."""
TRIED = 2_000
"""Number of steps after which convergence is tested."""
LATE = 100_000
"""Step number at which all bias corrections have vanished."""
FAINT = 1e-6
"""Gradient, relative to the size statistics, that is too small to change them."""
Values = Mapping[str, Any]


@lru_cache(maxsize=256)
def classify_state(rule: Rule, given: tuple[tuple[str, Any], ...]) -> dict[str, tuple[str, int]]:
    """Classify a rule's state variables by their response to the sign and the scale of the gradients.

    If all gradients change sign, a mean or sum of gradients changes sign as well, and a size statistic does not. If all
    gradients are doubled, a state variable in units of the gradient to the power p grows by the factor 2ᵖ.

    Args:
        rule: the rule.
        given: all of its hyperparameters, as pairs of name and value.

    Returns:
        The kind, `"mean"` or `"size"`, and the power p of each elementwise state variable; p is 0 for a variable that
        does not grow with the gradients. Variables that remain zero or are of neither kind are left out.
    """
    hyper = {**dict(given), "weight_decay": 0.0}
    specs = rule.active_state(hyper)

    def state_after(scale: float) -> dict[str, Tensor]:
        x = torch.zeros(2, dtype=torch.float64)
        state: dict[str, Any] = {}
        for t, slope in enumerate((1e3, 1.3e3, 0.9e3), 1):  # large enough to make ε negligible
            g = scale * slope * torch.tensor([1.0, 0.7], dtype=torch.float64)
            if t == 1:
                state = {name: init_state(spec, hyper, x, g) for name, spec in specs.items()}
            moved = compute_terms(rule, hyper, t, x, g, state)
            state = {name: moved.get(name, state[name]) for name in specs}
        return {name: torch.as_tensor(state[name]) for name, spec in specs.items() if spec.kind == "element"}

    once, negated, doubled = state_after(1.0), state_after(-1.0), state_after(2.0)
    classified = {}
    for name, value in once.items():
        if not bool((value != 0).any()):
            continue
        power = round(float((doubled[name] / value).abs().log2().nan_to_num(0).mean()))
        if torch.allclose(negated[name], -value, rtol=1e-6, atol=0.0):
            classified[name] = ("mean", power)
        elif torch.allclose(negated[name], value, rtol=1e-6, atol=0.0):
            classified[name] = ("size", power)
    return classified


def gain(rule: Rule, values: Values, t: int, state: Mapping[str, Any]) -> Tensor:
    """Return the gain of each coordinate: the length of its step per unit of a constant gradient.

    It is measured with frozen size statistics and step number, after momentum has converged.

    Args:
        rule: an elementwise rule.
        values: all of its hyperparameters.
        t: step number.
        state: complete state after step `t`, by the rule's names.

    Returns:
        The gain, with the parameter's shape. It is 0 where a size statistic is 0 because no gradient has occurred.
    """
    frozen = _FrozenRule(rule, values, t, state)
    for _ in range(STEADY):
        moved = frozen.step(0 * frozen.faint, frozen.faint)
    return torch.where(frozen.faint > 0, -moved / frozen.faint, 0.0)


@lru_cache(maxsize=256)
def settles_below(rule: Rule, given: tuple[tuple[str, Any], ...]) -> float | None:
    """Return the largest product of gain and curvature at which a rule converges on a parabola.

    Size statistics are frozen, so that the gain is constant.

    Args:
        rule: the rule.
        given: all of its hyperparameters, as pairs of name and value.

    Returns:
        The product, or None if it is undefined: if the rule is not elementwise, evaluates at other weights than it
        trains (schedule-free), or takes steps that are not proportional to the gradient (Lion); and if the product is
        outside the range from 0.0001 to 100,000.
    """
    values: Values = dict(given)
    if not rule.is_separable or rule.evaluate is not None or not values["lr"] > 0:
        return None
    products = torch.logspace(-4, 5, 3_601, dtype=torch.float64)
    ones = torch.ones_like(products)
    # The values of the size statistics are arbitrary: they only set the units of the gain. At a late step no bias
    # correction remains.
    state = {name: init_state(spec, values, 0 * ones, ones) for name, spec in rule.active_state(values).items()}
    state |= {name: ones for name, (kind, _) in classify_state(rule, given).items() if kind == "size"}
    state |= {name: 0.0 for name, value in state.items() if not isinstance(value, Tensor)}
    unit_gain, frozen = gain(rule, values, LATE, state), _FrozenRule(rule, values, LATE, state)
    once, twice = (_FrozenRule(rule, values, LATE, state).step(0 * ones, size * frozen.faint)[0] for size in (1.0, 2.0))
    if not unit_gain[0] > 0 or not torch.allclose(2 * once, twice, rtol=1e-6, atol=0.0):
        return None
    curvature = products / unit_gain
    initial = frozen.faint / curvature
    x = initial
    for _ in range(TRIED):
        x = (x + frozen.step(x, curvature * x)).clamp(-1e30, 1e30)
    first_divergent = int((x.abs() >= initial).int().argmax())  # 0 if all converge
    return float(products[first_divergent - 1]) if first_divergent else None


def _read_before_update(rule: Rule, values: Values) -> set[str]:
    """Return the state variables that a step reads before it updates them (AdaDelta's mean of updates)."""
    changed, read_first = set[str](), set[str]()
    for assign in full_tree(rule).fold(values, tuple(rule.active_state(values))).assigns:
        read_first |= names(assign.value) - changed - {assign.name}
        changed.add(assign.name)
    return read_first


class _FrozenRule:
    """A rule whose size statistics, scalar state and step number are frozen, without weight decay.

    Only its means of gradients change from step to step. They start at zero.

    Args:
        rule: the rule.
        values: all of its hyperparameters.
        t: step number.
        state: complete state after step `t`, by the rule's names.
    """

    def __init__(self, rule: Rule, values: Values, t: int, state: Mapping[str, Any]) -> None:
        classified = classify_state(rule, tuple(sorted(values.items())))
        self.rule, self.t, self.values = rule, t, {**values, "weight_decay": 0.0}
        held = {name: value.double() if isinstance(value, Tensor) else value for name, value in state.items()}
        template = next(
            (value for value in held.values() if isinstance(value, Tensor)), torch.zeros(1, dtype=torch.float64)
        )
        self.means = {name: torch.zeros_like(template) for name, (kind, _) in classified.items() if kind == "mean"}
        sizes = {name: power for name, (kind, power) in classified.items() if kind == "size"}
        # A gradient too small to change any size statistic; 1 if there are none.
        faint = [FAINT * held[name] ** (1 / power) for name, power in sizes.items() if power]
        self.faint = torch.stack(faint).amin(0) if faint else torch.ones_like(template)
        # A step decays most sizes before it uses them: compensate for the decay.
        decayed = compute_terms(rule, self.values, t, 0 * template, 0 * template, {**held, **self.means})
        for name in sizes.keys() - _read_before_update(rule, self.values):
            decayed_value = decayed.get(name, held[name])
            held[name] = torch.where(decayed_value > 0, held[name] ** 2 / decayed_value, held[name])
        self.held = held

    def step(self, x: Tensor, g: Tensor) -> Tensor:
        """Perform one step from `x` with gradient `g`, update the means, and return the change of `x`."""
        moved = compute_terms(self.rule, self.values, self.t, x, g, {**self.held, **self.means})
        self.means = {name: moved.get(name, value) for name, value in self.means.items()}
        added: Tensor = moved["x"] - x
        return added
