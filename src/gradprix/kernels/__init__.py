"""Execution of rules: eagerly, as compiled kernels, stacked, or with all terms recorded, with equal results."""

from ._column_sums import column_sums
from ._compile import Kernel, kernel
from ._eager import eager, evaluated, start
from ._hoisting import Split, split
from ._launch import STORED, Work, wide
from ._stacked import Stacked
from ._terms import assigned, terms

__all__ = [
    "STORED",
    "Kernel",
    "Split",
    "Stacked",
    "Work",
    "assigned",
    "column_sums",
    "eager",
    "evaluated",
    "kernel",
    "split",
    "start",
    "terms",
    "wide",
]
