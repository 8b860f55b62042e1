"""Split of a rule by data flow into scalars, computed once per step, and elementwise operations.

Everything that depends only on hyperparameters, step count and scalar state is computed once per step, in float64.
Splitting is also more accurate than computing in the tensor's dtype: `1 - 0.999` in float32 has a relative error of
1.3e-5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from gradprix.rules import Rule
from gradprix.rules.codegen import compile_function, to_source
from gradprix.rules.gradient_preprocessing import full_tree
from gradprix.rules.ir import Call, Name, Node, Number, flow, is_elementwise


@dataclass(frozen=True, eq=False)
class SplitRule:
    """Scalar and elementwise parts of a rule for given options.

    Args:
        rule: name of the rule.
        scalars: function of Python numbers, `scalars(h, t, *scalar_state) -> (constants, scalar_state)`.
        elements: elementwise assignments, in order, in terms of `x`, `g`, element state and constants.
        constants: names of the constants that `scalars` computes for `elements`.
        numbers: names of the scalar states.
        tensors: names of the element states, which have a number for each element of the parameter.
    """

    rule: str
    scalars: Callable[..., tuple[tuple[float, ...], tuple[float, ...]]]
    elements: tuple[tuple[str, Node], ...]
    constants: tuple[str, ...]
    numbers: tuple[str, ...]
    tensors: tuple[str, ...]

    @cached_property
    def on_tensors(self) -> Callable[..., tuple[Any, ...]]:
        """Elementwise part, `on_tensors(x, g, *element_state, *constants) -> (x, *element_state)`."""
        lines = [f"{name} = {to_source(value)}" for name, value in self.elements]
        lines.append(f"return ({', '.join(('x', *self.tensors))},)")
        return compile_function(f"{self.rule}_elements", ("x", "g", *self.tensors, *self.constants), lines)


def hoist_scalars(rule: Rule, values: Mapping[str, object]) -> SplitRule:
    """Split a rule, including torch's gradient preprocessing, for the options that the hyperparameters select.

    Raises:
        ValueError: if the rule updates whole tensors, so that the update of an element depends on other elements.
    """
    if not rule.is_separable:
        raise ValueError(
            f"{rule.name} steps whole tensors of their true shape: it cannot be stacked yet, nor fused. "
            "gradprix.optim steps with it, one parameter at a time."
        )
    tree = full_tree(rule)
    truth = {name: bool(values[name]) for name in tree.conditions}
    return _hoist(rule, tuple(sorted(truth.items())), tuple(rule.active_state(values)))


@cache
def _hoist(rule: Rule, truth: tuple[tuple[str, bool], ...], active: tuple[str, ...]) -> SplitRule:
    tree = full_tree(rule).fold(dict(truth), active)
    numbers = tuple(name for name in tree.state if rule.state[name].kind == "scalar")
    tensors = tuple(name for name in tree.state if rule.state[name].kind == "element")
    constants: list[str] = []
    lines: list[str] = []

    def hoist(node: Node, elements: frozenset[str]) -> Node:
        """Replace the largest scalar subtrees by constants; literals stay, so that g**2 remains a square."""
        if isinstance(node, Number):
            return node
        if not is_elementwise(node, elements):
            constants.append(f"_c{len(constants)}")
            lines.append(f"{constants[-1]} = {to_source(node)}")
            return Name(constants[-1])
        if isinstance(node, Call):
            return Call(node.function, tuple(hoist(argument, elements) for argument in node.arguments))
        return node

    body: list[tuple[str, Node]] = []
    for assign, elements in flow(tree, {"x", "g", *tensors}):
        if is_elementwise(assign.value, elements):
            body.append((assign.name, hoist(assign.value, elements)))
        else:
            lines.append(f"{assign.name} = {to_source(assign.value)}")
    lines.append(f"return ({''.join(c + ', ' for c in constants)}), ({''.join(n + ', ' for n in numbers)})")
    scalars = compile_function(f"{rule.name}_scalars", ("h", "t", *numbers), lines)
    return SplitRule(rule.name, scalars, tuple(body), tuple(constants), numbers, tensors)
