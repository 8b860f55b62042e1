"""Checks of a parsed rule: of its arguments, and of operations that could not be computed alike everywhere."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from .ir import Call, Name, Node, Reduction, Tree, dependent_state, flow, is_elementwise, walk
from .parser import RuleError


class StateForm(Protocol):
    """The attributes of `State` that are checked."""

    @property
    def kind(self) -> str: ...

    @property
    def shared(self) -> bool: ...


def location(function: Callable[..., Any], kind: str = "") -> str:
    """Return the file, line and name of a function, for error messages."""
    return f"{inspect.getsourcefile(function)}:{function.__code__.co_firstlineno}: in {kind}{function.__name__}: "


def check_form(where: str, tree: Tree, state: Mapping[str, StateForm]) -> None:
    """Check a parsed rule.

    Args:
        where: beginning of error messages.
        tree: the tree of the rule.
        state: state variables by name.

    Raises:
        RuleError: if declared state, arguments and returned names do not match, if scalar state depends on elementwise
            values or shared state on values of one tensor, or if torch would use another dtype or rounding for an
            operation than compiled code.
    """
    if tree.state != tuple(state):
        raise RuleError(f"{where}the arguments {tree.state} are not the declared state {tuple(state)}.")
    if tree.returns != ("x", *tree.state):
        raise RuleError(f"{where}it returns {tree.returns}. Return x and then the state, in order.")
    for name, spec in state.items():
        if spec.shared and spec.kind != "scalar":
            raise RuleError(f'{where}state {name!r} is shared, which only a number can be. Give it kind="scalar".')
    problems = (*_scalar_problems(tree, state), *_operation_problems(tree, state), *_reduction_problems(tree, state))
    for line, problem in problems:
        raise RuleError(f"{where}line {line}: {problem}")


Problems = Iterator[tuple[int, str]]
"""Problems of a rule, each with the line of its assignment."""


def _elements(state: Mapping[str, StateForm]) -> set[str]:
    """Return the names that hold elementwise values at the start of a step."""
    return {"x", "g"} | {name for name, spec in state.items() if spec.kind != "scalar"}


def _scalar_problems(tree: Tree, state: Mapping[str, StateForm]) -> Problems:
    numbers = {name for name, spec in state.items() if spec.kind == "scalar"}
    private = {"t"} | {name for name in numbers if not state[name].shared}

    def is_private(node: Node) -> bool:
        return isinstance(node, Reduction) and node.over == "tensor"

    for assign, elements in flow(tree, _elements(state)):
        if assign.name in numbers and is_elementwise(assign.value, elements):
            yield assign.line, f"scalar state {assign.name!r} is given one value an element."
    shared = {name for name in numbers if state[name].shared}
    for name in sorted(dependent_state(tree, shared, private, is_private)):
        line = next(assign.line for assign in tree.assigns if assign.name == name)
        yield (
            line,
            f"shared state {name!r} depends on t, a reduction over one tensor, or state of one tensor, and the tensors "
            'of a group would disagree. Use over="group" and shared state.',
        )


def _operation_problems(tree: Tree, state: Mapping[str, StateForm]) -> Problems:
    for assign, elements in flow(tree, _elements(state)):
        for node in walk(assign.value):
            match node:
                case Call("where", (condition, yes, no)) if is_elementwise(condition, elements):
                    if not (is_elementwise(yes, elements) or is_elementwise(no, elements)):
                        yield (
                            assign.line,
                            "where() chooses between two numbers for each element, and numbers have no dtype. "
                            "Multiply each by a tensor, as in where(c, 1.2 * a, 0.5 * a).",
                        )
                case Call("if", (condition, _, _)) if is_elementwise(condition, elements):
                    yield (
                        assign.line,
                        "the condition of `a if condition else b` must be a number, such as t > 1. Write where() for "
                        "a choice by element.",
                    )
                case Call("%") if is_elementwise(node, elements):
                    yield assign.line, "% is a remainder of numbers, such as t % 10, not of tensors."
                case Call("/", (number, tensor)) if not is_elementwise(number, elements):
                    if is_elementwise(tensor, elements):
                        yield (
                            assign.line,
                            "torch divides a number by a tensor in two roundings (a reciprocal first). "
                            "Put a tensor above the line, as in c * a / b.",
                        )


def _reduction_problems(tree: Tree, state: Mapping[str, StateForm]) -> Problems:
    scalars = [name for name, spec in state.items() if spec.kind == "scalar"]

    def is_reduction(node: Node) -> bool:
        return isinstance(node, Reduction)

    shared = [name for name in scalars if state[name].shared]
    reduced_state = dependent_state(tree, scalars, shared, is_reduction)
    for (assign, elements), (_, reduced) in zip(
        flow(tree, _elements(state)), flow(tree, reduced_state, is_reduction), strict=True
    ):
        for node in walk(assign.value):
            match node:
                case Reduction(function, argument) if not is_elementwise(argument, elements):
                    yield (
                        assign.line,
                        f"{function}() is given a number, which has no elements. Multiply it by size(x) for a sum.",
                    )
                case Call("**", (base, exponent)) if not is_elementwise(node, elements):
                    below = [*walk(base, False), *walk(exponent, False)]
                    if any(is_reduction(part) or (isinstance(part, Name) and part.id in reduced) for part in below):
                        yield (
                            assign.line,
                            "powers of numbers that depend on reductions or shared state are rounded differently by "
                            "different implementations. Write a * a, or sqrt(a).",
                        )
