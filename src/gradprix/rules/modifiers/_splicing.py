"""Composition of trees: the tree of a modifier, with that of the base in the place of `step` and `direction`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from gradprix.rules._rule import Rule
from gradprix.rules.gradient_preprocessing import TREES, weight_decay
from gradprix.rules.ir import Assign, Call, Hyper, Name, Node, Tree, names, walk

from ._algebra import rename, rewrite, substitute
from ._division import divide

BASE = {"step": 2, "direction": 2, "decayed": 1}
"""Names of the functions that stand for the base in a modifier, with their numbers of arguments."""


def splice(tree: Tree, base: Rule) -> Tree:
    """Return the tree of a modifier with the base inserted, whose state comes first.

    Args:
        tree: tree of the modifier, in which no name but `t`, `x` and `g` occurs in the base.
        base: the rule to modify.

    Raises:
        ValueError: if the base has no direction, and the modifier uses it.
    """
    division = divide(base, not applies_decay(tree)) if uses(tree, "direction") else None
    assigns = list[Assign]()
    for i, assign in enumerate(tree.assigns):
        later = {name for each in tree.assigns[i + 1 :] for name in names(each.value)}
        match assign.value:
            case Call("step", (Name(point), Name(gradient))):
                before = TREES[weight_decay].assigns if _is_decayed_outside(tree, base) else ()
                assigns += _inline([*before, *base.tree.assigns], point, gradient, later)
            case Call("direction", (Name(point), Name(gradient))):
                assert division is not None
                last = replace(assign, value=division.direction)
                assigns += _inline([*division.assigns, last], point, gradient, later)
            case value:
                decay = () if division is None else division.decay
                assigns.append(replace(assign, value=_insert_decay(value, decay)))
    state = (*base.tree.state, *tree.state)
    return Tree(state, tuple(assigns), ("x", *state))


def uses(tree: Tree, function: str) -> bool:
    """Return True if a tree calls a function."""
    return any(isinstance(node, Call) and node.function == function for a in tree.assigns for node in walk(a.value))


def applies_decay(tree: Tree) -> bool:
    """Return True if a tree uses `h.weight_decay`."""
    return any(Hyper("weight_decay") in walk(assign.value) for assign in tree.assigns)


def is_base_call(value: Node) -> bool:
    """Return True if a value is a call of `step` or `direction`."""
    return isinstance(value, Call) and value.function in ("step", "direction")


def moves_weights(tree: Tree) -> bool:
    """Return True if the tree of a modifier assigns to the parameter, other than by a step of the base."""
    return any(assign.name == "x" and not is_base_call(assign.value) for assign in tree.assigns)


def _is_decayed_outside(tree: Tree, base: Rule) -> bool:
    """Return True if weight decay must be added to the gradient of the base after the modifier changed the gradient."""
    steps = [a.value for a in tree.assigns if is_base_call(a.value)]
    changes = any(a.name == "g" for a in tree.assigns) or any(Name("g") not in walk(value) for value in steps)
    return changes and not base.owns_weight_decay


def _inline(assigns: Sequence[Assign], point: str, gradient: str, later: Iterable[str]) -> Iterator[Assign]:
    """Yield the assignments of a base with other names for its parameter and gradient.

    Args:
        assigns: the assignments.
        point: name for the parameter.
        gradient: name for the gradient.
        later: names that are used afterwards, and whose values must not change.
    """
    new = {"x": point, "g": gradient}
    if gradient in later and any(assign.name == "g" for assign in assigns):
        new["g"] = f"{gradient}_inner"
        yield Assign(new["g"], Name(gradient), assigns[0].line)
    for assign in assigns:
        yield Assign(new.get(assign.name, assign.name), rename(assign.value, new), assign.line)


def _insert_decay(value: Node, decay: Sequence[Node]) -> Node:
    """Replace the calls of `decayed` in a node by the weight decay of the base."""

    def insert(node: Node) -> Node:
        match node:
            case Call("decayed", (x,)):
                for each in decay:
                    x = substitute(each, {Name("x"): x})
                return x
        return node

    return rewrite(value, insert)
