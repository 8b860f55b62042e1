"""What a rule computes on the way: every named term of a step, from the rule's own tree."""

from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

from gradprix.rules import Rule
from gradprix.rules.gradient_preprocessing import whole

from .codegen import compiled, source

ALL = "_all_assigned_"
"""What the generated code calls its result: no name of a rule's."""


def terms(rule: Rule, values: Mapping[str, Any], t: int, x: Any, g: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """One step of a rule, with everything it named on the way.

    Args:
        rule: the rule.
        values: all of its hyperparameters.
        t: the step, from 1.
        x: the parameter, a number or a tensor.
        g: its gradient.
        state: what the rule remembers, by the rule's own names, none missing.

    Returns:
        Each name the rule assigns, in order of first assignment, with its last value; `x` is the new parameter.
    """
    return dict(assigned(rule, values, t, x, g, state))


def assigned(
    rule: Rule, values: Mapping[str, Any], t: int, x: Any, g: Any, state: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """One step of a rule, assignment by assignment, of which the arguments are those of `terms`.

    Returns:
        The name and the value of each, in the rule's order, with what runs around the rule before it.
    """
    kept = tuple(rule.kept(values))
    record = _recorder(rule, kept, tuple(bool(values[option]) for option in sorted(whole(rule).conditions)))
    found: list[tuple[str, Any]] = record(SimpleNamespace(**values), t, x, g, *(state[name] for name in kept))
    return found


@cache
def _recorder(rule: Rule, kept: tuple[str, ...], truth: tuple[bool, ...]) -> Any:
    tree = whole(rule)
    folded = tree.fold(dict(zip(sorted(tree.conditions), truth, strict=True)), kept)
    body = [f"{ALL} = []"]
    for assign in folded.assigns:
        body += [f"{assign.name} = {source(assign.value)}", f"{ALL}.append(({assign.name!r}, {assign.name}))"]
    return compiled("terms", ("h", "t", "x", "g", *folded.state), [*body, f"return {ALL}"])
