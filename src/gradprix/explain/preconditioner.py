"""What a rule makes of a steady gradient with its memories of sizes held still: the matrix that curvature is seen by.

An adaptive rule is gradient descent with a rate for each coordinate, as long as the sizes that it divides by hold still
(Cohen et al. 2022, arXiv:2207.14484, section 3). That rate, here the *gain*, is found by trying the rule, and so is the
largest product of gain and curvature at which it settles: 2 for gradient descent, 38 for Adam's β₁ = 0.9.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gradprix.kernels import start, terms
from gradprix.rules import Rule
from gradprix.rules.gradient_preprocessing import whole
from gradprix.rules.ir import names

STEADY = 150
"""Steps after which a mean of gradients has settled: 0.9¹⁵⁰ is 1e-7."""
TRIED = 2_000
"""Steps of a descent that is to settle."""
LATE = 100_000
"""A step by which all corrections for starting at zero are over."""
FAINT = 1e-6
"""A gradient that is to be seen in no size, as a share of it."""
Values = Mapping[str, Any]


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
                state = {name: start(spec, hyper, x, g) for name, spec in kept.items()}
            moved = terms(rule, hyper, t, x, g, state)
            state = {name: moved.get(name, state[name]) for name in kept}
        return {name: torch.as_tensor(state[name]) for name, spec in kept.items() if spec.kind == "element"}

    once, turned, doubled = after(1.0), after(-1.0), after(2.0)
    found = {}
    for name, value in once.items():
        if not bool((value != 0).any()):
            continue
        power = round(float((doubled[name] / value).abs().log2().nan_to_num(0).mean()))
        if torch.allclose(turned[name], -value, rtol=1e-6, atol=0.0):
            found[name] = ("mean", power)
        elif torch.allclose(turned[name], value, rtol=1e-6, atol=0.0):
            found[name] = ("size", power)
    return found


def gain(rule: Rule, values: Values, t: int, state: Mapping[str, Any]) -> Tensor:
    """How far each coordinate goes in a step under a steady gradient of 1, sizes and step count held still.

    Args:
        rule: of elements.
        values: all of its hyperparameters.
        t: the step.
        state: what it remembers after the step, by the rule's own names, none missing.

    Returns:
        Of the parameter's shape; 0 where a size is 0, which has never seen a gradient.
    """
    still = _Still(rule, values, t, state)
    for _ in range(STEADY):
        moved = still.step(0 * still.faint, still.faint)
    return torch.where(still.faint > 0, -moved / still.faint, 0.0)


@lru_cache(maxsize=256)
def settles_below(rule: Rule, given: tuple[tuple[str, Any], ...]) -> float | None:
    """The largest product of gain and curvature at which a rule settles on a parabola, sizes held still.

    None where there is no such: for rules of whole tensors, for those whose step is not proportional to the gradient
    even then (Lion), and where it is not between 0.0001 and 100,000.

    Args:
        rule: the rule.
        given: all of its hyperparameters, as in a dict's items.
    """
    values: Values = dict(given)
    if rule.scope != "element" or rule.evaluate is not None or not values["lr"] > 0:
        return None
    products = torch.logspace(-4, 5, 3_601, dtype=torch.float64)
    ones = torch.ones_like(products)
    # Any sizes will do, as they only set the units of the gain; and so late a step that all corrections are over.
    state = {name: start(spec, values, 0 * ones, ones) for name, spec in rule.kept(values).items()}
    state |= {name: ones for name, (kind, _) in kinds(rule, given).items() if kind == "size"}
    state |= {name: 0.0 for name, value in state.items() if not isinstance(value, Tensor)}
    own, still = gain(rule, values, LATE, state), _Still(rule, values, LATE, state)
    once, twice = (_Still(rule, values, LATE, state).step(0 * ones, size * still.faint)[0] for size in (1.0, 2.0))
    if not own[0] > 0 or not torch.allclose(2 * once, twice, rtol=1e-6, atol=0.0):
        return None
    curvature = products / own
    begin = still.faint / curvature
    x = begin
    for _ in range(TRIED):
        x = (x + still.step(x, curvature * x)).clamp(-1e30, 1e30)
    first = int((x.abs() >= begin).int().argmax())  # that does not; 0 where all do
    return float(products[first - 1]) if first else None


def _used_first(rule: Rule, values: Values) -> set[str]:
    """The memories that a step uses as they were, and changes afterwards (AdaDelta's of updates)."""
    changed, found = set[str](), set[str]()
    for assign in whole(rule).fold(values, tuple(rule.kept(values))).assigns:
        found |= names(assign.value) - changed - {assign.name}
        changed.add(assign.name)
    return found


class _Still:
    """A rule under way whose sizes, numbers and step count hold still; its means begin at zero.

    Args:
        rule: the rule.
        values: its hyperparameters.
        t: the step.
        state: what it remembers after that step.
    """

    def __init__(self, rule: Rule, values: Values, t: int, state: Mapping[str, Any]) -> None:
        found = kinds(rule, tuple(sorted(values.items())))
        self.rule, self.t, self.values = rule, t, {**values, "weight_decay": 0.0}
        held = {name: value.double() if isinstance(value, Tensor) else value for name, value in state.items()}
        like = next(
            (value for value in held.values() if isinstance(value, Tensor)), torch.zeros(1, dtype=torch.float64)
        )
        self.means = {name: torch.zeros_like(like) for name, (kind, _) in found.items() if kind == "mean"}
        sizes = {name: power for name, (kind, power) in found.items() if kind == "size"}
        # A gradient too small to be seen in any size, so that none moves; 1 where there are none.
        faint = [FAINT * held[name] ** (1 / power) for name, power in sizes.items() if power]
        self.faint = torch.stack(faint).amin(0) if faint else torch.ones_like(like)
        # A step lets most sizes fade before it uses them: those begin larger by as much.
        faded = terms(rule, self.values, t, 0 * like, 0 * like, {**held, **self.means})
        for name in sizes.keys() - _used_first(rule, self.values):
            kept = faded.get(name, held[name])
            held[name] = torch.where(kept > 0, held[name] ** 2 / kept, held[name])
        self.held = held

    def step(self, x: Tensor, g: Tensor) -> Tensor:
        """What a step adds."""
        moved = terms(self.rule, self.values, self.t, x, g, {**self.held, **self.means})
        self.means = {name: moved.get(name, value) for name, value in self.means.items()}
        added: Tensor = moved["x"] - x
        return added
