"""A/A tests: measure the false-claim rate of comparisons between replicates of the same optimizer.

Every optimizer of the default race on `digits` is entered five times. Each replicate has its own learning-rate grid and
tuning seeds, so that any difference between two replicates is chance. Two ways of comparing are evaluated:

* the usual way: ten learning rates over the search space, one seed, the best validation accuracy; then sixteen held-out
  seeds for each and a paired t-test at 5 %;
* a gradprix race: ten optimizers, and as the eleventh a second replicate of one of them. Comparisons by loss use a race
  whose metric is the loss.

    python studies/aa_tests.py            # about five minutes on two cores; writes aa_tests.json
"""

import json
import math
import platform
from itertools import combinations
from pathlib import Path

import torch
from scipy import stats

from gradprix.executors.executor import Executor
from gradprix.race import Local, Plan, entries, judge, run, twin
from gradprix.stats.alpha_spending import cumulative_level
from gradprix.tasks import Metric, digits
from gradprix.tuning.learning_rate_grid import grid_learning_rate, spread_points

REPLICATES = 5
LEARNING_RATES = 10
FILE = Path(__file__).with_suffix(".json")

Values = dict[str, dict[str, list[float]]]
"""Test results by measure ("accuracy" or "loss") and name of the entry, one for each final seed."""


TASKS = {
    "accuracy": digits,
    "loss": digits.change(
        metric=Metric("test loss", digits.loss, higher_is_better=False, margin=0.1, relative=True),
        baseline=math.log(10),
    ),
}


def run_races(replicate: int, engine: Executor) -> Values:
    """Race one replicate of every optimizer, once by accuracy and once by loss, and return the test results.

    Args:
        replicate: number of the replicate.
        engine: executor.
    """
    values: Values = {}
    for measure, task in TASKS.items():
        record = run(Plan(task, tuple(twin(entry, replicate) for entry in entries())), None, engine).record
        values[measure] = {entry.name: entry.final.values for entry in record.entries}
    return values


def tune_the_usual_way(replicate: int, engine: Executor) -> Values:
    """Tune the same replicates in the usual way, on one seed, and return their test results on the same final seeds.

    Args:
        replicate: number of the replicate.
        engine: executor.
    """
    plan = Plan(digits, tuple(twin(entry, replicate) for entry in entries()))
    tuning = {
        (entry.name, point): plan.tuning_trial(entry, {"lr": grid_learning_rate(point, entry.offset)}, 0)
        for entry in plan.entries
        for point in spread_points(entry.space["lr"], entry.rule.hyperparameters["lr"], LEARNING_RATES)
    }
    scores = {key: outcome.curve[-1][3] for key, outcome in train(plan, tuning, engine).items()}
    final = {}
    for entry in plan.entries:
        best = max((point for name, point in tuning if name == entry.name), key=lambda point: scores[entry.name, point])
        lr = tuning[entry.name, best].values["lr"]
        final |= {(entry.name, seed): plan.final_trial(entry, {"lr": lr}, seed) for seed in range(plan.seeds)}
    outcomes = train(plan, final, engine)
    values: Values = {"accuracy": {}, "loss": {}}
    for entry in plan.entries:
        runs = [outcomes[entry.name, seed] for seed in range(plan.seeds)]
        values["accuracy"][entry.name] = [o.test_metric for o in runs]
        values["loss"][entry.name] = [TASKS["loss"].baseline if o.diverged else o.test_loss for o in runs]
    return values


def train(plan: Plan, trials: dict, engine: Executor) -> dict:
    """Run trials and return their outcomes, under the keys that the trials have in `trials`."""
    outcome_by_key = {}
    for stack, results in engine.run(plan.task, list(trials.values()), lambda share: None):
        outcome_by_key |= {trial.key: outcome for trial, outcome in zip(stack, results, strict=True)}
    return {name: outcome_by_key[trial.key] for name, trial in trials.items()}


def is_significant(a: list[float], b: list[float]) -> bool:
    """Return True if a paired t-test rejects equality at 5 %."""
    return a != b and bool(stats.ttest_rel(a, b).pvalue < 0.05)


def compare_in_race(values: dict[str, list[float]], a: str, b: str, measure: str) -> str:
    """Return the verdict of a race on two of its entries, such as "wins".

    Args:
        values: test results of all entries by name.
        a: name of an entry.
        b: name of another entry.
        measure: "accuracy" or "loss".
    """
    metric = TASKS[measure].metric
    settings = {"higher_is_better": metric.higher_is_better, "margin": metric.margin, "relative": metric.relative}
    pairs = judge(values, **settings, level=cumulative_level(len(values[a]))).pairs
    return next(pair.words for pair in pairs if {pair.a, pair.b} == {a, b})


def compare_replicates(names: list[str], races: list[Values], usual: list[Values]) -> list[dict]:
    """Compare each pair of replicates of each optimizer: in the usual way, in a race of eleven, and in a race of two.

    Args:
        names: names of the optimizers.
        races: test results of the races, by replicate.
        usual: test results of the usual way, by replicate.
    """
    rows = []
    for name in names:
        for i, j in combinations(range(REPLICATES), 2):
            a, b = f"{name}~{i}", f"{name}~{j}"
            row = {"entry": name, "copies": [i, j]}
            for measure in ("accuracy", "loss"):
                eleven = {**races[i][measure], b: races[j][measure][b]}
                row[measure] = {
                    "usual": is_significant(usual[i][measure][a], usual[j][measure][b]),
                    "race": compare_in_race(eleven, a, b, measure),
                    "pair": compare_in_race({name: eleven[name] for name in (a, b)}, a, b, measure),
                }
            rows.append(row)
    return rows


def summarize(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Return the proportion of comparisons in which one replicate beats the other, which are false claims."""
    wins = {"usual": True, "race": "wins", "pair": "wins"}
    return {
        measure: {way: sum(row[measure][way] == win for row in rows) / len(rows) for way, win in wins.items()}
        for measure in ("accuracy", "loss")
    }


def main() -> None:
    """Compare the replicates in all ways, print the false-claim rates and write all comparisons."""
    engine = Local()
    races, usual = [], []
    for replicate in range(REPLICATES):
        races.append(run_races(replicate, engine))
        usual.append(tune_the_usual_way(replicate, engine))
        print(f"replicate {replicate + 1} of {REPLICATES} done", flush=True)
    rows = compare_replicates([entry.name for entry in entries()], races, usual)
    record = {
        "command": "python studies/aa_tests.py",
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "summary": summarize(rows),
        "comparisons": rows,
    }
    FILE.write_text(json.dumps(record, indent=1) + "\n")
    print(f"of {len(rows)} A/A tests, one replicate beats the other in")
    for measure, shares in record["summary"].items():
        ways = {"usual": "the usual way", "race": "a race of eleven", "pair": "a race of the two alone"}
        print(f"  by {measure}: " + ", ".join(f"{ways[way]} {share:.0%}" for way, share in shares.items()))


if __name__ == "__main__":
    main()
