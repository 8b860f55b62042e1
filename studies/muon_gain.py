"""Measure what Muon gains in a race if embeddings and output layers are stepped by AdamW.

The former entry `muon` stepped all matrices by Muon and all other parameters by AdamW with a learning rate of 3e-4. Now
`muon_groups` divides a model, and the steps of both have equal root mean squares, so that one learning rate is tuned
for both (`muon`), or each has a learning rate of its own (`muon-original`). AdamW is the reference. All have as many
tuning trials.

    python studies/muon_gain.py   # a quarter of an hour on two cores; writes muon_gain.json
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import write
from gradprix import optim
from gradprix.executors.executor import Executor
from gradprix.race import ENTRIES, Entry, Local, make_plan, run
from gradprix.rules import log
from gradprix.tasks import find

TASKS = ("charlm", "translate", "sentiment")
TRIALS, SEEDS = 13, 6
FILE = Path(__file__).with_suffix(".json")


def muon_by_shape(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Muon for all parameters with two or more dimensions, and AdamW for vectors, as in the former entry."""
    groups = optim.muon_groups(model, use_muon=lambda name, x: x.dim() > 1)
    return optim.MuonWithAuxAdam(groups, lr=lr, like="author")


FORMER = Entry("former", muon_by_shape, space={"lr": log(1e-3, 1)})


def measure(name: str, engine: Executor) -> dict[str, Any]:
    """Return the test metrics and losses and the tuned settings of each entry, and the metric's name and direction."""
    task = find(name, "small", None)
    entries = [FORMER, ENTRIES["muon"], ENTRIES["muon-original"], ENTRIES["adamw"]]
    record = run(make_plan(task, entries, trials=TRIALS, seeds=SEEDS), None, engine).record
    rows = {
        entry.name: {
            "mean": entry.final.mean,
            "runs": [float(value) for value in entry.final.values],
            "losses": [float("inf") if loss is None else loss for loss in entry.losses],
            "settings": dict(entry.tuned),
        }
        for entry in record.entries
    }
    return {"metric": task.metric.name, "higher is better": task.metric.higher_is_better, "entries": rows}


def main() -> None:
    """Measure all tasks, or the given ones; print and write the results."""
    engine, results = Local(), {}
    for name in sys.argv[1:] or TASKS:
        results[name] = measure(name, engine)
        for entry, row in results[name]["entries"].items():
            print(f"{name:10} {entry:14} {results[name]['metric']} {row['mean']:.4f}  {row['settings']}", flush=True)
        write(FILE, {"trials": TRIALS, "seeds": SEEDS, "tasks": results})


if __name__ == "__main__":
    main()
