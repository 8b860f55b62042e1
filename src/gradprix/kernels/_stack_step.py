"""Steps of several parameters of one shape by a rule on whole tensors, as one stack.

The operations are those of the rule, in place where possible. They act on the last dimensions, so each parameter gets
the result that it would get alone. Totals are numbers of each parameter, in NumPy arrays.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradprix.rules import Rule
from gradprix.rules.codegen import compile_function
from gradprix.rules.gradient_preprocessing import full_tree
from gradprix.rules.ir import Call, Hyper, Name, Node, Number, Reduction, is_elementwise, names, substitute, walk
from gradprix.rules.ops import FUNCTIONS

from ._block_sums import block_sums

GIVEN = "_given_"
"""Prefix of the tensors that the caller gives; names in rules do not begin with an underscore."""
ELSEWHERE = {"norm", "mean", "clip", "where", "%", "**"}
"""Operations that are not supported on the results of reductions, or on whole stacks."""
OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "maximum": np.maximum,
    "minimum": np.minimum,
}
"""Functions of the numbers of each parameter."""
IN_PLACE = {"+": "add_", "-": "sub_"}
OF_STATE = {"transpose", "eigenvectors", "matrix_power", "order", "qr"}
"""Functions whose result does not exist if their argument is state that does not."""


class _UnsupportedError(Exception):
    """Signal that a rule cannot be stepped as a stack."""


def stack_total(a: Tensor) -> NDArray[np.float64]:
    """Return the sum over each tensor of a stack `[n, ...]`, as an array `[n]`; see `sum_in_blocks`."""
    sums: NDArray[np.float64] = block_sums(a.flatten(1)).cpu().numpy()
    return sums


def per_tensor(numbers: NDArray[np.float64], like: Tensor) -> Tensor:
    """Return a number of each tensor of a stack as a tensor `[n, 1, ...]` of the dtype and device of another."""
    return torch.from_numpy(numbers).to(like.dtype).to(like.device).view(-1, *[1] * (like.dim() - 1))


def compile_stack_step(rule: Rule, values: Mapping[str, Any], present: Collection[str]) -> Callable[..., None] | None:
    """Return a function `step(h, t, x, g, *state)` that steps a stack in place, with the bits of the rule.

    `x`, `g` and the state are stacked, `[n, ...]`; state that the parameters do not have is None.

    Args:
        rule: rule with `scope="tensor"`.
        values: all hyperparameters, which select the terms of the rule.
        present: names of the state that the parameters have.

    Returns:
        The function; None for a rule with functions whose result in a stack would not be that of each parameter alone.
    """
    truth = tuple(sorted((name, bool(values[name])) for name in full_tree(rule).conditions))
    return _compile(rule, truth, tuple(rule.active_state(values)), frozenset(present))


@cache
def _compile(
    rule: Rule, truth: tuple[tuple[str, bool], ...], active: tuple[str, ...], present: frozenset[str]
) -> Callable[..., None] | None:
    if rule.scope != "tensor" or rule.uses_group or any(state.kind == "scalar" for state in rule.state.values()):
        return None
    known: dict[Node, Number] = {Call("exists", (Name(name),)): Number(float(name in present)) for name in active}
    tree = full_tree(rule)
    assigns = tuple(replace(assign, value=substitute(assign.value, known)) for assign in tree.assigns)
    tree = replace(tree, assigns=assigns).fold(dict(truth), active)
    writer = _Writer(("x", *tree.state), {*active} - present)
    lines: list[str] = []
    try:
        for assign in tree.assigns:
            lines += writer.assign(assign.name, assign.value)
    except _UnsupportedError:
        return None
    keep = [f"{GIVEN}{name} = {name}" for name in writer.given]
    copies = [
        f"if {name} is not {GIVEN}{name} and {name} is not None: {GIVEN}{name}.copy_({name})" for name in writer.given
    ]
    scope = {**FUNCTIONS, "_total": stack_total, "_per_tensor": per_tensor}
    scope |= {f"_{name}": function for name, function in OF_NUMBERS.items()}
    arguments = ("h", "t", "x", "g", *tree.state)
    step: Callable[..., None] = compile_function(f"{rule.name}_stack", arguments, [*keep, *lines, *copies], scope)
    return step


class _Writer:
    """Source of the assignments of a rule for stacks.

    Args:
        given: names of the tensors to update.
        missing: those of them that the parameters do not have.
    """

    def __init__(self, given: tuple[str, ...], missing: set[str]) -> None:
        self.given, self.missing = given, set(missing)
        self.tensors = {"g", *given}
        self.numbers: set[str] = set()  # names of numbers that depend on totals

    def assign(self, name: str, value: Node, indent: str = "") -> Iterator[str]:
        """Yield the source lines of an assignment.

        Raises:
            _UnsupportedError: if the value might share memory with a tensor that is modified in place.
        """
        match value:
            case Call("if", (condition, yes, no)):
                yield f"{indent}if {self.source(condition)}:"
                yield from self.assign(name, yes, f"{indent}    ")
                if no != Name(name):
                    yield f"{indent}else:"
                    yield from self.assign(name, no, f"{indent}    ")
                return
        if self.shared(value) - {name, "g"}:
            raise _UnsupportedError
        in_place = self.in_place(name, value) if name in self.given else None
        yield f"{indent}{in_place or f'{name} = {self.source(value)}'}"
        (self.missing.add if self.is_missing(value) else self.missing.discard)(name)
        kind = self.kind(value)
        (self.tensors.add if kind == "tensor" else self.tensors.discard)(name)
        (self.numbers.add if kind == "numbers" else self.numbers.discard)(name)

    def in_place(self, name: str, value: Node) -> str | None:
        """Return the source of an assignment `name = value` as an operation in place; None if there is none."""
        own = Name(name)
        match value:
            case Call("lerp", (first, end, weight)) if first == own and name not in names(weight):
                return f"{name}.lerp_({self.source(end)}, {self.source(weight)})"
            case Call("axpy", (factor, other, last)) if last == own and name not in names(factor):
                return f"{name}.add_({self.source(other)}, alpha={self.source(factor)})"
            case Call("*", (factor, last)) if last == own and self.kind(factor) == "number":
                return f"if (_factor := {self.source(factor)}) != 1: {name}.mul_(_factor)"  # as without weight decay
            case Call("+" | "-" as operator, (Call("*", (factor, first)), term)) if first == own:
                if self.kind(factor) == "number" and name not in names(term) and self.kind(term) == "tensor":
                    return f"{name}.mul_({self.source(factor)}).{IN_PLACE[operator]}({self.source(term)})"
            case Call("+" | "-" as operator, (first, term)) if first == own and name not in names(term):
                if self.kind(term) == "tensor":
                    return f"{name}.{IN_PLACE[operator]}({self.source(term)})"
        return None

    def kind(self, node: Node) -> str:
        """Return what a node is: a tensor, numbers of each parameter that depend on totals, or a number."""
        if is_elementwise(node, self.tensors):
            return "tensor"
        below = walk(node, inside_reductions=False)
        depends = any(
            (isinstance(part, Reduction) and part.function == "total")
            or (isinstance(part, Name) and part.id in self.numbers)
            for part in below
        )
        return "numbers" if depends else "number"

    def source(self, node: Node) -> str:
        """Return a node as a Python expression.

        Raises:
            _UnsupportedError: for an operation that is not supported.
        """
        match node:
            case Number(value):
                return repr(value)
            case Name(name):
                return name
            case Hyper(name):
                return f"h.{name}"
            case Reduction("total", argument, "tensor") if self.kind(argument) == "tensor":
                return f"_total({self.source(argument)})"
            case Reduction("size", argument, "tensor"):
                return f"{self.source(argument)}[0].numel()"
            case Call(function, arguments):
                return self._call(function, arguments)
        raise _UnsupportedError

    def _call(self, function: str, arguments: tuple[Node, ...]) -> str:
        kinds, parts = list(map(self.kind, arguments)), list(map(self.source, arguments))
        if "numbers" in kinds:
            if function in ELSEWHERE or (function in FUNCTIONS and function not in OF_NUMBERS) or function == "if":
                raise _UnsupportedError
            if "tensor" in kinds:
                parts = [
                    f"_per_tensor({part}, x)" if kind == "numbers" else part
                    for part, kind in zip(parts, kinds, strict=True)
                ]
            elif function in OF_NUMBERS:
                function = f"_{function}"
        elif function in ("norm", "mean"):
            raise _UnsupportedError
        if function == "if":
            return f"({parts[1]} if {parts[0]} else {parts[2]})"
        if function in FUNCTIONS or function.startswith("_"):
            return f"{function}({', '.join(parts)})"
        return f"(-{parts[0]})" if function == "neg" else f"({parts[0]} {function} {parts[1]})"

    def shared(self, node: Node) -> set[str]:
        """Return the names of the tensors whose memory the value of a node may share."""
        match node:
            case Name(name):
                return {name} & self.tensors
            case Call("transpose" | "reordered", (first, *_)):
                return self.shared(first)
            case Call("where", (_, *branches)) | Call("if", (_, *branches)):
                return set().union(*map(self.shared, branches))
            case Call("matmul", (first, second)):
                left = self.shared(first) if self.is_missing(second) else set()
                return left | (self.shared(second) if self.is_missing(first) else set())
        return set()

    def is_missing(self, node: Node) -> bool:
        """Return True if the value of a node does not exist."""
        match node:
            case Name(name):
                return name in self.missing
            case Call("if", (_, *branches)):
                return any(map(self.is_missing, branches))
            case Call("matmul", factors):
                return all(map(self.is_missing, factors))
            case Call(function, (first, *_)) if function in OF_STATE:
                return self.is_missing(first)
        return False
