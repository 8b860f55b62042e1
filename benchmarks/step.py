"""Measure the duration of an optimizer step, compared with torch's implementations and with memory bandwidth.

There are four workloads: one large tensor, many medium ones, many small ones, and the parameters of a ResNet-50. In one
run, steps of gradprix and of torch's default, foreach and fused implementations take turns, so that their ratios do not
depend on other processes. Medians are shown. For the large tensor, the step is also compared with a loop without
arithmetic that moves the same bytes: it reads each buffer once and writes each changed buffer once.

    python benchmarks/step.py                 # about five minutes on two cores; writes benchmarks/step.json
    python benchmarks/step.py --quick NAdam   # some classes, fewer rounds, writes nothing
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from gradprix import optim
from gradprix.kernels import KernelCall, _numba_runtime
from gradprix.utils.run_info import describe_run

CLASSES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    *((name, {}) for name in ("Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW", "Adamax", "NAdam", "RAdam")),
]
HAS_FUSED = {"SGD", "Adagrad", "Adam", "AdamW"}
LARGE = 25_000_000


def resnet50() -> list[int]:
    """Return the numbers of elements of a ResNet-50's 161 parameters."""
    sizes, inside = [64 * 3 * 49, 64, 64], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            for count in (inside * width, width * width * 9, width * width * 4):
                sizes += [count, count // inside if count == inside * width else width, width]
            if block == 0:
                sizes += [inside * width * 4, width * 4, width * 4]
            inside = width * 4
    return [*sizes, 2048 * 1000, 1000]


WORK = {"1 × 25M": [LARGE], "160 × 160k": [160_000] * 160, "200 × 1k": [1_000] * 200, "ResNet-50": resnet50()}


def stepper(module: Any, name: str, sizes: list[int], dtype: torch.dtype = torch.float32, **given: Any) -> Callable:
    """Return a function that performs a step on new parameters with fixed gradients.

    Args:
        module: `gradprix.optim` or `torch.optim`.
        name: name of the optimizer class.
        sizes: number of elements of each parameter.
        dtype: data type of the parameters.
        **given: arguments of the optimizer.
    """
    params = [torch.nn.Parameter(torch.randn(size).to(dtype)) for size in sizes]
    for p in params:
        p.grad = (torch.randn(p.shape) * 1e-2).to(dtype)
    return getattr(module, name)(params, lr=1e-4, **given).step


def time_in_turns(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Return the median duration of each call. The calls take turns for `seconds`, and at least five times."""
    for call in calls.values():
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(times[next(iter(times))]) < 5:
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(durations) for name, durations in times.items()}


def compare(name: str, given: dict[str, Any], sizes: list[int], seconds: float, dtype: Any = torch.float32) -> dict:
    """Return the median duration of a step by implementation, in seconds.

    Args:
        name: name of the optimizer class.
        given: arguments of the optimizer.
        sizes: number of elements of each parameter.
        seconds: duration of the comparison.
        dtype: data type of the parameters.
    """
    calls = {
        "ours": stepper(optim, name, sizes, dtype, **given),
        "default": stepper(torch.optim, name, sizes, dtype, **given),
        "foreach": stepper(torch.optim, name, sizes, dtype, foreach=True, **given),
    }
    if name in HAS_FUSED:
        calls["fused"] = stepper(torch.optim, name, sizes, dtype, fused=True, **given)
    if sizes == [LARGE] and dtype is torch.float32:
        calls["memory"] = memory_stepper(changed_buffers(name, given))
    return time_in_turns(calls, seconds)


def changed_buffers(name: str, given: dict[str, Any]) -> int:
    """Return the number of buffers that a step reads and writes, that is, all but the gradient."""
    rule = getattr(optim, name).rule
    return 1 + rule.memory(rule.values(**given))


def memory_stepper(changed: int) -> Callable[[], None]:
    """Return a function that moves the bytes of a step, on the threads that run the kernels.

    It reads one array, and reads and writes `changed` other arrays.
    """
    arrays = [np.ones(LARGE, np.float32) for _ in range(1 + changed)]  # not zeros, whose pages the kernel would share
    work = KernelCall([LARGE], [0], np.array([[a.ctypes.data for a in arrays]]), np.empty((1, 0)))
    loop = compile_memory_loop(changed)

    def call() -> None:
        work.run(loop.ctypes)
        assert arrays  # keeps the arrays alive: `work` holds their addresses only

    return call


@cache
def compile_memory_loop(changed: int) -> Any:
    """Compile a loop that adds one array to `changed` other arrays.

    This is the least arithmetic for which the compiler does not remove any memory access.
    """
    names = [f"m{i}" for i in range(changed)]
    scope: dict[str, Any] = {"carray": numba.carray, "take": _numba_runtime.take}
    scope |= {"address": _numba_runtime.pointer_to(numba.float32), "numbers": _numba_runtime.pointer_to(numba.int64)}
    view = "carray(address(pointers[{}] + start), size)"
    streams = "".join(f"        {m} = {view.format(i)}\n" for i, m in enumerate(["g", *names]))
    body = "".join(f"            {m}[i] = {m}[i] + g[i]\n" for m in names)
    text = f"""def loop(job_at):
    job = carray(numbers(job_at), 5)
    chunks, pointers = numbers(job[2]), numbers(job[3])
    while True:
        j = take(job_at)
        if j >= job[1]:
            break
        start, size = 4 * chunks[4 * j + 1], chunks[4 * j + 2]
{streams}
        for i in range(size):
{body}"""
    exec(text, scope)
    return numba.cfunc("void(int64)")(scope["loop"])


def first_calls() -> dict[str, float]:
    """Return the seconds that a new process takes for its first step, and for the first call of a trivial function.

    The kernel of the step and the trivial function are both in the compiler's cache.
    """
    ours = """
import time, torch
from gradprix import optim
p = torch.nn.Parameter(torch.ones(5)); p.grad = torch.ones(5); o = optim.Adam([p])
t = time.perf_counter(); o.step(); print(time.perf_counter() - t)
"""
    trivial = """
import time, numba, sys
sys.path.insert(0, {folder!r})
t = time.perf_counter(); import trivial; trivial.f(1.0); print(time.perf_counter() - t)
"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "trivial.py").write_text(
            "from numba import njit\n@njit(cache=True)\ndef f(x):\n    return x + 1\n"
        )
        durations: dict[str, list[float]] = {"ours": [], "trivial": []}
        for _ in range(6):
            for name, code in (("ours", ours), ("trivial", trivial.format(folder=folder))):
                done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
                durations[name].append(float(done.stdout))
    return {name: statistics.median(times[1:]) for name, times in durations.items()}


def show(label: str, name: str, times: dict[str, float]) -> None:
    """Print the duration of a step, and those of the other implementations relative to it."""
    ratios = ", ".join(
        f"{other} {times[other] / times['ours']:.2f}×" for other in times if other not in ("ours", "memory")
    )
    share = f", {times['memory'] / times['ours']:.0%} of memory speed" if "memory" in times else ""
    print(f"{label:11} {name:24} {times['ours'] * 1e3:8.3f} ms   {ratios}{share}", flush=True)


def main() -> None:
    """Measure, print the results and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="classes to measure; all by default")
    parser.add_argument("--quick", action="store_true", help="measure fewer rounds, and write no file")
    given = parser.parse_args()
    chosen = [(n, options) for n, options in CLASSES if not given.names or n in given.names]
    rows = []
    for label, sizes in WORK.items():
        for name, options in chosen:
            times = compare(name, options, sizes, seconds=0.5 if given.quick else 2.0)
            full = name + "".join(f" {key}={value}" for key, value in options.items())
            show(label, full, times)
            rows.append({"work": label, "class": full, "seconds": times})
    if not given.names or "Adam" in given.names:
        times = compare("Adam", {}, [LARGE], 2.0, torch.bfloat16)
        show("1 × 25M", "Adam in bfloat16", times)
        rows.append({"work": "1 × 25M", "class": "Adam bfloat16", "seconds": times})
    first = first_calls()
    ours, trivial = (f"{first[name] * 1e3:.0f} ms" for name in ("ours", "trivial"))
    print(f"first step in a fresh process: {ours}; a trivial function: {trivial}")
    if not given.quick and not given.names:
        record = {
            **describe_run("python benchmarks/step.py", None, "numba"),
            "first_call": first,
            "rows": rows,
        }
        Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
