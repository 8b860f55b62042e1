"""A rule split by data flow: what is one number a step, and what is one number an element.

Everything that depends only on hyperparameters, the step count and scalar state is computed once, in Python's float64.
Splitting is also more accurate than computing in the tensor's dtype: `1 - beta2` in float32 is off by 5e-5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from gradprix.rules import Rule
from gradprix.rules._around import whole
from gradprix.rules._tree import Call, Name, Node, Number, Tree, flow, names

from ._code import compiled, source


@dataclass(frozen=True)
class Split:
    """The two halves of a rule under given options.

    Args:
        scalars: `scalars(h, t, *scalar_state) -> (constants, scalar_state)`, on Python numbers.
        elements: `elements(x, g, *element_state, *constants) -> (x, *element_state)`, on anything that multiplies.
        numbers: the scalar state's names.
        tensors: the element state's names.
    """

    scalars: Callable[..., tuple[tuple[float, ...], tuple[float, ...]]]
    elements: Callable[..., tuple[Any, ...]]
    numbers: tuple[str, ...]
    tensors: tuple[str, ...]


def split(rule: Rule, values: Mapping[str, object]) -> Split:
    """The rule, with what torch does around it, split under these hyperparameters' options."""
    tree = whole(rule)
    truth = tuple((name, bool(values[name])) for name in sorted(tree.conditions))
    return _split(rule, tree.fold(dict(truth), tuple(rule.kept(values))))


@cache
def _split(rule: Rule, tree: Tree) -> Split:
    numbers = tuple(name for name in tree.state if rule.state[name].kind == "scalar")
    tensors = tuple(name for name in tree.state if rule.state[name].kind == "element")
    scalar_lines: list[str] = []
    element_lines: list[str] = []
    constants: list[str] = []

    def hoist(node: Node, elements: frozenset[str]) -> Node:
        """The node with its largest scalar parts taken out as constants; literals stay, so that g**2 stays a square."""
        if isinstance(node, Number):
            return node
        if not names(node) & elements:
            constants.append(f"c{len(constants)}")
            scalar_lines.append(f"{constants[-1]} = {source(node)}")
            return Name(constants[-1])
        if isinstance(node, Call):
            return Call(node.function, tuple(hoist(argument, elements) for argument in node.arguments))
        return node

    for assign, elements in flow(tree, {"x", "g", *tensors}):
        if names(assign.value) & elements:
            element_lines.append(f"{assign.name} = {source(hoist(assign.value, elements))}")
        else:
            scalar_lines.append(f"{assign.name} = {source(assign.value)}")
    scalar_lines.append(f"return ({''.join(c + ', ' for c in constants)}), ({''.join(n + ', ' for n in numbers)})")
    element_lines.append(f"return ({', '.join(('x', *tensors))},)")
    return Split(
        compiled(f"{rule.name}_scalars", ("h", "t", *numbers), scalar_lines),
        compiled(f"{rule.name}_elements", ("x", "g", *tensors, *constants), element_lines),
        numbers,
        tensors,
    )
