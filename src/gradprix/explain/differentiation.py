"""Symbolic differentiation of trees."""

from gradprix.rules.ir import Assign, Call, Hyper, Name, Node, Number, Tree

ZERO, ONE = Number(0), Number(1)


def with_derivatives(tree: Tree, variables: tuple[str, ...]) -> Tree:
    """Return a tree that computes the partial derivatives of the result of another tree.

    Args:
        tree: tree without conditional expressions that assigns each name once and returns one of them.
        variables: names of the variables.

    Returns:
        A tree with the assignments of `tree`, each followed by its derivatives. It returns the derivative of the result
        with respect to each variable, in their order.

    Raises:
        ValueError: if the tree uses a function without a known derivative.
    """
    known: dict[tuple[str, str], Node] = {(x, by): ONE if x == by else ZERO for x in variables for by in variables}
    assigns = []
    for assign in tree.assigns:
        assigns.append(assign)
        for by in variables:
            slope = _derivative(assign.value, by, known)
            if not isinstance(slope, Number):
                assigns.append(Assign(f"_{assign.name}_{by}", slope, assign.line))
                slope = Name(f"_{assign.name}_{by}")
            known[assign.name, by] = slope
    (result,) = tree.returns
    return Tree(tree.state, tuple(assigns), tuple(f"_{result}_{by}" for by in variables))


def _derivative(node: Node, by: str, known: dict[tuple[str, str], Node]) -> Node:
    """Return the derivative of a node with respect to one variable, given those of the names in it."""

    def slope(of: Node) -> Node:
        return _derivative(of, by, known)

    match node:
        case Number() | Hyper():
            return ZERO
        case Name(name):
            return known[name, by]
        case Call("neg", (a,)):
            return _minus(ZERO, slope(a))
        case Call("+", (a, b)):
            return _plus(slope(a), slope(b))
        case Call("-", (a, b)):
            return _minus(slope(a), slope(b))
        case Call("*", (a, b)):
            return _plus(_times(slope(a), b), _times(a, slope(b)))
        case Call("/", (a, b)) if slope(b) == ZERO:
            return ZERO if slope(a) == ZERO else Call("/", (slope(a), b))
        case Call("**", (a, Number(2))):
            return _times(_times(Number(2), a), slope(a))
        case Call("**", (a, Number(exponent))):
            return _times(_times(Number(exponent), Call("**", (a, Number(exponent - 1)))), slope(a))
        case Call("exp", (a,)):
            return _times(node, slope(a))
        case Call("tanh", (a,)):
            return _times(_minus(ONE, Call("**", (node, Number(2)))), slope(a))
        case Call("sin" | "cos", (a,)) if slope(a) == ZERO:
            return ZERO
    raise ValueError(f"the derivative of {node} is not known.")


def _plus(a: Node, b: Node) -> Node:
    return b if a == ZERO else a if b == ZERO else Call("+", (a, b))


def _minus(a: Node, b: Node) -> Node:
    return a if b == ZERO else Call("neg", (b,)) if a == ZERO else Call("-", (a, b))


def _times(a: Node, b: Node) -> Node:
    return ZERO if ZERO in (a, b) else b if a == ONE else a if b == ONE else Call("*", (a, b))
