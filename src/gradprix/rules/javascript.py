"""JavaScript code generation from the tree of a rule, for steps on a few coordinates in a browser.

The generated code computes in double precision and in the order of the tree, as the eager step does with float64.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._rule import Rule, State
from .gradient_preprocessing import full_tree
from .ir import Assign, Call, Hyper, Name, Node, Number, Reduction, Tree, is_elementwise, names, walk
from .vector_form import vector_form

HELPERS = """\
const square = (a) => a * a;
const cube = (a) => a * a * a;
const sign = (a) => (a > 0) - (a < 0);
const modulo = (a, b) => { const rest = a % b; return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest; };

// The powers of decay rates, rounded correctly, as C's pow rounds them with few exceptions; Math.pow is often off by a
// unit in the last place. They are products of pairs high + low, with exact rounding errors (Dekker 1971).
const tables = new Map();
function power(base, exponent) {
  if (!(Number.isInteger(exponent) && exponent >= 0 && exponent < 1e5 && Math.abs(base) < 1)) {
    return Math.pow(base, exponent);
  }
  let table = tables.get(base);
  if (!table) {
    if (tables.size > 99) tables.clear();
    tables.set(base, table = { low: 0, powers: [1] });
  }
  const { powers } = table, [c, d] = split(base);
  for (let n = powers.length; n <= exponent; n++) {
    const high = powers[n - 1], product = high * base, [a, b] = split(high);
    const error = a * c - product + a * d + b * c + b * d + table.low * base;
    powers.push(product + error);
    table.low = product - powers[n] + error;
  }
  return powers[exponent];
}
function split(a) {
  const scaled = 134217729 * a, high = scaled - (scaled - a);
  return [high, a - high];
}
"""
"""Definitions that generated code uses; a module needs them once."""
FUNCTIONS = {
    "abs": "Math.abs({})",
    "sqrt": "Math.sqrt({})",
    "exp": "Math.exp({})",
    "sin": "Math.sin({})",
    "cos": "Math.cos({})",
    "tanh": "Math.tanh({})",
    "sign": "sign({})",
    "maximum": "Math.max({}, {})",
    "minimum": "Math.min({}, {})",
    "clip": "Math.min(Math.max({}, {}), {})",
    "where": "({} != 0 ? {} : {})",
    "if": "({} != 0 ? {} : {})",
    "neg": "(-{})",
    "%": "modulo({}, {})",
    "**": "power({}, {})",
}
POWERS = {2: "square({})", 3: "cube({})"}
"""Powers that PyTorch computes as products."""
OPERATORS = {"+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!="}


@dataclass
class Names:
    """Names of the current values of variables in generated code, in which every assignment makes a new constant.

    Args:
        coordinates: number of coordinates, which have a constant each for an elementwise variable.
        elements: variables that have a value for each coordinate; the others are numbers.
        versions: number of assignments to each variable so far. Without any, a variable has the value of an argument.
    """

    coordinates: int
    elements: set[str]
    versions: dict[str, int] = field(default_factory=dict)

    def constants(self, name: str) -> list[str]:
        """Return the constants that hold a variable: one for each coordinate, or a single one for a number."""
        own = f"{name}${self.versions.get(name, 0)}" if name != "t" else name
        return [f"{own}_{i}" for i in range(self.coordinates)] if name in self.elements else [own]

    def assign(self, name: str, is_elementwise: bool) -> list[str]:
        """Return new constants for a variable."""
        self.versions[name] = self.versions.get(name, 0) + 1
        self.elements = self.elements | {name} if is_elementwise else self.elements - {name}
        return self.constants(name)


def to_javascript(node: Node, known: Names, coordinate: int = 0) -> str:
    """Return a node of a folded tree as a JavaScript expression, with the grouping of the tree.

    Args:
        node: the node.
        known: names of the variables in the generated code.
        coordinate: index of the coordinate that the expression computes, if it is elementwise.

    Raises:
        ValueError: if the node calls a function of matrices.
    """
    match node:
        case Number(value):
            return repr(value)
        case Hyper(name):
            return f"h.{name}"
        case Name(name):
            return known.constants(name)[coordinate if name in known.elements else 0]
        case Call("**", (base, Number(exponent))) if exponent in POWERS:
            return POWERS[int(exponent)].format(to_javascript(base, known, coordinate))
        case Call("norm", (argument,)):
            return f"Math.sqrt({_total(Call('**', (argument, Number(2))), known)})"
        case Call("mean", (argument,)):
            return f"({_total(argument, known)} / {_size(argument, known)})"
        case Reduction(function, argument, _):
            return _total(argument, known) if function == "total" else str(_size(argument, known))
        case Call(function, arguments):
            parts = [to_javascript(argument, known, coordinate) for argument in arguments]
            if function in OPERATORS:
                return f"({parts[0]} {function} {parts[1]})"
            if function in FUNCTIONS:
                return FUNCTIONS[function].format(*parts)
            raise ValueError(f"{function} has no JavaScript: only rules on vectors are translated.")
    raise ValueError("fold the tree before translating it.")


def _size(node: Node, known: Names) -> int:
    return known.coordinates if is_elementwise(node, known.elements) else 1


def _total(node: Node, known: Names) -> str:
    """Return the sum of an expression over its coordinates, from the first to the last."""
    return f"({' + '.join(to_javascript(node, known, i) for i in range(_size(node, known)))})"


def assignments(tree: Tree, known: Names) -> Iterator[str]:
    """Yield the JavaScript statements for the assignments of a folded tree; `known` changes along with them."""
    for assign in tree.assigns:
        yield from _assignment(assign, known)


def _assignment(assign: Assign, known: Names) -> list[str]:
    elementwise = is_elementwise(assign.value, known.elements)
    values = [to_javascript(assign.value, known, i) for i in range(known.coordinates if elementwise else 1)]
    constants = known.assign(assign.name, elementwise)
    return [f"const {constant} = {value};" for constant, value in zip(constants, values, strict=True)]


@dataclass(frozen=True)
class Slot:
    """Place of a state variable in the array that holds the state of a rule.

    Args:
        name: name of the variable.
        offset: index of its first number.
        size: how many numbers it has: the number of coordinates, or 1.
    """

    name: str
    offset: int
    size: int


def state_layout(rule: Rule, values: Mapping[str, Any], coordinates: int = 2) -> tuple[Slot, ...]:
    """Return the places of the state variables of a rule in one array of numbers."""
    slots, offset = [], 0
    for name, spec in _on_vectors(rule).active_state(values).items():
        size = coordinates if spec.kind == "element" else 1
        slots.append(Slot(name, offset, size))
        offset += size
    return tuple(slots)


def step_functions(rule: Rule, values: Mapping[str, Any], coordinates: int = 2) -> dict[str, str]:
    """Return JavaScript functions that perform the steps of a rule on a vector, with torch's gradient preprocessing.

    Hyperparameters are read from an object `h` at run time. Options, and whether a number is zero, are those of
    `values`: they select the branches of the rule.

    Args:
        rule: a rule that updates vectors.
        values: all of its hyperparameters.
        coordinates: number of elements of the vector.

    Returns:
        Source of the functions by name. `init(h, x, g)` returns the initial state as a Float64Array, given the starting
        point and the gradient there. `step(h, t, x, g, state)` updates `x` and `state` in place; `t` counts from 1.
        `evaluate(h, t, x, state)` returns the evaluation point, if the rule has one of its own.

    Raises:
        ValueError: if the rule updates matrices alone.

    Example:
        >>> from gradprix.rules import sgd
        >>> print(step_functions(sgd, sgd.values(), coordinates=1)["step"])
        function (h, t, x, g, state) {
          const x$0_0 = x[0], g$0_0 = g[0];
          const x$1_0 = (x$0_0 - (h.lr * g$0_0));
          x[0] = x$1_0;
        }
    """
    rule = _on_vectors(rule)
    layout, specs = state_layout(rule, values, coordinates), rule.active_state(values)
    elements = {"x", "g", *(name for name, spec in specs.items() if spec.kind == "element")}
    functions = {
        "init": _init(layout, specs, coordinates),
        "step": _step(full_tree(rule).fold(values, tuple(specs)), layout, Names(coordinates, elements)),
    }
    if rule.evaluation is not None:
        tree = rule.evaluation.fold(values, rule.evaluation.state)
        functions["evaluate"] = _evaluate(tree, layout, Names(coordinates, elements))
    return functions


def used_hyperparameters(rule: Rule, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the hyperparameters that the steps of a rule read, in the order of the rule."""
    rule = _on_vectors(rule)
    specs = rule.active_state(values)
    trees = [full_tree(rule).fold(values, tuple(specs))]
    trees += [] if rule.evaluation is None else [rule.evaluation.fold(values, rule.evaluation.state)]
    nodes = (node for tree in trees for assign in tree.assigns for node in walk(assign.value))
    used = {node.name for node in nodes if isinstance(node, Hyper)} | {spec.init for spec in specs.values()}
    return tuple(name for name in rule.hyperparameters if name in used)


def _on_vectors(rule: Rule) -> Rule:
    """Return the rule that steps vectors as a rule does.

    Raises:
        ValueError: if the rule updates matrices alone.
    """
    form = vector_form(rule, sys.float_info.epsilon) or rule
    if form.is_matrix_rule or any(spec.kind not in ("element", "scalar") for spec in form.state.values()):
        raise ValueError(f"{rule.name} updates matrices, and has no JavaScript.")
    return form


def _init(layout: tuple[Slot, ...], specs: Mapping[str, State], coordinates: int) -> str:
    numbers: list[str] = []
    for slot in layout:
        init = specs[slot.name].init
        if init in ("x", "g"):
            numbers += [f"{init}[{i}]" for i in range(coordinates)]
        else:
            numbers += [f"h.{init}" if isinstance(init, str) else repr(init)] * slot.size
    return f"function (h, x, g) {{\n  return Float64Array.of({', '.join(numbers)});\n}}"


def _read(tree: Tree, layout: tuple[Slot, ...], known: Names, arguments: tuple[str, ...]) -> list[str]:
    """Return the statement that reads the needed elements of the arguments and of the state."""
    needed = {*tree.returns}.union(*(names(assign.value) for assign in tree.assigns))
    places = [(name, name, 0) for name in arguments] + [(slot.name, "state", slot.offset) for slot in layout]
    reads = [
        f"{constant} = {array}[{offset + i}]"
        for name, array, offset in places
        if name in needed
        for i, constant in enumerate(known.constants(name))
    ]
    return [f"const {', '.join(reads)};"] if reads else []


def _step(tree: Tree, layout: tuple[Slot, ...], known: Names) -> str:
    body = _read(tree, layout, known, ("x", "g"))
    body += assignments(tree, known)
    places = [("x", "x", 0)] + [(slot.name, "state", slot.offset) for slot in layout]
    body += [
        f"{array}[{offset + i}] = {constant};"
        for name, array, offset in places
        if name in known.versions
        for i, constant in enumerate(known.constants(name))
    ]
    return _function("h, t, x, g, state", body)


def _evaluate(tree: Tree, layout: tuple[Slot, ...], known: Names) -> str:
    body = _read(tree, layout, known, ("x",))
    body += assignments(tree, known)
    (point,) = tree.returns
    return _function("h, t, x, state", [*body, f"return Float64Array.of({', '.join(known.constants(point))});"])


def _function(arguments: str, body: list[str]) -> str:
    return "\n".join([f"function ({arguments}) {{", *(f"  {line}" for line in body), "}"])
