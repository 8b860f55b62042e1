"""Compare tuning the learning rate alone with tuning what each optimizer's users tune, with equal numbers of trials.

Every entry of the default race is tuned in both ways, with 19 and with 26 trials, under several base seeds. Compared
are the test metric of the tuned entries, and its deviation between base seeds, both in margins: a search of more
dimensions pays if the first gains more than the second costs.

    python studies/tuned_hyperparameters.py   # half an hour on two cores; writes tuned_hyperparameters.json
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from common import TASKS, find_task, write
from gradprix.executors.executor import Executor
from gradprix.race import Local, make_plan, run

TRIALS = (19, 26)
SEEDS = 8
REPETITIONS = 4
FILE = Path(__file__).with_suffix(".json")


def compare(name: str, trials: int, engine: Executor) -> dict[str, Any]:
    """Return, for each entry and on average, what tuning more hyperparameters gains, and both deviations."""
    task, means, margin = find_task(name), {}, 0.0
    sign = 1.0 if task.metric.higher_is_better else -1.0
    for tune in (None, "recommended"):
        for seed in range(REPETITIONS):
            record = run(make_plan(task, tune=tune, trials=trials, seeds=SEEDS, seed=seed), None, engine).record
            margin = record.verdict.margin
            for entry in record.entries:
                means.setdefault(entry.name, {}).setdefault(tune, []).append(sign * entry.final.mean)
    rows = {}
    for entry, each in means.items():
        alone, more = (np.array(each[tune]) / margin for tune in (None, "recommended"))
        rows[entry] = {
            "gain": float(more.mean() - alone.mean()),
            "error": float((more - alone).std(ddof=1) / REPETITIONS**0.5),
            "deviation": float(alone.std(ddof=1)),
            "deviation of more": float(more.std(ddof=1)),
        }
    best = [np.max([each[tune] for each in means.values()], axis=0).mean() / margin for tune in (None, "recommended")]
    return {
        "mean gain": float(np.mean([row["gain"] for row in rows.values()])),
        "gain of the best": float(best[1] - best[0]),
        "deviation": float(np.sqrt(np.mean([row["deviation"] ** 2 for row in rows.values()]))),
        "deviation of more": float(np.sqrt(np.mean([row["deviation of more"] ** 2 for row in rows.values()]))),
        "entries": rows,
    }


def main() -> None:
    """Compare on all tasks, or the given ones; print and write the results."""
    engine, results = Local(), {}
    for name in sys.argv[1:] or TASKS:
        results[name] = {trials: compare(name, trials, engine) for trials in TRIALS}
        for trials, result in results[name].items():
            print(name, trials, {k: round(v, 2) for k, v in result.items() if k != "entries"}, flush=True)
            print("  ", {entry: round(row["gain"], 2) for entry, row in result["entries"].items()}, flush=True)
    if not sys.argv[1:]:
        write(FILE, {"tasks": results})


if __name__ == "__main__":
    main()
