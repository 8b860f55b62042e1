"""Execution of rules, with equal results: eager, as kernels or foreach calls, stacked, or with all terms recorded."""

from ._block_sums import block_sums
from ._calls import kernel_address, run_calls
from ._column_sums import column_sums
from ._compile import Kernel, KernelSequence, compile_kernel, load_module, vector_width
from ._eager import (
    add_compensation,
    compute_evaluation_point,
    eager_step,
    init_state,
    initial_number,
    rule_view,
    step_group,
)
from ._foreach import ForeachCall
from ._hoisting import SplitRule, hoist_scalars
from ._launch import STORAGE_DTYPES, KernelCall, SequenceCall, compute_dtype
from ._stack_step import compile_stack_step
from ._stacked import StackedRule
from ._terms import compute_assignments, compute_terms

__all__ = [
    "STORAGE_DTYPES",
    "ForeachCall",
    "Kernel",
    "KernelCall",
    "KernelSequence",
    "SequenceCall",
    "SplitRule",
    "StackedRule",
    "add_compensation",
    "block_sums",
    "column_sums",
    "compile_kernel",
    "compile_stack_step",
    "compute_assignments",
    "compute_dtype",
    "compute_evaluation_point",
    "compute_terms",
    "eager_step",
    "hoist_scalars",
    "init_state",
    "initial_number",
    "kernel_address",
    "load_module",
    "rule_view",
    "run_calls",
    "step_group",
    "vector_width",
]
