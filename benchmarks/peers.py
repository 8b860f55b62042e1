"""Measure the duration of an optimizer step, compared with other packages that have the same optimizer.

Every class of `gradprix.optim` is compared with the class of the same name in pytorch_optimizer, optimi, schedulefree,
HeavyBall and, for Muon, torch. The tensors are those of `benchmarks/step.py`, or matrices for optimizers that need
them. In one run, the implementations take turns, so that their ratios do not depend on other processes. Hyperparameters
that change the work of a step are equal. All packages run at their defaults, but HeavyBall without `torch.compile`,
which takes about a minute for each class.

    python benchmarks/peers.py                # about three minutes on two cores; writes benchmarks/peers.json
    python benchmarks/peers.py --quick Lion   # some classes, fewer rounds, writes nothing

It needs the packages of the extra `peers`: `environment=peers; source scripts/setup` makes the environment
`.venv-peers`.
"""

import argparse
import inspect
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from gradprix import optim
from gradprix.utils.run_info import describe_run
from step import WORK

PEERS = {
    "pytorch_optimizer": "pytorch_optimizer",
    "optimi": "torch-optimi",
    "schedulefree": "schedulefree",
    "heavyball": "heavyball",
}
"""Names of the distributions of the packages, by the name of the module."""
ALIASES = {
    "ScheduleFreeSGD": ("SGDScheduleFree",),
    "ScheduleFreeAdamW": ("AdamWScheduleFree", "SFAdamW"),
    "Signum": ("SignSGD",),
}
"""Other names of a class in the packages."""
OTHER_ALGORITHMS = {("pytorch_optimizer", "ASGD")}
"""Classes of the same name that are another algorithm, by package: this one is SGD with adaptive step sizes."""
SAME_CLASS = {"AdamWScheduleFree"}
"""Classes that are another one under a second name."""
MATRICES = {
    "40 × 400×400": [(400, 400)] * 40,
    "200 × 32×32": [(32, 32)] * 200,
}
"""Lists of matrices, for optimizers that step matrices as a whole."""
NEEDS_MATRICES = {"Muon", "SOAP", "Shampoo", "Adafactor"}
GIVEN: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.0},
    "AdamW": {"weight_decay": 0.01},
    "Lion": {"weight_decay": 0.01},
    "Signum": {"momentum": 0.9},
    "SOAP": {"precondition_frequency": 10},
    "Shampoo": {"precondition_frequency": 10, "preconditioning_compute_steps": 10},
}
"""Arguments of a class in all packages that have them. Weight decay is off unless it is given."""
STEPS = {"SOAP": 10, "Shampoo": 10}
"""Number of steps that are timed together, for optimizers that do part of their work every few steps."""
SLOW = 0.25
"""Seconds above which a step is timed once, after a first one."""
Stepper = Callable[[], Any]


def find_peers(name: str) -> Iterator[tuple[str, Any]]:
    """Yield the package and the class of every implementation of an optimizer besides that of gradprix."""
    names = {each.casefold() for each in (name, *ALIASES.get(name, ()))}
    for package in PEERS:
        try:
            module = import_module(package)
        except ImportError:
            continue
        for key, value in sorted(vars(module).items()):
            is_class = isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
            if is_class and key.casefold() in names and (package, key) not in OTHER_ALGORITHMS:
                yield package, value
                break
    if name == "Muon" and hasattr(torch.optim, name):
        yield "torch", torch.optim.Muon


def make_stepper(make: Any, name: str, values: list[torch.Tensor]) -> Stepper:
    """Return a function that performs a step on new parameters with fixed gradients.

    Args:
        make: class of the optimizer.
        name: name of its class in gradprix.
        values: initial values of the parameters; the gradients are a hundredth of them.
    """
    params = [torch.nn.Parameter(x.clone()) for x in values]
    for p, x in zip(params, values, strict=True):
        p.grad = x * 1e-2
    accepted = inspect.signature(make).parameters
    given = {key: value for key, value in {"weight_decay": 0.0, **GIVEN.get(name, {})}.items() if key in accepted}
    groups: Any = params
    if make.__module__.startswith("heavyball"):
        given["consume_grad"] = False  # otherwise a step removes the gradients
    if make.__module__.startswith("pytorch_optimizer") and name == "Muon":
        groups = [{"params": params, "use_muon": True}]
    optimizer = make(groups, lr=1e-4, **given)
    if hasattr(optimizer, "train"):
        optimizer.train()
    steps = STEPS.get(name, 1)

    def step() -> None:
        for _ in range(steps):
            optimizer.step()

    return step


def time_in_turns(calls: dict[str, Stepper], seconds: float) -> dict[str, float]:
    """Return the median duration of each call. The calls take turns for `seconds`, and at least four times.

    Calls of more than `SLOW` seconds, whose ratios are large, take a single turn.
    """
    slow = {name for name, call in calls.items() if measure(call) > SLOW}
    times: dict[str, list[float]] = {name: [] for name in calls}
    started, rounds = time.perf_counter(), 0
    while rounds < 4 or time.perf_counter() - started < seconds:
        for name, call in calls.items():
            if rounds == 0 or name not in slow:
                times[name].append(measure(call))
        rounds += 1
    return {name: statistics.median(durations) for name, durations in times.items()}


def measure(call: Stepper) -> float:
    """Return the duration of a call in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def works(name: str) -> dict[str, list[Any]]:
    """Return the lists of tensors of an optimizer, by their names."""
    return MATRICES if name in NEEDS_MATRICES else dict(WORK)


def shared_classes() -> list[str]:
    """Return the names of the classes of gradprix that other packages have as well."""
    classes = [name for name in optim.__all__ if isinstance(getattr(optim, name), type) and name not in SAME_CLASS]
    return [name for name in classes if name != "RuleOptimizer" and any(find_peers(name))]


def compare(name: str, shapes: list[Any], seconds: float) -> dict[str, float]:
    """Return the median duration of a step by package, in seconds; the one of gradprix is `ours`."""
    values = [torch.randn(shape) for shape in shapes]
    calls = {"ours": make_stepper(getattr(optim, name), name, values)}
    for package, make in find_peers(name):
        calls[package] = make_stepper(make, name, values)
    steps = STEPS.get(name, 1)
    return {package: each / steps for package, each in time_in_turns(calls, seconds).items()}


def main() -> None:
    """Measure, print the results and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="classes to measure; all by default")
    parser.add_argument("--quick", action="store_true", help="measure fewer rounds, and write no file")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")  # of the packages
    try:
        import heavyball.utils

        heavyball.utils.compile_mode = None
    except ImportError:
        pass
    rows = []
    for name in given.names or shared_classes():
        for label, shapes in works(name).items():
            times = compare(name, shapes, seconds=0.3 if given.quick else 0.6)
            ratios = {package: each / times["ours"] for package, each in times.items() if package != "ours"}
            text = ", ".join(f"{package} {ratio:.2f}×" for package, ratio in ratios.items())
            print(f"{label:14} {name:18} {times['ours'] * 1e3:8.3f} ms   {text}", flush=True)
            rows.append({"work": label, "class": name, "seconds": times})
    every = [other / row["seconds"]["ours"] for row in rows for key, other in row["seconds"].items() if key != "ours"]
    print(f"ratios: median {statistics.median(every):.2f}×, smallest {min(every):.2f}×")
    if not given.quick and not given.names:
        packages = [PEERS[package] for package in PEERS if any(package in row["seconds"] for row in rows)]
        record = {
            **describe_run("python benchmarks/peers.py", None, *packages),
            "rows": rows,
        }
        Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
