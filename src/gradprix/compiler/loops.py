"""Emission of loops over the elements of expressions that are stored, added into a table, or checked."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from llvmlite import ir

from . import vector_math
from .elements import Elements, Places
from .emitter import LONG, Emitter
from .ir import CheckIndex, ScatterAdd, Store


@contextmanager
def nested(e: Emitter, shape: Sequence[int]) -> Iterator[list[Any]]:
    """Return a context manager that emits one nested loop per dimension of `shape` and yields their indices."""
    with ExitStack() as loops:
        yield [loops.enter_context(e.loop(0, size)) for size in shape]


def each_piece(e: Emitter, size: int, step: int, body: Callable[[Any, int], None]) -> None:
    """Emit a loop over blocks of `step` elements, and the code for the remainder.

    Args:
        e: the emitter.
        size: number of elements.
        step: number of elements of a block.
        body: emits the code for a block, given the index of its first element and its number of elements.
    """
    full = size // step * step
    if full:
        with e.loop(0, full, step) as i:
            body(i, step)
    if full < size:
        body(e.index(full), size - full)


def each_vector(e: Emitter, size: int, body: Callable[[Any, int], None]) -> None:
    """Emit a loop over full vectors, and the code for the remainder; see `each_piece`."""
    each_piece(e, size, e.width, body)


def emit_store(e: Emitter, store: Store, places: Places) -> None:
    """Emit the loops of a `Store` instruction; the last dimension is vectorized."""
    shape = store.out.shape
    elements = Elements(e, places, len(shape) - 1)

    def body(indices: list[Any], count: int) -> None:
        elements.store(elements.compute(store.node, indices, count), store.out, indices, count)

    with nested(e, shape[:-1]) as outer:
        each_vector(e, shape[-1], lambda i, count: body([*outer, i], count))


def emit_scatter_add(e: Emitter, scatter: ScatterAdd, places: Places) -> None:
    """Emit the loops of a `ScatterAdd` instruction, which adds the rows one after the other."""
    count, features = scatter.shape
    entries = scatter.out.shape[0]
    elements = Elements(e, places, 1)
    zero = vector_math.number(e, 0.0)
    with e.loop(0, entries) as i:
        each_vector(e, features, lambda j, n: elements.store(zero, scatter.out, [i, j], n))
    with e.loop(0, count) as i:
        entry = e.extract(elements.compute(scatter.index, [i, e.index(0)], 1), 0)

        def add(j: Any, n: int) -> None:
            before = elements.load(scatter.out, [entry, j], n, "float32")
            value = elements.compute(scatter.node, [i, j], n)
            elements.store(e.b.fadd(before, value), scatter.out, [entry, j], n)

        each_vector(e, features, add)


def emit_check(e: Emitter, check: CheckIndex, places: Places, status: Any) -> None:
    """Emit the loops of a `CheckIndex` instruction, which sets the word at `status` if an index is out of range."""
    shape = check.shape or (1,)
    elements = Elements(e, places, len(shape) - 1)
    size = ir.Constant(e.vector(LONG), [LONG(check.size)] * e.width)

    def body(indices: list[Any], count: int) -> None:
        values = elements.compute(check.index, indices, count)
        wrong = e.b.icmp_unsigned(">=", values, size)
        wrong = e.b.and_(wrong, e.mask(count))
        whole = e.b.zext(e.b.bitcast(wrong, ir.IntType(e.width)), LONG)
        e.b.store(e.b.or_(e.b.load(status, typ=LONG), whole), status)

    with nested(e, shape[:-1]) as outer:
        each_vector(e, shape[-1], lambda i, count: body([*outer, i], count))
