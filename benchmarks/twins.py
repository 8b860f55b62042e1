"""How often does an optimizer "beat" itself?

Every optimizer of the default race on `digits` is entered five times, each copy with tuning luck of its own: another
ladder of rates, other tuning seeds. Any two copies are the same optimizer, so a difference between them is luck. Each
way of comparing says how often it calls luck a win:

* the usual way: ten rates spread over the space, one seed, the best validation accuracy; then the same sixteen fresh
  seeds for both and a paired t-test at 5 %;
* a gradprix race: ten optimizers and, as the eleventh, the twin of one of them; by loss, a race that is judged by loss.

    python benchmarks/twins.py            # about five minutes on two cores; writes benchmarks/twins.json
"""

import json
import math
import platform
from itertools import combinations
from pathlib import Path

import torch
from scipy import stats

from gradprix.executors.executor import Engine
from gradprix.race import Local, Plan, entries, judge, run, twin
from gradprix.stats.alpha_spending import cumulative_level
from gradprix.tasks import Metric, digits
from gradprix.tuning.learning_rate import rate, spread

COPIES = 5
RATES = 10
FILE = Path(__file__).with_suffix(".json")

Values = dict[str, dict[str, list[float]]]  # "accuracy" or "loss" -> entry -> one value a final seed


JUDGED = {
    "accuracy": digits,
    "loss": digits.change(
        metric=Metric("test loss", digits.loss, higher_is_better=False, margin=0.1, relative=True),
        baseline=math.log(10),
    ),
}


def raced(copy: int, engine: Engine) -> Values:
    """The final values of two races of one copy of everybody: judged by accuracy, and by loss."""
    values: Values = {}
    for measure, task in JUDGED.items():
        record = run(Plan(task, tuple(twin(entry, copy) for entry in entries())), None, engine).record
        values[measure] = {entry["name"]: entry["final"]["values"] for entry in record["entries"]}
    return values


def usual(copy: int, engine: Engine) -> Values:
    """The final values of the same copy, tuned the usual way and run on the same final seeds."""
    plan = Plan(digits, tuple(twin(entry, copy) for entry in entries()))
    tried = {
        (entry.name, rung): plan.tuning_trial(entry, {"lr": rate(rung, entry.offset)}, 0)
        for entry in plan.entries
        for rung in spread(entry.space["lr"], entry.rule.hyperparameters["lr"], RATES)
    }
    scores = {key: outcome.curve[-1][3] for key, outcome in outcomes(plan, tried, engine).items()}
    finals = {}
    for entry in plan.entries:
        best = max((rung for name, rung in tried if name == entry.name), key=lambda rung: scores[entry.name, rung])
        lr = tried[entry.name, best].values["lr"]
        finals |= {(entry.name, seed): plan.final_trial(entry, {"lr": lr}, seed) for seed in range(plan.seeds)}
    got = outcomes(plan, finals, engine)
    values: Values = {"accuracy": {}, "loss": {}}
    for entry in plan.entries:
        runs = [got[entry.name, seed] for seed in range(plan.seeds)]
        values["accuracy"][entry.name] = [o.test_metric for o in runs]
        values["loss"][entry.name] = [JUDGED["loss"].baseline if o.diverged else o.test_loss for o in runs]
    return values


def outcomes(plan: Plan, trials: dict, engine: Engine) -> dict:
    done = {}
    for lane, results in engine.run(plan.task, list(trials.values()), lambda share: None):
        done |= {trial.key: outcome for trial, outcome in zip(lane, results, strict=True)}
    return {name: done[trial.key] for name, trial in trials.items()}


def told_by_t(a: list[float], b: list[float]) -> bool:
    """Whether a paired t-test at 5 % calls two columns different."""
    return a != b and bool(stats.ttest_rel(a, b).pvalue < 0.05)


def told_by_race(values: dict[str, list[float]], a: str, b: str, measure: str, alone: bool) -> str:
    """What a race says of a and b, among all or with these two alone."""
    chosen = {name: values[name] for name in ((a, b) if alone else values)}
    metric = JUDGED[measure].metric
    rules = {"higher_is_better": metric.higher_is_better, "margin": metric.margin, "relative": metric.relative}
    pairs = judge(chosen, **rules, level=cumulative_level(len(chosen[a]))).pairs
    return next(pair.words for pair in pairs if {pair.a, pair.b} == {a, b})


def compare(names: list[str], race: list[Values], ordinary: list[Values]) -> list[dict]:
    """Every optimizer's every two copies: what each way says of them."""
    found = []
    for name in names:
        for i, j in combinations(range(COPIES), 2):
            a, b = f"{name}~{i}", f"{name}~{j}"
            row = {"entry": name, "copies": [i, j]}
            for measure in ("accuracy", "loss"):
                field = {**race[i][measure], b: race[j][measure][b]}
                row[measure] = {
                    "usual": told_by_t(ordinary[i][measure][a], ordinary[j][measure][b]),
                    "race": told_by_race(field, a, b, measure, alone=False),
                    "pair": told_by_race(field, a, b, measure, alone=True),
                }
            found.append(row)
    return found


def summary(rows: list[dict]) -> dict[str, dict[str, float]]:
    """The share of comparisons in which a copy is said to beat its twin."""
    wins = {"usual": True, "race": "wins", "pair": "wins"}
    return {
        measure: {way: sum(row[measure][way] == win for row in rows) / len(rows) for way, win in wins.items()}
        for measure in ("accuracy", "loss")
    }


def main() -> None:
    """Run both ways and write what they say."""
    engine = Local()
    race, ordinary = [], []
    for copy in range(COPIES):
        race.append(raced(copy, engine))
        ordinary.append(usual(copy, engine))
        print(f"copy {copy + 1} of {COPIES} done", flush=True)
    rows = compare([entry.name for entry in entries()], race, ordinary)
    record = {
        "command": "python benchmarks/twins.py",
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "summary": summary(rows),
        "comparisons": rows,
    }
    FILE.write_text(json.dumps(record, indent=1) + "\n")
    print(f'of {len(rows)} comparisons of an optimizer with its twin, a copy "beats" the other in')
    for measure, shares in record["summary"].items():
        ways = {"usual": "the usual way", "race": "a race of eleven", "pair": "a race of the two alone"}
        print(f"  by {measure}: " + ", ".join(f"{ways[way]} {share:.0%}" for way, share in shares.items()))


if __name__ == "__main__":
    main()
