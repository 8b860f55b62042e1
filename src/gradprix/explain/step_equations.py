"""Equations of an optimizer step: each assignment of a rule as a formula, with its numbers and a sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from gradprix.kernels import compute_assignments
from gradprix.rules import Rule
from gradprix.rules.codegen import compile_function, to_source
from gradprix.rules.gradient_preprocessing import full_tree
from gradprix.rules.ir import Assign, Call, Hyper, Name, Node, Number, Reduction, Tree, flow, names, walk
from gradprix.rules.notation import format_expression, format_symbol
from gradprix.rules.ops import WHOLE


@dataclass(frozen=True)
class Equation:
    """One assignment of a rule.

    Args:
        name: assigned variable, as named in the rule.
        symbol: its notation: `m̂`.
        formula: `m̂ ← m / (1 − β₁ᵗ)`.
        numbers: the formula with the numbers of each coordinate, `0.1 / (1 − 0.9¹) = 1`; empty if no point was given.
        values: result for each coordinate; empty if no point was given.
        sentence: description in words.
    """

    name: str
    symbol: str
    formula: str
    numbers: tuple[str, ...]
    values: tuple[float, ...]
    sentence: str


def equations(
    rule: Rule, values: Mapping[str, Any], t: int = 1, x: Any = None, g: Any = None, state: Mapping[str, Any] = {}
) -> list[Equation]:
    """Return the equations of one step, derived from the rule's tree.

    Args:
        rule: the rule.
        values: all of its hyperparameters.
        t: step number, from 1.
        x: point before the step, `[coordinates]`; None omits the numbers.
        g: gradient at `x`.
        state: complete state before the step, by the rule's names.

    Returns:
        One equation per assignment, in the rule's order.
    """
    tree = full_tree(rule).fold(values, tuple(rule.active_state(values)))
    if x is None:
        return [_equation(assign, tree, rule, values, ()) for assign in tree.assigns]
    result, known = [], {"t": t, "x": x, "g": g, **state}
    for assign, (name, value) in zip(tree.assigns, compute_assignments(rule, values, t, x, g, state), strict=True):
        if value is None:  # state that only parameters of other shapes have
            continue
        count = len(value) if isinstance(value, Tensor) and value.dim() else 1
        numbers = tuple(
            f"{format_expression(assign.value, _Numbers(values, known, i))} = {number(_item(value, i))}"
            for i in range(count)
        )
        result.append(
            _equation(assign, tree, rule, values, numbers, tuple(float(_item(value, i)) for i in range(count)))
        )
        known[name] = value
    return result


def number(value: float) -> str:
    """Format a number with four significant digits, as in a formula."""
    text = f"{value:.4g}"
    mantissa, _, exponent = text.partition("e")
    text = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return text.replace("-", "−")


@dataclass(frozen=True)
class _Numbers:
    """Formatter that replaces names, hyperparameters and reductions over the tensor by their numbers at a coordinate.

    Args:
        values: all hyperparameters.
        known: step number, point, gradient, state and results of the earlier assignments.
        coordinate: index of the coordinate.
    """

    values: Mapping[str, Any]
    known: Mapping[str, Any]
    coordinate: int

    def __call__(self, node: Node) -> str | None:
        """Return the number for a node, or None if its operands are formatted instead."""
        match node:
            case Name(name):
                return number(_item(self.known[name], self.coordinate))
            case Hyper(name):
                return number(self.values[name])
            case Reduction():
                return self._evaluate(node)
            case Call("if", (condition, yes, no)):
                return format_expression(yes if float(self._evaluate(condition).replace("−", "-")) else no, self)
            case Call(function, arguments) if function in WHOLE or all(isinstance(a, Reduction) for a in arguments):
                return self._evaluate(node)
        return None

    def _evaluate(self, node: Node) -> str:
        function = compile_function("whole", [*self.known, "h"], [f"return {to_source(node)}"])
        return number(_item(function(**self.known, h=SimpleNamespace(**self.values)), self.coordinate))


def _item(value: Any, coordinate: int) -> Any:
    return value[coordinate].item() if isinstance(value, Tensor) and value.dim() else float(value)


def _equation(
    assign: Assign,
    tree: Tree,
    rule: Rule,
    values: Mapping[str, Any],
    numbers: tuple[str, ...],
    results: tuple[float, ...] = (),
) -> Equation:
    formula = f"{format_symbol(assign.name)} ← {format_expression(assign.value)}"
    single = frozenset(name for name, state in rule.state.items() if state.kind == "scalar")
    text = sentence(assign, tree, values, single)
    return Equation(assign.name, format_symbol(assign.name), formula, numbers, results, text)


def sentence(assign: Assign, tree: Tree, values: Mapping[str, Any], numbers: frozenset[str] = frozenset()) -> str:
    """Describe an assignment in words, from the form of its expression.

    Args:
        assign: the assignment.
        tree: the folded tree that contains it.
        values: hyperparameters of the rule.
        numbers: state variables that hold one number per tensor.
    """
    name, value = assign.name, assign.value
    own, elements = format_symbol(name), _elements(tree, assign, numbers)
    match value:
        case Call("+", (Call("*", (Hyper(keep), Name(same))), Call("*", (Call("-", (Number(1), Hyper(other))), new)))):
            if keep == other and same == name:
                k = values[keep]
                return f"{own} keeps {_percent(k)} of its value and adds {_percent(1 - k)} of {_describe(new)}."
        case Call("+", (Call("*", (Hyper(keep), Name(same))), new)) if same == name:
            return f"{own} keeps {_percent(values[keep])} of its value and adds {_describe(new)}."
        case Call("+", (Name(same), new)) if same == name and name not in ("x", "g"):
            return f"{own} accumulates {_describe(new)} without decay."
        case Call("maximum", (Call("*", (Hyper(keep), Name(same))), new)) if same == name:
            return f"{own} decays to {_percent(values[keep])} of its value, unless {_describe(new)} is larger."
        case Call("maximum", (Name(same), new)) if same == name:
            return f"{own} is the maximum of {_describe(new)} so far and never decreases."
        case Call("*", (Call("-", (Number(1), shrink)), Name("x"))) if name == "x" and not names(shrink) & elements:
            return f"Weight decay: the weights shrink by the fraction {format_expression(shrink)}."
        case Call("-", (Name("x"), moved)) if name == "x":
            return _move(moved, elements)
        case Call("/", (Call("-", (Name("x"), moved)), below)) if name == "x" and not names(below) & elements:
            return f"{_move(moved, elements)} The result is divided by {format_expression(below)}."
        case Call("+", (Name("g"), Call("*", (Hyper("weight_decay"), Name("x"))))):
            return "Weight decay is added to the gradient (L2 regularization)."
        case Call("neg", (Name("g"),)) if name == "g":
            return "The gradient is negated, to maximize."
        case Call("/", (Name(above), Call("-", (Number(1), Call("**", (Hyper(), Name("t"))))))) if above in tree.state:
            return f"{own} is {format_symbol(above)} with bias correction for its initial zero; the correction fades."
    if name in tree.returns and Name(name) in walk(value):
        return f"{own} is updated with {_format_names(names(value) - {name})}."
    if not names(value):
        return f"{own} is a constant given by the hyperparameters."
    if names(value) == {"t"}:
        return f"{own} depends on the step number alone."
    return f"{own} is computed from {_format_names(names(value))}."


def _elements(tree: Tree, assign: Assign, numbers: frozenset[str]) -> frozenset[str]:
    """Return the names of the variables that hold one value per weight just before an assignment.

    Args:
        tree: the folded tree that contains the assignment.
        assign: the assignment.
        numbers: state variables that hold one number per tensor.
    """
    return next(now for each, now in flow(tree, {"x", "g", *tree.state} - numbers) if each is assign)


def _move(moved: Node, elements: frozenset[str]) -> str:
    """Describe the assignment `x ← x − moved`, from the form of the subtracted term.

    Args:
        moved: the subtracted term.
        elements: names of the variables that hold one value per weight.
    """
    rate = ", times the learning rate η" if Hyper("lr") in walk(moved) else ""
    top, below = _quotient(moved)
    above = _format_names(names(top) & elements - {"x"})
    sizes = _format_names(own) if below and (own := names(below) & elements - {"x"}) else ""
    match top:
        case Call("*", (factor, Call("sign", (Name(c),)))) if not names(factor) & elements:
            return f"Every weight moves by the same step length{rate}, against the sign of {format_symbol(c)}."
    if not _plain_product(top, elements):
        return f"The weights move by a function of {_format_names(names(moved) & elements - {'x'})}{rate}."
    divided = f", normalized per coordinate by {sizes}" if sizes else ""
    return f"The weights move against {above}{divided}{rate}."


def _quotient(node: Node) -> tuple[Node, Node | None]:
    """Return the numerator and the denominator of a quotient; for another expression, itself and None."""
    match node:
        case Call("/", (numerator, denominator)):
            return numerator, denominator
    return node, None


def _plain_product(node: Node, elements: frozenset[str]) -> bool:
    """Return True if a term is a scalar multiple of one variable in `elements`, or a sum of such multiples.

    Only for such a term does the sentence name the variables that the weights move against.
    """
    match node:
        case Name(name):
            return name in elements
        case Call("*", (a, b)):
            one, other = (bool(names(part) & elements) for part in (a, b))
            return not (one and other) and _plain_product(a if one else b, elements)
        case Call("+", (a, b)):
            return _plain_product(a, elements) and _plain_product(b, elements)
        case Call("/", (a, b)):
            return not names(b) & elements and _plain_product(a, elements)
    return False


def _describe(node: Node) -> str:
    """Describe an expression in words; an unknown form is returned as a formula."""
    match node:
        case Name("g"):
            return "the gradient"
        case Name(name):
            return format_symbol(name)
        case Call("**", (inside, Number(2))):
            return f"the square of {_describe(inside)}"
        case Call("abs", (inside,)) | Call("+", (Call("abs", (inside,)), Hyper("eps"))):
            return f"the absolute value of {_describe(inside)}"
        case Call("*", (Call("-", (Number(1), _)), inside)):
            return _describe(inside)
    return format_expression(node)


def _format_names(variables: set[str]) -> str:
    """Join names in words: `the gradient, m and v̂`."""
    known = {"g": "the gradient", "t": "the step number", "x": "the weights"}
    words = [known.get(name, format_symbol(name)) for name in sorted(variables, key=lambda name: (name != "g", name))]
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words) or "constants"


def _percent(value: float) -> str:
    return f"{100 * value:.4g} %"
