"""The recommendation: regret bounds, tuning variance, learning-rate tolerance, what decides, the answer in words."""

import math
from dataclasses import replace as replace_plan
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from gradprix.race import judge, make_plan
from gradprix.show.plans import format_detectable_difference
from gradprix.spaces import log
from gradprix.stats.comparison_with_best import regret_bounds
from gradprix.stats.recommendation import Candidate, RecommendationReason, recommend
from gradprix.stats.tuning_variance import PRIOR_ONE_SEARCH, PRIOR_TWOFOLD, tuning_deviation
from gradprix.text.answer import answer_lines, format_answer, format_headline
from gradprix.text.units import format_difference
from gradprix.tuning import make_tuner
from gradprix.tuning.response_curve import ResponseCurve, TunedScore, learning_rate_tolerance, noise_deviation
from gradprix.tuning.tuner import Score
from records import make_record

STEADY = {
    name: [0.97 + 0.001 * ((i * k) % 5) for i in range(16)] for k, name in enumerate(("adam", "momentum"), start=1)
}


def noisy(seed: int, n: int, **means: float) -> dict[str, list[float]]:
    """Return values with seed effects that all entries share and effects of their own, both with deviation 1."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(n)
    return {name: (mean + shared + rng.standard_normal(n)).tolist() for name, mean in means.items()}


# Bounds of regret


def test_bounds_by_hand() -> None:
    values = {"a": [3.0, 5.0, 4.0, 6.0, 2.0, 4.0, 5.0, 3.0], "b": [1.0, 2.0, 4.0, 3.0, 1.0, 2.0, 2.0, 1.0]}
    difference = np.subtract(values["a"], values["b"])
    deviations = difference - difference.mean()
    signs = np.array([[1 - 2 * (i >> k & 1) for k in range(8)] for i in range(256)])
    flipped = signs * deviations
    statistics = np.sort(flipped.mean(1) / (flipped.std(1, ddof=1) / math.sqrt(8)))
    threshold = np.quantile(statistics, 0.9, method="higher")
    error = difference.std(ddof=1) / math.sqrt(8)
    bounds = regret_bounds(values, higher_is_better=True, level=0.1)
    assert bounds["b"] == pytest.approx(difference.mean() + threshold * error)
    assert bounds["a"] == pytest.approx(max(0, -difference.mean() + threshold * error))
    assert regret_bounds({k: [-x for x in v] for k, v in values.items()}, higher_is_better=False, level=0.1) == bounds


def test_equal_values_have_no_regret_and_tuning_adds_some() -> None:
    same = {"a": [0.5, 0.7, 0.6, 0.9, 0.8, 0.4], "b": [0.5, 0.7, 0.6, 0.9, 0.8, 0.4]}
    assert regret_bounds(same, higher_is_better=True) == {"a": 0.0, "b": 0.0}
    tuned = regret_bounds(same, higher_is_better=True, tuning={"a": 0.1, "b": 0.2})
    assert tuned["a"] == pytest.approx(0.2 * 1.645, rel=0.03), "the other's deviation counts, one-sided 95 %"
    assert tuned["b"] == pytest.approx(0.1 * 1.645, rel=0.03)


@pytest.mark.parametrize("tuning", [0.0, 0.5])
@pytest.mark.parametrize("means", [(0.0,) * 4, (1.0, 0.0, 0.0, 0.0), (1.0, 1.0, 0.5, 0.0)])
def test_bounds_hold_for_an_entry_chosen_by_the_results(means: tuple[float, ...], tuning: float) -> None:
    rng, false, races = np.random.default_rng(0), 0, 300
    for race in range(races):
        chosen = np.array(means) + tuning * rng.standard_normal(len(means))
        values = noisy(race, 8, **dict(zip("abcd", chosen, strict=True)))
        bounds = regret_bounds(values, higher_is_better=True, tuning=dict.fromkeys(values, tuning) if tuning else None)
        best = int(np.argmax([np.mean(each) for each in values.values()]))
        regret = max(mean for i, mean in enumerate(means) if i != best) - chosen[best]
        false += regret > bounds["abcd"[best]]
    assert false / races <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / races)


# Tuning variance


def test_the_deviation_from_tuning_is_pooled_and_shrunk() -> None:
    assert tuning_deviation([], 0.5) == PRIOR_ONE_SEARCH * 0.5
    assert tuning_deviation([0.0] * 1000, 0.5) < 0.1 * PRIOR_TWOFOLD
    rng = np.random.default_rng(0)
    differences = 0.3 * rng.standard_normal(4000) - 0.3 * rng.standard_normal(4000)  # between two choices
    assert tuning_deviation(differences.tolist(), 0.5) == pytest.approx(0.3 / math.sqrt(2), rel=0.05)


def test_an_entry_that_tuning_could_have_made_better_is_not_called_worse() -> None:
    values = noisy(1, 64, a=1.0, b=0.0)
    given: dict[str, Any] = {"higher_is_better": True, "margin": 0.1}
    assert judge(values, **given).pairs[0].words == "wins"
    (pair,) = judge(values, **given, tuning={"a": 0.5, "b": 0.5}).pairs
    assert pair.words == "inconclusive"
    assert pair.more_seeds is None, "no number of seeds would change that"


# Response curves and tolerance


def bowl(lr: float, best: float = 0.01) -> float:
    return (math.log10(lr) - math.log10(best)) ** 2


RATES = [round(10 ** (k / 6), 12) for k in range(-24, -5)]


def test_the_curve_removes_seed_effects_and_noise() -> None:
    rng = np.random.default_rng(0)
    scores = [TunedScore(lr, seed, bowl(lr) + seed + 0.02 * rng.standard_normal()) for seed in (0, 1) for lr in RATES]
    noise = noise_deviation([scores])
    assert noise is not None
    curve = ResponseCurve.fit(scores, 0.02, margin=0.05)
    assert curve is not None
    assert 10 ** curve.positions[curve.metrics.argmin()] == pytest.approx(0.01, rel=0.1)
    near = [lr for lr in RATES if 0.005 < lr < 0.02]
    assert [curve(lr) - curve(0.01) for lr in near] == pytest.approx([bowl(lr) for lr in near], abs=0.03)


def test_tolerance_is_where_the_metric_is_within_a_margin() -> None:
    scores = [TunedScore(lr, 0, bowl(lr)) for lr in RATES]
    curve = ResponseCurve.fit(scores, 0.001, margin=0.1)
    assert curve is not None
    low, high = learning_rate_tolerance(curve, scores, 0.1, tuned=0.01)
    assert (low, high) == pytest.approx((RATES[11], RATES[13]))
    assert bowl(low) < 0.1 < bowl(RATES[10])
    wide = learning_rate_tolerance(curve, scores, 0.3, tuned=0.01)
    assert wide[0] < low < high < wide[1]


def test_tolerance_ends_before_a_learning_rate_that_diverges_or_is_bad_on_one_seed() -> None:
    scores = [TunedScore(lr, 0, math.inf if lr > 0.012 else bowl(lr)) for lr in RATES]
    scores += [TunedScore(lr, 1, 3.0 + (5.0 if lr == RATES[11] else bowl(lr))) for lr in RATES[11:13]]
    curve = ResponseCurve.fit(scores, 0.001, margin=0.3)
    assert curve is not None
    assert learning_rate_tolerance(curve, scores, 0.3, tuned=0.01) == (RATES[12], RATES[12])
    assert ResponseCurve.fit([TunedScore(0.1, 0, math.inf)], 0.1, 0.1) is None


@pytest.mark.parametrize("bad", [None, 0, 1])
def test_two_searches_are_combined_and_a_bad_one_counts_little(bad: int | None) -> None:
    tuner = make_tuner({"lr": log(1e-4, 1e-1)}, {"lr": 1e-3}, 26, 0.0, 0)
    rng = np.random.default_rng(0)

    def score(lr: float, seed: int) -> Score:
        untrained = bad is not None and seed == 2 * bad  # the first seed of that search learns nothing
        value = (2 if untrained else bowl(lr, 0.02)) + 0.01 * rng.standard_normal()
        return Score(value, value)

    while not tuner.is_done:
        tuner.tell([score(dict(point)["lr"], seed) for point, seed in tuner.ask()])
    result = tuner.result
    assert len(result.choices) == 2
    assert sum(phase.trials for phase in tuner.phases) == 26
    assert 0.01 < dict(result.point)["lr"] < 0.04


# What decides


def candidate(shortfall: float = 0.0, bound: float = 0.4, **rest: Any) -> Candidate:
    return Candidate(shortfall, bound, **{"diverged": 0, "tolerance_decades": 1.0, "step_seconds": 1.0, **rest})


WIDE = candidate(0.1, tolerance_decades=1.5)


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ({"a": candidate(), "b": WIDE}, ("b", RecommendationReason.WIDEST_TOLERANCE)),
        ({"a": candidate(), "b": candidate(0.2, tolerance_decades=1.5)}, ("a", RecommendationReason.ONLY_CANDIDATE)),
        ({"a": candidate(), "b": candidate(0.1, bound=0.6)}, ("a", RecommendationReason.ONLY_CANDIDATE)),
        ({"a": candidate(bound=0.7), "b": candidate(0.1, bound=0.8)}, ("a", RecommendationReason.BEST_MEAN)),
        ({"a": candidate(), "b": candidate(0.1, step_seconds=0.5)}, ("b", RecommendationReason.FASTEST_STEP)),
        ({"a": candidate(), "b": candidate(0.1, step_seconds=0.98)}, ("a", RecommendationReason.BEST_MEAN)),
        ({"a": candidate(), "b": candidate(0.1, step_seconds=None)}, ("a", RecommendationReason.BEST_MEAN)),
        ({"a": candidate(diverged=1), "b": candidate(0.3, bound=0.9)}, ("b", RecommendationReason.ONLY_STABLE)),
        (
            {"a": candidate(), "b": WIDE, "c": candidate(0.11, tolerance_decades=1.5)},
            ("b", RecommendationReason.BEST_MEAN_OF_WIDEST),
        ),
        ({"a": candidate(diverged=2), "b": candidate(0.1, diverged=2)}, ("a", RecommendationReason.BEST_MEAN)),
    ],
)
def test_the_reason_is_the_one_that_decided(
    candidates: dict[str, Candidate], expected: tuple[str, RecommendationReason]
) -> None:
    assert recommend(candidates, 0.5) == expected
    assert recommend(dict(reversed(candidates.items())), 0.5) == expected


def test_a_baseline_is_recommended_unless_something_wins_against_it() -> None:
    candidates = {"a": candidate(), "b": WIDE, "c": candidate(0.1, tolerance_decades=2.0)}
    assert recommend(candidates, 0.5, [], "a") == ("a", RecommendationReason.BASELINE_UNBEATEN)
    assert recommend(candidates, 0.5, ["b"], "a") == ("b", RecommendationReason.ONLY_WINNER)
    assert recommend(candidates, 0.5, ["b", "c"], "a") == ("c", RecommendationReason.WIDEST_TOLERANCE)


# The answer in words


def test_differences_are_rounded_up() -> None:
    percent, plain = (make_record(STEADY, percent=percent).plan.metric for percent in (True, False))
    assert [format_difference(percent, x) for x in (0.00421, 0.005, 0.0, 0.123)] == [
        *("0.43 points", "0.50 points", "0 points", "13 points")
    ]
    assert format_difference(plain, 0.0123) == "0.013"
    assert format_difference(plain, 1.2e28) == "1.2e+28"


@pytest.mark.parametrize(
    ("bound", "trials", "expected"),
    [
        (0.00321, 26, "at most 0.33 points behind the other (95\N{NO-BREAK SPACE}%, 16 seeds)."),
        (
            0.003211,
            26,
            "more than the margin of 0.321 points. More seeds (--seeds) may help.",
        ),
        (0.01, 13, "26 trials (--trials) would make it smaller."),
    ],
)
def test_the_headline_says_what_could_be_lost_and_what_would_help(bound: float, trials: int, expected: str) -> None:
    record = make_record(STEADY, margin=0.00321)
    verdict, plan = structs.replace(record.verdict, bound=bound), structs.replace(record.plan, trials=trials)
    assert expected in format_headline(structs.replace(record, verdict=verdict, plan=plan))


def test_every_run_diverged_is_an_answer() -> None:
    nothing = format_answer(make_record(STEADY, diverged=dict.fromkeys(STEADY, 16)))
    assert "every final run of every optimizer diverged" in nothing
    assert "use" not in nothing


def test_an_entry_that_diverged_is_named_with_what_the_others_may_do() -> None:
    text = format_answer(make_record(STEADY, diverged={"adam": 0, "momentum": 1}, recommended=("adam", "best_mean")))
    assert "momentum diverged on 1 of 16 seeds: too unstable to lead" in text
    assert "0 of 16 of adam diverged: up to 17 % is possible (95 %)" in text


def test_the_answer_against_a_baseline() -> None:
    noise = [0.001 * x for x in (-3, -1, 0, 2, 1, -2, 3, 0)]
    base = {"adam": [0.5] * 8, "adagrad": [0.1 + x for x in noise]}
    better = {**base, "momentum": [0.9 + x for x in noise], "nadam": [0.95 - x for x in noise]}
    settings: dict[str, Any] = {"baseline": "adam", "margin": 0.1, "task": "digits"}
    assert answer_lines(make_record(better, **settings))[0] == (
        "digits: nadam and momentum win against adam (90.0 to 95.0 % against 50.0 %).  adagrad loses to it (10.0 %)."
    )
    close = {**base, "momentum": [0.55 + x for x in noise], "nadam": [0.5 + x for x in noise]}
    assert answer_lines(make_record(close, **settings))[0] == (
        "digits: nothing wins against adam (50.0 %).  momentum is slightly ahead of it (55.0 %).  "
        "adagrad loses to it (10.0 %)."
    )


@pytest.mark.parametrize("size", [1e-200, 1e-9, 1.0, 1e150])
def test_the_response_curve_of_a_metric_of_any_size(size: float) -> None:
    def scores(unit: float) -> list[TunedScore]:
        return [TunedScore(lr, s, unit * ((math.log10(lr) + 2) ** 2 + s)) for lr in (1e-3, 1e-2, 1e-1) for s in (0, 1)]

    curve, usual = (ResponseCurve.fit(scores(unit), 0.1 * unit, 0.2 * unit) for unit in (size, 1.0))
    assert curve is not None
    assert usual is not None
    assert curve.metrics / size == pytest.approx(usual.metrics)


def test_a_plan_allows_for_tuning_in_its_detectable_difference() -> None:
    plan = make_plan("digits", "adam,momentum", seeds=16)
    text = " ".join(format_detectable_difference(plan).split())
    alone = plan.minimum_detectable_difference * plan.task.noise
    tuning = 2 * 16 * (0.3 * plan.task.metric.margin) ** 2
    size = plan.minimum_detectable_difference * math.sqrt(plan.task.noise**2 + tuning)
    assert text == f"about {100 * size:.1f} %, of which seeds alone {100 * alone:.1f} %"
    one_search = replace_plan(plan, trials=19)
    assert one_search.expected_tuning_deviation == 2 * plan.expected_tuning_deviation
