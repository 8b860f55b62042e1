"""Intermediate representation (IR) of rules, from which all implementations are derived."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from .matrix_ops import SHAPE

Over = Literal["tensor", "group"]
"""What a reduction extends over: the elements of the tensor, or those of all tensors of its parameter group."""


@dataclass(frozen=True)
class Number:
    """Numeric literal."""

    value: float


@dataclass(frozen=True)
class Name:
    """Reference to `t`, `x`, `g`, a state variable, or a name assigned earlier."""

    id: str


@dataclass(frozen=True)
class Hyper:
    """Hyperparameter, such as `h.lr`."""

    name: str


@dataclass(frozen=True)
class Call:
    """Application of an operator (`"+"`, `"neg"`) or of a function of the vocabulary."""

    function: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True)
class Reduction:
    """Reduction of an elementwise expression to one number: `"total"`, the sum, or `"size"`, the number of elements."""

    function: str
    argument: "Node"
    over: Over = "tensor"


@dataclass(frozen=True)
class Choice:
    """Conditional expression, `yes if h.option else no`, which is removed by `Tree.fold`."""

    option: str
    yes: "Node"
    no: "Node"


Node = Number | Name | Hyper | Call | Reduction | Choice


@dataclass(frozen=True)
class Assign:
    """Assignment `name = value`, with its source line for error messages."""

    name: str
    value: Node
    line: int


@dataclass(frozen=True)
class Tree:
    """Body of a rule: state arguments, assignments in order, and returned names."""

    state: tuple[str, ...]
    assigns: tuple[Assign, ...]
    returns: tuple[str, ...]

    @cached_property
    def conditions(self) -> frozenset[str]:
        """Names of the hyperparameters used as conditions: options, and numbers that disable a term if zero."""
        values = (node for assign in self.assigns for node in walk(assign.value))
        return frozenset(node.option for node in values if isinstance(node, Choice))

    def fold(self, truth: Mapping[str, object], state: tuple[str, ...]) -> "Tree":
        """Return a tree without conditional expressions, specialized to given hyperparameters.

        Unused state and dead assignments are removed.

        Args:
            truth: values of the hyperparameters, by name; only their truth value matters.
            state: names of the state variables that exist with these hyperparameters.
        """
        assigns, copies = [], dict[str, str]()  # name -> name of its original
        for assign in self.assigns:
            value = _resolve(assign.value, truth, copies)
            if value == Name(assign.name):
                continue
            copies = {copy: original for copy, original in copies.items() if assign.name not in (copy, original)}
            if isinstance(value, Name):
                copies[assign.name] = value.id
            assigns.append(replace(assign, value=value))
        returns = tuple(name for name in self.returns if name not in self.state or name in state)
        needed, live = set(returns), []
        for assign in reversed(assigns):
            if assign.name in needed:
                needed = (needed - {assign.name}) | names(assign.value)
                live.append(assign)
        return Tree(state, tuple(reversed(live)), returns)

    def __add__(self, then: "Tree") -> "Tree":
        """Concatenate two trees; the second determines the returned names."""
        return Tree(self.state + then.state, self.assigns + then.assigns, then.returns)


def walk(node: Node, inside_reductions: bool = True) -> Iterator[Node]:
    """Yield the node and all of its descendants, with or without the arguments of reductions and shape functions."""
    yield node
    match node:
        case Call(function, arguments) if inside_reductions or function not in SHAPE:
            for argument in arguments:
                yield from walk(argument, inside_reductions)
        case Reduction(_, argument) if inside_reductions:
            yield from walk(argument)
        case Choice(_, yes, no):
            yield from walk(yes, inside_reductions)
            yield from walk(no, inside_reductions)


def names(node: Node) -> set[str]:
    """Return the identifiers of all `Name` nodes in an expression."""
    return {below.id for below in walk(node) if isinstance(below, Name)}


def is_elementwise(node: Node, elements: Collection[str]) -> bool:
    """Return True if an expression has one value per element, or is another tensor.

    It has if it uses an elementwise name outside of reductions and functions of shapes, whose results are numbers.

    Args:
        node: the expression.
        elements: names that hold elementwise values.
    """
    return any(isinstance(below, Name) and below.id in elements for below in walk(node, inside_reductions=False))


def substitute(node: Node, known: Mapping[Node, Number]) -> Node:
    """Replace expressions whose value is known, and conditional expressions whose condition is."""
    if node in known:
        return known[node]
    match node:
        case Call(function, arguments):
            replaced = tuple(substitute(argument, known) for argument in arguments)
            match function, replaced:
                case "if", (Number(condition), yes, no):
                    return yes if condition else no
            return Call(function, replaced)
        case Reduction(function, argument, over):
            return Reduction(function, substitute(argument, known), over)
        case Choice(option, yes, no):
            return Choice(option, substitute(yes, known), substitute(no, known))
    return node


Predicate = Callable[[Node], bool]


def flow(
    tree: Tree, start: Iterable[str], is_source: Predicate = lambda node: False
) -> Iterator[tuple[Assign, frozenset[str]]]:
    """Yield each assignment of a tree, with the names that depend on those in `start` before this assignment.

    Given the names of elementwise values, these are the names that hold elementwise values. The result of a reduction
    does not depend on the names in its argument.

    Args:
        tree: the tree.
        start: names at the start.
        is_source: function that returns True for nodes on which a dependency counts as well.
    """
    current = frozenset(start)
    for assign in tree.assigns:
        yield assign, current
        current = _after(assign, current, is_source)


def dependent_state(tree: Tree, state: Iterable[str], start: Iterable[str], is_source: Predicate) -> frozenset[str]:
    """Return the state variables that depend on a source, or on a name in `start`, after any number of steps.

    Args:
        tree: the tree of one step.
        state: names of the state variables to test.
        start: see `flow`.
        is_source: see `flow`.
    """
    tested, dependent, before = set(state), frozenset(start), None
    while dependent != before:
        before = current = dependent
        for assign in tree.assigns:
            current = _after(assign, current, is_source)
        dependent = before | (current & tested)
    return dependent & tested


def _after(assign: Assign, current: frozenset[str], is_source: Predicate) -> frozenset[str]:
    """Return the dependent names after an assignment."""
    below = walk(assign.value, inside_reductions=False)
    depends = any(is_source(node) or (isinstance(node, Name) and node.id in current) for node in below)
    return current | {assign.name} if depends else current - {assign.name}


def _resolve(node: Node, truth: Mapping[str, object], copies: Mapping[str, str]) -> Node:
    """Resolve the conditional expressions in a node, and replace names of copies by the names of their originals.

    Args:
        node: the node.
        truth: values of the hyperparameters, by name.
        copies: original name of each name that is a mere copy.
    """
    match node:
        case Choice(option, yes, no):
            return _resolve(yes if truth[option] else no, truth, copies)
        case Call(function, arguments):
            return Call(function, tuple(_resolve(argument, truth, copies) for argument in arguments))
        case Reduction(function, argument, over):
            return Reduction(function, _resolve(argument, truth, copies), over)
        case Name(name):
            return Name(copies.get(name, name))
    return node
