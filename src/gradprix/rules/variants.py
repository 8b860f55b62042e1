"""Variants of rules: the same algorithm with some of its expressions replaced."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from ._form import check_form
from ._rule import Rule
from .codegen import to_source
from .ir import Call, Node, Tree, walk
from .modifiers import compile_tree, identifiers, rewrite
from .parser import parse_expression

Items = tuple[tuple[str, Any], ...]
NOTHING: Mapping[str, Any] = {}
DENOMINATOR = "denominator"
"""Name of the divisor of a step, which rules do not assign to a name."""


def variant(
    rule: Rule,
    replacements: Mapping[str, str] = NOTHING,
    hyperparameters: Mapping[str, float | bool] = NOTHING,
    /,
    **named: str,
) -> Rule:
    """Return a rule with some of its expressions replaced.

    The expressions are written as in rules, but without `h.` before hyperparameters. The name and all metadata are
    those of the rule. Equal calls return the same rule.

    Args:
        rule: the rule.
        replacements: new expressions, by the expressions that they replace.
        hyperparameters: additional hyperparameters with their defaults.
        **named: new expressions by the name that they are assigned to. If the rule assigns the name several times, the
            last assignment changes. `denominator` is the divisor in the last assignment to `x`.

    Raises:
        ValueError: if the rule does not contain an expression, or does not assign a name.
        RuleError: if an expression is malformed.

    Example:
        >>> from gradprix.rules import adam, formula
        >>> formula(variant(adam, denominator="sqrt(v_hat + eps)"))[-1]
        'x ← x − η m̂ / √(v̂ + ε)'
        >>> variant(adam, {"sqrt(v_hat) + eps": "sqrt(v_hat + eps)"}).tree == variant(
        ...     adam, denominator="sqrt(v_hat + eps)"
        ... ).tree
        True
        >>> formula(variant(adam, v_hat="v_max"))[-1]
        'x ← x − η m̂ / (√v + ε)'
    """
    # Called as on unpickling, so that the cache returns the same rule.
    return make_variant(
        rule,
        replacements=tuple(replacements.items()),
        hyperparameters=tuple(hyperparameters.items()),
        named=tuple(named.items()),
    )


@cache
def make_variant(rule: Rule, replacements: Items, hyperparameters: Items, named: Items) -> Rule:
    """Return a variant of a rule; see `variant`."""
    values = {**rule.hyperparameters, **dict(hyperparameters)}
    names = identifiers(rule.tree) | {"x", "g", "t"}

    def parsed(text: str) -> Node:
        return parse_expression(text, rule.name, values, names, rule.scope)

    tree = rule.tree
    for name, text in named:
        if name == DENOMINATOR and name not in names:
            tree = _replace(rule, tree, _find_denominator(rule), parsed(text))
        else:
            tree = _reassign(rule, tree, name, parsed(text))
    for old, new in replacements:
        tree = _replace(rule, tree, parsed(old), parsed(new))
    given = (("replacements", replacements), ("hyperparameters", hyperparameters), ("named", named))
    check_form(f"variant of {rule.name}: ", tree, rule.state)
    return replace(
        rule,
        function=compile_tree(rule.name, tree),
        tree=tree,
        hyperparameters=values,
        composition=(make_variant, rule, given),
    )


def _find_denominator(rule: Rule) -> Node:
    """Return the divisor in the last assignment to the parameter."""
    last = [assign.value for assign in rule.tree.assigns if assign.name == "x"][-1]
    divisors = (node.arguments[1] for node in walk(last) if isinstance(node, Call) and node.function == "/")
    divisor = next(divisors, None)
    if divisor is None:
        raise ValueError(f"{rule.name} divides by nothing in its last assignment to x, and assigns no {DENOMINATOR!r}.")
    return divisor


def _reassign(rule: Rule, tree: Tree, name: str, value: Node) -> Tree:
    places = [i for i, assign in enumerate(tree.assigns) if assign.name == name]
    if not places:
        raise ValueError(
            f"{rule.name} assigns no {name!r}. It assigns {', '.join(dict.fromkeys(a.name for a in tree.assigns))}."
        )
    assigns = list(tree.assigns)
    assigns[places[-1]] = replace(assigns[places[-1]], value=value)
    return replace(tree, assigns=tuple(assigns))


def _replace(rule: Rule, tree: Tree, old: Node, new: Node) -> Tree:
    if not any(old in walk(assign.value) for assign in tree.assigns):
        raise ValueError(f"{rule.name} does not contain the expression {to_source(old)}.")

    def change(node: Node) -> Node:
        return new if node == old else node

    return replace(tree, assigns=tuple(replace(a, value=rewrite(a.value, change)) for a in tree.assigns))
