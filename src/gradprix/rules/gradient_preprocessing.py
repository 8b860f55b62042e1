"""Gradient preprocessing of torch (maximize, weight decay), in the form of rules, applied before each rule."""

from collections.abc import Callable
from functools import cache
from typing import Any

from ._rule import PREPROCESSING, Rule
from .ir import Tree
from .parser import parse


def maximize(h, t, x, g):
    """Negate the gradient if the objective is to be maximized."""
    g = -g if h.maximize else g
    return x, g


def weight_decay(h, t, x, g):
    """Add weight decay to the gradient or, if it is decoupled, shrink the weights directly."""
    g = (g if h.decoupled_weight_decay else g + h.weight_decay * x) if h.weight_decay else g
    x = ((1 - h.lr * h.weight_decay) * x if h.decoupled_weight_decay else x) if h.weight_decay else x
    return x, g


TREES = {f: parse(f, {"lr": 0.0, **PREPROCESSING}) for f in (maximize, weight_decay)}


def preprocessing(rule: Rule) -> list[Callable[..., Any]]:
    """Return the preprocessing functions that run before a rule, in order."""
    return [maximize] if rule.owns_weight_decay else [maximize, weight_decay]


@cache
def full_tree(rule: Rule) -> Tree:
    """Return the tree of a complete step: gradient preprocessing, followed by the rule."""
    tree = rule.tree
    for before in reversed(preprocessing(rule)):
        tree = TREES[before] + tree
    return tree
