"""Findings about small tuning budgets: several optimizers at their defaults, and Adam with only its learning rate."""

from collections.abc import Mapping

import numpy as np

from gradprix.claims.decisions import Decision, all_of, is_above, is_equivalent
from gradprix.claims.estimates import exact, mean
from gradprix.claims.registry import Quantities
from gradprix.race import ENTRIES, RaceRecord
from gradprix.race.efficiency import expected_best, probability_best
from gradprix.show.figure import Chart
from gradprix.tuning.learning_rate_grid import grid_learning_rate, nearest_grid_point

from .figures import interval_lines
from .races_of_the_suite import FEWEST, Points, clipped, direction, margin, points_on_seed, races, search_seeds
from .registry import experiment

BUDGETS = (1, 2, 5, 10)
"""Numbers of runs per optimizer. A search of a race has ten runs on one seed."""
LARGEST = BUDGETS[-1]
TUNED_ALONE = "adam"
CANDIDATES = ("adam", "minibatch", "momentum", "adagrad")
"""Optimizers of which only the learning rate is tuned, as in the comparison of Sivaprasad et al."""


def default_points(record: RaceRecord, seed: int) -> Points:
    """Return loss and metric of each entry's run at its default learning rate, on one tuning seed."""
    points = []
    for name in record.tuning_runs:
        if name in ENTRIES:
            default = grid_learning_rate(nearest_grid_point(ENTRIES[name].default_rate))
            points += [point for lr, point in points_on_seed(record, name, seed).items() if np.isclose(lr, default)]
    return points


def lead_of_defaults(record: RaceRecord, tuned: str, budget: int) -> float:
    """Return by how much several optimizers at their defaults beat one tuned optimizer, in margins.

    Both have the same number of runs on the same seed, drawn at random: of the runs of the tuned optimizer's search, or
    of the optimizers' runs at their defaults. The run with the smallest validation loss is chosen in either case, and
    its validation metric compared. The result is the mean over the race's searches.

    Args:
        record: record of a race.
        tuned: name of the optimizer that is tuned.
        budget: number of runs.
    """
    leads = []
    for seed in search_seeds(record):
        several = expected_best(default_points(record, seed))
        alone = expected_best(list(points_on_seed(record, tuned, seed).values()))
        leads.append(direction(record) * (several[budget - 1] - alone[budget - 1]) / margin(record))
    return clipped(float(np.mean(leads)))


def decide_defaults(m: Quantities) -> Decision:
    """Return the verdict from the difference with the largest budget."""
    is_enough = m["tasks"].effect >= FEWEST
    return all_of(is_equivalent(m[f"runs_{LARGEST}"], -1, 1) if is_enough else None)


def draw_defaults(m: Quantities) -> Chart:
    """Draw the lead of several optimizers at their defaults against the number of runs."""
    lines = {"defaults − tuned Adam": {k: m[f"runs_{k}"] for k in BUDGETS}}
    labels = "runs", "lead of defaults, margins"
    return interval_lines("several-at-defaults-match-one-tuned", labels[1], labels, lines)


@experiment("several-at-defaults-match-one-tuned", decide_defaults, draw=draw_defaults)
def measure_defaults(quick: bool) -> Quantities:
    """Compare several optimizers at their defaults with tuned Adam, over the tasks of the suite."""
    records = races().values()
    budgets = dict.fromkeys((LARGEST, *BUDGETS))
    leads = {f"runs_{k}": mean([lead_of_defaults(r, TUNED_ALONE, k) for r in records]) for k in budgets}
    others = [
        float(np.mean([lead_of_defaults(r, name, LARGEST) for name in r.tuning_runs if name in ENTRIES]))
        for r in records
    ]
    return {**leads, "others": mean(others), "tasks": exact(len(records)), "names": list(races())}


def probabilities(record: RaceRecord) -> Mapping[str, np.ndarray]:
    """Return the probability that each candidate is the best after k runs, `[k]`, the mean over a race's searches."""
    each = []
    for seed in search_seeds(record):
        points = {name: list(points_on_seed(record, name, seed).values()) for name in CANDIDATES}
        each.append(probability_best(points, direction(record)))
    return {name: np.mean([shares[name] for shares in each], axis=0) for name in CANDIDATES}


def decide_adam(m: Quantities) -> Decision:
    """Return the verdict from Adam's lead at each small budget, and from its change."""
    if m["tasks"].effect < FEWEST:
        return all_of(None)
    return all_of(*(is_above(m[f"lead_{k}"], 0) for k in BUDGETS if k <= 5), is_above(m["closing"], 0))


def draw_adam(m: Quantities) -> Chart:
    """Draw the probability of being the best against the number of runs."""
    lines = {name: {k: m[f"{name}_{k}"] for k in BUDGETS} for name in CANDIDATES}
    labels = "runs per optimizer", "probability of being the best"
    return interval_lines("adam-is-best-at-small-tuning-budgets", labels[1], labels, lines)


@experiment("adam-is-best-at-small-tuning-budgets", decide_adam, draw=draw_adam)
def measure_adam(quick: bool) -> Quantities:
    """Compute the probability of being best for Adam and three optimizers, over the tasks of the suite."""
    table = [probabilities(record) for record in races().values()]
    shares = {name: np.array([row[name] for row in table]) for name in CANDIDATES}  # [tasks, k]
    leads = {k: shares["adam"][:, k - 1] - _next_best(shares, k) for k in BUDGETS}
    return {
        **{f"lead_{k}": mean(lead) for k, lead in leads.items()},
        "closing": mean(leads[1] - leads[LARGEST]),
        **{f"{name}_{k}": mean(shares[name][:, k - 1]) for name in CANDIDATES for k in BUDGETS},
        "tasks": exact(len(table)),
        "names": list(races()),
    }


def _next_best(shares: Mapping[str, np.ndarray], k: int) -> np.ndarray:
    """Return the probability, on each task, of that optimizer but Adam which has the largest on average."""
    others = [name for name in CANDIDATES if name != "adam"]
    return shares[max(others, key=lambda name: float(shares[name][:, k - 1].mean()))][:, k - 1]
