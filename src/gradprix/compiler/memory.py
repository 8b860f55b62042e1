"""Allocation of a program's intermediate values in scratch memory, which all rows use."""

from .emitter import SIZES
from .ir import Buffer, Program, reads, writes

ALIGN = 64
"""Alignment of values in bytes: the size of a cache line."""


def allocate(program: Program) -> tuple[dict[Buffer, int], int]:
    """Assign memory to the scratch buffers of a program; the memory of a buffer is reused after its last use.

    Returns:
        The offset of each buffer and the total size, in bytes.
    """
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for i, instruction in enumerate(program.instructions):
        for view in [*writes(instruction), *reads(instruction)]:
            if view.buffer is not None and view.buffer.role == "scratch":
                first.setdefault(view.buffer, i)
                last[view.buffer] = i
    free: list[tuple[int, int]] = []  # (start, end), sorted
    offsets: dict[Buffer, int] = {}
    end = 0
    expiring: dict[int, list[Buffer]] = {}
    for buffer, i in last.items():
        expiring.setdefault(i, []).append(buffer)
    starting: dict[int, list[Buffer]] = {}
    for buffer, i in first.items():
        starting.setdefault(i, []).append(buffer)
    for i in range(len(program.instructions)):
        for buffer in starting.get(i, ()):
            size = _padded(buffer)
            fits = [gap for gap in free if gap[1] - gap[0] >= size]
            if fits:
                gap = min(fits, key=lambda gap: gap[1] - gap[0])
                free.remove(gap)
                offsets[buffer] = gap[0]
                if gap[1] - gap[0] > size:
                    free.append((gap[0] + size, gap[1]))
            else:
                offsets[buffer], end = end, end + size
        for buffer in expiring.get(i, ()):
            free = _joined([*free, (offsets[buffer], offsets[buffer] + _padded(buffer))])
    return offsets, end


def _padded(buffer: Buffer) -> int:
    return -(-max(1, buffer.size) * SIZES[buffer.dtype] // ALIGN) * ALIGN


def _joined(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort ranges of free memory and merge adjacent ones."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(gaps):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
