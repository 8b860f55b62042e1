"""Compilation of a model's training step to machine code that runs for each row of a stack.

A step of one model is recorded as operations of torch (`recording`), lowered to expressions and a few kinds of
instructions (`row_program`, `lowering`, `builder`, `ir`), and written as loops over vectors (`loops`, `matmul`,
`vector_math`) that LLVM compiles (`assembly`). Each row runs the same instructions on its own memory, which stays in
the processor's cache. A row's results therefore do not depend on the other rows, nor on their number.
"""

from .builder import DTYPES
from .ir import UnsupportedError
from .recording import Draw, Recording, out_of_place_version
from .row_program import IndexedRows, RowCall, RowFunction

__all__ = [
    "DTYPES",
    "Draw",
    "IndexedRows",
    "Recording",
    "RowCall",
    "RowFunction",
    "UnsupportedError",
    "out_of_place_version",
]
