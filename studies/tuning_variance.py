"""Measure how much the tuned learning rate depends on the tuning seeds, and how well a race estimates this.

Every entry of the default race is trained once at every learning rate of its grid, on many seeds. The tuners then run
many times on this table, each time with other seeds drawn from it, so that thousands of tunings need no more training.
For one search with 19 or with 26 trials, and for two searches with 13 trials each, as in a race, it prints:

* *regret*: difference between the test metrics of the best and of the selected learning rate, in margins;
* *deviation*: standard deviation of the regret over repetitions, as a root mean square over entries, in margins;
* the deviation that a race estimates from the disagreement of its two searches;
* *tolerance ends*: proportion of the ends of the learning-rate tolerance whose test metric is more than 1.5 margins
  behind the best.

The true metric of a learning rate is its mean test metric over all seeds of the table, smoothed over neighbouring grid
points, so that the regret includes about a tenth of a margin of noise. Between grid points it is interpolated.

    python studies/tuning_variance.py                  # an hour and a half on two cores; writes tuning_variance.json
    python studies/tuning_variance.py --tables FOLDER  # keep the tables, or reuse them
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gradprix.race import Local, Plan, entries
from gradprix.race.entry import Entry
from gradprix.stats.tuning_variance import tuning_deviation
from gradprix.tasks import find
from gradprix.tuning import LearningRateSearch, make_tuner
from gradprix.tuning.learning_rate_grid import grid_bounds, grid_learning_rate, nearest_grid_point
from gradprix.tuning.response_curve import ResponseCurve, TunedScore, learning_rate_tolerance, noise_deviation
from gradprix.tuning.tuner import Request, Score, Tuner, TuningResult
from gradprix.utils.margins import absolute_margin
from gradprix.utils.run_info import describe_run

TASKS = (("digits", None, 24), ("sentiment", "small", 20), ("tailed", None, 16))
"""Tasks, with preset and number of seeds."""
BEYOND = 2
"""Number of grid points tried beyond each end of a search space, because a search may leave it."""
REPETITIONS = 100
"""Number of times that each entry is tuned in each way."""
FAR = 1.5
"""Distance from the best metric, in margins, at which an end of a tolerance counts as far."""
FILE = Path(__file__).with_suffix(".json")


def measure(name: str, preset: str | None, seeds: int) -> dict[str, Any]:
    """Train every entry at every learning rate on every seed, and return the table of scores.

    Args:
        name: name of the task.
        preset: preset of the task; None for the default one.
        seeds: number of seeds.

    Returns:
        For each entry, the grid `points` and the scores `loss`, `metric` (validation) and `test`, `[points][seeds]`.
        Metrics have the sign with which smaller is better. After divergence, loss and metric are infinite, and the test
        metric is the chance level.
    """
    task = find(name, preset, None)
    plan, sign = Plan(task, tuple(entries())), -1 if task.metric.higher_is_better else 1
    grids = {entry.name: _grid(entry) for entry in plan.entries}
    trials = {
        (entry.name, point, seed): plan.final_trial(entry, {"lr": grid_learning_rate(point)}, seed)
        for entry in plan.entries
        for point in grids[entry.name]
        for seed in range(seeds)
    }
    outcomes = {}
    for stack, results in Local().run(task, list(trials.values()), lambda share: None):
        outcomes |= {trial.key: outcome for trial, outcome in zip(stack, results, strict=True)}
    table: dict[str, Any] = {"relative": task.metric.relative, "margin": task.metric.margin, "chance": task.baseline}
    for entry in plan.entries:
        runs = [[outcomes[trials[entry.name, p, seed].key] for seed in range(seeds)] for p in grids[entry.name]]
        table[entry.name] = {
            "points": grids[entry.name],
            "loss": [[run.valid_loss for run in row] for row in runs],
            "metric": [[math.inf if run.diverged else sign * run.valid_metric for run in row] for row in runs],
            "test": [[sign * (task.baseline if run.diverged else run.test_metric) for run in row] for row in runs],
        }
    return table


def _grid(entry: Entry) -> list[int]:
    low, high = grid_bounds(entry.space["lr"])  # type: ignore[arg-type]
    return list(range(low - BEYOND, high + BEYOND + 1))


@dataclass(frozen=True)
class Table:
    """Scores of one entry at all learning rates.

    Args:
        entry: the entry.
        data: scores as returned by `measure`.
    """

    entry: Entry
    data: dict[str, Any]

    @cached_property
    def truth(self) -> np.ndarray:
        """Mean test metric at each grid point.

        It is smoothed over neighbouring points, except where it changes steeply.
        """
        raw = np.mean(self.data["test"], axis=1)
        smooth = raw.copy()
        smooth[1:-1] = 0.25 * raw[:-2] + 0.5 * raw[1:-1] + 0.25 * raw[2:]
        return np.where(np.abs(smooth - raw) < np.std(self.data["test"], axis=1), smooth, raw)

    def true_metric(self, learning_rate: float) -> float:
        """Return the true metric of a learning rate, interpolated between grid points."""
        return float(np.interp(6 * math.log10(learning_rate), self.data["points"], self.truth))

    def score(self, request: Request, seeds: np.ndarray) -> Score:
        """Return the score of a tuner's request.

        Args:
            request: learning rate and seed number.
            seeds: seed of the table for each seed number.
        """
        point = nearest_grid_point(dict(request.point)["lr"])
        if point not in self.data["points"]:
            return Score(math.inf, math.inf)
        row, seed = self.data["points"].index(point), seeds[request.seed]
        return Score(self.data["loss"][row][seed], self.data["metric"][row][seed])

    def tune(self, tuner: Tuner, seeds: np.ndarray) -> tuple[TuningResult, list[TunedScore]]:
        """Run a tuner on the table, and return its result and the scores that it has used."""
        used = []
        while not tuner.is_done:
            scores = [self.score(request, seeds) for request in tuner.ask()]
            pairs = zip(tuner.ask(), scores, strict=True)
            used += [TunedScore(dict(request.point)["lr"], request.seed, score.metric) for request, score in pairs]
            tuner.tell(scores)
        return tuner.result, used


Way = Callable[[Any, float], Tuner]
"""Function that creates a tuner from the search space of the learning rate and its default."""
WAYS: dict[str, Way] = {
    "one search of 19": lambda space, default: LearningRateSearch(space, default, 19),
    "one search of 26": lambda space, default: LearningRateSearch(space, default, 26),
    "two searches of 13": lambda space, default: make_tuner({"lr": space}, {"lr": default}, 26, 0.0, 0),
}


def repeat(tables: list[Table], make: Way, margin: float, rng: np.random.Generator) -> dict[str, list[float]]:
    """Tune every entry once.

    Args:
        tables: scores of the entries.
        make: function that creates the tuner.
        margin: margin of the metric.
        rng: generator that draws the tuning seeds.

    Returns:
        The true metrics of the selected learning rates as `chosen`, the deviation that a race would estimate, in
        margins, as `estimated`, and the distances from the best metric at the ends of the learning-rate tolerances, in
        margins, as `ends`.
    """
    results = []
    for table in tables:
        seeds = rng.permutation(len(table.data["test"][0]))
        tuner = make(table.entry.space["lr"], table.entry.default_rate)
        results.append(table.tune(tuner, seeds))
    noise = noise_deviation([scores for _, scores in results]) or margin
    differences, ends = [], []
    for table, (result, scores) in zip(tables, results, strict=True):
        curve = ResponseCurve.fit(scores, noise, margin)
        if curve is None:
            continue
        if len(result.choices) == 2:
            first, second = (dict(choice)["lr"] for choice in result.choices)
            differences.append(curve(first) - curve(second))
        reach = learning_rate_tolerance(curve, scores, margin, dict(result.point)["lr"])
        ends += [(table.true_metric(rate) - table.truth.min()) / margin for rate in reach]
    return {
        "chosen": [
            table.true_metric(dict(result.point)["lr"]) for table, (result, _) in zip(tables, results, strict=True)
        ],
        "estimated": [tuning_deviation(differences, margin) / margin],
        "ends": ends,
    }


def summarize(table: dict[str, Any]) -> dict[str, Any]:
    """Return regret, deviation, its estimate, and the proportion of far tolerance ends, for each way to tune.

    Args:
        table: scores as returned by `measure`.
    """
    tables = [Table(entry, table[entry.name]) for entry in entries()]
    best = np.array([each.truth.min() for each in tables])
    margin = absolute_margin(table["margin"], table["relative"], float(best.min()))
    rows = {}
    for name, make in WAYS.items():
        rng = np.random.default_rng(0)
        runs = [repeat(tables, make, margin, rng) for _ in range(REPETITIONS)]
        chosen = np.array([run["chosen"] for run in runs])
        regret = (chosen - best) / margin
        rows[name] = {
            "regret": float(regret.mean()),
            "regret_rms": float(np.sqrt((regret**2).mean())),
            "deviation": float(np.sqrt(chosen.var(0, ddof=1).mean()) / margin),
            "estimated": np.quantile([run["estimated"] for run in runs], (0.1, 0.5, 0.9)).tolist(),
            "far_ends": float(np.mean(np.concatenate([run["ends"] for run in runs]) > FAR)),
        }
    return rows


def main() -> None:
    """Measure or read the tables, print the summaries and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, help="folder to which tables are saved, and from which they are read")
    folder = parser.parse_args().tables
    record: dict[str, Any] = {"repetitions": REPETITIONS, "tasks": {}}
    for name, preset, seeds in TASKS:
        title = name if preset is None else f"{name} ({preset})"
        file = None if folder is None else folder / f"{name}.json"
        table = json.loads(file.read_text()) if file is not None and file.exists() else measure(name, preset, seeds)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(table))
        record["tasks"][title] = summarize(table)
        print(f"{title}, in margins")
        for way, row in record["tasks"][title].items():
            low, middle, high = row["estimated"]
            print(
                f"  {way:20} regret {row['regret']:.2f} (rms {row['regret_rms']:.2f}); "
                f"deviation {row['deviation']:.2f}, estimated {middle:.2f} ({low:.2f} to {high:.2f}); "
                f"ends beyond {FAR}: {row['far_ends']:.1%}"
            )
    FILE.write_text(json.dumps({**describe_run("python studies/tuning_variance.py"), **record}, indent=1) + "\n")


if __name__ == "__main__":
    main()
