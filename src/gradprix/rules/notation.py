"""Equations of a rule as Unicode text, one per assignment, printed from its tree."""

from collections.abc import Callable

from ._rule import Rule
from .ir import Call, Choice, Hyper, Name, Node, Number, Over, Reduction

Leaf = Callable[[Node], str | None]
"""Function that returns replacement text for a node of a tree, or None to format the node as usual."""

LETTERS = "alpha α beta β delta δ gamma γ kappa κ mu μ nu ν rho ρ xi ξ eps ε etaplus η⁺ etaminus η⁻".split()
GREEK = dict(zip(LETTERS[::2], LETTERS[1::2], strict=True)) | {"lr": "η", "lambd": "λ", "weight_decay": "λ"}
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
SUPERSCRIPTS = str.maketrans("0123456789t", "⁰¹²³⁴⁵⁶⁷⁸⁹ᵗ")
# Operator precedence; operands of lower precedence are put in brackets.
BINDING = {"<": 0, "<=": 0, ">": 0, ">=": 0, "==": 0, "!=": 0, "+": 1, "-": 1}
BRANCH, LOOSEST, QUOTIENT, PRODUCT, POWER, ATOM = -1, 0, 2, 3, 4, 5


def formula(rule: Rule, **values: float | bool) -> list[str]:
    """Return the equations of a rule as Unicode text, such as `m ← β₁ m + (1 − β₁) g`.

    Args:
        rule: the rule.
        **values: hyperparameters that differ from their defaults. They determine which terms appear: options select
            variants, and some terms are omitted if a number is zero.

    Returns:
        One string per assignment, in the order of the rule.
    """
    tree = rule.specialize(rule.values(**values))
    return [f"{format_symbol(assign.name)} ← {format_expression(assign.value)}" for assign in tree.assigns]


def format_expression(node: Node, leaf: Leaf = lambda node: None) -> str:
    """Format a node as Unicode text.

    Args:
        node: node of a folded tree.
        leaf: function that returns replacement text for a node, or None to format the node as usual. Example:
            `lambda node: "0.9" if node == Hyper("beta1") else None`.
    """
    return _text(node, leaf)[0]


def format_symbol(name: str) -> str:
    """Format a name as a mathematical symbol: `beta1` is β₁, `v_hat` is v̂, `mu_product` is μ_product."""
    stem, _, tail = name.partition("_")
    if name in GREEK:
        return GREEK[name]
    if tail == "hat":
        return format_symbol(stem) + "\N{COMBINING CIRCUMFLEX ACCENT}"
    letters = stem.rstrip("0123456789")
    written = GREEK.get(letters, letters) + stem[len(letters) :].translate(SUBSCRIPTS)
    return f"{written}_{tail}" if tail else written


def _text(node: Node, leaf: Leaf) -> tuple[str, int]:
    """Return the text of a node and the precedence of its outermost operator."""
    own = leaf(node)
    if own is not None:  # negative numbers need brackets; numbers such as 1e-3 need them as the base of a power
        return own, LOOSEST if own.startswith("−") else POWER if "e" in own else ATOM
    match node:
        case Number(value):
            return f"{value:g}" if float(f"{value:g}") == value else repr(value), ATOM
        case Name(name) | Hyper(name):
            return format_symbol(name), ATOM
        case Call("+" | "-" | "<" | "<=" | ">" | ">=" | "==" | "!=" as operator, (a, b)):
            sign = {"-": "−", "<=": "≤", ">=": "≥", "!=": "≠", "==": "="}.get(operator, operator)
            binding = BINDING[operator]
            return f"{_inside(a, leaf, binding)} {sign} {_inside(b, leaf, binding + (operator == '-'))}", binding
        case Call("*" | "matmul", (a, b)):
            left, right = _inside(a, leaf, PRODUCT), _inside(b, leaf, PRODUCT)
            return f"{left} {'· ' * right[0].isdigit()}{right}", PRODUCT
        case Call("/", (Reduction("total", a, over), Reduction("size", _, same))) if over == same:
            return f"mean{_over(over)}({_text(a, leaf)[0]})", ATOM
        case Call("/", (a, b)):
            return f"{_inside(a, leaf, QUOTIENT)} / {_inside(b, leaf, POWER)}", QUOTIENT
        case Call("**", (a, b)):
            exponent = _text(b, leaf)[0]
            small = exponent.isalnum() and set(exponent) <= set("0123456789t")
            return _inside(a, leaf, ATOM) + (exponent.translate(SUPERSCRIPTS) if small else f"^({exponent})"), POWER
        case Call("neg", (a,)):
            return f"−{_inside(a, leaf, PRODUCT)}", BINDING["-"]
        case Call("abs", (a,)):
            return f"|{_text(a, leaf)[0]}|", ATOM
        case Call("norm", (a,)):
            return f"‖{_text(a, leaf)[0]}‖", ATOM
        case Call("%", (a, b)):
            return f"{_inside(a, leaf, PRODUCT)} mod {_inside(b, leaf, POWER)}", PRODUCT
        case Call("if", (condition, a, b)):
            return (
                f"{_inside(a, leaf, LOOSEST)} if {_text(condition, leaf)[0]} else {_inside(b, leaf, LOOSEST)}",
                BRANCH,
            )
        case Call("matrix_power", (a, exponent, eps)):
            return f"({_text(a, leaf)[0]} + {_text(eps, leaf)[0]} I)^({_text(exponent, leaf)[0]})", POWER
        case Call("transpose", (a,)):
            return f"{_inside(a, leaf, ATOM)}ᵀ", ATOM
        case Call("sqrt", (Reduction("total", Call("**", (a, Number(2))), over),)):
            return f"‖{_text(a, leaf)[0]}‖{_over(over)}", ATOM
        case Reduction("total", Call("**", (a, Number(2))), over):
            return f"‖{_text(a, leaf)[0]}‖{_over(over)}²", POWER
        case Reduction("total", Call("abs", (a,)), over):
            return f"‖{_text(a, leaf)[0]}‖₁{_over(over)}", ATOM
        case Reduction("total", Call("*", (a, b)), over):
            return f"⟨{_text(a, leaf)[0]}, {_text(b, leaf)[0]}⟩{_over(over)}", ATOM
        case Reduction("total", a, over):
            return f"Σ{_over(over)} {_inside(a, leaf, PRODUCT)}", PRODUCT
        case Reduction(_, _, over):
            return f"n{_over(over)}", ATOM
        case Call("sqrt", (a,)):
            inside, binding = _text(a, leaf)
            return f"√{inside}" if binding == ATOM else f"√({inside})", ATOM
        case Call(function, arguments):
            name = {"maximum": "max", "minimum": "min"}.get(function, function)
            return f"{name}({', '.join(_text(argument, leaf)[0] for argument in arguments)})", ATOM
        case Choice():
            raise ValueError("fold the tree before printing it")


def _over(over: Over) -> str:
    """Return the index of a reduction: none for the tensor, and a mark for all tensors of the parameter group."""
    return "" if over == "tensor" else "_group"


def _inside(node: Node, leaf: Leaf, binding: int) -> str:
    """Return the text of an operand, in brackets if its precedence is lower than `binding`."""
    text, own = _text(node, leaf)
    return text if own >= binding else f"({text})"
