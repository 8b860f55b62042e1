"""Eager steps in place: the operations of a rule on the memory of the parameter and its state, where possible."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from gradprix.rules import Rule
from gradprix.rules.codegen import compile_function, to_source
from gradprix.rules.gradient_preprocessing import full_tree
from gradprix.rules.ir import Call, Name, Node, names

MAY_ALIAS = {"transpose", "where"}
"""Functions whose result may share the memory of an argument."""
GIVEN = "_given_"
"""Prefix of the tensors that the caller gives; names in rules do not begin with an underscore."""


def compile_in_place(rule: Rule, values: Mapping[str, Any]) -> Callable[..., None] | None:
    """Return a function `step(h, t, x, g, *state)` that updates `x` and the state in place, with the bits of the rule.

    Args:
        rule: rule without scalar state.
        values: all hyperparameters, which select the terms of the rule.

    Returns:
        The function; None for a rule that uses the old value of a tensor under another name.
    """
    truth = tuple(sorted((name, bool(values[name])) for name in full_tree(rule).conditions))
    return _compile(rule, truth, tuple(rule.active_state(values)))


@cache
def _compile(rule: Rule, truth: tuple[tuple[str, bool], ...], active: tuple[str, ...]) -> Callable[..., None] | None:
    tree = full_tree(rule).fold(dict(truth), active)
    given = ("x", *tree.state)
    lines = [f"{GIVEN}{name} = {name}" for name in given]
    replaced = set()
    for assign in tree.assigns:
        if _may_alias(assign.value):
            return None
        call = _in_place(assign.name, assign.value) if assign.name in given and assign.name not in replaced else None
        lines.append(call or f"{assign.name} = {to_source(assign.value)}")
        if call is None and assign.name in given:
            replaced.add(assign.name)
    lines += [f"{GIVEN}{name}.copy_({name})" for name in given if name in replaced]
    step: Callable[..., None] = compile_function(f"{rule.name}_in_place", ("h", "t", "x", "g", *tree.state), lines)
    return step


def _may_alias(value: Node) -> bool:
    return isinstance(value, Name) or (isinstance(value, Call) and value.function in MAY_ALIAS)


def _in_place(name: str, value: Node) -> str | None:
    """Return the source of an assignment `name = value` as an operation in place; None if there is none."""
    own = Name(name)
    match value:
        case Call("lerp", (first, end, weight)) if first == own and name not in names(weight):
            return f"{name}.lerp_({to_source(end)}, {to_source(weight)})"
        case Call("axpy", (factor, other, last)) if last == own and name not in names(factor):
            return f"{name}.add_({to_source(other)}, alpha={to_source(factor)})"
        case Call("*", (factor, last)) if last == own and not names(factor):
            return f"{name}.mul_({to_source(factor)})"
    return None
