"""Comparisons with the published suite on another machine: the effect of rounding, and A/A tests.

PyTorch's own operations on one model at a time (`ExecutionMode.stacked` is false) serve as the other machine: every sum
and product rounds otherwise than in a stack, whose compiled steps round almost equally on all CPUs with AVX2. All final
runs here are trained in that way; tuning runs, which are never compared between machines, are trained in stacks.

* Rounding: the published optimizers, at their published settings, run with the first published seeds. The mean
  difference from the published values over all optimizers is the shift of a task. What exceeds its standard error is
  the deviation for which a comparison allows (`ROUNDING_DEVIATION` in race/control.py).
* A/A tests: copies of the published optimizers, with other tuning seeds, are entered as new ones (`suite --entry`). A
  claim that a copy is better or worse than its original is false.

    python studies/suite_entry.py          # twenty minutes on two cores; writes suite_entry.json; run again to resume
    python studies/suite_entry.py digits   # some tasks: prints the results, writes nothing

Finished training runs are kept in `runs/suite-entry-study`.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aa_tests import RememberingExecutor
from common import write
from gradprix.integrations.loggers import Loggers
from gradprix.race import Journal, Plan, PublishedTask, load_published, suite_entry_plans, twin
from gradprix.race.live_files import LiveFiles
from gradprix.race.runner import Runner
from gradprix.race.suite_entry_plan import published_entry
from gradprix.race.suite_entry_runner import run_task
from gradprix.stats.verdict import PairVerdict
from gradprix.tasks import find
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome, Trial

TASKS = ("digits", "tailed")
COPIES = (1, 2)
"""Numbers of the copies of each optimizer; see `twin`."""
SEEDS = 8
"""Maximum number of final seeds with which the published optimizers run again."""
OUT = Path("runs/suite-entry-study")
FILE = Path(__file__).with_suffix(".json")
CLAIMS = (PairVerdict.WINS, PairVerdict.SLIGHTLY_AHEAD)


class OtherMachine(RememberingExecutor):
    """Executor that trains each trial once and saves it. Final runs are trained one model at a time.

    Args:
        journal: journal of finished trials.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal, self.outcomes = journal, journal.finished()

    def run(
        self, task: Any, trials: Sequence[Trial], watch: Any, mode: ExecutionMode, *args: Any
    ) -> Iterator[tuple[list[Trial], list[Outcome]]]:
        """Yield the saved outcomes, then those of the remaining trials."""
        for is_final in (False, True):
            chosen = [trial for trial in trials if trial.evaluates_test == is_final]
            own = replace(mode, stacked=mode.stacked and not is_final)
            saved = set(self.outcomes)
            for stack, outcomes in super().run(task, chosen, watch, own, *args):
                if stack[0].key not in saved:
                    self.journal.finish(stack, outcomes)
                yield stack, outcomes


def measure_rounding(published: PublishedTask, engine: OtherMachine) -> dict[str, Any]:
    """Run the published optimizers again, and return the differences from the published values in margins."""
    task, seeds = find(published.task), range(min(SEEDS, published.seeds))
    plan = Plan(task, tuple(published_entry(each) for each in published.entries), seed=published.seed)
    trials = {
        entry.name: [plan.final_trial(entry, each.tuned, seed) for seed in seeds]
        for entry, each in zip(plan.entries, published.entries, strict=True)
    }
    wanted = [trial for each in trials.values() for trial in each]
    for _ in engine.run(task, wanted, lambda share: None, published.mode):
        pass
    values, rows = published.values, []
    for name, each in trials.items():
        metrics = [engine.outcomes[trial.key].test_metric for trial in each]
        here = np.array([published.chance_level if metric is None else metric for metric in metrics])
        differences = (here - np.array(values[name][: len(here)])) / published.margin
        spread = np.std(values[name], ddof=1) / published.margin
        rows.append({"entry": name, "differences": differences.tolist(), "spread": float(spread)})
    return {"seeds": len(seeds), "rows": rows, **summarize_rounding(rows)}


def summarize_rounding(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the share of runs that ended elsewhere, their deviation, and the shift with its standard error."""
    table = np.array([row["differences"] for row in rows])  # [entries, seeds]
    spread = np.array([row["spread"] for row in rows])
    by_entry = table.var(axis=1, ddof=1) / table.shape[1]
    return {
        "share of runs that differ": float((table != 0).mean()),
        "deviation of a run": float(np.sqrt((table**2).mean())),
        "deviation over seeds": float(np.sqrt((spread**2).mean())),
        "shift": float(table.mean()),
        "standard error": float(np.sqrt(by_entry.sum())) / len(rows),
        "mean square of means": float((table.mean(axis=1) ** 2).mean()),
        "expected mean square": float(by_entry.mean()),
    }


def compare_copies(published: PublishedTask, engine: OtherMachine) -> list[dict[str, Any]]:
    """Enter copies of the published optimizers, and return the verdicts against their originals."""
    originals = [published_entry(each) for each in published.entries]
    copies = {twin(entry, copy).name: (entry, copy) for copy in COPIES for entry in originals}
    entries = tuple(twin(*each) for each in copies.values())
    task, settings = find(published.task), {"trials": published.trials, "seed": published.seed}
    tune_together(Plan(task, entries, seeds=published.seeds, **settings), engine)
    rows = []
    for entry in entries:
        (plan,) = suite_entry_plans(entry, published=[published])
        record, original = run_task(plan, None, engine).record, copies[entry.name][0].name
        pair = record.pair(original)
        lead = pair.difference if pair.a == entry.name else -pair.difference
        claim = pair.verdict.value if pair.verdict in CLAIMS else None
        control = {"differing": record.control.differing, "runs": len(record.control.runs)}
        rows.append(
            {
                "entry": original,
                "copy": copies[entry.name][1],
                "lead": lead / record.margin,
                "false claim": claim,
                "tuned": record.tuned,
                "control": control,
                "claims": sum(each.verdict in CLAIMS for each in record.pairs),
            }
        )
    return rows


def tune_together(plan: Plan, engine: OtherMachine) -> None:
    """Train the tuning and final runs of all copies in common stacks; `engine` remembers them."""
    with Loggers((), plan, None) as loggers:
        runner = Runner.start(plan, Journal(None), engine, lambda *_: None, loggers, LiveFiles(None))
        tuned, _ = runner.tune()
        points = {name: dict(result.point) for name, result in tuned.items()}
        finals = {
            each.name: [plan.final_trial(each, points[each.name], seed) for seed in range(plan.seeds)]
            for each in plan.entries
        }
        runner.run_final_trials(finals)


def summarize(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the deviation of the shift over tasks, and the numbers of false claims."""
    excess = [task["rounding"]["shift"] ** 2 - task["rounding"]["standard error"] ** 2 for task in tasks.values()]
    rows = [row for task in tasks.values() for row in task["copies"]]
    return {
        "deviation of the shift in margins": float(np.sqrt(max(0.0, np.mean(excess)))),
        "comparisons": len(rows),
        "false claims": sum(row["false claim"] is not None for row in rows),
        "tasks with a false claim": sum(
            any(row["false claim"] is not None for row in task["copies"]) for task in tasks.values()
        ),
    }


def main() -> None:
    """Measure on all tasks, or the given ones; print and write the results."""
    tasks: dict[str, Any] = {}
    for name in sys.argv[1:] or TASKS:
        published = load_published()[name]
        with Journal(OUT / name, made="other machine") as journal:
            engine = OtherMachine(journal)
            rounding = measure_rounding(published, engine)
            print(f"{name}: { ({key: value for key, value in rounding.items() if key != 'rows'}) }", flush=True)
            copies = compare_copies(published, engine)
        tasks[name] = {"margin": published.margin, "rounding": rounding, "copies": copies}
        print(f"{name}: {summarize({name: tasks[name]})}", flush=True)
    summary = summarize(tasks)
    print(summary)
    if not sys.argv[1:]:
        # Runs of interrupted calls are reused, so that the duration of this call says nothing.
        write(FILE, {"seconds": None, **summary, "tasks": tasks})


if __name__ == "__main__":
    main()
