"""Construction of row programs. A value remains an expression until an instruction needs it in memory."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from .ir import (
    Buffer,
    CheckIndex,
    Multiply,
    Node,
    Program,
    Reduce,
    ScatterAdd,
    Store,
    UnsupportedError,
    Value,
    View,
    contiguous,
    strides_in_order,
)

DTYPES = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.uint8: "uint8",
    torch.bool: "bool",
}
"""Names of the supported dtypes. Arithmetic on narrow integers is done in int64, and that on bfloat16 in float32."""

LARGE_STRIDE = 256
"""A small matrix is copied before a product if the stride of its rows or columns is at least this many elements."""
PYTHON_TYPES = {"float32": float, "int64": int, "bool": bool}


def dtype_name(kind: torch.dtype) -> str:
    """Return the name of a dtype.

    Raises:
        UnsupportedError: for a dtype that row programs do not support.
    """
    if kind not in DTYPES:
        raise UnsupportedError(str(kind))
    return DTYPES[kind]


class Builder:
    """Builder of a row program: adds arguments, instructions and results.

    Attributes:
        program: the program so far.
        computed: cache of values that lowerings reuse, by a key of the operation and its inputs.
    """

    def __init__(self) -> None:
        self.program = Program()
        self.computed: dict[Any, Value] = {}

    def input(self, shape: Sequence[int], kind: torch.dtype) -> Value:
        """Add an argument, which is a contiguous tensor, and return its value."""
        buffer = Buffer(prod(shape), dtype_name(kind), "input", len(self.program.inputs))
        self.program.inputs.append(buffer)
        return self._value(buffer, tuple(shape))

    def constant(self, x: torch.Tensor) -> Value:
        """Add a constant tensor, which all rows share, and return its value."""
        if x.numel() == 1:
            return self.number(x.item(), dtype_name(x.dtype), tuple(x.shape))
        buffer = Buffer(x.numel(), dtype_name(x.dtype), "constant", len(self.program.constants))
        self.program.constants.append((buffer, x.detach().contiguous()))
        return self._value(buffer, tuple(x.shape))

    def number(self, number: Any, dtype: str, shape: Sequence[int] = ()) -> Value:
        """Return a value whose elements all equal a number."""
        if dtype == "bfloat16":
            return self.convert(self.number(number, "float32", shape), dtype)
        return Value(tuple(shape), Node("number", dtype, number=number))

    def positions(self, shape: Sequence[int], dim: int, start: int = 0, step: int = 1) -> Value:
        """Return a value with the integers `start + i · step` along a dimension, where i is the index."""
        strides = tuple(step if d == dim % len(shape) else 0 for d in range(len(shape)))
        return Value(tuple(shape), Node("view", "int64", view=View(None, tuple(shape), strides, start)))

    def _value(self, buffer: Buffer, shape: tuple[int, ...]) -> Value:
        return Value(shape, Node("view", buffer.dtype, view=View(buffer, shape, contiguous(shape))))

    # Views

    def reshaped(self, x: Value, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Value]:
        """Apply a view operation of torch to a value and return the resulting values.

        If the strides of the value do not permit the operation, the value is stored contiguously first.
        """
        views = [*x.node.views()]
        if not views:
            shapes = View(None, x.shape, contiguous(x.shape)).apply(function, *args, **kwargs)
            return [Value(each.shape, x.node) for each in shapes]
        try:
            results = {view: view.apply(function, *args, **kwargs) for view in views}
        except RuntimeError:
            if x.view is not None and x.view.is_contiguous:
                raise
            self.compute(x, in_order=True)
            return self.reshaped(x, function, *args, **kwargs)
        count = len(results[views[0]])
        return [
            Value(results[views[0]][i].shape, x.node.map(lambda view, i=i: results[view][i]))  # type: ignore[misc]
            for i in range(count)
        ]

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        """Broadcast a value to a shape."""
        if tuple(shape) == x.shape:
            return x
        return self.reshaped(x, torch.Tensor.expand, tuple(shape))[0]

    # Arithmetic

    def pointwise(self, op: str, dtype: str, *args: Value, operands: str | None = None) -> Value:
        """Return the result of an elementwise operation on values, which are broadcast to a common shape.

        Args:
            op: the operation.
            dtype: the type of the result.
            args: the operands.
            operands: type to which the operands are converted first; no conversion when None.
        """
        shape = tuple(torch.broadcast_shapes(*(x.shape for x in args)))  # type: ignore[no-untyped-call]
        nodes = [self.expand(x if operands is None else self.convert(x, operands), shape).node for x in args]
        return Value(shape, Node(op, dtype, tuple(nodes)))

    def convert(self, x: Value, dtype: str) -> Value:
        """Convert the elements of a value to another type."""
        if x.dtype == dtype:
            return x
        if x.node.op == "convert" and (x.dtype, x.node.args[0].dtype) == ("float32", dtype) == ("float32", "bfloat16"):
            return Value(x.shape, x.node.args[0])
        if x.dtype == "bfloat16":  # shared, so that a value that several operations need in float32 is stored once
            key = "convert", x.node, x.shape, dtype
            return self.computed.setdefault(key, Value(x.shape, Node("convert", dtype, (x.node,))))
        if x.node.op == "number" and dtype in PYTHON_TYPES:
            number = PYTHON_TYPES[dtype](x.node.number)
            return Value(x.shape, Node("number", dtype, number=number))
        return Value(x.shape, Node("convert", dtype, (x.node,)))

    def without_bfloat16(self, x: Value) -> Value:
        """Return a value in float32 if it is bfloat16; other values are returned unchanged."""
        return self.convert(x, "float32") if x.dtype == "bfloat16" else x

    # Instructions

    def compute(self, x: Value, in_order: bool = False) -> View:
        """Store a value in memory, unless it is stored already, and return its view.

        Args:
            x: the value; its expression is replaced by the view.
            in_order: require a contiguous view of a whole buffer; if necessary, the value is copied.
        """
        if x.view is not None and not (in_order and not x.view.is_contiguous):
            return x.view
        return self._store_in([*range(len(x.shape))] if in_order else _memory_order(x), x)

    def _store_in(self, order: Sequence[int], x: Value) -> View:
        """Store a value in a new buffer, replace its expression by the view, and return the view.

        Args:
            order: the dimensions in the order of memory, outermost first.
            x: the value.
        """
        view = View(Buffer(prod(x.shape), x.dtype), x.shape, strides_in_order(x.shape, order))
        self.store(view, x)
        x.node = Node("view", x.dtype, view=view)
        return view

    def copy(self, x: Value) -> Value:
        """Copy a value to a new buffer and return the value of the copy."""
        view = self.new(x.shape, x.dtype)
        self.store(view, x)
        return self.loaded(view)

    def new(self, shape: Sequence[int], dtype: str = "float32") -> View:
        """Return a contiguous view of a new buffer."""
        return View(Buffer(prod(shape), dtype), tuple(shape), contiguous(shape))

    def loaded(self, view: View) -> Value:
        """Return the value whose elements are loaded from a view."""
        assert view.buffer is not None
        return Value(view.shape, Node("view", view.buffer.dtype, view=view))

    def store(self, out: View, x: Value) -> None:
        """Add an instruction that stores a value, broadcast to the shape of `out`, in the view `out`."""
        if prod(out.shape):
            self.program.instructions.append(Store(out, self.expand(x, out.shape).node))

    def reduce(self, op: str, x: Value, dims: Sequence[int], keepdim: bool = False) -> Value:
        """Return the reduction of a value.

        Args:
            op: `"add"`, `"maximum"` or `"minimum"`.
            x: the value.
            dims: the dimensions to reduce; all dimensions when empty.
            keepdim: keep reduced dimensions with size 1.

        Raises:
            UnsupportedError: for a value that is empty or not float32.
        """
        chosen = sorted({dim % len(x.shape) for dim in dims} if dims else range(len(x.shape)))
        kept = tuple(1 if dim in chosen else size for dim, size in enumerate(x.shape))
        if prod(x.shape) == 0 or x.dtype != "float32":
            raise UnsupportedError(f"a reduction of {x.dtype} {x.shape}")
        if all(x.shape[dim] == 1 for dim in chosen):
            result = x
        else:
            out = self.new(kept, x.dtype)
            wide = out.apply(torch.Tensor.expand, x.shape)[0]
            self.program.instructions.append(Reduce(wide, x.node, op, tuple(chosen)))
            result = self.loaded(out)
        return result if keepdim else self.reshaped(result, torch.Tensor.squeeze, tuple(chosen))[0]

    def matmul(self, left: Value, right: Value) -> Value:
        """Return the matrix products of two values with equal leading dimensions."""
        if (left.dtype, right.dtype) != ("float32", "float32"):
            raise UnsupportedError("a product of whole numbers")
        a, b = self._factor(left), self._factor(right)
        shape = (*a.shape[:-1], b.shape[-1])
        if a.shape[-1] == 0:
            return self.number(0.0, "float32", shape)
        out = self.new(shape)
        self.multiply(out, a, b)
        return self.loaded(out)

    def _factor(self, x: Value) -> View:
        """Return a view of a factor of matrix products, which is stored if necessary.

        Small matrices with large strides are copied: rows whose distance is a large power of two compete for the same
        few cache lines.
        """
        if len(x.shape) < 3:
            return self.compute(x)
        order = _memory_order(x)
        compact = [*range(len(x.shape) - 2), *(dim for dim in order if dim >= len(x.shape) - 2)]
        if x.view is None:
            return self._store_in(compact, x)
        if max(x.view.strides[-2:]) < LARGE_STRIDE or min(x.shape[-2:]) >= LARGE_STRIDE:
            return x.view
        key = "compact", x.view
        if key not in self.computed:
            self.computed[key] = self.loaded(self._store_in(compact, Value(x.shape, x.node)))
        return self.compute(self.computed[key])

    def multiply(self, out: View, left: View, right: View, rows: int = 1, terms: int = 1) -> None:
        """Add an instruction that stores matrix products in the view `out`; see `Multiply` for the arguments."""
        if prod(out.shape):
            self.program.instructions.append(Multiply(out, left, right, rows, terms))

    def gather(self, table: Value, dim: int, index: Value, shape: Sequence[int]) -> Value:
        """Return elements of a table at indices along a dimension.

        Args:
            table: the table. Dimensions other than `dim` are broadcast to `shape`.
            dim: the indexed dimension of the table.
            index: the indices, which are broadcast to `shape`. The program checks that they are in range.
            shape: the shape of the result.
        """
        view, index = self.compute(table), self.convert(index, "int64")
        size = view.shape[dim]
        self.check_index(index, size)
        bounded = self.pointwise("bound", "int64", index, self.number(size - 1, "int64"))
        column = view.apply(torch.Tensor.narrow, dim, 0, 1)[0].apply(torch.Tensor.expand, tuple(shape))[0]
        node = Node("gather", table.dtype, (self.expand(bounded, shape).node,), column, view.strides[dim])
        return Value(tuple(shape), node)

    def check_index(self, index: Value, size: int) -> None:
        """Store indices and add an instruction that checks that they are in `[0, size)`."""
        self.compute(index)
        self.program.instructions.append(CheckIndex(index.node, index.shape, size))

    def scatter_add(self, entries: int, index: Value, x: Value) -> Value:
        """Return a table `[entries, features]` whose entries are the sums of the rows of `x` with the same index.

        Args:
            entries: number of entries of the table.
            index: for each row of `x`, the index of its entry, `[rows]`.
            x: the rows, `[rows, features]`.
        """
        index = self.convert(index, "int64")
        self.check_index(index, entries)
        bounded = self.pointwise("bound", "int64", index, self.number(entries - 1, "int64"))
        wide = self.expand(self.reshaped(bounded, torch.Tensor.unsqueeze, -1)[0], x.shape)
        out = self.new((entries, x.shape[1]))
        assert len(x.shape) == 2
        self.program.instructions.append(ScatterAdd(out, wide.node, x.node, (x.shape[0], x.shape[1])))
        return self.loaded(out)

    def output(self, x: Value) -> None:
        """Add a value to the results of the program."""
        view = x.view
        if view is None or not view.is_contiguous or view.buffer is None or view.buffer.role != "scratch":
            view = self.new(x.shape, x.dtype)
            self.store(view, x)
        assert view.buffer is not None
        view.buffer.role, view.buffer.number = "output", len(self.program.outputs)
        self.program.outputs.append(view.buffer)
        self.program.output_shapes.append(x.shape)


def _memory_order(x: Value) -> list[int]:
    """Return the dimensions of a value, ordered as in the memory of its largest operand, outermost first."""
    views = [view for view in x.node.views() if view.buffer is not None]
    if not views:
        return [*range(len(x.shape))]
    widest = max(
        views, key=lambda view: sum(bool(stride) for n, stride in zip(view.shape, view.strides, strict=True) if n > 1)
    )
    return sorted(range(len(x.shape)), key=lambda dim: -widest.strides[dim] if widest.strides[dim] else 0)
