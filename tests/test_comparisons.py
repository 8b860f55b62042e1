"""Comparisons of a diagnosis: known differences between entries and between families, and silence without any."""

import math

import numpy as np
import pytest
import torch

from gradprix import rules
from gradprix.explain import why
from gradprix.explain.comparisons import Levels, compare_levels, find_traits, weigh_families
from gradprix.explain.diagnosis import compare_measurement, diagnose
from gradprix.explain.levels import COMPARED, measure_levels
from gradprix.explain.network_measures import Point
from gradprix.explain.replay import ReplayedRun, watch
from gradprix.race import Local, make_plan, run
from gradprix.race.diagnosis_record import Finding, MeasurementKind, Trait
from gradprix.rules import Rule
from gradprix.stats.contrasts import simultaneous_intervals
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome, Trial
from test_why import cloud, line

LOSS, GAIN = MeasurementKind.TRAINING_LOSS, MeasurementKind.GAIN
PLAIN, BOTH = frozenset[Trait](), frozenset(Trait)
ADAPTIVE, MOMENTUM = frozenset({Trait.ADAPTIVE}), frozenset({Trait.MOMENTUM})


def noisy(means: dict[str, float], seeds: int = 8, seed: int = 0, spread: float = 0.1) -> Levels:
    """Levels of the training loss with these means of their logarithms, and an effect of the seed that all share."""
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal(seeds)
    own = {name: mean + shared + spread * generator.standard_normal(seeds) for name, mean in means.items()}
    return {name: [{LOSS: float(x)} for x in row] for name, row in own.items()}


@pytest.mark.parametrize(
    ("rule", "given", "traits"),
    [
        (rules.sgd, {}, PLAIN),
        (rules.sgd, {"momentum": 0.9}, MOMENTUM),
        (rules.adagrad, {}, ADAPTIVE),
        (rules.rmsprop, {}, ADAPTIVE),
        (rules.adadelta, {}, ADAPTIVE),
        (rules.adam, {}, BOTH),
        (rules.adamax, {}, BOTH),
        (rules.lion, {}, MOMENTUM),
    ],
)
def test_traits_are_those_of_the_rule(rule: Rule, given: dict[str, float], traits: frozenset[Trait]) -> None:
    assert find_traits(rule, rule.values(**given)) == traits


def test_an_entry_is_compared_with_the_other_leaders() -> None:
    ratios, families = compare_levels(noisy({"a": 0.0, "b": 0.0, "slow": math.log(10)}, seed=1), ["a", "b"], {})

    assert families == ()
    assert ratios["slow", LOSS].low < 10 < ratios["slow", LOSS].high
    assert ratios["slow", LOSS].is_large
    assert ratios["a", LOSS].low < 1 < ratios["a", LOSS].high
    assert not ratios["a", LOSS].is_large


@pytest.mark.parametrize(
    ("levels", "leaders"),
    [
        (noisy({"a": 0.0, "b": 3.0}, seeds=5), ["a", "b"]),  # too few sign flips
        (noisy({"a": 0.0, "b": 3.0}), ["c"]),
        ({"a": [{LOSS: math.nan}] * 8, "b": [{LOSS: 1.0}] * 8}, ["a", "b"]),
        ({"a": [{}] * 8, "b": [{LOSS: 1.0}] * 8}, ["a", "b"]),  # diverged
    ],
)
def test_what_cannot_be_compared_is_left_out(levels: Levels, leaders: list[str]) -> None:
    assert compare_levels(levels, leaders, {}) == ({}, ())


def test_equal_entries_differ_in_one_race_of_twenty_at_most() -> None:
    names = dict.fromkeys("abcdef", 0.0)
    traits = dict(zip(names, (PLAIN, MOMENTUM, ADAPTIVE, BOTH, BOTH, PLAIN), strict=True))
    false_claims = 0
    for seed in range(200):
        ratios, families = compare_levels(noisy(names, seed=seed), list(names), traits)
        each = [*ratios.values(), *(contrast.ratio for contrast in families)]
        assert len(each) == 8
        false_claims += any(not ratio.low <= 1 <= ratio.high for ratio in each)

    assert false_claims <= 18  # 95 % quantile of a binomial distribution with 200 races at 5 % is 15


def test_intervals_hold_the_true_means_together() -> None:
    generator = np.random.default_rng(0)
    means = np.array([-1.0, 0.0, 0.5, 3.0])[:, None]
    held = 0
    for _ in range(200):
        _, low, high = simultaneous_intervals(means + generator.standard_normal((4, 8)))
        held += bool(((low <= means[:, 0]) & (means[:, 0] <= high)).all())

    assert held >= 182
    with pytest.raises(ValueError, match="at least 6"):
        simultaneous_intervals(np.zeros((2, 5)))


def test_families_are_compared_within_the_same_other_traits() -> None:
    traits = {"sgd": PLAIN, "momentum": MOMENTUM, "rmsprop": ADAPTIVE, "adam": BOTH, "nadam": BOTH, "muon": MOMENTUM}
    weights = weigh_families(Trait.ADAPTIVE, list(traits), traits)

    assert weights == {"sgd": -0.5, "momentum": -0.25, "muon": -0.25, "rmsprop": 0.5, "adam": 0.25, "nadam": 0.25}
    assert weigh_families(Trait.ADAPTIVE, ["sgd", "rmsprop"], traits) == {}, "two entries are no families"
    assert weigh_families(Trait.MOMENTUM, ["sgd", "adam", "nadam"], traits) == {}, "none differ in momentum alone"
    means = {"sgd": 0.0, "momentum": -1.0, "rmsprop": math.log(0.25), "adam": math.log(0.25) - 1}
    _, families = compare_levels(noisy(means, spread=0.02), ["adam"], traits)
    ratios = {contrast.trait: contrast.ratio for contrast in families}
    assert ratios[Trait.ADAPTIVE].number == pytest.approx(0.25, rel=0.05)
    assert ratios[Trait.MOMENTUM].number == pytest.approx(math.exp(-1), rel=0.05)
    assert all(ratio.is_large for ratio in ratios.values())


def run_with(loss: float, *, slope: float, bend: float, seen: float, seed: int) -> ReplayedRun:
    """A run of ten equal measurements, up to one percent."""
    jitter = 1 + 0.01 * math.sin(seed)
    point = {"length": 1.0, "groups": {}, "spread": 32.0, "signal": 1.0, "sharpness": 1.0, "seen": seen * jitter}
    points = [Point((i + 0.5) / 10, 1.0, -slope, bend * jitter, **point, gain=0.1) for i in range(10)]
    outcome = Outcome([(1, loss * jitter, 1.0, 1.0)], 1.0, 1.0, None)
    ones = [1.0] * 10
    return ReplayedRun(list(range(1, 11)), [0.1] * 10, ones, ones, ones, ones, points, outcome)


KNOWN: dict[str, tuple[dict[str, float], set[Finding]]] = {
    "good": ({"loss": 0.1, "slope": 1.0, "bend": 1.0, "seen": 0.5}, set()),
    "also good": ({"loss": 0.1, "slope": 1.0, "bend": 1.0, "seen": 0.5}, set()),
    "slow": ({"loss": 1.0, "slope": 0.01, "bend": 1e-4, "seen": 0.005}, {Finding.UNDERFITS, Finding.STEPS_SHORT}),
    "noisy": ({"loss": 0.5, "slope": 1.0, "bend": 1.9, "seen": 0.4}, {Finding.UNDERFITS, Finding.NOISE_LIMITED}),
    "unstable": (
        {"loss": 9.0, "slope": 1.0, "bend": 2.6, "seen": 2.5},
        {Finding.UNDERFITS, Finding.STEPS_TOO_LONG, Finding.UNSTABLE},
    ),
    "at the limit": ({"loss": 0.1, "slope": 1.0, "bend": 1.0, "seen": 1.5}, {Finding.NEAR_STABILITY_LIMIT}),
}


def findings_of(runs: dict[str, list[ReplayedRun]], leaders: list[str], batch_size: dict[str, int]) -> dict[str, set]:
    levels = {name: [measure_levels(run, 2.0) for run in each] for name, each in runs.items()}
    ratios, _ = compare_levels(levels, leaders, {})
    found = {}
    for name, each in runs.items():
        reasons = diagnose(each, batch_size[name], 2.0)
        compared = [compare_measurement(r.to_record(), ratios.get((name, r.kind))) for r in reasons]
        found[name] = {m.finding for m in compared if m.finding}
        assert {m.kind for m in compared if m.comparison} == set(COMPARED)
    return found


def test_each_known_cause_is_found_and_no_other() -> None:
    runs = {name: [run_with(**given, seed=seed) for seed in range(8)] for name, (given, _) in KNOWN.items()}
    found = findings_of(runs, ["good", "also good", "at the limit"], dict.fromkeys(runs, 32))

    assert found == {name: findings for name, (_, findings) in KNOWN.items()}


@pytest.mark.slow
def test_known_causes_are_found_in_trained_models() -> None:
    torch.manual_seed(0)
    inputs, targets = cloud(600, [2.0] + [1.0] * 19, 1.0)
    settings = {  # schedule, batch size, learning rate, epochs; the largest curvature is about 4, the limit 0.5
        "good": ("cosine", 16, 0.1, 6, set()),
        "also good": ("cosine", 16, 0.08, 6, set()),
        "slow": ("cosine", 16, 0.001, 6, {Finding.UNDERFITS, Finding.STEPS_SHORT}),
        "noisy": ("constant", 4, 0.2, 6, {Finding.NOISE_LIMITED, Finding.BATCH_BELOW_NOISE_SCALE}),
        "unstable": ("constant", 0, 0.6, 12, {Finding.UNDERFITS, Finding.STEPS_TOO_LONG, Finding.UNSTABLE}),
    }
    runs = {}
    for name, (schedule, batch_size, lr, epochs, _) in settings.items():
        task = line(inputs, targets, [1.0] * 20, epochs=epochs, schedule=schedule)
        values = rules.sgd.values(lr=lr)
        trials = [Trial(rules.sgd, values, seed, batch_size, epochs, schedule, True) for seed in range(8)]
        runs[name] = watch(task, trials, ExecutionMode())
    found = findings_of(runs, ["good", "also good"], {name: each[1] for name, each in settings.items()})

    for name, (*_, wanted) in settings.items():
        assert found[name] >= wanted, name
        others = {Finding.UNDERFITS, Finding.STEPS_SHORT, Finding.NOISE_LIMITED, Finding.UNSTABLE} - wanted
        assert not found[name] & others - ({Finding.UNDERFITS} if name == "noisy" else set()), name


@pytest.mark.slow
def test_on_digits_families_differ_as_theory_says() -> None:
    plan = make_plan("digits", "minibatch,momentum,rmsprop,adam", trials=26, seeds=8)
    result = why(plan, run(plan, None, Local(2)), Local(2), 200.0)
    assert result.record.diagnosis is not None
    ratios = {(each.trait, each.kind): each.ratio for each in result.record.diagnosis.families}

    assert ratios[Trait.MOMENTUM, MeasurementKind.STABILITY].high < 1, "momentum has a higher stability limit"
    assert ratios[Trait.ADAPTIVE, GAIN].low > 1, "typical weights have a larger learning rate"
    assert ratios[Trait.ADAPTIVE, MeasurementKind.PRECONDITIONING].high < 0.75, "sharp directions have a smaller one"
    assert ratios[Trait.MOMENTUM, LOSS].high < 1
    minibatch = result.record.diagnosis.entries["minibatch"].measurements
    assert Finding.UNDERFITS in {measurement.finding for measurement in minibatch}
