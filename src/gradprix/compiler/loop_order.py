"""Order and merging of the dimensions of an instruction's loops."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from .ir import Instruction, Reduce, Store, View


def normalize(instruction: Instruction) -> Instruction:
    """Return an instruction with dimensions ordered and merged as in memory, so that loops are few and long."""
    if not isinstance(instruction, Store | Reduce):
        return instruction
    shape = instruction.out.shape
    reduced = set(instruction.dims) if isinstance(instruction, Reduce) else set()
    views = list(dict.fromkeys([instruction.out, *instruction.node.views()]))
    main = _main_view(instruction, views)
    dims = [dim for dim in range(len(shape)) if shape[dim] > 1]
    dims.sort(key=lambda dim: -main.strides[dim] if main.strides[dim] else float("-inf"))
    groups: list[list[int]] = []
    for dim in dims:
        if groups and (groups[-1][-1] in reduced) == (dim in reduced) and _mergeable(views, groups[-1][-1], dim, shape):
            groups[-1].append(dim)
        else:
            groups.append([dim])
    sizes = tuple(prod(shape[dim] for dim in group) for group in groups) or (1,)

    def merged(view: View) -> View:
        return replace(view, shape=sizes, strides=tuple(view.strides[group[-1]] for group in groups) or (0,))

    out, node = merged(instruction.out), instruction.node.map(merged)
    if isinstance(instruction, Store):
        return Store(out, node)
    return Reduce(out, node, instruction.op, tuple(i for i, group in enumerate(groups) if group[0] in reduced))


def _main_view(instruction: Store | Reduce, views: Sequence[View]) -> View:
    """Return the view whose memory order the loops follow: the output of a store or a reduction's largest operand."""
    if isinstance(instruction, Store):
        return instruction.out
    operands = [view for view in views[1:] if view.buffer is not None] or [instruction.out]
    return max(operands, key=lambda view: prod(n for n, s in zip(view.shape, view.strides, strict=True) if s))


def _mergeable(views: Sequence[View], outer: int, inner: int, shape: Sequence[int]) -> bool:
    return all(view.strides[outer] == view.strides[inner] * shape[inner] for view in views)
