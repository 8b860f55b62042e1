"""Simulate whole races with tuning noise, and measure the coverage of the regret bound, false claims and seeds used.

In each simulated race, the two searches of an entry deviate from its mean performance by normally distributed amounts,
and the race selects a setting with their mean. The metric of a seed is the performance of this setting plus a residual
of a real race (`residuals.json`: digits, every optimizer at its best learning rate), with the same seed for all
entries. The race is analysed after 8, 16, 32 and 64 seeds and ends at the first conclusive analysis, as in
`gradprix race`. All numbers are in margins.

The bound does not cover if the best mean performance of the other entries is ahead of the recommended entry, at its
selected setting, by more than the bound. A claim is false if an entry that "wins" or is "slightly ahead" does not have
the better mean performance, or if the mean performances of entries that "tie" differ by more than the margin.

    python studies/verdict_simulation.py --races 2000      # about an hour on two cores; writes verdict_simulation.json
"""

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gradprix.utils.run_info import describe_run

FILE = Path(__file__).with_suffix(".json")
RESIDUALS = np.array(list(json.loads(Path(__file__).with_name("residuals.json").read_text())["residuals"].values()))
FLIPS = 1_000
"""Number of sign flips in a permutation test, fewer than in a race to save time."""


class Condition(NamedTuple):
    """Condition of simulated races.

    Args:
        entries: number of entries.
        means: their mean performances, an element of `MEANS`.
        tuning: the standard deviations from tuning, an element of `TUNING`.
    """

    entries: int
    means: str
    tuning: str


MEANS = ("equal", "half a margin", "one margin", "two margins", "ladder")
TUNING = ("0", "0.2", "0.4", "one of 0.4")
CONDITIONS = [Condition(*each) for each in product((3, 10), MEANS, TUNING)]


class Race(NamedTuple):
    """Outcome of a simulated race.

    Args:
        covered: True if the regret of the recommended entry is within its bound.
        bound: bound of the recommended entry's regret.
        false_claim: True if any claim about a pair is false.
        best_recommended: True if the best entry is recommended.
        seeds: number of seeds at the last analysis.
        settled: proportion of conclusive comparisons.
    """

    covered: bool
    bound: float
    false_claim: bool
    best_recommended: bool
    seeds: int
    settled: float


def performance(condition: Condition) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean performances of the entries, and their standard deviations from tuning, in margins."""
    k = condition.entries
    means = np.zeros(k)
    if condition.means == "ladder":
        means = -0.5 * np.arange(k)
    elif condition.means != "equal":
        means[0] = {"half a margin": 0.5, "one margin": 1.0, "two margins": 2.0}[condition.means]
    tuning = np.full(k, 0.2 if condition.tuning.startswith("one") else float(condition.tuning))
    if condition.tuning.startswith("one"):
        tuning[0] = 0.4
    return means, tuning


def simulate_race(condition: Condition, seed: int) -> Race:
    """Simulate one race under a condition; equal seeds give equal results."""
    from gradprix.stats import permutation_test
    from gradprix.stats.alpha_spending import ANALYSIS_SEEDS, InterimAnalysis, next_level
    from gradprix.stats.comparison_with_best import regret_bounds
    from gradprix.stats.recommendation import Candidate, recommend
    from gradprix.stats.tuning_variance import tuning_deviation
    from gradprix.stats.verdict import PairVerdict, judge

    permutation_test.SAMPLED = FLIPS
    rng = np.random.default_rng((CONDITIONS.index(condition), seed))
    means, tuning = performance(condition)
    k = len(means)
    choices = np.sqrt(2) * tuning[:, None] * rng.standard_normal((k, 2))
    chosen = means + choices.mean(1)
    rows = rng.permutation(len(RESIDUALS))[:k]
    values = chosen[:, None] + RESIDUALS[rows][:, rng.integers(RESIDUALS.shape[1], size=ANALYSIS_SEEDS[-1])]
    names = [f"entry {i}" for i in range(k)]
    tolerances = dict(zip(names, rng.uniform(0, 1, k), strict=True))
    deviation = tuning_deviation((choices[:, 0] - choices[:, 1]).tolist(), 1.0)
    tuned = dict.fromkeys(names, deviation)
    analyses: list[InterimAnalysis] = []
    for seeds in ANALYSIS_SEEDS:
        analyses.append((seeds, next_level(analyses, seeds)))
        table = {name: values[i, :seeds].tolist() for i, name in enumerate(names)}
        bounds = regret_bounds(table, higher_is_better=True, level=analyses[-1][1], tuning=tuned)
        average = {name: float(np.mean(each)) for name, each in table.items()}
        best = max(average.values())
        candidates = {n: Candidate(best - average[n], bounds[n], 0, tolerances[n], None) for n in names}
        recommended, _ = recommend(candidates, 1.0)
        if bounds[recommended] <= 1.0:
            break
    verdict = judge(table, higher_is_better=True, margin=1.0, level=analyses[-1][1], tuning=tuned)
    true = dict(zip(names, means, strict=True))
    false = [
        true[pair.a] <= true[pair.b]
        if pair.verdict in (PairVerdict.WINS, PairVerdict.SLIGHTLY_AHEAD)
        else pair.verdict is PairVerdict.TIES and abs(true[pair.a] - true[pair.b]) > 1.0
        for pair in verdict.pairs
    ]
    number = names.index(recommended)
    regret = max(means[i] for i in range(k) if i != number) - chosen[number]
    return Race(
        covered=bool(regret <= bounds[recommended]),
        bound=bounds[recommended],
        false_claim=any(false),
        best_recommended=number == 0,
        seeds=seeds,
        settled=float(np.mean([pair.verdict is not PairVerdict.INCONCLUSIVE for pair in verdict.pairs])),
    )


def simulate(condition: Condition, races: int, pool: ProcessPoolExecutor) -> dict[str, float]:
    """Simulate races under a condition, and summarize their outcomes by proportions and medians."""
    results = list(pool.map(partial(simulate_race, condition), range(races), chunksize=20))
    columns = {name: np.array(each, float) for name, each in zip(Race._fields, zip(*results, strict=True), strict=True)}
    shares = {name: float(columns[name].mean()) for name in ("covered", "false_claim", "best_recommended", "settled")}
    return {
        **shares,
        "median_bound": float(np.median(columns["bound"])),
        "median_seeds": float(np.median(columns["seeds"])),
    }


def rows(races: int) -> Iterator[dict[str, object]]:
    """Simulate `races` races under each condition, and yield one row of results per condition."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for condition in CONDITIONS:
            yield {**condition._asdict(), **simulate(condition, races, pool)}


def main() -> None:
    """Simulate all conditions, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=2_000, help="number of simulated races under each condition")
    races = parser.parse_args().races
    head = (
        "entries",
        "means",
        "tuning",
        "covered",
        "median_bound",
        "false_claim",
        "best_recommended",
        "median_seeds",
        "settled",
    )
    print(("{:>8} {:14} {:11}" + " {:>8}" * 6).format(*(name.replace("_", " ")[:8] for name in head)))
    results = []
    for row in rows(races):
        results.append(row)
        print(
            ("{:8d} {:14} {:11} {:8.3f} {:8.2f} {:8.3f} {:8.3f} {:8.0f} {:8.2f}").format(*(row[key] for key in head)),
            flush=True,
        )
    header = describe_run("python studies/verdict_simulation.py", None, "scipy")
    FILE.write_text(json.dumps({**header, "races": races, "conditions": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
