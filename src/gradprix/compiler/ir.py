"""Values of a row program: expressions of strided views of memory, and the instructions that compute them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch


class UnsupportedError(Exception):
    """Raised for an operation that row programs do not support."""


@dataclass(eq=False)
class Buffer:
    """A block of memory of one row.

    Args:
        size: number of elements.
        dtype: `"float32"`, `"bfloat16"`, `"int64"`, `"int32"`, `"uint8"` or `"bool"`.
        role: `"input"`, `"output"`, `"constant"` or `"scratch"`.
        number: index among the buffers of that role.
    """

    size: int
    dtype: str
    role: str = "scratch"
    number: int = -1


@dataclass(frozen=True)
class View:
    """Strided view of a buffer.

    If `buffer` is None, each element of the view is the integer `offset + Σ index · stride`.
    """

    buffer: Buffer | None
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def is_contiguous(self) -> bool:
        """True if the view covers its whole buffer in order."""
        return (
            self.buffer is not None
            and self.offset == 0
            and prod(self.shape) == self.buffer.size
            and all(n == 1 or s == t for n, s, t in zip(self.shape, self.strides, contiguous(self.shape), strict=True))
        )

    def apply(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> "list[View]":
        """Apply a view operation of torch and return the resulting views.

        Raises:
            RuntimeError: if the strides of the view do not permit the operation.
        """
        tensor = torch.empty_strided(self.shape, self.strides, device="meta")
        results = function(tensor, *args, **kwargs)
        views = results if isinstance(results, list | tuple) else [results]
        if any(x.untyped_storage()._cdata != tensor.untyped_storage()._cdata for x in views):
            raise RuntimeError("a copy, not a view")
        return [View(self.buffer, tuple(x.shape), x.stride(), self.offset + x.storage_offset()) for x in views]


@dataclass(frozen=True, eq=False)
class Node:
    """An expression that computes one element of a value from the elements of views.

    Args:
        op: the operation. `"view"` loads an element from `view`. `"gather"` loads the element that is
            `args[0] * number` elements further in memory. `"number"` is the constant `number`. Other operations are
            arithmetic on `args`.
        dtype: the type of the result.
        args: operands.
        view: the view that the elements are loaded from.
        number: see `op`.
    """

    op: str
    dtype: str
    args: "tuple[Node, ...]" = ()
    view: View | None = None
    number: float | int | bool = 0

    def views(self) -> Iterator[View]:
        """Yield the views that the expression loads from."""
        if self.view is not None:
            yield self.view
        for each in self.args:
            yield from each.views()

    def map(self, function: Callable[[View], View]) -> "Node":
        """Return the expression with each view replaced by `function(view)`."""
        if self.view is None and not self.args:
            return self
        view = None if self.view is None else function(self.view)
        return replace(self, view=view, args=tuple(each.map(function) for each in self.args))

    @property
    def size(self) -> int:
        """Number of operations in the expression."""
        return (self.op not in ("view", "number")) + sum(each.size for each in self.args)


@dataclass(eq=False)
class Value:
    """A tensor: a shape and the expression of its elements, whose views all have this shape."""

    shape: tuple[int, ...]
    node: Node

    @property
    def dtype(self) -> str:
        """The type of the elements."""
        return self.node.dtype

    @property
    def view(self) -> View | None:
        """The view of memory in which the value is stored; None if it is not stored."""
        return self.node.view if self.node.op == "view" and self.node.view and self.node.view.buffer else None


@dataclass(frozen=True, eq=False)
class Store:
    """Instruction: compute an expression and store it."""

    out: View
    node: Node


@dataclass(frozen=True, eq=False)
class Reduce:
    """Instruction: reduce an expression over some dimensions.

    Args:
        out: the results, expanded to the shape of the expression: reduced dimensions have stride 0.
        node: the expression.
        op: `"add"`, `"maximum"` or `"minimum"`.
        dims: the reduced dimensions.
    """

    out: View
    node: Node
    op: str
    dims: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Multiply:
    """Instruction: matrix products, `[..., m, k]` by `[..., k, n]`, of views with equal leading dimensions.

    Args:
        out: the results.
        left: the first factors.
        right: the second factors.
        rows: number of dimensions that form the rows, m.
        terms: number of dimensions that form the terms of the sums, k.
    """

    out: View
    left: View
    right: View
    rows: int = 1
    terms: int = 1


@dataclass(frozen=True, eq=False)
class ScatterAdd:
    """Instruction: `out[index[i], :] += node[i, :]` in the order of i, after filling `out` with zeros.

    Args:
        out: `[entries, features]`.
        index: `[i, features]`, equal along the second dimension.
        node: `[i, features]`.
        shape: the shape of `index` and `node`.
    """

    out: View
    index: Node
    node: Node
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class CheckIndex:
    """Instruction: check that all indices are in `[0, size)`, and report an error otherwise."""

    index: Node
    shape: tuple[int, ...]
    size: int


Instruction = Store | Reduce | Multiply | ScatterAdd | CheckIndex


def reads(instruction: Instruction) -> list[View]:
    """Return the views that an instruction loads from."""
    match instruction:
        case Multiply(_, left, right):
            return [left, right]
        case ScatterAdd(_, index, node):
            return [*index.views(), *node.views()]
        case CheckIndex(index):
            return [*index.views()]
        case _:
            return [*instruction.node.views()]


def writes(instruction: Instruction) -> list[View]:
    """Return the views that an instruction stores to."""
    return [] if isinstance(instruction, CheckIndex) else [instruction.out]


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor of this shape."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(1, size)
    return tuple(reversed(strides))


def strides_in_order(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a dense tensor; `order` lists its dimensions as in memory, outermost first."""
    strides = dict(zip(order, contiguous([shape[dim] for dim in order]), strict=True))
    return tuple(strides[dim] for dim in range(len(shape)))


@dataclass
class Program:
    """Row program: the instructions that run for each row of stacked arguments.

    Attributes:
        inputs: a buffer for each argument.
        outputs: a buffer for each result.
        output_shapes: the shape of each result.
        constants: tensors that all rows share, with their buffers.
        instructions: in order of execution.
    """

    inputs: list[Buffer] = field(default_factory=list)
    outputs: list[Buffer] = field(default_factory=list)
    output_shapes: list[tuple[int, ...]] = field(default_factory=list)
    constants: list[tuple[Buffer, torch.Tensor]] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
