"""Repeat whole races with other base seeds: regret of the recommended setting, coverage of its bound, claims.

A repetition has its own tuning runs, choices and final seeds. For each:

* the *recommended setting* is trained on 64 new seeds;
* *the best of the others*, as tuning delivers it on average, is estimated from the other repetitions: chosen by half of
  them, evaluated on the other half, so that the choice does not flatter it;
* *regret* is the difference of the two, or 0 if the recommended setting is better. A bound is false if the regret
  exceeds it by more than two standard errors;
* a claim that one entry is better is wrong if the mean over the other repetitions has the opposite sign.

    python studies/repetitions.py            # half an hour on two cores; writes repetitions.json
    python studies/repetitions.py digits 2   # two races on one task
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from common import TASKS, find_task, train, write
from gradprix.executors.executor import Executor
from gradprix.race import Local, RaceRecord, make_plan, run
from gradprix.stats.verdict import PairVerdict

REPETITIONS = {"digits": 8, "charlm": 4, "diamonds": 4}
NEW_SEEDS = range(200, 264)
FILE = Path(__file__).with_suffix(".json")
CLAIMS = (PairVerdict.WINS, PairVerdict.SLIGHTLY_AHEAD)


def repeat(name: str, count: int, engine: Executor) -> dict[str, Any]:
    """Run races with base seeds 0, 1, ..., and evaluate their answers."""
    task = find_task(name)
    sign = 1.0 if task.metric.higher_is_better else -1.0
    records, settings = [], []
    for seed in range(count):
        plan = make_plan(task, seed=seed)
        record = run(plan, None, engine).record
        entry = next(entry for entry in plan.entries if entry.name == record.verdict.recommended)
        trials = [plan.final_trial(entry, record.entry(entry.name).tuned, number) for number in NEW_SEEDS]
        outcomes = train(engine, task, trials)
        scores = [task.baseline if outcomes[t.key].diverged else outcomes[t.key].test_metric for t in trials]
        records.append(record)
        settings.append(sign * np.array(scores, dtype=float))
        print(
            f"{name} {seed}: {entry.name}, bound {record.verdict.bound:.3g}, {record.verdict.seeds} seeds", flush=True
        )
    rows = [evaluate(records, number, settings[number], sign) for number in range(count)]
    return {"margin": records[0].verdict.margin, "races": rows, **summarize(rows, records[0].verdict.margin)}


def evaluate(records: list[RaceRecord], number: int, scores: np.ndarray, sign: float) -> dict[str, Any]:
    """Evaluate the answer of one race against the other races.

    Args:
        records: all races.
        number: index of the race.
        scores: metric of its recommended setting on new seeds, larger is better.
        sign: 1 if a higher metric is better, else −1.
    """
    record, others = records[number], [each for i, each in enumerate(records) if i != number]
    means = {e.name: sign * np.array([other.entry(e.name).final.mean for other in others]) for e in record.entries}
    rivals = {name: values for name, values in means.items() if name != record.verdict.recommended}
    best = max(rivals, key=lambda name: float(rivals[name][::2].mean()))
    evaluated = rivals[best][1::2]
    error = np.hypot(scores.std(ddof=1) / math.sqrt(len(scores)), _standard_error(evaluated, rivals))
    regret = max(0.0, float(evaluated.mean() - scores.mean()))
    claims = [(pair.a, pair.b) for pair in record.verdict.pairs if pair.verdict in CLAIMS]
    return {
        "recommended": record.verdict.recommended,
        "code": record.best.code,
        "seeds": record.verdict.seeds,
        "bound": record.verdict.bound,
        "regret": regret,
        "standard error": float(error),
        "bound is false": bool(regret > record.verdict.bound + 2 * error),
        "claims": len(claims),
        "wrong claims": [pair for pair in claims if means[pair[0]].mean() < means[pair[1]].mean()],
    }


def _standard_error(values: np.ndarray, rivals: dict[str, np.ndarray]) -> float:
    """Return the standard error of a mean over repetitions, from the deviation pooled over entries."""
    pooled = math.sqrt(float(np.mean([each.var(ddof=1) for each in rivals.values()])))
    return pooled / math.sqrt(len(values))


def summarize(rows: list[dict[str, Any]], margin: float) -> dict[str, Any]:
    """Return the numbers of a task that the documentation quotes."""
    regrets = [row["regret"] for row in rows]
    return {
        "mean regret": float(np.mean(regrets)),
        "mean regret in margins": float(np.mean(regrets) / margin),
        "false bounds": sum(row["bound is false"] for row in rows),
        "claims": sum(row["claims"] for row in rows),
        "wrong claims": sum(len(row["wrong claims"]) for row in rows),
        "median seeds": float(np.median([row["seeds"] for row in rows])),
    }


def main() -> None:
    """Repeat the races of the given or of all tasks, print the summary and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=list(TASKS), help="all tasks when left out")
    parser.add_argument("count", nargs="?", type=int, help="number of races; those of the study when left out")
    given = parser.parse_args()
    engine, results = Local(), {}
    for name in [given.task] if given.task else TASKS:
        results[name] = repeat(name, given.count or REPETITIONS[name], engine)
        print(name, {key: value for key, value in results[name].items() if key != "races"}, flush=True)
    if given.task is None:
        write(FILE, {"tasks": results})


if __name__ == "__main__":
    main()
