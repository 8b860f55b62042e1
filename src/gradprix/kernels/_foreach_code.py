"""Source code of a step as a sequence of operations on lists of tensors, generated from the tree of a rule.

The operations and their order are those of the eager rule, so that results are equal bitwise wherever an operation on a
list rounds as the operation on a tensor does. A value is overwritten in place where it is not needed any more.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gradprix.rules.ir import Call, Name, Node, Number

from ._hoisting import SplitRule
from ._kernel_source import COMPARISONS

FOREACH = {
    **{"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow"},
    **{name: name for name in ("neg", "abs", "sqrt", "sign", "maximum", "minimum")},
}
"""Functions of rules that exist for lists of tensors, with their names in generated code; with the suffix `_`, they
overwrite their first argument. All others are applied to one tensor after the other."""
COMMUTATIVE = {"+", "*"}
NUMBER_SECOND = {*COMMUTATIVE, "maximum", "minimum"}
"""Functions for which a number may be the first or the second argument, with equal results."""


@dataclass(frozen=True)
class Operation:
    """Assignment `result = function(*operands)`.

    Args:
        result: name of the value.
        function: operator or function of the rule language.
        operands: names of values (lists of tensors) and of constants, and literals.
    """

    result: str
    function: str
    operands: tuple[str, ...]


class ForeachCode:
    """Statements of a function `step(x, g, *element_state, *constants)` on lists of tensors.

    The function overwrites parameters and state. It reads gradients, and overwrites them only if they are copies.

    Args:
        split_rule: the rule, split under its options.
        overwrite_gradients: True if the lists of gradients are copies, which may be overwritten.

    Attributes:
        lines: source lines of the function's body.
        temporaries: largest number of temporary lists that exist at the same time.
    """

    def __init__(self, split_rule: SplitRule, overwrite_gradients: bool = False) -> None:
        self.stored = ("x", *split_rule.tensors)
        self.constants = frozenset(split_rule.constants)
        self.operations: list[Operation] = []
        self.lists = {"g", *self.stored}
        self.masks: set[str] = set()  # values of another dtype, such as results of comparisons
        values = {name: name for name in self.lists}
        for name, node in split_rule.elements:
            values[name] = self._lower(node, values)
        self.variables = {name: name for name in self.lists}  # variable that holds each value
        self.writable = {*self.stored, *(["g"] if overwrite_gradients else [])}
        self.lines: list[str] = []
        self.temporaries = self._live = 0
        self._write({name: values[name] for name in self.stored})

    def _lower(self, node: Node, values: Mapping[str, str]) -> str:
        """Append the operations of an expression and return the operand that holds its value."""
        match node:
            case Number(value):
                return repr(value)
            case Name(name):
                return name if name in self.constants else values[name]
            case Call("**", (base, Number(2 | 3 as exponent))):  # products, in torch as well
                power = operand = self._lower(base, values)
                for _ in range(int(exponent) - 1):
                    power = self._append("*", power, operand)
                return power
            case Call("clip", (value, low, high)):
                return self._lower(Call("minimum", (Call("maximum", (value, low)), high)), values)
            case Call(function, arguments):
                operands = [self._lower(argument, values) for argument in arguments]
                if function == "-" and operands[0] not in self.lists:  # c - a = -a + c, rounded equally
                    return self._append("+", self._append("neg", operands[1]), operands[0])
                return self._append(function, *operands)
        raise ValueError(f"{node} is not of one element: fold and split the rule first")

    def _append(self, function: str, *operands: str) -> str:
        """Append an operation and return the name of its result."""
        result = f"_t{len(self.operations)}"
        self.operations.append(Operation(result, function, operands))
        sources = [o for o in (operands[1:] if function == "where" else operands) if o in self.lists]
        self.lists.add(result)
        if function in COMPARISONS or self.masks.issuperset(sources):
            self.masks.add(result)
        return result

    def _write(self, results: Mapping[str, str]) -> None:
        """Write the statements; `results` names the final value of the parameter and of each state."""
        last_use = {operand: i for i, operation in enumerate(self.operations) for operand in operation.operands}
        last_use |= dict.fromkeys(results.values(), len(self.operations))
        for i, operation in enumerate(self.operations):
            dying = [o for o in dict.fromkeys(operation.operands) if o in self.lists and last_use[o] == i]
            target = self._overwritten(operation, dying)
            self._call(operation, target, dying)
            for value in dying:
                if value != target and self._is_temporary(value):
                    self.lines.append(f"del {self.variables[value]}")
                    self._live -= 1
        self._store({name: self.variables[value] for name, value in results.items() if self.variables[value] != name})

    def _is_temporary(self, value: str) -> bool:
        return self.variables[value].startswith("_")

    def _overwritten(self, operation: Operation, dying: list[str]) -> str | None:
        """Return the operand that the operation may overwrite with its result, or None."""
        if not self._is_foreach(operation):
            return None
        candidates = operation.operands if operation.function in COMMUTATIVE else operation.operands[:1]
        usable = (o for o in candidates if o in dying and (self._is_temporary(o) or self.variables[o] in self.writable))
        return next(usable, None)

    def _is_foreach(self, operation: Operation) -> bool:
        """Return True if an operation exists for lists: for these arguments, and without mixing dtypes."""
        operands = operation.operands
        first = operands[0] in self.lists or (operation.function in NUMBER_SECOND and operands[1] in self.lists)
        return operation.function in FOREACH and first and self.masks.isdisjoint(operands)

    def _call(self, operation: Operation, target: str | None, dying: list[str]) -> None:
        """Write the statement of an operation, which overwrites the value `target` unless that is None."""
        function, operands = operation.function, list(operation.operands)
        if function in NUMBER_SECOND and operands[0] not in self.lists:
            operands.reverse()
        if target is not None and operands[0] != target:
            operands.reverse()
        arguments = ", ".join(self.variables.get(operand, operand) for operand in operands)
        if target is not None:
            self.variables[operation.result] = self.variables[target]
            self.lines.append(f"{FOREACH[function]}_({arguments})")
            return
        variable = self.variables[operation.result] = operation.result
        if self._is_foreach(operation):
            call = f"{FOREACH[function]}({arguments})"
        elif function == "where" and operands[0] not in self.lists:
            owned = all(o in dying and self._is_temporary(o) for o in operands[1:])
            call = f"choose({arguments}, {owned})"
        else:
            call = f"each({function!r}, {', '.join(self.variables.get(o, o) for o in operation.operands)})"
        self.lines.append(f"{variable} = {call}")
        self._live += 1
        # `where` compares the condition with zero, which takes another temporary.
        self.temporaries = max(self.temporaries, self._live + (function == "where"))

    def _store(self, moves: dict[str, str]) -> None:
        """Write the copies of final values to where they are stored, in an order in which none is overwritten first.

        Args:
            moves: variable that holds the final value of each parameter or state that does not hold it yet.
        """
        while moves:
            name = next((n for n in moves if n not in {source for m, source in moves.items() if m != n}), None)
            if name is None:  # values change places
                name = next(iter(moves))
                self.lines.append(f"_saved_{name} = clone({name})")
                moves = {m: f"_saved_{name}" if source == name else source for m, source in moves.items()}
                self._live += 1
                self.temporaries = max(self.temporaries, self._live)
            self.lines.append(f"copy_({name}, {moves.pop(name)})")
