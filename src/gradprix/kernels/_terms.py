"""Intermediate terms of a step: every assignment of a rule, recorded with generated code."""

from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

from gradprix.rules import Rule
from gradprix.rules.gradient_preprocessing import whole

from .codegen import compiled, source

ALL = "_all_assigned_"
"""Name of the result in generated code; not a valid name in rules."""


def terms(rule: Rule, values: Mapping[str, Any], t: int, x: Any, g: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Perform one step of a rule and return all assigned terms.

    Args:
        rule: the rule.
        values: all hyperparameters.
        t: step number, from 1.
        x: parameter, a number or a tensor.
        g: gradient.
        state: complete state, by the names of the rule.

    Returns:
        Last value of each assigned name, in order of first assignment; `x` is the new parameter.
    """
    return dict(assigned(rule, values, t, x, g, state))


def assigned(
    rule: Rule, values: Mapping[str, Any], t: int, x: Any, g: Any, state: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """Perform one step of a rule and return all assignments; arguments are those of `terms`.

    Returns:
        Name and value of each assignment in order, starting with the gradient preprocessing.
    """
    kept = tuple(rule.active_state(values))
    record = _recorder(rule, kept, tuple(bool(values[option]) for option in sorted(whole(rule).conditions)))
    assignments: list[tuple[str, Any]] = record(SimpleNamespace(**values), t, x, g, *(state[name] for name in kept))
    return assignments


@cache
def _recorder(rule: Rule, kept: tuple[str, ...], truth: tuple[bool, ...]) -> Any:
    tree = whole(rule)
    folded = tree.fold(dict(zip(sorted(tree.conditions), truth, strict=True)), kept)
    body = [f"{ALL} = []"]
    for assign in folded.assigns:
        body += [f"{assign.name} = {source(assign.value)}", f"{ALL}.append(({assign.name!r}, {assign.name}))"]
    return compiled("terms", ("h", "t", "x", "g", *folded.state), [*body, f"return {ALL}"])
