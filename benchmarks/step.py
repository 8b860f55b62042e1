"""What a step costs: every class against torch's implementations of the same, and against memory itself.

Four kinds of work: one large tensor, many middling ones, many small ones, and the shapes of a ResNet-50. Ours, torch's
default, foreach and fused (where it has one) are stepped in turn within one run, so that a ratio does not depend on
what else the machine does; medians are shown. For the large tensor, bytes moved (each buffer read once, each changed
buffer written once) are compared with a bare loop that moves the same bytes, in the same run.

    python benchmarks/step.py                 # about five minutes on two cores; writes benchmarks/step.json
    python benchmarks/step.py --quick NAdam   # some classes, fewer rounds, writes nothing
"""

import argparse
import json
import platform
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

CLASSES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    *((name, {}) for name in ("Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW", "Adamax", "NAdam", "RAdam")),
]
HAS_FUSED = {"SGD", "Adagrad", "Adam", "AdamW"}
LARGE = 25_000_000


def resnet50() -> list[int]:
    """The sizes of a ResNet-50's 161 parameters."""
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
    """A call that steps freshly made parameters with fixed gradients."""
    params = [torch.nn.Parameter(torch.randn(size).to(dtype)) for size in sizes]
    for p in params:
        p.grad = (torch.randn(p.shape) * 1e-2).to(dtype)
    return getattr(module, name)(params, lr=1e-4, **given).step


def rounds(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The median time of each call, the calls taking turns."""
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
    return {name: statistics.median(found) for name, found in times.items()}


def compare(name: str, given: dict[str, Any], sizes: list[int], seconds: float, dtype: Any = torch.float32) -> dict:
    calls = {
        "ours": stepper(optim, name, sizes, dtype, **given),
        "default": stepper(torch.optim, name, sizes, dtype, **given),
        "foreach": stepper(torch.optim, name, sizes, dtype, foreach=True, **given),
    }
    if name in HAS_FUSED:
        calls["fused"] = stepper(torch.optim, name, sizes, dtype, fused=True, **given)
    if sizes == [LARGE] and dtype is torch.float32:
        calls["memory"] = bare(buffers(name, given))
    return rounds(calls, seconds)


def buffers(name: str, given: dict[str, Any]) -> int:
    """How many buffers besides the gradient a step reads and writes."""
    rule = getattr(optim, name).rule
    return 1 + rule.memory(rule.values(**given))


def bare(changed: int) -> Callable[[], None]:
    """A call that reads one array and reads and writes some others, on the threads that the kernels run on."""
    arrays = [np.ones(LARGE, np.float32) for _ in range(1 + changed)]  # written: untouched zeros share one page
    work = KernelCall([LARGE], [0], np.array([[a.ctypes.data for a in arrays]]), np.empty((1, 0)))
    loop = mover(changed)

    def call() -> None:
        work.run(loop.ctypes)
        assert arrays  # held, for only their addresses are in the work

    return call


@cache
def mover(changed: int) -> Any:
    """A loop that adds one array to some others: as little arithmetic as makes the compiler keep every stream."""
    names = [f"m{i}" for i in range(changed)]
    scope: dict[str, Any] = {"carray": numba.carray, "take": _numba_runtime.take}
    scope |= {"address": _numba_runtime.pointer_to(numba.float32), "numbers": _numba_runtime.pointer_to(numba.int64)}
    at = "carray(address(pointers[{}] + start), size)"
    streams = "".join(f"        {m} = {at.format(i)}\n" for i, m in enumerate(["g", *names]))
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
    """Seconds a fresh process takes for its first step with a cached kernel, and to call a trivial cached function."""
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
        found: dict[str, list[float]] = {"ours": [], "trivial": []}
        for _ in range(6):
            for name, code in (("ours", ours), ("trivial", trivial.format(folder=folder))):
                done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
                found[name].append(float(done.stdout))
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def show(label: str, name: str, times: dict[str, float]) -> None:
    ratios = ", ".join(
        f"{other} {times[other] / times['ours']:.2f}×" for other in times if other not in ("ours", "memory")
    )
    share = f", {times['memory'] / times['ours']:.0%} of memory speed" if "memory" in times else ""
    print(f"{label:11} {name:24} {times['ours'] * 1e3:8.3f} ms   {ratios}{share}", flush=True)


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="classes; all when left out")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and write nothing")
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
            "command": "python benchmarks/step.py",
            "machine": {"cores": torch.get_num_threads(), "cpu": platform.processor() or platform.machine()},
            "versions": {"torch": str(torch.__version__), "numba": numba.__version__},
            "first_call": first,
            "rows": rows,
        }
        Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
