"""Compilation of a model's training step to machine code that runs for each row of a stack.

A step of one model is recorded as operations of torch (`row_program`), lowered to expressions and a few kinds of
instructions (`lowering`, `builder`, `ir`), and written as loops over vectors (`loops`, `matmul`, `vector_math`) that
LLVM compiles (`assembly`). Each row runs the same instructions on its own memory, which stays in the processor's
cache; so a row's results do not depend on the other rows, nor on their number.
"""

from .ir import UnsupportedError
from .row_program import RowFunction

__all__ = ["RowFunction", "UnsupportedError"]
