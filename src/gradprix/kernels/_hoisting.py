"""Split of a rule by data flow into scalars, computed once per step, and elementwise operations.

Everything that depends only on hyperparameters, step count and scalar state is computed once per step, in float64.
Splitting is also more accurate than computing in the tensor's dtype: `1 - 0.999` in float32 has a relative error of
1.3e-5.

A rule with reductions is split into passes over the elements. Each computes totals, on which the next depends; the last
one writes the new parameter and state. Before each pass, and after the last, a stage computes the numbers of each
tensor that depend on reductions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from gradprix.rules import Rule
from gradprix.rules.codegen import compile_function, to_source
from gradprix.rules.gradient_preprocessing import full_tree
from gradprix.rules.ir import (
    Call,
    Name,
    Node,
    Number,
    Over,
    Reduction,
    dependent_state,
    is_elementwise,
    names,
    walk,
)

Assignments = tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Total:
    """Sum over the elements of a tensor or group, computed by a pass.

    Args:
        name: name of the sum, and of its terms in the pass.
        over: what the sum extends over.
    """

    name: str
    over: Over


@dataclass(frozen=True)
class Pass:
    """Pass over the elements.

    Args:
        elements: elementwise assignments, in order, in terms of `x`, `g`, element state, constants and numbers.
        totals: sums to compute; the terms of each are assigned in `elements`.
    """

    elements: Assignments
    totals: tuple[Total, ...] = ()


@dataclass(frozen=True, eq=False)
class SplitRule:
    """Scalar and elementwise parts of a rule for given options.

    Args:
        rule: name of the rule.
        scalars: function of Python numbers, `scalars(h, t, *scalar_state) -> (constants, scalar_state)`.
        constants: names of the constants that `scalars` computes.
        numbers: names of the scalar states that `scalars` updates.
        tensors: names of the element states, which have a number for each element of the parameter.
        passes: passes over the elements; a rule without reductions has one.
        stages: assignments of the numbers of a tensor before each pass and after the last, in terms of constants,
            sizes, totals of the pass before, and earlier numbers.
        columns: names of the numbers of a tensor.
        sizes: numbers of elements among the columns, by what they extend over.
        held: scalar state that `stages` update, by the name of the state: the columns before and after a step.
    """

    rule: str
    scalars: Callable[..., tuple[tuple[float, ...], tuple[float, ...]]]
    constants: tuple[str, ...]
    numbers: tuple[str, ...]
    tensors: tuple[str, ...]
    passes: tuple[Pass, ...]
    stages: tuple[Assignments, ...] = ()
    columns: tuple[str, ...] = ()
    sizes: tuple[tuple[str, Over], ...] = ()
    held: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def elements(self) -> Assignments:
        """Elementwise assignments of the last pass, which compute the new parameter and element state."""
        return self.passes[-1].elements

    @property
    def totals(self) -> tuple[Total, ...]:
        """Totals of all passes."""
        return tuple(total for each in self.passes for total in each.totals)

    def pass_on_tensors(self, k: int) -> Callable[..., tuple[Any, ...]]:
        """Return a pass as a function of tensors, `x, g, *element_state, *constants, *columns`.

        It returns the terms of its totals; the last pass returns the new parameter and element state before them.
        """
        outputs = ("x", *self.tensors) if k == len(self.passes) - 1 else ()
        outputs += tuple(total.name for total in self.passes[k].totals)
        lines = [f"{name} = {to_source(value)}" for name, value in self.passes[k].elements]
        lines.append(f"return ({''.join(f'{name}, ' for name in outputs)})")
        arguments = dict.fromkeys(("x", "g", *self.tensors, *self.constants, *self.columns))
        return compile_function(f"{self.rule}_elements", tuple(arguments), lines)

    def stage_on_tensors(self, k: int) -> Callable[..., tuple[Any, ...]]:
        """Return a stage as a function of float64 tensors, `*constants, *columns`, which returns all columns."""
        lines = [f"{name} = {to_source(value)}" for name, value in self.stages[k]]
        lines.append(f"return ({''.join(f'{name}, ' for name in self.columns)})")
        return compile_function(f"{self.rule}_numbers", (*self.constants, *self.columns), lines)


def hoist_scalars(rule: Rule, values: Mapping[str, object]) -> SplitRule:
    """Split a rule, including torch's gradient preprocessing, for the options that the hyperparameters select.

    Raises:
        ValueError: if the rule updates whole tensors in their true shape.
    """
    if rule.scope == "tensor":
        raise ValueError(
            f"{rule.name} steps whole tensors of their true shape: it cannot be stacked yet, nor fused. "
            "gradprix.optim steps with it."
        )
    tree = full_tree(rule)
    truth = {name: bool(values[name]) for name in tree.conditions}
    return _hoist(rule, tuple(sorted(truth.items())), tuple(rule.active_state(values)))


@cache
def _hoist(rule: Rule, truth: tuple[tuple[str, bool], ...], active: tuple[str, ...]) -> SplitRule:
    tree = full_tree(rule).fold(dict(truth), active)
    scalars = [name for name in tree.state if rule.state[name].kind == "scalar"]
    shared = {name for name in scalars if rule.state[name].shared}
    held = dependent_state(tree, scalars, shared, _is_reduction)
    tensors = tuple(name for name in tree.state if name not in scalars)
    splitter = _Splitter(tensors, [name for name in scalars if name in held])
    for assign in tree.assigns:
        splitter.assign(assign.name, assign.value)
    numbers = tuple(name for name in scalars if name not in held)
    return splitter.result(rule.name, numbers, tensors)


def _is_reduction(node: Node) -> bool:
    return isinstance(node, Reduction)


class _Splitter:
    """Distribution of the assignments of a tree over scalars, stages and passes.

    A value has the level of the first pass before which it can be known: 0 for state, sizes and all that depends on
    hyperparameters and step count alone; a total that is summed in pass k has level k + 1.

    Args:
        tensors: element state.
        held: scalar state that depends on reductions, or is shared.
    """

    def __init__(self, tensors: tuple[str, ...], held: list[str]) -> None:
        self.held = held
        self.elements = {"x", "g", *tensors}
        self.lines: list[str] = []  # of the function of scalars
        self.constants: list[str] = []
        self.columns = {name: f"_held_{name}" for name in held}  # column that holds the current value of a number
        self.levels = dict.fromkeys((*self.elements, *self.columns.values()), 0)  # of elementwise values and columns
        self.sizes: dict[Over, str] = {}
        self.stages: dict[int, list[tuple[str, Node]]] = {}
        self.body: list[tuple[str, Node, int, Total | None]] = []  # elementwise assignments, with level and total
        self.known: dict[tuple[Node, Over], str] = {}  # totals of expressions that have not changed since

    def assign(self, name: str, value: Node) -> None:
        """Add an assignment of the tree."""
        self._assign(name, value)
        self.known = {key: total for key, total in self.known.items() if name not in names(key[0])}

    def _assign(self, name: str, value: Node) -> None:
        if is_elementwise(value, self.elements):
            node, level = self.split(value)
            self.body.append((name, node, level, None))
            self.levels[name] = level
            self.elements.add(name)
            self.columns.pop(name, None)
            return
        self.elements.discard(name)
        if self.depends_on_reductions(value):
            node, level = self.split(value)
            self.columns[name] = self.column(node, level)
        else:
            self.lines.append(f"{name} = {to_source(value)}")
            self.columns.pop(name, None)

    def depends_on_reductions(self, node: Node) -> bool:
        """Return True if a number differs between tensors, so that a stage has to compute it."""
        below = walk(node, inside_reductions=False)
        return any(_is_reduction(part) or (isinstance(part, Name) and part.id in self.columns) for part in below)

    def split(self, node: Node) -> tuple[Node, int]:
        """Return a node in which the largest scalar subtrees are replaced by names, and its level.

        Literals stay, so that g**2 remains a square.
        """
        is_element = is_elementwise(node, self.elements)
        match node:
            case Number():
                return node, 0
            case _ if not is_element and not self.depends_on_reductions(node):
                return self.constant(node), 0
            case Name(name):
                column = node if is_element else Name(self.columns[name])
                return column, self.levels[column.id]
            case Reduction(function, argument, over):
                return self.total(argument, over) if function == "total" else (self.size(over), 0)
            case Call(function, arguments):
                parts = [self.split(argument) for argument in arguments]
                if is_element:  # an elementwise operation uses numbers by name
                    numbers = [not is_elementwise(argument, self.elements) for argument in arguments]
                    parts = [
                        (Name(self.column(*part)), part[1]) if number and isinstance(part[0], Call) else part
                        for part, number in zip(parts, numbers, strict=True)
                    ]
                return Call(function, tuple(part for part, _ in parts)), max(level for _, level in parts)
        raise ValueError("fold the tree before splitting it")

    def constant(self, node: Node) -> Name:
        """Return the name of a constant, computed by the function of scalars."""
        self.constants.append(f"_c{len(self.constants)}")
        self.lines.append(f"{self.constants[-1]} = {to_source(node)}")
        return Name(self.constants[-1])

    def column(self, node: Node, level: int) -> str:
        """Return the column of a number, computed in the stage of its level."""
        if isinstance(node, Name) and node.id in self.levels:
            return node.id
        name = f"_n{sum(map(len, self.stages.values()))}"
        self.stages.setdefault(level, []).append((name, node))
        self.levels[name] = level
        return name

    def size(self, over: Over) -> Name:
        """Return the column of a number of elements."""
        name = self.sizes.setdefault(over, f"_size_{over}")
        self.levels[name] = 0
        return Name(name)

    def total(self, argument: Node, over: Over) -> tuple[Name, int]:
        """Return the column of a total and its level; the pass of the level before computes the total."""
        key = argument, over
        if key not in self.known:
            node, level = self.split(argument)
            name = self.known[key] = f"_t{sum(total is not None for *_, total in self.body)}"
            self.body.append((name, node, level, Total(name, over)))
            self.levels[name] = level + 1
        return Name(self.known[key]), self.levels[self.known[key]]

    def result(self, rule: str, numbers: tuple[str, ...], tensors: tuple[str, ...]) -> SplitRule:
        """Return the split rule."""
        for name in set(self.held) - self.columns.keys():  # shared state that is a constant
            self.columns[name] = self.column(self.constant(Name(name)), 0)
        held = {name: (f"_held_{name}", self.columns[name]) for name in self.held}
        constants = "".join(f"{name}, " for name in self.constants)
        lines = [*self.lines, f"return ({constants}), ({''.join(f'{name}, ' for name in numbers)})"]
        passes = self.passes(("x", *tensors))
        stages = tuple(tuple(self.stages.get(k, ())) for k in range(len(passes) + 1))
        totals = [total.name for each in passes for total in each.totals]
        computed = [name for stage in stages for name, _ in stage]
        columns = (*self.sizes.values(), *(before for before, _ in held.values()), *totals, *computed)
        return SplitRule(
            rule,
            compile_function(f"{rule}_scalars", ("h", "t", *numbers), lines),
            tuple(self.constants),
            numbers,
            tensors,
            passes,
            stages if columns else (),
            columns,
            tuple((name, over) for over, name in self.sizes.items()),
            held,
        )

    def passes(self, outputs: tuple[str, ...]) -> tuple[Pass, ...]:
        """Return the passes, each with the assignments that it needs.

        State is written by the last pass alone, so earlier passes compute from the state before the step.
        """
        passes, last = [], max((level for _, _, level, _ in self.body), default=0)
        for k in range(last + 1):
            needed, elements, totals = set(outputs if k == last else ()), [], []
            for name, node, level, total in reversed(self.body):
                if total is not None and level == k:
                    totals.append(total)
                elif total is not None or name not in needed:
                    continue
                needed = (needed - {name}) | names(node)
                elements.append((name, node))
            passes.append(Pass(tuple(reversed(elements)), tuple(reversed(totals))))
        return tuple(passes)
