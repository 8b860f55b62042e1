"""The ladder of learning rates and how it is climbed."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradprix.rules import log
from gradprix.tuning.learning_rate import GridResult, Score, around, finalists, grid_bounds, rate, spread, tune


def climb(
    loss: Callable[[float], float], trials: int, low: float = 1e-4, high: float = 1e-1
) -> tuple[GridResult, list]:
    """Tune against a known loss; returns the result and everything that was asked."""
    tuner, asked = tune(log(low, high), 1e-3, trials), []
    ask = next(tuner)
    while True:
        asked += ask
        try:
            ask = tuner.send({(rung, seed): Score(loss(rate(rung)), loss(rate(rung))) for rung, seed in ask})
        except StopIteration as done:
            return done.value, asked


def bowl(best: float) -> Callable[[float], float]:
    return lambda lr: (math.log10(lr) - math.log10(best)) ** 2


def test_rates_are_readable_and_even_in_the_logarithm() -> None:
    assert [rate(rung) for rung in range(-6, 7)] == [
        *(0.1, 0.15, 0.22, 0.33, 0.47, 0.68),
        *(1.0, 1.5, 2.2, 3.3, 4.7, 6.8),
        10.0,
    ]
    assert all(abs(6 * math.log10(rate(rung)) - rung) < 0.12 for rung in range(-60, 60))


def test_an_offset_moves_the_ladder_by_less_than_a_rung() -> None:
    assert rate(0) < rate(0, 0.3) < rate(0, 0.9) < rate(1)


def test_six_rungs_are_spread_with_the_default_among_them() -> None:
    space = log(1e-4, 1e-1)

    assert grid_bounds(space) == (-24, -6)
    assert [rate(rung) for rung in spread(space, 1e-3)] == [1e-4, 4.7e-4, 1e-3, 6.8e-3, 2.2e-2, 0.1]
    assert [rate(rung) for rung in spread(space, 1e-3, count=1)] == [1e-3]
    assert spread(space, 1e-9)[0] == -24, "a default outside the space counts as the end of it"


def test_the_full_protocol_is_six_four_and_nine() -> None:
    tuned, asked = climb(bowl(6e-3), 19)

    assert [seed for _, seed in asked] == [0] * 10 + [1, 2, 3] * 3
    assert len({rung for rung, _ in asked}) == 10
    assert rate(tuned.point) == 6.8e-3
    assert not tuned.at_edge


def test_the_three_that_are_tried_again_are_no_neighbours() -> None:
    assert finalists({-12: 1.0, -11: 1.1, -10: 1.2, -13: 1.3, -15: 1.4, -20: 9.0}) == [-12, -10, -15]
    assert finalists({-12: 1.0, -11: 1.1, -13: 1.3}) == [-12, -11, -13], "unless there are no others"


def test_the_last_choice_is_by_the_metric_over_all_seeds() -> None:
    tuner = tune(log(1e-4, 1e-1), 1e-3, 19)
    ask, first = next(tuner), None
    while first is None:
        answers = {(rung, seed): Score(bowl(6e-3)(rate(rung)), 0.0) for rung, seed in ask}
        ask = tuner.send(answers)
        first = next((rung for rung, seed in ask if seed), None)
    second = next(rung for rung, _ in ask if rung != first)
    with pytest.raises(StopIteration) as done:
        tuner.send({(rung, seed): Score(1.0, -1.0 if rung == second else 0.0) for rung, seed in ask})
    assert done.value.value.point == second


def test_refining_goes_midway_then_beside() -> None:
    losses = {-24: 9.0, -20: 4.0, -18: 3.0, -13: 1.0, -10: 2.0, -6: 8.0}

    assert around(losses, halving=True) == [-15, -11], "half of the gaps of 5 and 3 to the neighbours"
    assert around({**losses, -15: 2.0, -11: 0.5}, halving=False) == [-12, -9], "the nearest free rungs beside -11"


def test_refining_goes_outwards_when_the_best_is_at_an_end() -> None:
    assert around({-10: 2.0, -6: 1.0}, halving=True) == [-8, -4]
    tuned, _ = climb(bowl(0.3), 19)
    assert rate(tuned.point) > 0.1
    assert climb(bowl(100.0), 10)[0].at_edge


def test_diverged_runs_are_never_chosen() -> None:
    tuned, _ = climb(lambda lr: math.inf if lr > 5e-3 else 1 / lr, 19)

    assert rate(tuned.point) == 3.3e-3


def test_a_tie_goes_to_the_smaller_rate_and_all_diverged_is_an_answer() -> None:
    tuned, asked = climb(lambda lr: math.inf, 19)

    assert len(asked) == 19
    assert tuned.point == min(rung for rung, _ in asked)


@given(st.integers(1, 60), st.floats(1e-6, 10), st.floats(1e-6, 1e-2), st.floats(1.5, 1e5))
def test_exactly_as_many_trials_as_asked_for_and_none_twice(
    trials: int, best: float, low: float, factor: float
) -> None:
    tuned, asked = climb(bowl(best), trials, low, low * factor)

    assert len(asked) == len(set(asked)) == trials
    assert (tuned.point, 0) in asked


@pytest.mark.parametrize(("trials", "seeds"), [(1, 0), (9, 0), (12, 0), (13, 1), (16, 2), (19, 3), (22, 4)])
def test_fewer_trials_give_up_reseeding_first(trials: int, seeds: int) -> None:
    _, asked = climb(bowl(6e-3), trials)

    assert len({seed for _, seed in asked}) == 1 + seeds
