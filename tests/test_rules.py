"""The form of a rule, its formula, and the relations that the rules state."""

import pickle
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from gradprix import rules
from gradprix.kernels import compute_evaluation_point, init_state
from gradprix.optim.variants import with_options
from gradprix.rules import (
    RuleError,
    State,
    clip,
    columns,
    log,
    matmul,
    maximum,
    mean,
    minimum,
    norm,
    rows,
    rule,
    sign,
    sqrt,
    transpose,
    where,
)


def path(
    which: rules.Rule, steps: int = 30, change: Any = None, scale: float = 1.0, **values: float | bool
) -> torch.Tensor:
    """The points a rule visits on fixed gradients; `change(t)` gives hyperparameters that differ from step to step."""
    h = SimpleNamespace(**which.values(**values))
    generator = torch.Generator().manual_seed(3)
    x = torch.zeros(4, dtype=torch.float64)
    state: Any = [init_state(s, vars(h), x, x) for s in which.state.values()]
    points = []
    for t in range(1, steps + 1):
        vars(h).update(change(t) if change else {})
        g = scale * torch.randn(4, generator=generator, dtype=torch.float64)
        x, *state = which(h, t, x, g, *state)
        points.append(x)
    return torch.stack(points)


def gradients(steps: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randn(4, generator=generator, dtype=torch.float64) for _ in range(steps)])


def corrected(t: int) -> dict[str, float]:
    """RMSProp's rate and epsilon that undo the absence of Adam's correction of the second moment."""
    root = (1 - 0.999**t) ** 0.5
    return {"lr": 0.01 * root, "eps": 1e-8 * root}


def rectified(t: int) -> dict[str, float]:
    """Adam's rate scaled as RAdam's paper has it (Algorithm 2), once its threshold is passed."""
    top = 2 / (1 - 0.999) - 1
    rho = top - 2 * t * 0.999**t / (1 - 0.999**t)
    r = ((rho - 4) * (rho - 2) * top / ((top - 4) * (top - 2) * rho)) ** 0.5 if rho > 5 else 0.0
    return {"lr": 0.01 * r}


def rmsprop_of_the_gradients_before() -> torch.Tensor:
    """RMSProp's steps, from a mean square that lacks the newest gradient, clipped and with momentum."""
    x, m, points = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), []
    h = SimpleNamespace(**rules.rmsprop.values(lr=1.0, eps=0.0))
    h.alpha = 1.0  # the square of the gradient it steps on adds nothing
    s = gradients()[0] ** 2
    for t, g in enumerate(gradients()):
        moved, *_ = rules.rmsprop(h, 1, x, g, s, None, None)
        m = 0.5 * m + 0.5 * (x - moved).clamp(-(t**0.25), t**0.25)
        s = 0.9 * s + 0.1 * g**2
        x = x - 0.1 * m
        points.append(x)
    return torch.stack(points)


def averages(which: rules.Rule, **values: float) -> torch.Tensor:
    """The points at which a rule says to evaluate, on the gradients of `path`."""
    h, x = which.values(**values), torch.zeros(4, dtype=torch.float64)
    state = {name: init_state(s, h, x, x) for name, s in which.state.items()}
    points = []
    for t, g in enumerate(gradients(), 1):
        x, *after = which(SimpleNamespace(**h), t, x, g, *state.values())
        state = dict(zip(state, after, strict=True))
        points.append(compute_evaluation_point(which, h, t, x, state))
    return torch.stack(points)


def means(points: torch.Tensor) -> torch.Tensor:
    """The mean of each point and all before it."""
    return points.cumsum(0) / torch.arange(1, len(points) + 1)[:, None]


def adam_in_lengths_of_the_weights() -> torch.Tensor:
    """Adam's directions, each step as long as the rate times the weights; the first from zero is Adam's own."""
    steps = path(rules.adam, lr=1e-3, eps=1e-6).diff(dim=0)
    points = [path(rules.adam, lr=1e-3, eps=1e-6)[0]]
    for step in steps:
        points.append(points[-1] + 1e-3 * points[-1].norm() * step / step.norm())
    return torch.stack(points)


def descent_at_distance_over_gradients() -> torch.Tensor:
    """SGD whose rate is the largest distance from zero so far, at least 0.1, over the norm of all gradients."""
    rates: list[float] = []
    for t in range(30):
        points = path(rules.sgd, change=lambda t: {"lr": rates[t - 1]}, steps=t) if t else torch.zeros(1, 4)
        rates.append(max(0.1, points.norm(dim=1).max().item()) / gradients()[: t + 1].norm().item())
    return path(rules.sgd, change=lambda t: {"lr": rates[t - 1]})


def momentum_with_its_singular_values_moved() -> tuple[torch.Tensor, torch.Tensor]:
    """Muon's steps in float64, and SGD's with the singular values put through five polynomials, for a tall matrix."""
    with patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone):
        return orthogonalized_steps()


def orthogonalized_steps() -> tuple[torch.Tensor, torch.Tensor]:
    h = {"muon": SimpleNamespace(**rules.muon.values(lr=1.0, match_rms_adamw=False, weight_decay=0.0))}
    h["sgd"] = SimpleNamespace(**rules.sgd.values(lr=1.0, momentum=0.95, nesterov=True))
    generator = torch.Generator().manual_seed(3)
    x, b, v = (torch.zeros(6, 3, dtype=torch.float64) for _ in range(3))
    pairs = []
    for _ in range(10):
        g = torch.randn(6, 3, generator=generator, dtype=torch.float64)
        moved, b = rules.muon(h["muon"], 2, x, g, b)
        step, v = rules.sgd(h["sgd"], 2, x, g, v)
        left, s, right = torch.linalg.svd(x - step, full_matrices=False)
        s = s / s.norm()
        for _ in range(5):
            s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
        assert ((s > 0.3) & (s < 1.3)).all()
        pairs.append((x - moved, 2**0.5 * (left * s) @ right))
    return torch.stack([one for one, _ in pairs]), torch.stack([other for _, other in pairs])


RELATIONS: dict[str, Any] = {
    "sgd": lambda: (path(rules.sgd, lr=0.1), -0.1 * gradients().cumsum(0)),
    "adagrad": lambda: (
        path(rules.adagrad, lr=0.1, eps=0.0),
        path(rules.rmsprop, eps=0.0, change=lambda t: {"alpha": 1 - 1 / t, "lr": 0.1 / t**0.5}),
    ),
    "rmsprop": lambda: (
        path(rules.rmsprop, alpha=0.999, change=corrected),
        path(rules.adam, beta1=0.0, beta2=0.999, lr=0.01),
    ),
    "adadelta": lambda: (path(rules.adadelta, eps=1e-6), rmsprop_in_its_own_units()),
    "adam": lambda: (
        path(rules.adam, beta1=0.0, beta2=0.999, lr=0.01),
        path(rules.rmsprop, alpha=0.999, change=corrected),
    ),
    "adamw": lambda: (path(rules.adamw, weight_decay=0.0), path(rules.adam)),
    "adamax": lambda: (path(rules.adamax, beta1=0.0, beta2=0.0, lr=0.1, eps=0.0), -0.1 * gradients().sign().cumsum(0)),
    "nadam": lambda: (path(rules.nadam, beta1=0.0, lr=0.01), path(rules.adam, beta1=0.0, lr=0.01)),
    "radam": lambda: (
        path(rules.radam, lr=0.01, eps=0.0).diff(dim=0)[5:],
        path(rules.adam, eps=0.0, change=rectified).diff(dim=0)[5:],
    ),
    "lion": lambda: (
        path(rules.lion, beta1=0.0, beta2=0.0, lr=0.1),
        path(rules.adamax, beta1=0.0, beta2=0.0, lr=0.1, eps=0.0),
    ),
    "adan": lambda: (path(rules.adan, beta2=0.0), path(rules.adam, beta1=0.98, beta2=0.99)),
    "ademamix": lambda: (path(rules.ademamix, alpha=0.0, weight_decay=0.1), path(rules.adamw, weight_decay=0.1)),
    "adopt": lambda: (path(rules.adopt, lr=0.1, beta1=0.5, beta2=0.9), rmsprop_of_the_gradients_before()),
    "schedule_free_sgd": lambda: (averages(rules.schedule_free_sgd, lr=0.1), means(path(rules.sgd, lr=0.1))),
    "schedule_free_adamw": lambda: (
        averages(rules.schedule_free_adamw, lr=0.1, eps=0.0, weight_lr_power=0.0),
        means(path(rules.adam, lr=0.1, beta1=0.0, eps=0.0)),
    ),
    "lamb": lambda: (path(rules.lamb, weight_decay=0.0)[1:], adam_in_lengths_of_the_weights()[1:]),
    "novograd": lambda: (
        path(rules.novograd, beta1=0.0, beta2=0.0, eps=0.0, lr=0.1),
        -0.1 * (gradients() / gradients().norm(dim=1, keepdim=True)).cumsum(0),
    ),
    "dog": lambda: (path(rules.dog, reps_rel=0.1, eps=0.0), descent_at_distance_over_gradients()),
    "dadapt_adam": lambda: (
        path(rules.dadapt_adam, beta1=0.0, beta2=0.99, d0=0.02, growth_rate=1.0, lr=0.5),
        path(rules.rmsprop, alpha=0.99, lr=0.01),
    ),
    "prodigy": lambda: (
        path(rules.prodigy, d0=0.02, d_coef=1e-30, use_bias_correction=True, eps=0.0, lr=0.5),
        path(rules.adam, lr=0.01, eps=0.0),
    ),
    "muon": momentum_with_its_singular_values_moved,
    "rprop": lambda: (
        path(rules.rprop, change=lambda t: {"etaminus": 1.0, "etaplus": 1.0}, lr=0.1).diff(dim=0)[FOLLOWS],
        path(rules.signum, momentum=0.0, lr=0.1).diff(dim=0)[FOLLOWS],
    ),
    "asgd": lambda: (averages(rules.asgd, lambd=0.5, t0=0.0, lr=0.1)[1:], means(decayed_sgd()[1:])),
    "signum": lambda: (path(rules.signum, momentum=0.8), path(rules.lion, beta1=0.8, beta2=0.8)),
    "qhm": lambda: (
        torch.stack([path(rules.qhm, nu=nu, momentum=0.9, lr=0.1) for nu in (0.0, 1.0)]),
        torch.stack([path(rules.sgd, lr=0.1), path(DAMPENED_SGD, lr=0.1, **DAMPED)]),
    ),
    "aggmo": lambda: (
        path(rules.aggmo, beta1=0.9, beta2=0.9, beta3=0.9, lr=0.1),
        path(rules.sgd, momentum=0.9, lr=0.1),
    ),
    "pnm": lambda: (path(rules.pnm, beta1=0.9**0.5, beta2=0.0, lr=0.1), odd_and_even_momentum()),
    "accsgd": lambda: (path(rules.accsgd, xi=0.0, lr=0.1), path(rules.sgd, lr=0.1)),
    "kate": lambda: (path(rules.kate, eps=0.0, scale=100.0), path(rules.kate, eps=0.0) / 100),
    "adabelief": lambda: (path(rules.adabelief, eps=0.0), adam_of_deviations()),
    "yogi": lambda: (
        path(rules.yogi, beta1=0.0, beta2=1 - 1e-9, eps=0.0, initial_accumulator_value=0.0, lr=0.1),
        path(rules.adagrad, eps=0.0, lr=0.1 / (1 - (1 - 1e-9)) ** 0.5),
    ),
    "adabound": lambda: (
        path(rules.adabound, change=lambda t: {"gamma": 1e15}, lr=0.01),
        path(DAMPENED_SGD, lr=1.0, **DAMPED),
    ),
    "adamod": lambda: (path(rules.adamod, beta3=0.0, eps=0.0), path(rules.adam, eps=0.0)),
    "laprop": lambda: (path(rules.laprop, beta1=0.0, eps=1e-8), path(rules.adam, beta1=0.0, lr=4e-4)),
    "acprop": lambda: (path(rules.acprop, eps=0.0)[1:], normalized_by_adabelief_before()[1:]),
    "qhadam": lambda: (path(rules.qhadam, nu1=1.0, beta1=0.9), path(rules.adam)),
    "grams": lambda: (path(rules.grams, beta1=0.0, weight_decay=0.1), path(rules.adamw, beta1=0.0, weight_decay=0.1)),
    "optimistic_adam": lambda: (path(rules.optimistic_adam), with_last_step_repeated(path(rules.adam))),
    "lars": lambda: (path(rules.lars, lr=0.1, weight_decay=0.5), momentum_in_proportion_to_the_weights()),
    "adafactor": lambda: (path(rules.adafactor, d=1e9, lr=0.5), rmsprop_in_proportion_to_the_weights()),
    "came": lambda: (path(rules.came, eps1=0.0, lr=0.1), momentum_of_clipped_rmsprop()),
    "shampoo": lambda: (path(rules.shampoo), path(rules.adagrad, lr=0.1, eps=1e-4)),
    "soap": lambda: (
        path(rules.soap, eps=0.0, weight_decay=0.0)[1:],
        stepped(rules.adam, gradients()[1:], lr=3e-3, beta1=0.95, beta2=0.95, eps=0.0),
    ),
    "grokfast_adamw": lambda: (path(rules.grokfast_adamw, amplification=0.0), path(rules.adamw)),
}
DAMPED: dict[str, Any] = {"momentum": 0.9, "dampening": 0.9}
DAMPENED_SGD = with_options(rules.sgd, {"dampen_first": True})
FOLLOWS = gradients()[1:] * gradients()[:-1] > 0
"""Where a gradient has the sign of the one before."""


def stepped(which: rules.Rule, gradients: torch.Tensor, **values: float | bool) -> torch.Tensor:
    """The points a rule visits on given gradients."""
    h, x = SimpleNamespace(**which.values(**values)), torch.zeros(4, dtype=torch.float64)
    state: Any = [init_state(s, vars(h), x, x) for s in which.state.values()]
    points = []
    for t, g in enumerate(gradients, 1):
        x, *state = which(h, t, x, g, *state)
        points.append(x)
    return torch.stack(points)


def momentum_in_proportion_to_the_weights() -> torch.Tensor:
    """SGD with momentum and L2 regularization, whose learning rate is set before each step from two norms."""
    x, b, points = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), []
    h = SimpleNamespace(**rules.sgd.values(lr=1.0, momentum=0.9))
    for g in gradients():
        rate = 0.1 * (1e-3 * x.norm() / (g.norm() + 0.5 * x.norm()) if x.norm() else 1.0)
        x, b = rules.sgd(h, 2, x, rate * (g + 0.5 * x), b)
        points.append(x)
    return torch.stack(points)


def rmsprop_in_proportion_to_the_weights() -> torch.Tensor:
    """RMSProp with decay 1 − t^−0.8 and the RMS of the weights, at least 0.001, in its learning rate."""
    x, v, points = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), []
    for t, g in enumerate(gradients(), 1):
        rate = max(1e-3, x.square().mean().sqrt().item()) * min(0.5, t**-0.5)
        h = SimpleNamespace(**{**rules.rmsprop.values(lr=rate, eps=0.0), "alpha": 1 - t**-0.8})
        x, v, *_ = rules.rmsprop(h, t, x, g, v, None, None)
        points.append(x)
    return torch.stack(points)


def momentum_of_clipped_rmsprop() -> torch.Tensor:
    """A running mean of RMSProp's directions, each divided by its RMS if that is above 1."""
    x, v, m, points = (torch.zeros(4, dtype=torch.float64) for _ in range(4))
    points = []
    h = SimpleNamespace(**rules.rmsprop.values(alpha=0.999, lr=1.0, eps=0.0))
    for g in gradients():
        moved, v, *_ = rules.rmsprop(h, 2, 0 * x, g, v, None, None)
        m = 0.9 * m - 0.1 * moved / max(1.0, moved.square().mean().sqrt().item())
        x = x - 0.1 * m
        points.append(x)
    return torch.stack(points)


def with_last_step_repeated(points: torch.Tensor) -> torch.Tensor:
    """Each point of a path from zero, moved by the step that led to it."""
    return points + points.diff(dim=0, prepend=torch.zeros_like(points[:1]))


def decayed_sgd() -> torch.Tensor:
    """SGD with weight decay 0.5 and a decreasing learning rate."""
    x, points = torch.zeros(4, dtype=torch.float64), []
    for t, g in enumerate(gradients()):
        h = SimpleNamespace(**rules.sgd.values(lr=0.1 / (1 + 0.05 * t) ** 0.75))
        x, _ = rules.sgd(h, 2, x, g + 0.5 * x, None)
        points.append(x)
    return torch.stack(points)


def odd_and_even_momentum() -> torch.Tensor:
    """SGD with one momentum buffer for odd steps and another for even ones."""
    h, x = SimpleNamespace(**rules.sgd.values(lr=0.1, **DAMPED)), torch.zeros(4, dtype=torch.float64)
    buffers, points = [x, x], []
    for t, g in enumerate(gradients()):
        x, buffers[t % 2] = DAMPENED_SGD(h, 2, x, g, buffers[t % 2])
        points.append(x)
    return torch.stack(points)


def adam_of_deviations() -> torch.Tensor:
    """Adam's step, whose second moment comes from another Adam, given the differences to the running mean."""
    h, zero = SimpleNamespace(**rules.adam.values(eps=0.0)), torch.zeros(4, dtype=torch.float64)
    x, m, v, points = zero, zero, zero, []
    for t, g in enumerate(gradients(), 1):
        _, m, _, _ = rules.adam(h, t, x, g, m, zero, None)
        _, _, v, _ = rules.adam(h, t, x, g - m, zero, v, None)
        x = x - h.lr * m / (1 - 0.9**t) / (v / (1 - 0.999**t)).sqrt()
        points.append(x)
    return torch.stack(points)


def normalized_by_adabelief_before() -> torch.Tensor:
    """Gradients over the root of AdaBelief's second moment, with bias correction, of the step before."""
    h, zero = SimpleNamespace(**rules.adabelief.values(eps=0.0)), torch.zeros(4, dtype=torch.float64)
    x, m, s, points = zero, zero, zero, []
    for t, g in enumerate(gradients(), 1):
        x = x - h.lr * (g / (s / (1 - 0.999 ** (t - 1))).sqrt() if t > 1 else g)
        _, m, s = rules.adabelief(h, t, zero, g, m, s)
        points.append(x)
    return torch.stack(points)


def rmsprop_in_its_own_units() -> torch.Tensor:
    """RMSProp whose rate is the root mean square of its own updates, its epsilon moved inside the root."""
    x, v, u, points = (torch.zeros(4, dtype=torch.float64) for _ in range(4))
    points = []
    for g in gradients():
        h = SimpleNamespace(**rules.rmsprop.values(alpha=0.9, eps=0.0))
        h.lr = (u + 1e-6) ** 0.5
        # One step from a second moment that already holds epsilon: 0.9 (v + 1e-6) + 0.1 g² = v_new + 0.9e-6.
        moved, *_ = rules.rmsprop(h, 1, x, g, v + 1e-6, None, None)
        scale = ((0.9 * v + 0.1 * g**2 + 0.9e-6) / (0.9 * v + 0.1 * g**2 + 1e-6)) ** 0.5
        d = (x - moved) * scale
        v, u, x = 0.9 * v + 0.1 * g**2, 0.9 * u + 0.1 * d**2, x - d
        points.append(x)
    return torch.stack(points)


@pytest.mark.parametrize("name", rules.ALL)
def test_the_relation_that_a_rule_states_holds(name: str) -> None:
    one, other = RELATIONS[name]()
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_adamax_is_adam_in_the_limit_of_a_high_norm() -> None:
    # Kingma & Ba, section 7.1: v_t^(1/p) with decay beta2^p tends to the decaying maximum as p grows.
    p, beta2, v, u = 200, 0.999, torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for g in gradients():
        v, u = beta2**p * v + g.abs() ** p, maximum(beta2 * u, abs(g))
    torch.testing.assert_close(v ** (1 / p), u, rtol=1e-2, atol=0)


@pytest.mark.parametrize("which", rules.ALL.values(), ids=rules.ALL)
def test_a_rule_is_complete(which: rules.Rule) -> None:
    assert which.summary.endswith(".")
    assert which.relation.endswith(".")
    assert any(digit in which.source for digit in "0123456789"), "the paper has a year"
    assert "lr" in which.space
    assert which.name in RELATIONS
    assert len({assign.line for assign in which.tree.assigns}) < 15


def test_the_formula_is_printed_from_the_tree() -> None:
    assert rules.formula(rules.sgd) == ["x ← x − η g"]
    assert rules.formula(rules.sgd, momentum=0.9, nesterov=True) == [
        "damping ← where(t > 1, dampening, 0)",
        "b ← momentum b + (1 − damping) g",
        "d ← g + momentum b",
        "x ← x − η d",
    ]
    assert rules.formula(rules.adam, amsgrad=True) == [
        "m ← β₁ m + (1 − β₁) g",
        "v ← β₂ v + (1 − β₂) g²",
        "v_max ← max(v_max, v)",
        "m̂ ← m / (1 − β₁ᵗ)",
        "v̂ ← v_max / (1 − β₂ᵗ)",
        "x ← x − η m̂ / (√v̂ + ε)",
    ]
    assert rules.formula(rules.muon) == [
        "b ← lerp(b, g, 1 − momentum)",
        "d ← lerp(g, b, momentum)",
        "o ← newton_schulz(d, ε, ns_a, ns_b, ns_c, ns_steps)",
        "rms ← 0.2 √max(rows(x), columns(x))",
        "x ← (1 − η λ) x",
        "x ← axpy((−η) rms, o, x)",
    ]

    def orthogonal(h, t, x, g):
        o = where(rows(g) > columns(g), transpose(g), g)
        o = o / (norm(o) + 1e-7)
        for _ in range(5):
            a = matmul(o, transpose(o))
            o = 3.4445 * o + matmul(-4.775 * a + 2.0315 * matmul(a, a), o)
        x = x - h.lr * where(rows(g) > columns(g), transpose(o), o)
        return x

    shown = rules.formula(made(orthogonal, scope="tensor"))
    assert shown[:4] == [
        "o ← where(rows(g) > columns(g), gᵀ, g)",
        "o ← o / (‖o‖ + 1e-07)",
        "a ← o oᵀ",
        "o ← 3.4445 o + ((−4.775) a + 2.0315 a a) o",
    ]
    assert shown[2:4] * 5 == shown[2:12], "a loop is its copies"


def made(function: Any, **given: Any) -> rules.Rule:
    return rule("Nobody 2026", relation="None.", space={"lr": log(1e-3, 1)}, lr=0.1, **given)(function)


def test_what_a_rule_may_not_say_is_refused_with_its_line() -> None:
    def calls_torch(h, t, x, g):
        x = x - h.lr * torch.sign(g)
        return x

    def undeclared(h, t, x, g):
        x = x - h.rate * g
        return x

    def loops(h, t, x, g):
        for _ in range(2):
            x = x - h.lr * g
        return x

    def unknown(h, t, x, g):
        x = x - h.lr * other  # noqa: F821
        return x

    def option_as_number(h, t, x, g):
        x = x - h.lr * h.flag * g
        return x

    def wrong_state(h, t, x, g, m):
        return x, m

    def forgets(h, t, x, g, m):
        m = m + g
        return x

    def scalar_of_elements(h, t, x, g, s):
        s = s + g
        x = x - s
        return x, s

    def numbers_by_element(h, t, x, g):
        x = x - where(g > 0, 1.2, 0.5) * g
        return x

    def reciprocal(h, t, x, g):
        x = x - g * (h.lr / abs(g))
        return x

    def assigns_t(h, t, x, g):
        t = t + 1
        return x

    def arity(h, t, x, g):
        x = maximum(x)
        return x

    def takes_a_given_name(h, t, x, g):
        sqrt = x - g
        x = sqrt
        return x

    def returns_value(h, t, x, g):
        return x - h.lr * g

    scalar = {"s": State("s", kind="scalar")}
    for function, given, message in [
        (calls_torch, {}, r"test_rules.py:\d+: .*`torch.sign\(g\)` is outside the vocabulary"),
        (undeclared, {}, r"h.rate is not declared. Give rate=... a default"),
        (loops, {}, r"is not `name = value`"),
        (unknown, {}, r"'other' has no value here"),
        (option_as_number, {"flag": False}, r"the option h.flag is used as a number"),
        (wrong_state, {}, r"are not the declared state"),
        (forgets, {"state": {"m": "m"}}, r"Return x and then the state"),
        (scalar_of_elements, {"state": scalar}, r"scalar state 's' is given one value an element"),
        (numbers_by_element, {}, r"numbers have no dtype"),
        (reciprocal, {}, r"Put a tensor above the line"),
        (assigns_t, {}, r"'t' is assigned"),
        (arity, {}, r"maximum got 1 arguments. It takes 2"),
        (takes_a_given_name, {}, r"'sqrt' is assigned"),
        (returns_value, {}, r"does not end by returning names"),
    ]:
        with pytest.raises(RuleError, match=message):
            made(function, **given)


def test_what_only_whole_tensors_bear_is_refused_of_elements() -> None:
    def of_all(h, t, x, g):
        x = x - h.lr * g / norm(g)
        return x

    def forever(h, t, x, g):
        for _ in range(10**6):
            x = x - h.lr * g
        return x

    def counts(h, t, x, g):
        for i in range(3):
            x = x - h.lr * i * g
        return x

    def nests(h, t, x, g):
        for _ in range(3):
            if g:
                x = x - g
        return x

    for function, given, message in [
        (of_all, {}, r'test_rules.py:\d+: .*`norm\(g\)` is of a whole tensor.* Say scope="tensor" in @rule'),
        (forever, {"scope": "tensor"}, r"is not `name = value`"),
        (counts, {"scope": "tensor"}, r"is not `name = value`"),
        (nests, {"scope": "tensor"}, r"is not `name = value`"),
    ]:
        with pytest.raises(RuleError, match=message):
            made(function, **given)
    assert made(of_all, scope="tensor").scope == "tensor"


def test_where_to_evaluate_is_of_the_same_form() -> None:
    def steps(h, t, x, g, z):
        z = z - h.lr * g
        return x, z

    def torch_like(h, t, x, z):
        point = torch.lerp(x, z, 0.5)
        return point

    def of_the_gradient(h, t, x, g):
        return g

    def of_nothing_kept(h, t, x, y):
        point = x + y
        return point

    def two(h, t, x, z):
        return x, z

    for evaluate, message in [
        (torch_like, r"test_rules.py:\d+: .*is outside the vocabulary"),
        (of_the_gradient, r"g is no state of the rule. It has: z"),
        (of_nothing_kept, r"y is no state of the rule"),
        (two, r"Return one point"),
    ]:
        with pytest.raises(RuleError, match=message):
            made(steps, state={"z": "z"}, evaluate=evaluate)


def test_a_rule_has_ranges_of_its_own() -> None:
    assert rules.ademamix.values(alpha=8.0)["alpha"] == 8.0
    with pytest.raises(ValueError, match=r"alpha = 1.5: it must be in \[0, 1\)"):
        rules.rmsprop.values(alpha=1.5)
    with pytest.raises(ValueError, match=r"momentum = 0: it must be in \[0.001, 1\)"):
        rules.schedule_free_sgd.values(momentum=0)


def test_a_rule_is_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(rules.adam)) is rules.adam


def test_values_are_checked() -> None:
    with pytest.raises(TypeError, match="adam has no 'momentum'. It has: lr, beta1"):
        rules.adam.values(momentum=0.9)
    with pytest.raises(ValueError, match=r"beta1 = 1: it must be in \[0, 1\)"):
        rules.adam.values(beta1=1)
    with pytest.raises(ValueError, match="the smaller first"):
        log(1, 0.1)


def test_the_vocabulary_keeps_the_dtype_and_agrees_on_numbers_and_tensors() -> None:
    a, b = torch.tensor([-1.5, 0.0, 2.0], dtype=torch.bfloat16), torch.tensor([1.0, -1.0, 0.5], dtype=torch.bfloat16)
    for function, arguments in [
        (abs, (a,)),
        (sign, (a,)),
        (sqrt, (abs(a),)),
        (maximum, (a, b)),
        (maximum, (a, 0.5)),
        (maximum, (0.5, a)),
        (minimum, (a, b)),
        (minimum, (a, 0.5)),
        (minimum, (0.5, a)),
        (clip, (a, -1, 1)),
        (where, (a > 0, a, b)),
        (where, (a, 2.0, b)),
        (where, (a > 0, a, 0.5)),
    ]:
        result = function(*arguments)
        assert result.dtype == torch.bfloat16
        for i in range(3):
            numbers = [v[i].item() if isinstance(v, torch.Tensor) else v for v in arguments]
            assert result[i].item() == pytest.approx(function(*numbers), rel=1e-2)


def test_the_vocabulary_of_whole_tensors() -> None:
    a = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]], dtype=torch.bfloat16)

    assert (norm(a).item(), mean(a).item(), rows(a), columns(a)) == (5.0, 1.1640625, 2, 3)
    assert norm(a).dtype == mean(a).dtype == matmul(a, transpose(a)).dtype == torch.bfloat16
    assert matmul(a, transpose(a)).tolist() == [[25.0, 0.0], [0.0, 0.0]]
    assert (norm(-2.0), mean(-2.0)) == (2.0, -2.0)
