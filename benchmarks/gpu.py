"""Check and measure gradprix on a GPU, in at most five minutes.

There are four parts. *Steps* of every elementwise rule and dtype on the device are compared with the eager step on the
CPU; a step is captured in a CUDA graph and repeated; and the memory of its temporaries is measured. *Stacks* of models
of several kinds are trained on the device and on the CPU, twice and in two widths. *Times* of steps are compared with
those of torch's default, foreach and fused implementations, and with gradprix's step tensor by tensor. *Races* on the
device are compared with races on the CPU. Errors are recorded, and do not end the script. No part has ever been run on
a GPU: please report what fails.

    python benchmarks/gpu.py                # on torch's accelerator; writes benchmarks/gpu.json
    python benchmarks/gpu.py steps times    # some parts, writes nothing
    python benchmarks/gpu.py --device cpu   # every part with tiny sizes, to test the script; writes nothing
"""

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradprix import optim, rules, tasks
from gradprix.race import ENTRIES, Entry, race
from gradprix.rules import log
from gradprix.training import seconds_of_one, train_stack
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome, Trial
from gradprix.utils import devices
from race_models import CASES
from step import CLASSES, HAS_FUSED, WORK, time_in_turns

Row = dict[str, Any]
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""Relative difference from the CPU that is explained by rounding, after ten steps."""
SHAPES = [(300, 70), (17,), (), (4, 5, 6)]
SECONDS = {"steps": 50, "stacks": 80, "times": 60, "races": 60}
"""Time limit of each part; what remains is skipped when it is over."""


@dataclass
class Run:
    """Results of the script on a device.

    Args:
        device: the device.
        is_tiny: True for a dry run with tiny sizes.
    """

    device: torch.device
    is_tiny: bool
    rows: list[Row] = field(default_factory=list)

    def run_part(self, name: str) -> None:
        """Run a part until its time limit, record its results and print them; errors are results."""
        end = time.monotonic() + SECONDS[name]
        for label, measure in PARTS[name](self):
            row: Row = {"part": name, "label": label}
            if time.monotonic() > end:
                row["skipped"] = "time limit"
            else:
                try:
                    row |= measure()
                except Exception as error:  # unknown hardware: any error is a result
                    row |= {"passed": False, "error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
            self.rows.append(row)
            facts = ", ".join(f"{key} {_format(value)}" for key, value in row.items() if key not in ("part", "label"))
            print(f"{name:7} {label:45} {facts}", flush=True)


def _format(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# Steps


def steps(run: Run) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Yield the comparisons of steps on the device with eager steps on the CPU."""
    dtypes = [dtype for dtype in ROUNDING if not (dtype is torch.float64 and run.device.type == "mps")]
    chosen = [rule for rule in rules.ALL.values() if rule.is_separable]
    for rule in chosen[:3] if run.is_tiny else chosen:
        for dtype in dtypes:
            label = f"{rule.name} {str(dtype).removeprefix('torch.')}"
            yield label, partial(compare_steps, run.device, rule, dtype)
    for rule in (rules.adamw, rules.nadam, rules.schedule_free_adamw):
        yield f"{rule.name} captured", partial(compare_captured, run.device, rule)
    yield "memory of temporaries", partial(measure_memory, run)


def parameters(device: torch.device, dtype: torch.dtype) -> list[nn.Parameter]:
    """Return parameters that are the same on every device."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype).to(device)) for shape in SHAPES]


def set_gradients(params: list[nn.Parameter], t: int) -> None:
    """Write the gradients of a step into the memory of those of the last step."""
    generator = torch.Generator().manual_seed(1 + t)
    for x in params:
        g = torch.randn(x.shape, generator=generator).to(x.dtype).to(x.device)
        x.grad = g if x.grad is None else x.grad.copy_(g)


def trained(device: torch.device, rule: rules.Rule, dtype: torch.dtype, **given: Any) -> list[nn.Parameter]:
    """Return parameters after ten steps."""
    params = parameters(device, dtype)
    optimizer = optim.from_rule(rule)(params, lr=1e-2, **given)
    for t in range(10):
        set_gradients(params, t)
        optimizer.step()
    return params


def compare(ours: list[nn.Parameter], theirs: list[nn.Parameter], dtype: torch.dtype) -> Row:
    """Return the largest relative difference, and the share of elements that differ by more than rounding."""
    pairs = zip(ours, theirs, strict=True)
    values = [(a.detach().cpu().double(), b.detach().double()) for a, b in pairs]
    errors = torch.cat([((a - b) / (b.abs() + 1e-2)).flatten() for a, b in values])
    outside = float((errors.abs() > ROUNDING[dtype]).double().mean())
    # Where an update is the sign of a sum near zero, rounding may change it.
    return {"passed": outside <= 1e-3, "difference": float(errors.abs().max()), "outside": outside}


def compare_steps(device: torch.device, rule: rules.Rule, dtype: torch.dtype) -> Row:
    """Compare foreach calls on the device with the eager step on the CPU."""
    ours = trained(device, rule, dtype, foreach=True, fused=False)
    return compare(ours, trained(devices.CPU, rule, dtype, fused=False), dtype)


def compare_captured(device: torch.device, rule: rules.Rule) -> Row:
    """Compare a step that is captured in a CUDA graph and repeated with ordinary steps."""
    params = parameters(device, torch.float32)
    optimizer = optim.from_rule(rule)(params, lr=1e-2, foreach=True, fused=False, capturable=True)
    repeat = optimizer.step
    for t in range(10):
        set_gradients(params, t)
        if t == 3 and device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):  # records the step, without executing it
                optimizer.step()
            repeat = graph.replay
        repeat()
    row = compare(params, trained(devices.CPU, rule, torch.float32, fused=False), torch.float32)
    return {**row, "captured": device.type == "cuda"}


def measure_memory(run: Run) -> Row:
    """Measure the peak of the memory that a step of Adam takes, in addition to what was allocated before."""
    sizes = [100] if run.is_tiny else [40_000_000, *[1_000_000] * 100]
    params = [nn.Parameter(torch.ones(size, device=run.device)) for size in sizes]
    optimizer = optim.Adam(params, foreach=True, fused=False)
    for x in params:
        x.grad = torch.ones_like(x)
    optimizer.step()
    bound = max(64 * 2**20, 4 * max(sizes))
    if run.device.type == "cpu":
        return {"passed": True, "bound": bound}
    devices.wait(run.device)
    torch.accelerator.reset_peak_memory_stats(run.device)
    before = torch.accelerator.memory_allocated(run.device)
    optimizer.step()
    devices.wait(run.device)
    peak = torch.accelerator.max_memory_allocated(run.device) - before
    return {"passed": peak <= 1.05 * bound, "bound": bound, "peak": peak}  # an allocator rounds sizes


# Stacks


def dropout() -> nn.Module:
    """Return a network with batch norm and dropout, whose noise is drawn on the CPU."""
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))


STACKED: dict[str, Callable[[], tasks.Task]] = {
    **{name: partial(CASES[name].task, name) for name in ("mlp", "cnn", "transformer", "gpt", "resnet", "lstm")},
    "dropout": lambda: tasks.digits.change(name="digits-dropout", model=dropout),
}
OPTIMIZERS = {
    **ENTRIES,
    "torch's AdamW": Entry("theirs", torch.optim.AdamW, {"fused": True}, {"lr": log(1e-4, 1e-1)}),
}
MODES: dict[str, tuple[str, str, ExecutionMode]] = {
    **{name: (name, "adam", ExecutionMode()) for name in STACKED},
    **{f"mlp, {entry}": ("mlp", entry, ExecutionMode()) for entry in ("momentum", "lamb", "muon", "torch's AdamW")},
    "mlp, one at a time": ("mlp", "adam", ExecutionMode(stacked=False)),
    "mlp, torch.compile": ("mlp", "adam", ExecutionMode(compiled=True)),
}
"""Task, optimizer and execution mode of each comparison."""


def stacks(run: Run) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Yield the comparisons of training on the device with training on the CPU."""
    tiny = ("mlp", "mlp, torch's AdamW", "mlp, one at a time")
    for label in tiny if run.is_tiny else MODES:
        yield label, partial(compare_training, run, *MODES[label])
    for name in ("mlp",) if run.is_tiny else ("mlp", "transformer", "cnn"):
        for models in (2,) if run.is_tiny else (1, 16, 64, 256, 1024):
            yield f"{name}, width {models}", partial(time_stack, run, name, models)


def train(run: Run, name: str, entry: str, mode: ExecutionMode, models: int) -> list[Outcome]:
    """Train models on a part of an epoch and return their outcomes."""
    return train_stack(STACKED[name](), make_trials(run, name, entry, models), mode=mode)


def make_trials(run: Run, name: str, entry: str, models: int) -> list[Trial]:
    """Return trials that differ in their seeds."""
    size, chosen, epochs = STACKED[name]().batch_size, OPTIMIZERS[entry], 0.05 if run.is_tiny else 0.2
    values = chosen.values(chosen.space["lr"].from_unit(0.3))
    return [Trial(chosen.rule, values, seed, size, epochs, "constant", True) for seed in range(1, 1 + models)]


def time_stack(run: Run, name: str, models: int) -> Row:
    """Return the seconds per step and model in a stack on the device, and the peak of the memory that it takes."""
    mode, trials = ExecutionMode(device=str(run.device)), make_trials(run, name, "adam", models)
    if run.device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats(run.device)
    seconds = seconds_of_one(STACKED[name](), trials, mode, models)
    if run.device.type == "cpu":
        return {"seconds": seconds}
    return {"seconds": seconds, "peak": torch.accelerator.max_memory_allocated(run.device)}


def compare_training(run: Run, name: str, entry: str, mode: ExecutionMode) -> Row:
    """Compare test losses of the device and the CPU, of two runs on the device, and of two widths of a stack."""
    there = ExecutionMode(mode.stacked, mode.compiled, str(run.device))
    started = time.perf_counter()
    first = losses(train(run, name, entry, there, 8))
    seconds = time.perf_counter() - started
    again, narrow = losses(train(run, name, entry, there, 8)), losses(train(run, name, entry, there, 3))
    here = losses(train(run, name, entry, ExecutionMode(mode.stacked), 8))
    difference = float(((first - here) / here).abs().max())
    return {
        "passed": difference < 1e-2,
        "difference": difference,
        "reproducible": torch.equal(first, again),
        "independent of width": torch.equal(first[:3], narrow),
        "seconds": seconds,
    }


def losses(outcomes: list[Outcome]) -> Tensor:
    """Return the test losses of training runs."""
    return torch.tensor([outcome.test_loss for outcome in outcomes], dtype=torch.float64)


# Times


def times(run: Run) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Yield the measurements of the duration of a step."""
    work = {"3 × 10": [10] * 3} if run.is_tiny else WORK
    for label, sizes in work.items():
        for name, given in CLASSES[:2] if run.is_tiny else CLASSES:
            options = "".join(f" {key}={value}" for key, value in given.items())
            yield f"{label} {name}{options}", partial(time_steps, run, name, given, sizes, torch.float32)
        yield f"{label} AdamW bfloat16", partial(time_steps, run, "AdamW", {}, sizes, torch.bfloat16)


def time_steps(run: Run, name: str, given: dict[str, Any], sizes: list[int], dtype: torch.dtype) -> Row:
    """Return the median duration of a step by implementation, in seconds."""

    def stepper(module: Any, **options: Any) -> Callable[[], None]:
        params = [nn.Parameter(torch.randn(size).to(dtype).to(run.device)) for size in sizes]
        for x in params:
            x.grad = torch.ones_like(x)
        step = getattr(module, name)(params, lr=1e-4, **given, **options).step

        def call() -> None:
            step()
            devices.wait(run.device)

        return call

    calls = {
        "ours": stepper(optim),
        "tensor by tensor": stepper(optim, fused=False),
        "default": stepper(torch.optim),
        "foreach": stepper(torch.optim, foreach=True),
    }
    if name in HAS_FUSED and run.device.type in ("cpu", "cuda", "mps", "xpu"):
        calls["fused"] = stepper(torch.optim, fused=True)
    return time_in_turns(calls, seconds=0.02 if run.is_tiny else 0.5)


# Races


def races(run: Run) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Yield the comparisons of races on the device with races on the CPU."""
    for name in ("mlp",) if run.is_tiny else ("mlp", "transformer"):
        yield name, partial(compare_races, run, name)


def compare_races(run: Run, name: str) -> Row:
    """Compare the durations of a race on both devices, and the mean score of every optimizer."""
    extent: dict[str, Any] = {"trials": 6, "seeds": 6, "epochs": 6, "margin": 0}
    if run.is_tiny:
        extent = {"trials": 2, "seeds": 6, "epochs": 1, "margin": 0}
    seconds, means = {}, {}
    for device in ("cpu", str(run.device)):
        started = time.perf_counter()
        result = race(CASES[name].task(name), "momentum,rmsprop,adam", device=device, **extent)
        seconds[device] = time.perf_counter() - started
        means[device] = {entry.name: entry.final.mean for entry in result.record.entries}
    there, here = means[str(run.device)], means["cpu"]
    difference = max(abs(there[entry] - here[entry]) for entry in here)
    return {"passed": difference < 0.03, "difference": difference, "seconds": seconds, "means": means}


PARTS: dict[str, Callable[[Run], Iterator[tuple[str, Callable[[], Row]]]]] = {
    "steps": steps,
    "stacks": stacks,
    "times": times,
    "races": races,
}


def main() -> None:
    """Run the parts, print their results, and write them if all parts ran on a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"parts to run: {', '.join(PARTS)}; all by default")
    parser.add_argument("--device", help="device to run on; torch's accelerator by default")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: there is no such part. Choose from {', '.join(PARTS)}")
    name = given.device or devices.accelerator_type()
    if name is None:
        parser.error("torch finds no GPU. To test this script without one, give --device cpu")
    devices.require(name)
    warnings.simplefilter("once")
    run, started = Run(torch.device(name), torch.device(name).type == "cpu"), time.monotonic()
    for part in given.parts or PARTS:
        run.run_part(part)
    failed = [row["label"] for row in run.rows if row.get("passed") is False]
    print(f"{len(run.rows)} results in {time.monotonic() - started:.0f} s, {len(failed)} failed: {', '.join(failed)}")
    if not run.is_tiny and not given.parts:
        record = {
            "command": "python benchmarks/gpu.py",
            "machine": {"device": devices.describe_device(name), "cpu": platform.processor() or platform.machine()},
            "versions": {
                "torch": str(torch.__version__),
                "cuda": torch.version.cuda,
                "python": platform.python_version(),
            },
            "rows": run.rows,
        }
        Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
