"""The small tree that a rule's source is read into: everything derived from a rule is derived from this."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property


@dataclass(frozen=True)
class Number:
    """A literal."""

    value: float


@dataclass(frozen=True)
class Name:
    """`t`, `x`, `g`, a state, or a name assigned earlier."""

    id: str


@dataclass(frozen=True)
class Hyper:
    """`h.lr`: a hyperparameter."""

    name: str


@dataclass(frozen=True)
class Call:
    """An operator (`"+"`, `"neg"`) or a function of the vocabulary applied to its arguments."""

    function: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True)
class Choice:
    """`yes if h.option else no`: gone once the option is known."""

    option: str
    yes: "Node"
    no: "Node"


Node = Number | Name | Hyper | Call | Choice


@dataclass(frozen=True)
class Assign:
    """`name = value`, with its line in the source for error messages."""

    name: str
    value: Node
    line: int


@dataclass(frozen=True)
class Tree:
    """A rule's body: its state arguments, its assignments in order, and the names it returns."""

    state: tuple[str, ...]
    assigns: tuple[Assign, ...]
    returns: tuple[str, ...]

    @cached_property
    def conditions(self) -> frozenset[str]:
        """Hyperparameters whose truth decides the form: the options, and numbers that switch a term off at zero."""
        values = (node for assign in self.assigns for node in walk(assign.value))
        return frozenset(node.option for node in values if isinstance(node, Choice))

    def fold(self, truth: Mapping[str, object], state: tuple[str, ...]) -> "Tree":
        """The tree for given options: no choices, only `state` kept, and nothing that does not reach a result."""
        assigns, same = [], dict[str, str]()  # name -> the name it is a mere copy of
        for assign in self.assigns:
            value = _decide(assign.value, truth, same)
            if value == Name(assign.name):
                continue
            same = {copy: of for copy, of in same.items() if assign.name not in (copy, of)}
            if isinstance(value, Name):
                same[assign.name] = value.id
            assigns.append(replace(assign, value=value))
        returns = tuple(name for name in self.returns if name not in self.state or name in state)
        needed, kept = set(returns), []
        for assign in reversed(assigns):
            if assign.name in needed:
                needed = (needed - {assign.name}) | names(assign.value)
                kept.append(assign)
        return Tree(state, tuple(reversed(kept)), returns)

    def __add__(self, then: "Tree") -> "Tree":
        """Run this tree, then the other, which returns what the whole returns."""
        return Tree(self.state + then.state, self.assigns + then.assigns, then.returns)


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    match node:
        case Call(_, arguments):
            for argument in arguments:
                yield from walk(argument)
        case Choice(_, yes, no):
            yield from walk(yes)
            yield from walk(no)


def names(node: Node) -> set[str]:
    """The names that a value is computed from."""
    return {below.id for below in walk(node) if isinstance(below, Name)}


def flow(tree: Tree, elements: Iterable[str]) -> Iterator[tuple[Assign, frozenset[str]]]:
    """Each assignment with the names that hold one value per element just before it, given those at the start."""
    current = frozenset(elements)
    for assign in tree.assigns:
        yield assign, current
        current = current | {assign.name} if names(assign.value) & current else current - {assign.name}


def _decide(node: Node, truth: Mapping[str, object], same: Mapping[str, str]) -> Node:
    """The node with its choices made and its copies replaced by what they copy."""
    match node:
        case Choice(option, yes, no):
            return _decide(yes if truth[option] else no, truth, same)
        case Call(function, arguments):
            return Call(function, tuple(_decide(argument, truth, same) for argument in arguments))
        case Name(name):
            return Name(same.get(name, name))
    return node
