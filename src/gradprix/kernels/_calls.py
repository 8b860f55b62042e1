"""Sequences of kernel calls that run without returning to Python in between."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._compile import Kernel, load_module

RUN = """
define void @gradprix_kernel(i64 %job) {
entry:
  %header = inttoptr i64 %job to ptr
  %count = load i64, ptr %header
  %second = getelementptr i64, ptr %header, i64 1
  %table_address = load i64, ptr %second
  %table = inttoptr i64 %table_address to ptr
  %any = icmp sgt i64 %count, 0
  br i1 %any, label %loop, label %end
loop:
  %i = phi i64 [ 0, %entry ], [ %following, %loop ]
  %offset = mul i64 %i, 4
  %call = getelementptr i64, ptr %table, i64 %offset
  %kernel_address = load i64, ptr %call
  %at_job = getelementptr i64, ptr %call, i64 1
  %its_job = load i64, ptr %at_job
  %at_first = getelementptr i64, ptr %call, i64 2
  %first = load i64, ptr %at_first
  %at_stop = getelementptr i64, ptr %call, i64 3
  %stop = load i64, ptr %at_stop
  %words = inttoptr i64 %its_job to ptr
  store i64 %first, ptr %words
  %next_word = getelementptr i64, ptr %words, i64 1
  store i64 %stop, ptr %next_word
  %kernel = inttoptr i64 %kernel_address to ptr
  call void %kernel(i64 %its_job)
  %following = add i64 %i, 1
  %more = icmp slt i64 %following, %count
  br i1 %more, label %loop, label %end
end:
  ret void
}
"""


def run_calls(calls: NDArray[np.int64]) -> None:
    """Run kernels one after the other, without returning to Python in between.

    Args:
        calls: `[calls, 4]`. A call consists of the address of a kernel, the address of its job, and the start and end
            of the range of items to process, which are written to the first two words of the job.
    """
    calls = np.ascontiguousarray(calls)
    job = np.array([len(calls), calls.ctypes.data], dtype=np.int64)
    _runner()(job.ctypes.data)


def kernel_address(kernel: Any) -> int:
    """Return the address of a kernel."""
    return ctypes.cast(kernel, ctypes.c_void_p).value or 0


@cache
def _runner() -> Kernel:
    return load_module("calls", RUN, lambda: RUN)
