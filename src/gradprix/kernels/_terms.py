"""Intermediate terms of a step: every assignment of a rule, recorded with generated code."""

from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from gradprix.rules import Rule
from gradprix.rules.codegen import compile_function, to_source
from gradprix.rules.gradient_preprocessing import full_tree

from ._eager import as_reduction_operands

ALL = "_all_assigned_"
"""Name of the result in generated code; not a valid name in rules."""


def compute_terms(
    rule: Rule, values: Mapping[str, Any], t: int, x: Any, g: Any, state: Mapping[str, Any]
) -> dict[str, Any]:
    """Perform one step of a rule and return all assigned terms.

    Args:
        rule: the rule.
        values: all hyperparameters.
        t: step number, from 1.
        x: parameter, a number or a tensor.
        g: gradient.
        state: complete optimizer state by name.

    Returns:
        The final value of each assigned name, in order of first assignment; `x` is the new parameter.
    """
    assignments = compute_assignments(rule, values, t, x, g, state)
    return {name: value for name, value in assignments if value is not None}


def compute_assignments(
    rule: Rule, values: Mapping[str, Any], t: int, x: Any, g: Any, state: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """Perform one step of a rule and return all assignments; see `compute_terms` for the arguments.

    Returns:
        Name and value of each assignment in order, starting with the gradient preprocessing. The value of state
        that the parameter does not have is None.
    """
    active = tuple(rule.active_state(values))
    record = _recorder(rule, active, tuple(bool(values[option]) for option in sorted(full_tree(rule).conditions)))
    own = as_reduction_operands(rule, {name: state[name] for name in active})
    with np.errstate(all="ignore"):
        assignments: list[tuple[str, Any]] = record(SimpleNamespace(**values), t, x, g, *own.values())
    return assignments


@cache
def _recorder(rule: Rule, active: tuple[str, ...], truth: tuple[bool, ...]) -> Any:
    tree = full_tree(rule)
    folded = tree.fold(dict(zip(sorted(tree.conditions), truth, strict=True)), active)
    body = [f"{ALL} = []"]
    for assign in folded.assigns:
        body += [f"{assign.name} = {to_source(assign.value)}", f"{ALL}.append(({assign.name!r}, {assign.name}))"]
    return compile_function("terms", ("h", "t", "x", "g", *folded.state), [*body, f"return {ALL}"])
