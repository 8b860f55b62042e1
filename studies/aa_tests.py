"""A/A tests: races with every optimizer entered twice, where each difference between two copies is a false claim.

Every optimizer of the default race is tuned several times. Each copy has its own learning-rate grid and tuning seeds;
the final seeds are the same. Any two copies of all ten optimizers make a race of twenty entries, with interim analyses,
bounds and everything else that a race has; runs that races share are trained once. A race makes a false claim if it
says that one copy of an optimizer is better than the other.

For comparison, the usual way on `digits`: ten learning rates over the search space, one seed, the best validation
accuracy; then sixteen held-out seeds for each and a paired t-test at 5 %.

    python studies/aa_tests.py   # half an hour on two cores; writes aa_tests.json
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy import stats

from common import TASKS, find_task, train, write
from gradprix.executors.executor import Executor
from gradprix.race import Local, Plan, entries, run, twin
from gradprix.race.efficiency import seconds_of_steps
from gradprix.stats.verdict import PairVerdict
from gradprix.tasks.task import Task
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.learning_rate_grid import grid_learning_rate, spread_points

COPIES = 4
BASE_SEEDS = {"digits": 4, "charlm": 2, "diamonds": 2}
"""Number of base seeds, each of which has its own copies and final seeds."""
LEARNING_RATES, USUAL_SEEDS = 10, 16
FILE = Path(__file__).with_suffix(".json")


class RememberingExecutor(Local):
    """Executor that trains each trial of a task once, whatever race asks for it, and times no steps."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, Outcome] = {}

    def run(self, task: Any, trials: Sequence[Trial], *args: Any) -> Iterator[tuple[list[Trial], list[Outcome]]]:
        """Yield the known outcomes, then those of the remaining trials."""
        known = [trial for trial in trials if trial.key in self.outcomes]
        if known:
            yield known, [self.outcomes[trial.key] for trial in known]
        remaining = [trial for trial in trials if trial.key not in self.outcomes]
        for stack, outcomes in super().run(task, remaining, *args) if remaining else ():
            self.outcomes |= {trial.key: outcome for trial, outcome in zip(stack, outcomes, strict=True)}
            yield stack, outcomes

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Refuse to time steps: the times decide no comparison, and equal optimizers need none."""
        if function is seconds_of_steps:
            raise RuntimeError("steps are not timed here")
        return super().call(function, *args)


def run_races(task: Task, base_seed: int, engine: Executor) -> list[dict[str, Any]]:
    """Return the false claims, bound and seeds of a race of every two copies."""
    rows = []
    for copies in combinations(range(COPIES), 2):
        plan = Plan(task, tuple(twin(entry, copy) for entry in entries() for copy in copies), seed=base_seed)
        verdict = run(plan, None, engine).record.verdict
        claims = [pair for pair in verdict.pairs if pair.verdict in (PairVerdict.WINS, PairVerdict.SLIGHTLY_AHEAD)]
        false = [(pair.a, pair.b) for pair in claims if _optimizer(pair.a) == _optimizer(pair.b)]
        bound = {"bound": verdict.bound, "margin": verdict.margin, "seeds": verdict.seeds}
        rows.append({"seed": base_seed, "copies": copies, "claims": len(claims), "false": false, **bound})
    return rows


def _optimizer(name: str) -> str:
    return name.partition("~")[0]


def compare_the_usual_way(base_seed: int, engine: Executor) -> list[dict[str, Any]]:
    """Tune the same copies on one seed, and compare every two of each optimizer by a paired t-test."""
    task = find_task("digits")
    plan = Plan(task, tuple(twin(entry, copy) for entry in entries() for copy in range(COPIES)), seed=base_seed)
    tuning = {
        (entry.name, point): plan.tuning_trial(entry, {"lr": grid_learning_rate(point, entry.offset)}, 0)
        for entry in plan.entries
        for point in spread_points(entry.space["lr"], entry.rule.hyperparameters["lr"], LEARNING_RATES)
    }
    outcomes, final = train(engine, task, tuning.values()), {}
    for entry in plan.entries:
        tried = [trial for (name, _), trial in tuning.items() if name == entry.name]
        best = max(tried, key=lambda trial: outcomes[trial.key].valid_metric)
        point = {"lr": best.values["lr"]}
        final[entry.name] = [plan.final_trial(entry, point, seed) for seed in range(USUAL_SEEDS)]
    outcomes |= train(engine, task, {trial.key: trial for each in final.values() for trial in each}.values())
    values = {name: [outcomes[trial.key].test_metric for trial in trials] for name, trials in final.items()}
    return [
        {
            "seed": base_seed,
            "copies": copies,
            "significant": [
                entry.name
                for entry in entries()
                if is_significant(*(values[f"{entry.name}~{copy}"] for copy in copies))
            ],
        }
        for copies in combinations(range(COPIES), 2)
    ]


def is_significant(a: list[float], b: list[float]) -> bool:
    """Return True if a paired t-test rejects equality at 5 %."""
    return a != b and bool(stats.ttest_rel(a, b).pvalue < 0.05)


def main() -> None:
    """Run the races of all tasks, or the given ones; print and write the false claims."""
    results: dict[str, Any] = {"tasks": {}}
    for name in sys.argv[1:] or TASKS:
        task, engine = find_task(name), RememberingExecutor()
        rows = [row for seed in range(BASE_SEEDS[name]) for row in run_races(task, seed, engine)]
        results["tasks"][name] = rows
        print(f"{name}: {sum(bool(row['false']) for row in rows)} of {len(rows)} races make a false claim", flush=True)
        if name == "digits":
            usual = [row for seed in range(BASE_SEEDS[name]) for row in compare_the_usual_way(seed, engine)]
            results["usual"] = usual
            false = sum(len(row["significant"]) for row in usual)
            print(f"the usual way: {false} of {len(usual) * len(entries())} comparisons are false claims", flush=True)
    if not sys.argv[1:]:
        write(FILE, results)


if __name__ == "__main__":
    main()
