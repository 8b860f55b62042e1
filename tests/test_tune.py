"""Tuners: the learning-rate grid, points in several dimensions, and their requests against recorded ones."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradprix.spaces import choice, log
from gradprix.tuning import LearningRateSearch, SobolSearch, make_tuner
from gradprix.tuning.learning_rate_grid import (
    grid_between,
    grid_bounds,
    grid_learning_rate,
    nearest_grid_point,
    neighbours_of_best,
    select_finalists,
    spread_points,
)
from gradprix.tuning.tuner import Request, Score, Tuner, TuningResult
from recordings.tuners import LOSSES, SPACES, digest

RECORDED = json.loads((Path(__file__).parent / "recordings" / "tuners.json").read_text())


def finish(tuner: Tuner, score: Callable[..., tuple[float, float]]) -> tuple[TuningResult, list[list[Request]]]:
    """Tune with a score of point and seed; return the result and the requests of each phase."""
    phases = []
    while not tuner.is_done:
        phases.append(tuner.ask())
        tuner.tell([Score(*score(point, seed)) for point, seed in tuner.ask()])
    return tuner.result, phases


def tune(
    loss: Callable[[float], float], trials: int, low: float = 1e-4, high: float = 1e-1
) -> tuple[TuningResult, list[tuple[float, int]]]:
    """Tune the learning rate with a known loss; return the result, and the learning rate and seed of all trials."""
    tuner = LearningRateSearch(log(low, high), 1e-3, trials)
    result, phases = finish(tuner, lambda point, seed: (loss(point[0][1]),) * 2)
    return result, [(point[0][1], seed) for requests in phases for point, seed in requests]


def learning_rate(result: TuningResult) -> float:
    (lr,) = dict(result.point).values()
    return float(lr)


def bowl(best: float) -> Callable[[float], float]:
    return lambda lr: (math.log10(lr) - math.log10(best)) ** 2


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", SPACES)
def test_requests_and_results_are_the_recorded_ones(name: str, loss: str) -> None:
    space, default, offset = SPACES[name]
    for trials, recorded in enumerate(RECORDED[f"{name}: {loss}"].split(), 1):
        tuner = make_tuner(space, default, trials, offset, 3)
        result, phases = finish(tuner, LOSSES[loss])
        sizes = [phase.trials for phase in tuner.phases]
        assert list(map(len, phases)) == sizes
        assert sum(sizes) == trials
        if recorded != "-":  # refused when it was recorded, because a box in a discrete space had no new point
            assert digest([phases, [result.point, result.edges]])[:4] == recorded, f"{trials} trials"


def test_a_phase_is_asked_again_until_its_scores_are_told() -> None:
    tuner = SobolSearch({"lr": log(1e-4, 1e-1), "beta1": log(0.1, 1)}, {"lr": 1e-3, "beta1": 0.9}, 10, rng_seed=0)

    assert tuner.ask() == tuner.ask()
    with pytest.raises(ValueError, match="shorter"):
        tuner.tell([Score(1.0, 1.0)])
    finish(tuner, lambda point, seed: (1.0, 1.0))
    assert tuner.ask() == []


def test_a_discrete_space_is_searched_to_its_last_point() -> None:
    tuner = SobolSearch({"lr": choice(*range(1, 21))}, {"lr": 1}, 20 + 9, rng_seed=0)

    _, phases = finish(tuner, lambda point, seed: (point[0][1], 0.0))
    assert {dict(point)["lr"] for requests in phases for point, _ in requests} == set(range(1, 21))
    with pytest.raises(ValueError, match="fewer different points than there are trials"):
        SobolSearch({"lr": choice(*range(1, 21))}, {"lr": 1}, 21 + 9, rng_seed=0)


def test_learning_rates_are_readable_and_evenly_spaced_on_a_logarithmic_scale() -> None:
    rates = [
        *(0.1, 0.15, 0.22, 0.33, 0.47, 0.68),
        *(1.0, 1.5, 2.2, 3.3, 4.7, 6.8),
        10.0,
    ]
    assert [grid_learning_rate(point) for point in range(-6, 7)] == grid_between(0.1, 10) == rates
    assert all(abs(6 * math.log10(grid_learning_rate(point)) - point) < 0.12 for point in range(-60, 60))


def test_an_offset_shifts_the_grid_by_less_than_a_step() -> None:
    assert grid_learning_rate(0) < grid_learning_rate(0, 0.3) < grid_learning_rate(0, 0.9) < grid_learning_rate(1)


@given(st.integers(-72, 40), st.integers(0, 999))
def test_the_grid_point_of_a_learning_rate(point: int, thousandths: int) -> None:
    offset = thousandths / 1000
    assert nearest_grid_point(grid_learning_rate(point, offset), offset) == point


def test_six_grid_points_are_spread_with_the_default_among_them() -> None:
    space = log(1e-4, 1e-1)

    assert grid_bounds(space) == (-24, -6)
    assert list(map(grid_learning_rate, spread_points(space, 1e-3))) == [1e-4, 4.7e-4, 1e-3, 6.8e-3, 2.2e-2, 0.1]
    assert list(map(grid_learning_rate, spread_points(space, 1e-3, count=1))) == [1e-3]
    assert spread_points(space, 1e-9)[0] == -24, "a default outside the space counts as the end of it"


def test_a_space_without_a_grid_point_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0.0011 to 0.0014, contains no point of the grid .* give a wider space"):
        LearningRateSearch(log(1.1e-3, 1.4e-3), 1e-3, 19)


def test_the_full_protocol_is_six_four_and_nine() -> None:
    result, asked = tune(bowl(6e-3), 19)

    assert [seed for _, seed in asked] == [0] * 10 + [1, 2, 3] * 3
    assert len({lr for lr, _ in asked}) == 10
    assert learning_rate(result) == 6.8e-3
    assert not result.edges


def test_finalists_are_no_neighbours() -> None:
    assert select_finalists({-12: 1.0, -11: 1.1, -10: 1.2, -13: 1.3, -15: 1.4, -20: 9.0}) == [-12, -10, -15]
    assert select_finalists({-12: 1.0, -11: 1.1, -13: 1.3}) == [-12, -11, -13], "unless there are no others"


def test_the_last_choice_is_by_the_metric_over_all_seeds() -> None:
    tuner = LearningRateSearch(log(1e-4, 1e-1), 1e-3, 19)
    while not any(seed for _, seed in tuner.ask()):
        tuner.tell([Score(bowl(6e-3)(dict(point)["lr"]), 0.0) for point, _ in tuner.ask()])
    second = tuner.ask()[3].point
    assert second != tuner.ask()[0].point
    tuner.tell([Score(1.0, -1.0 if point == second else 0.0) for point, _ in tuner.ask()])

    assert tuner.result.point == second


def test_refining_goes_midway_then_beside() -> None:
    losses = {-24: 9.0, -20: 4.0, -18: 3.0, -13: 1.0, -10: 2.0, -6: 8.0}

    assert neighbours_of_best(losses, halving=True) == [-15, -11], "half of the gaps of 5 and 3 to the neighbours"
    assert neighbours_of_best({**losses, -15: 2.0, -11: 0.5}, halving=False) == [-12, -9], "free points beside -11"


def test_refining_goes_outwards_when_the_best_is_at_an_edge() -> None:
    assert neighbours_of_best({-10: 2.0, -6: 1.0}, halving=True) == [-8, -4]
    result, _ = tune(bowl(0.3), 19)
    assert learning_rate(result) > 0.1
    assert tune(bowl(100.0), 10)[0].edges == ("lr",)


def test_diverged_runs_are_never_chosen() -> None:
    result, _ = tune(lambda lr: math.inf if lr > 5e-3 else 1 / lr, 19)

    assert learning_rate(result) == 3.3e-3


def test_a_tie_goes_to_the_smaller_rate_and_all_diverged_is_an_answer() -> None:
    result, asked = tune(lambda lr: math.inf, 19)

    assert len(asked) == 19
    assert learning_rate(result) == min(lr for lr, _ in asked)


@given(st.integers(1, 60), st.floats(1e-6, 10), st.floats(1e-6, 1e-2), st.floats(1.5, 1e5))
def test_exactly_as_many_trials_as_asked_for_and_none_twice(
    trials: int, best: float, low: float, factor: float
) -> None:
    result, asked = tune(bowl(best), trials, low, low * factor)

    assert len(asked) == len(set(asked)) == trials
    assert (learning_rate(result), 0) in asked


@pytest.mark.parametrize(("trials", "seeds"), [(1, 0), (9, 0), (12, 0), (13, 1), (16, 2), (19, 3), (22, 4)])
def test_fewer_trials_give_up_replication_first(trials: int, seeds: int) -> None:
    _, asked = tune(bowl(6e-3), trials)

    assert len({seed for _, seed in asked}) == 1 + seeds
