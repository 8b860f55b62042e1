"""What a rule computes on the way: every named term of a step, from the rule's own tree."""

from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

from gradprix.rules import Rule
from gradprix.rules._around import whole
from gradprix.rules._tree import Tree

from ._code import compiled, source


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
    kept = tuple(rule.kept(values))
    record = _recorder(whole(rule).fold(values, kept))
    named: dict[str, Any] = record(SimpleNamespace(**values), t, x, g, *(state[name] for name in kept))
    return named


@cache
def _recorder(tree: Tree) -> Any:
    assigned = dict.fromkeys(assign.name for assign in tree.assigns)
    body = [f"{assign.name} = {source(assign.value)}" for assign in tree.assigns]
    body.append(f"return {{{', '.join(f'{name!r}: {name}' for name in assigned)}}}")
    return compiled("terms", ("h", "t", "x", "g", *tree.state), body)
