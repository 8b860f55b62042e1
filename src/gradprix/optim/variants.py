"""Arithmetic of other libraries and of the papers, as variants of the rules, each selected by an option of a class.

The rules themselves have the arithmetic of torch. `like="keras"` and other presets select options.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from gradprix.rules import Rule, variant

EPS_INSIDE_SQRT = {"sqrt(v_hat) + eps": "sqrt(v_hat + eps)"}
EPS_BEFORE_CORRECTION = {"sqrt(v_hat) + eps": "sqrt(v_hat) + eps / sqrt(1 - beta2**t)"}
OPTIONS: dict[str, dict[str, Mapping[str, str]]] = {
    "sgd": {
        "dampen_first": {"where(t > 1, dampening, 0)": "dampening"},
        "lr_inside_momentum": {
            "momentum * b + (1 - damping) * g if momentum else g": (
                "momentum * b + (1 - damping) * (lr * g) if momentum else lr * g"
            ),
            "g + momentum * b": "lr * g + momentum * b",
            "lr * d": "d",
        },
    },
    "adagrad": {"eps_inside_sqrt": {"sqrt(s) + eps": "sqrt(s + eps)"}},
    "rmsprop": {
        "eps_inside_sqrt": {"sqrt(s) + eps": "sqrt(s + eps)"},
        "lr_inside_momentum": {
            "momentum * b + d if momentum else d": "momentum * b + lr * d if momentum else lr * d",
            "x - lr * b": "x - b",
        },
    },
    "adam": {
        "eps_inside_sqrt": EPS_INSIDE_SQRT,
        "eps_before_correction": EPS_BEFORE_CORRECTION,
        "correct_before_max": {
            "maximum(v_max, v) if amsgrad else v": (
                "maximum(v_max, v / (1 - beta2**t)) if amsgrad else v / (1 - beta2**t)"
            ),
            "v_max / (1 - beta2**t)": "v_max",
        },
        "uncorrected": {"m / (1 - beta1**t)": "m", "v_max / (1 - beta2**t)": "v_max"},
    },
    "adamw": {
        "eps_inside_sqrt": EPS_INSIDE_SQRT,
        "eps_before_correction": EPS_BEFORE_CORRECTION,
        "full_lr": {"lr * weight_decay": "lr / full_lr * weight_decay"},
    },
    "adamax": {
        "eps_after_max": {
            "abs(g) + eps": "abs(g)",
            "lr / (1 - beta1**t) * m / u": "lr / (1 - beta1**t) * m / (u + eps)",
        },
    },
    "nadam": {
        "scheduled_mean": {"beta1 * m + (1 - beta1) * g": "mu * m + (1 - mu) * g"},
        "decay_after_correction": {"v / (1 - beta2**t)": "beta2 * v / (1 - beta2**t)"},
    },
    "radam": {
        "eps_after_correction": {
            "r * sqrt(1 - beta2**t) * m_hat / (sqrt(v) + eps)": "r * m_hat / (sqrt(v / (1 - beta2**t)) + eps)"
        },
        "rectify_above_four": {
            "rho > 5": "rho > 4",
            "maximum(rho, 5)": "maximum(rho, 4)",
            "maximum(rho_inf, 5)": "maximum(rho_inf, 4.001)",  # up to 4, the root is undefined and unused
        },
    },
}
"""Expressions that each option replaces, by the name of the rule."""
NUMBERS = {"full_lr": 0.0}
"""Options that are hyperparameters, and select the variant if they are not zero."""


def option_defaults(rule: Rule) -> dict[str, float | bool]:
    """Return the options of the class of a rule that select variants, with their defaults."""
    return {name: NUMBERS.get(name, False) for name in OPTIONS.get(rule.name, {})}


def with_options(rule: Rule, given: Mapping[str, Any]) -> Rule:
    """Return the variant of a rule that its options select.

    Args:
        rule: the rule.
        given: values of options by name; other names are ignored.

    Example:
        >>> from gradprix.rules import adam, formula
        >>> formula(with_options(adam, {"eps_inside_sqrt": True}))[-1]
        'x ← x − η m̂ / √(v̂ + ε)'
    """
    options = OPTIONS.get(rule.name)
    if not options or options.keys().isdisjoint(given):  # in every step of almost every optimizer
        return rule
    active = tuple(name for name in options if given.get(name))
    return _select(rule, active) if active else rule


@cache
def _select(rule: Rule, active: tuple[str, ...]) -> Rule:
    replacements = OPTIONS[rule.name]
    selected: dict[str, str] = {}
    for name in reversed(active):  # the first of several options that replace an expression takes precedence
        selected |= replacements[name]
    return variant(rule, selected, {name: NUMBERS[name] for name in active if name in NUMBERS})
