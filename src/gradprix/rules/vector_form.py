"""Vector form of rules on matrices: the elementwise rule that steps parameters with fewer than two dimensions."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from ._rule import Rule
from .ir import Call, Name, Node, Number, Tree, names, substitute, walk
from .ops import WHOLE


@cache
def vector_form(rule: Rule, epsilon: float) -> Rule | None:
    """Return the rule that steps vectors as a rule on matrices does, without the state that only matrices have.

    Args:
        rule: a rule.
        epsilon: machine epsilon of the dtype of computation.

    Returns:
        An elementwise rule, which can be fused and may have reductions. None if steps of vectors use functions of whole
        tensors, or conditions other than options.
    """
    if not rule.takes_vectors:
        return None
    state = {name: spec for name, spec in rule.state.items() if spec.kind in ("element", "scalar", "vector")}
    known: dict[Node, Number] = {Call("exists", (Name(name),)): Number(float(name in state)) for name in rule.state}
    known |= {Call("epsilon", (Name(name),)): Number(epsilon) for name in ("x", "g")}
    assigns = tuple(replace(assign, value=substitute(assign.value, known)) for assign in rule.tree.assigns)
    tree = Tree(tuple(state), assigns, tuple(name for name in rule.tree.returns if name == "x" or name in state))
    tree = _without_dead_code(tree)
    nodes = [node for assign in tree.assigns for node in walk(assign.value)]
    if any(isinstance(node, Call) and (node.function == "if" or node.function in WHOLE) for node in nodes):
        return None
    return replace(
        rule,
        function=_select_arguments(rule, state),
        state={name: replace(spec, kind="element") if spec.kind == "vector" else spec for name, spec in state.items()},
        tree=tree,
        scope="element",
    )


def _without_dead_code(tree: Tree) -> Tree:
    """Remove assignments that no result depends on, whichever options are selected."""
    needed, live = set(tree.returns), []
    for assign in reversed(tree.assigns):
        if assign.name in needed and assign.value != Name(assign.name):
            needed = (needed - {assign.name}) | names(assign.value)
            live.append(assign)
    return replace(tree, assigns=tuple(reversed(live)))


def _select_arguments(rule: Rule, state: Mapping[str, Any]) -> Callable[..., tuple[Any, ...]]:
    """Return the function of a rule, with arguments and results for the given state alone."""

    def function(h: Any, t: int, x: Any, g: Any, *own: Any) -> tuple[Any, ...]:
        given = dict(zip(state, own, strict=True))
        x, *after = rule.function(h, t, x, g, *map(given.get, rule.state))
        return (x, *(value for name, value in zip(rule.state, after, strict=True) if name in state))

    return function
