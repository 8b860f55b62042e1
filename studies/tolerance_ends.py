"""Train every entry at both ends of its learning-rate tolerance: are they as good as the tolerance says?

The tolerance is the range of learning rates whose validation metric is within one margin of the entry's best, estimated
from its tuning runs. An end is *beyond* if its test metric, over 16 final seeds, is more than 1.5 margins behind that
of the tuned learning rate on the same seeds.

    python studies/tolerance_ends.py   # a quarter of an hour on two cores; writes tolerance_ends.json
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from common import TASKS, find_task, train, write
from gradprix.executors.executor import Executor
from gradprix.race import Local, make_plan, run

SEEDS = range(16)
LARGEST_DISTANCE = 1.5
FILE = Path(__file__).with_suffix(".json")


def measure(name: str, seed: int, engine: Executor) -> list[dict[str, Any]]:
    """Race on a task, and compare the ends of each entry's tolerance with its tuned value.

    Returns:
        For each end the entry, learning rate, and distance from the tuned one in margins with its standard error.
    """
    task = find_task(name)
    plan, sign = make_plan(task, seed=seed), 1.0 if task.metric.higher_is_better else -1.0
    record = run(plan, None, engine).record
    rates = {
        entry.name: (record.entry(entry.name).tuned["lr"], *record.entry(entry.name).tolerance)
        for entry in plan.entries
        if record.entry(entry.name).tolerance
    }
    trials = {
        (entry.name, rate): [plan.final_trial(entry, {"lr": rate}, number) for number in SEEDS]
        for entry in plan.entries
        for rate in rates.get(entry.name, ())
    }
    outcomes = train(engine, task, {trial.key: trial for each in trials.values() for trial in each}.values())
    scores = {}
    for key, each in trials.items():
        runs = [outcomes[trial.key] for trial in each]
        scores[key] = sign * np.array([task.baseline if run.diverged else run.test_metric for run in runs], dtype=float)
    rows = []
    for entry, (tuned, *ends) in rates.items():
        for rate in ends:
            distances = (scores[entry, tuned] - scores[entry, rate]) / record.verdict.margin
            error = float(distances.std(ddof=1) / len(distances) ** 0.5)
            rows.append({"entry": entry, "lr": rate, "tuned": tuned, "behind": float(distances.mean()), "error": error})
    return rows


def main() -> None:
    """Measure all tasks, or the given ones, print the ends that are beyond, and write all."""
    engine, results = Local(), {}
    for name in sys.argv[1:] or TASKS:
        rows = [row for seed in range(2) for row in measure(name, seed, engine)]
        beyond = [row for row in rows if row["behind"] > LARGEST_DISTANCE]
        results[name] = {
            "ends": len(rows),
            "beyond": len(beyond),
            "worst": max(r["behind"] for r in rows),
            "rows": rows,
        }
        print(f"{name}: {len(beyond)} of {len(rows)} ends are more than {LARGEST_DISTANCE} margins behind", flush=True)
        for row in beyond:
            print(
                f"  {row['entry']} at {row['lr']:g} (tuned {row['tuned']:g}): {row['behind']:.2f} ± {row['error']:.2f}"
            )
    if not sys.argv[1:]:
        write(FILE, {"tasks": results})


if __name__ == "__main__":
    main()
