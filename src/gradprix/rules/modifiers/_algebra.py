"""Symbolic operations on the trees of rules: substitution, simplification, and the power of the learning rate."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from gradprix.rules.ir import Assign, Call, Choice, Hyper, Name, Node, Number, Reduction, Tree, names, walk

ZERO = Number(0)


def rewrite(node: Node, change: Callable[[Node], Node]) -> Node:
    """Return a node with a function applied to it and to all of its descendants, innermost first."""
    match node:
        case Call(function, arguments):
            node = Call(function, tuple(rewrite(argument, change) for argument in arguments))
        case Reduction(function, argument, over):
            node = Reduction(function, rewrite(argument, change), over)
        case Choice(option, yes, no):
            node = Choice(option, rewrite(yes, change), rewrite(no, change))
    return change(node)


def substitute(node: Node, replacements: Mapping[Node, Node]) -> Node:
    """Return a node in which some of its descendants are replaced, and simplify it."""
    return rewrite(node, lambda each: _simplify(replacements.get(each, each)))


def rename(node: Node, new: Mapping[str, str]) -> Node:
    """Return a node with other identifiers."""
    return rewrite(node, lambda each: Name(new.get(each.id, each.id)) if isinstance(each, Name) else each)


def choose(node: Node, truth: Mapping[str, object]) -> Node:
    """Resolve the conditional expressions whose option has a value in `truth`."""

    def resolve(each: Node) -> Node:
        if isinstance(each, Choice) and each.option in truth:
            return each.yes if truth[each.option] else each.no
        return each

    return rewrite(node, resolve)


def map_values(tree: Tree, change: Callable[[Node], Node]) -> Tree:
    """Return a tree with a function applied to the value of each assignment; `name = name` is removed."""
    assigns = (replace(assign, value=change(assign.value)) for assign in tree.assigns)
    return replace(tree, assigns=tuple(assign for assign in assigns if assign.value != Name(assign.name)))


def hyperparameters_in(node: Node) -> set[str]:
    """Return the names of the hyperparameters and options that an expression uses."""
    used = {below.name for below in walk(node) if isinstance(below, Hyper)}
    return used | {below.option for below in walk(node) if isinstance(below, Choice)}


def decays(node: Node, hyperparameter: str, state: Collection[str]) -> bool:
    """Return True if an expression multiplies a state by a hyperparameter, as `h.beta1 * m`, or interpolates so."""
    own, rest = Hyper(hyperparameter), Call("-", (Number(1), Hyper(hyperparameter)))
    for each in walk(node):
        match each:
            case Call("*", (factor, Name(name))) | Call("lerp", (Name(name), _, factor)) if name in state:
                if factor == (own if each.function == "*" else rest):
                    return True
    return False


def identifiers(tree: Tree) -> set[str]:
    """Return all identifiers that a tree uses or assigns."""
    used = (name for assign in tree.assigns for name in (assign.name, *names(assign.value)))
    return {*tree.state, *used}


def rename_tree(tree: Tree, new: Mapping[str, str]) -> Tree:
    """Return a tree with other identifiers."""

    def renamed(each: Sequence[str]) -> tuple[str, ...]:
        return tuple(new.get(name, name) for name in each)

    assigns = tuple(Assign(new.get(a.name, a.name), rename(a.value, new), a.line) for a in tree.assigns)
    return Tree(renamed(tree.state), assigns, renamed(tree.returns))


def _simplify(node: Node) -> Node:
    """Remove additions of zero and multiplications by zero or one from the outermost operation of a node."""
    match node:
        case Call("*", (a, b)) if ZERO in (a, b):
            return ZERO
        case Call("/", (Number(0), _)):
            return ZERO
        case Call("*" | "/", (a, Number(1))) | Call("+" | "-", (a, Number(0))):
            return a
        case Call("*", (Number(1), b)) | Call("+", (Number(0), b)):
            return b
        case Call("where" | "if", (_, a, b)) | Choice(_, a, b) if a == b:
            return a
    return node


class NonlinearError(ValueError):
    """Error raised for an expression that is not a power of the learning rate times a factor without it."""


def power_of_lr(node: Node, powers: Mapping[str, int | None]) -> int | None:
    """Return the power of the learning rate in an expression; None for zero, which has any power.

    Args:
        node: the expression.
        powers: power of each name that is not independent of the learning rate.

    Raises:
        NonlinearError: if terms of different powers are added, or the learning rate is in a function or exponent.
    """
    match node:
        case Hyper("lr"):
            return 1
        case Number(0):
            return None
        case Name(name):
            return powers.get(name, 0)
        case Call("neg", (a,)) | Reduction("total", a):
            return power_of_lr(a, powers)
        case Call("*", (a, b)):
            first, second = power_of_lr(a, powers), power_of_lr(b, powers)
            return None if first is None or second is None else first + second
        case Call("/", (a, b)):
            first, second = power_of_lr(a, powers), power_of_lr(b, powers)
            return None if first is None else first - (second or 0)
        case Call("+" | "-", terms) | Call("where" | "if", (_, *terms)):
            return _common_power(*(power_of_lr(term, powers) for term in terms))
        case Choice(_, yes, no):
            return _common_power(power_of_lr(yes, powers), power_of_lr(no, powers))
        case Call(_, arguments):
            if any(power_of_lr(argument, powers) for argument in arguments):
                raise NonlinearError
    return 0


def _common_power(*powers: int | None) -> int | None:
    """Return the power of a sum, given those of its terms."""
    distinct = set(powers) - {None}
    if len(distinct) > 1:
        raise NonlinearError
    return distinct.pop() if distinct else None
