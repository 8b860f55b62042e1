"""Race small problems of the kinds that people bring, and compare each with a plain PyTorch loop.

For each situation of `studies/situations`, these are recorded: the execution mode of the race, with the reason if
models are not stacked; the largest relative difference of the training losses from those of a plain PyTorch loop; the
time of the plain loop; and two speedups over it, of a stack of models without what a race does once, and of the whole
race per training run. Training loops are compared with calls of the loop outside a race. Each situation runs in a
process of its own.

    python studies/compatibility.py                      # all situations; writes studies/compatibility.json
    python studies/compatibility.py bert_classifier gcn  # some; the others keep their results
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import gradprix as gp
import situations.graphs
import situations.language
import situations.loops
import situations.options
import situations.tables
import situations.vision  # noqa: F401  # the modules register their situations
from common import write
from gradprix.rules import adamw
from gradprix.tasks.task import first_line
from gradprix.text.execution import format_rejection
from gradprix.training import Trainer
from gradprix.training.callbacks import Callback
from gradprix.training.trial import Trial
from situations import SITUATIONS, Situation
from situations.plain_loop import train_plain

FILE = Path(__file__).with_suffix(".json")
TIMEOUT = 600
LR = 0.001
"""Learning rate of the model that is compared with the plain loop."""
STACKED = 16
"""Number of models that are trained together, with different learning rates."""


class Losses(Callback):
    """Records the loss of the first model in each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step_end(self, trainer: Any, losses: torch.Tensor) -> None:
        """Append the loss."""
        self.values.append(float(losses[trainer.order.index(0)]))


def measure(situation: Situation) -> dict[str, Any]:
    """Race one situation, compare it with a plain loop, and return the results."""
    given = situation.build()
    loop = not isinstance(given, gp.Task)
    options = {"direction": "max"} if loop else {}
    started = time.perf_counter()
    try:
        result = gp.race(given, "adamw,nesterov", trials=6, seeds=6, **options)
    except Exception as error:
        return {"works": situation.is_mistake, "error": f"{type(error).__name__}: {first_line(error)}"}
    seconds = (time.perf_counter() - started) / result.record.cost.trials
    mode = result.record.plan.mode
    row = {
        "works": not situation.is_mistake,
        "stacked": mode.stacked,
        "reason": format_rejection(mode.stack_rejection) if mode.stack_rejection is not None else "",
    }
    if loop:
        return row | compare_loop(given, seconds)
    return row | compare_task(given, mode, seconds)


def compare_task(task: gp.Task, mode: Any, seconds: float) -> dict[str, float]:
    """Compare the losses of the first of `STACKED` models with those of a plain loop, and the times."""
    settings = 0, task.batch_size, task.epochs, task.schedule, False
    rates = [LR * 1.1**i for i in range(STACKED)]
    trials = [Trial(adamw, adamw.values(lr=lr), *settings, clip_norm=task.clip_norm) for lr in rates]
    losses = Losses()
    Trainer(task, trials, mode, [losses]).run()
    stacked = time_call(lambda: Trainer(task, trials, mode).run()) / STACKED
    plain = list(train_plain(task, trials[0]))  # the first call also imports and allocates
    times = compare_times(time_call(lambda: list(train_plain(task, trials[0]))), seconds)
    return {
        "difference": difference(losses.values, plain),
        **times,
        "stack_speedup": times["plain_seconds"] / stacked,
    }


def compare_loop(train: Any, seconds: float) -> dict[str, float]:
    """Compare the scores of a training loop in a race with those of a call with `torch.optim.AdamW`, and the times."""
    from gradprix.tasks.loop import make_loop
    from gradprix.tasks.rng import RngState
    from gradprix.training.loop_runner import each_report, run_loop
    from gradprix.training.param_groups import build_optimizer

    loop = make_loop(train, "max")
    outcome = run_loop(loop, Trial(adamw, adamw.values(lr=LR), 0, 0, 0, "its own", True))

    def make_optimizer(params: Any, **given: Any) -> torch.optim.Optimizer:
        return build_optimizer(torch.optim.AdamW, params, {**given, "lr": LR})

    def call() -> list[float]:
        with RngState(torch.Generator().manual_seed(0)):
            return [float(report["valid"]) for report in each_report(loop, train(make_optimizer, 0))]

    scores = call()  # the first call also imports and allocates
    return {
        "difference": difference([point[3] for point in outcome.curve], scores),
        **compare_times(time_call(call), seconds),
    }


def difference(ours: list[float], plain: list[float]) -> float:
    """Return the largest relative difference; values below 0.001 count as 0.001."""
    a, b = torch.tensor(ours), torch.tensor(plain)
    return float(((a - b).abs() / b.abs().clamp(min=1e-3)).max())


def compare_times(plain: float, race: float) -> dict[str, float]:
    """Return the seconds of the plain loop, and the speedup of the race, whose seconds per run are given."""
    return {"plain_seconds": plain, "race_speedup": plain / race}


def time_call(call: Callable[[], Any]) -> float:
    """Return the duration of a call in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def run_in_process(name: str) -> dict[str, Any]:
    """Measure a situation in a new process; a crash or a timeout is a result too."""
    command = [sys.executable, __file__, "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"works": False, "error": f"no result within {TIMEOUT} s"}
    if done.returncode:
        return {"works": False, "error": done.stderr.strip().splitlines()[-1]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    """Measure the situations and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="situations; all by default")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(SITUATIONS[given.one])))
        return
    results = json.loads(FILE.read_text())["situations"] if FILE.exists() else {}
    for name in given.names or SITUATIONS:
        situation = SITUATIONS[name]
        if situation.missing:
            print(f"{name}: skipped, without {', '.join(situation.missing)}", flush=True)
            continue
        results[name] = {
            "title": situation.title,
            "kind": situation.kind,
            "tolerance": situation.tolerance,
            "mistake": situation.is_mistake,
            **run_in_process(name),
        }
        print(name, results[name], flush=True)
        measured = {key: results[key] for key in SITUATIONS if key in results}
        write(FILE, {"command": "python studies/compatibility.py", "situations": measured})


if __name__ == "__main__":
    main()
