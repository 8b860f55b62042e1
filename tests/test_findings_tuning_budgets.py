"""Findings about tuning budgets on made-up races: optimizers at their defaults, and probabilities of being the best."""

import math
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from gradprix.race import RaceRecord
from gradprix.race.run_records import TuningRun
from records import CHANCE_LEVEL, make_record

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from findings import races_of_the_suite, tuning_budgets

SEEDS = (1000, 1002)
DEFAULTS = {"adam": 0.001, "adadelta": 1.0, "momentum": 0.001}


def run(lr: float, seed: int, metric: float) -> TuningRun:
    """A tuning run; one with an infinite metric diverged."""
    diverged, loss = (3, math.inf) if math.isinf(metric) else (None, 1 - metric)
    point = {"lr": lr}
    return TuningRun(
        point=point, seed=seed, first=True, spread=True, start=2.3, loss=loss, metric=metric, diverged=diverged
    )


def race(metrics: dict[str, list[float]]) -> RaceRecord:
    """A race with two searches, a replication, and these metrics at the default and at larger learning rates."""
    tried = {
        name: (
            *(run(DEFAULTS[name] * 10**i, seed, x) for seed in SEEDS for i, x in enumerate(each)),
            run(DEFAULTS[name], 1001, 0.99),
        )
        for name, each in metrics.items()
    }
    return replace(make_record(dict.fromkeys(metrics, (0.9, 0.91, 0.92)), margin=0.1), tuning_runs=tried)


RACE = race({"adam": [0.5, 0.7, 0.9], "adadelta": [0.8, 0.1, 0.2], "momentum": [math.inf, 0.3, 0.4]})


def test_searches_have_the_seeds_with_most_runs() -> None:
    assert races_of_the_suite.search_seeds(RACE) == [*SEEDS]


def test_a_diverged_run_has_the_chance_level() -> None:
    points = races_of_the_suite.points_on_seed(RACE, "momentum", 1000)
    assert points[0.001] == (math.inf, CHANCE_LEVEL)


def test_only_runs_at_the_default_stand_for_an_untuned_optimizer() -> None:
    metrics = [metric for _, metric in tuning_budgets.default_points(RACE, 1000)]
    assert metrics == [0.5, 0.8, CHANCE_LEVEL]


@pytest.mark.parametrize(
    ("tuned", "budget", "lead"),
    [
        ("adam", 3, (0.8 - 0.9) / 0.1),
        ("momentum", 3, (0.8 - 0.4) / 0.1),
        ("adam", 1, ((0.5 + 0.8 + CHANCE_LEVEL) / 3 - 0.7) / 0.1),
    ],
)
def test_the_lead_of_defaults_is_that_of_the_best_of_k_runs(tuned: str, budget: int, lead: float) -> None:
    assert tuning_budgets.lead_of_defaults(RACE, tuned, budget) == pytest.approx(lead)


def test_the_best_with_all_runs_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_budgets, "CANDIDATES", tuple(DEFAULTS))
    shares = tuning_budgets.probabilities(RACE)
    assert shares["adam"][-1] == 1
    assert shares["adadelta"][0] == pytest.approx(2 / 9, abs=0.03)  # its best run, and not that of Adam
    assert sum(each[0] for each in shares.values()) == pytest.approx(1)
