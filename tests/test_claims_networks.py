"""Claims tested on networks and on the suite: each can come out either way, and says what it measured."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from gradprix import claims
from gradprix.claims import (
    network_batch_size,
    network_gradient_noise,
    network_outliers,
    network_training,
    suite_tasks,
)
from gradprix.claims.claim import Claim, Result
from gradprix.claims.estimates import Measured, proportion
from gradprix.claims.network_stability_edge import SHARES, first_rise, sharpness
from gradprix.claims.registry import Conclusion
from gradprix.race.evidence import Evidence, Machine, write_evidence
from gradprix.race.plan_description import MetricDescription
from gradprix.race.suite_record import PairSummary, RankReversal, TaskSummary
from gradprix.race.suite_selections import regrets_of, select, summarize_regrets
from gradprix.race.suite_summary import profile
from gradprix.stats.verdict import PairVerdict
from gradprix.tasks import digits
from gradprix.training.trainer import train_stack
from test_claims import unmeasured, verdict

SUITE = [claim for claim in claims.ALL.values() if claim.on == "suite"]


def about(effect: float, half: float = 0.01) -> Measured:
    return Measured("", effect, (effect - half, effect + half), 16)


def names(*keys: str) -> Callable[..., dict[str, Measured]]:
    return lambda *values: dict(zip(keys, values, strict=True))


EDGE = names("threshold", "edge")
SINGLE = names("examples", "seconds", "noise")
BALANCE = names("sgd", "gd", "noise")
NEGLECT = names("rare_80", "mislabelled_80")
STALL = names("adagrad_tuned", "adam_tuned", "adagrad_default", "adam_default")
EARLY = names("step_10", "own")
HALVES = names("momentum", "rmsprop")
SEVERAL = names("digits", "rare_digits")
PLANTED: list[tuple[str, dict[str, Measured], str]] = [
    ("large-updates-overshoot-on-a-network", EDGE(about(1.05), about(0.98)), "holds only if"),
    ("large-updates-overshoot-on-a-network", EDGE(about(2.0), about(0.98)), "does not hold"),
    ("large-updates-overshoot-on-a-network", EDGE(about(1.05), about(0.3)), "does not hold"),
    ("large-updates-overshoot-on-a-network", EDGE(about(1.2, 0.2), about(1.0)), "inconclusive"),
    ("one-sample-steps-are-faster-but-noisy", SINGLE(about(9.0), about(3.0), about(0.4)), "holds"),
    ("one-sample-steps-are-faster-but-noisy", SINGLE(about(9.0), about(0.5), about(0.4)), "holds only if"),
    ("one-sample-steps-are-faster-but-noisy", SINGLE(about(0.9), about(3.0), about(0.4)), "does not hold"),
    ("one-sample-steps-are-faster-but-noisy", SINGLE(about(9.0), about(3.0), about(0.0)), "does not hold"),
    ("one-sample-steps-are-faster-but-noisy", SINGLE(about(9.0), about(1.1, 0.5), about(0.4)), "inconclusive"),
    ("mini-batches-balance", BALANCE(about(3.0), about(2.0), about(32.0)), "holds"),
    ("mini-batches-balance", BALANCE(about(3.0), about(0.7), about(32.0)), "does not hold"),
    ("mini-batches-balance", BALANCE(about(1.0, 0.5), about(2.0), about(32.0)), "inconclusive"),
    ("gradient-noise-falls-as-one-over-batch", {"slope": about(-1.0)}, "holds"),
    ("gradient-noise-falls-as-one-over-batch", {"slope": about(-0.5)}, "does not hold"),
    ("gradient-noise-falls-as-one-over-batch", {"slope": about(-0.96, 0.1)}, "inconclusive"),
    ("momentum-neglects-atypical-samples", NEGLECT(about(1.5), about(1.3)), "holds"),
    ("momentum-neglects-atypical-samples", NEGLECT(about(1.5), about(1.0)), "holds only if"),
    ("momentum-neglects-atypical-samples", NEGLECT(about(1.5), about(1.12, 0.2)), "holds only if"),
    ("momentum-neglects-atypical-samples", NEGLECT(about(1.02), about(1.0)), "does not hold"),
    ("momentum-neglects-atypical-samples", NEGLECT(about(1.12, 0.2), about(1.0)), "inconclusive"),
    ("acceleration-cures-neglect", NEGLECT(about(0.8), about(0.9)), "holds"),
    ("acceleration-cures-neglect", NEGLECT(about(0.1), about(0.9)), "holds only if"),
    ("acceleration-cures-neglect", {"rare_80": about(0.1)}, "does not hold"),
    ("acceleration-cures-neglect", {"rare_80": about(0.5, 0.2)}, "inconclusive"),
    ("acceleration-cures-neglect", {"nothing": about(0)}, "inconclusive"),
    ("adagrad-stalls-on-a-network", STALL(about(1.1), about(9.0), about(1.1), about(9.0)), "holds"),
    ("adagrad-stalls-on-a-network", STALL(about(3.0), about(9.0), about(1.1), about(9.0)), "holds only if"),
    ("adagrad-stalls-on-a-network", STALL(about(1.1), about(9.0), about(3.0), about(9.0)), "holds only if"),
    ("adagrad-stalls-on-a-network", STALL(about(3.0), about(9.0), about(1.1), about(1.1)), "does not hold"),
    ("adagrad-stalls-on-a-network", STALL(about(2.0), about(9.0), about(1.1), about(9.0)), "inconclusive"),
    ("bias-correction-matters-only-early-on-a-network", EARLY(about(0.7), about(0.1)), "holds"),
    ("bias-correction-matters-only-early-on-a-network", EARLY(about(1.0), about(0.1)), "does not hold"),
    ("bias-correction-matters-only-early-on-a-network", EARLY(about(0.7), about(2.0)), "does not hold"),
    ("bias-correction-matters-only-early-on-a-network", EARLY(about(0.7), about(0.4, 0.3)), "inconclusive"),
    ("adam-beats-its-halves-on-digits", HALVES(about(0.9), about(1.0)), "holds"),
    ("adam-beats-its-halves-on-digits", HALVES(about(0.1), about(1.0)), "does not hold"),
    ("adam-beats-its-halves-on-digits", HALVES(about(0.5, 0.6), about(1.0)), "inconclusive"),
    ("adam-needs-no-tuning-on-digits", {"lost": about(0.1)}, "holds"),
    ("adam-needs-no-tuning-on-digits", {"lost": about(0.9)}, "does not hold"),
    ("adam-needs-no-tuning-on-digits", {"lost": about(0.4, 0.3)}, "inconclusive"),
    ("several-at-defaults-equal-one-tuned", SEVERAL(about(0.1), about(-0.1)), "holds"),
    ("several-at-defaults-equal-one-tuned", SEVERAL(about(0.1), about(-1.5)), "does not hold"),
    ("several-at-defaults-equal-one-tuned", SEVERAL(about(0.1), about(0.9, 0.5)), "inconclusive"),
]


@pytest.mark.parametrize(("name", "quantities", "expected"), PLANTED)
def test_a_verdict_follows_the_numbers(name: str, quantities: dict[str, Measured], expected: str) -> None:
    assert verdict(name, quantities) == expected
    decision = claims.ALL[name].decide(quantities)
    assert isinstance(decision, tuple) == (expected == "holds only if")


def test_every_decision_rule_can_go_either_way() -> None:
    for name in {name for name, *_ in PLANTED}:
        verdicts = {expected for each, _, expected in PLANTED if each == name}
        assert verdicts & {"holds", "holds only if"}, name
        assert {"does not hold", "inconclusive"} <= verdicts, name
    assert {name for name, *_ in PLANTED} == {claim.id for claim in claims.ALL.values() if claim.on == "networks"}


CHEAP = (
    "gradient-noise-falls-as-one-over-batch",
    "momentum-neglects-atypical-samples",
    "acceleration-cures-neglect",
    "adam-beats-its-halves-on-digits",
    "adam-needs-no-tuning-on-digits",
)


@pytest.mark.parametrize("name", CHEAP)
def test_a_quick_run_finds_something(name: str) -> None:
    finding = claims.ALL[name].run(True)
    assert finding.verdict in claims.VERDICTS
    first = finding.measured[0]
    assert first.ci95[0] < first.effect < first.ci95[1]
    assert first.n >= 3
    assert all(math.isfinite(m.effect) and m.what for m in finding.measured)
    assert unmeasured(Result(claims.ALL[name], finding).to_dict()) == []


def test_training_step_by_step_is_that_of_a_race() -> None:
    task = digits.change(epochs=2)
    trials = [network_training.make_trial(task, "adam", 1e-2, seed) for seed in (1, 2)]
    training = network_training.Training(task, trials)
    for _ in training.steps():
        pass
    raced = train_stack(task, trials)
    assert training.metrics(training.stack.data.test) == [outcome.test_metric for outcome in raced]
    assert training.losses(training.stack.data.test).mean(1).tolist() == pytest.approx([o.test_loss for o in raced])


def test_rates_are_tuned_on_seeds_of_their_own() -> None:
    assert not set(network_training.seeds(False, 300, network_training.TUNING)) & set(
        network_training.seeds(False, 300)
    )
    learning_rates = network_training.tuned(digits.change(epochs=2), ("adam",), True)
    assert 1e-3 < learning_rates["adam"] < 1e-1


def test_the_sharpness_is_the_largest_curvature() -> None:
    task = network_training.CONSTANT.change(epochs=2, model=lambda: torch.nn.Linear(64, 10, bias=False))
    training = network_training.Training(task, [network_training.make_trial(task, "gd", 0.1, seed) for seed in (1, 2)])
    next(training.steps())
    largest, _ = sharpness(training)
    inputs, targets = training.stack.data.load(training.stack.data.train)
    for row in range(2):
        weights = training.weights(row)["weight"]
        loss = lambda w, row=row: task.loss(inputs[row] @ w.T, targets[row])  # noqa: E731
        curvature = torch.autograd.functional.hessian(loss, weights).reshape(640, 640)
        assert float(largest[row]) == pytest.approx(float(torch.linalg.eigvalsh(curvature)[-1]), rel=1e-2)


def test_first_rises_and_levels() -> None:
    at = SHARES.index(1.0)
    assert first_rise([i >= at for i in range(len(SHARES))]) == pytest.approx(math.sqrt(0.95))
    assert first_rise([False] * len(SHARES)) == SHARES[-1]
    every = np.array([1.0, 0.9, 0.5, 0.3, 0.15])
    same = network_outliers.interpolate(every, np.log(every))
    assert same == pytest.approx(np.log(network_outliers.LEVELS)), "on the curve itself it is the levels"
    assert network_outliers.interpolate(every, np.log(2 * every)) == pytest.approx([x + math.log(2) for x in same])


def test_the_law_of_noise_is_read_off_a_lawful_one() -> None:
    lawful = {size: 3 / size * (1000 - size) / 999 for size in (1, 8, 64, 512)}
    assert network_gradient_noise.log_log_slope(lawful, 1000) == pytest.approx(-1)
    assert network_gradient_noise.log_log_slope(
        {size: size**-0.5 * (1000 - size) / 999 for size in lawful}, 1000
    ) == pytest.approx(-0.5)


def test_times_add_what_is_unsure_of_passes_and_of_seconds() -> None:
    passes, pace = np.full(4, 10.0), np.zeros(3)
    sure = network_batch_size.duration_ratio(passes, 2 * passes, pace, pace)
    assert sure.effect == pytest.approx(2)
    assert sure.ci95 == pytest.approx((2, 2))
    slower = network_batch_size.duration_ratio(passes, 2 * passes, pace + math.log(8), pace)
    assert slower.effect == pytest.approx(0.25)
    unsure = network_batch_size.duration_ratio(passes, 2 * passes, pace, np.array([-0.1, 0, 0.1]))
    assert unsure.ci95[0] < 2 < unsure.ci95[1]


# The suite.


def tasks(regrets: dict[str, list[float]], trivial: float = 0.1) -> Evidence:
    """A suite with these regrets in margins of 0.01, by entry, one a task. The first entry wins against all others."""
    first, *others = regrets
    metric = MetricDescription(name="accuracy", higher_is_better=True, margin=0.01, relative=False, percent=True)
    wins = [
        PairSummary(a=first, b=other, difference=0.1, ci95=(0.0, 0.2), verdict=PairVerdict.WINS) for other in others
    ]
    races = {
        f"task {i}": TaskSummary(
            metric=metric,
            chance_level=trivial,
            about="",
            margin=0.01,
            means={entry: 0.9 - 0.01 * each[i] for entry, each in regrets.items()},
            regrets={entry: each[i] for entry, each in regrets.items()},
            leaders=tuple(entry for entry, each in regrets.items() if each[i] == 0),
            too_variable=(),
            recommended=first,
            pairs=tuple(wins),
            learning_rates={},
            tolerances={},
            at_edge=(),
            diverged=dict.fromkeys(regrets, 0),
            trials=26,
            seeds=8,
            seconds=1.0,
        )
        for i in range(len(regrets[first]))
    }
    each = {entry: summarize_regrets(regrets_of(entry, races)) for entry in regrets}
    return Evidence(
        command="",
        machine=Machine(cores=2, cpu="", system=""),
        versions={},
        seconds=1.0,
        entries=tuple(regrets),
        tasks=races,
        profile=profile(regrets),
        regrets=each,
        recommendation=each[first],
        selections=select(races),
        left_out=(),
        reversals=(),
        defaults={"adam": dict.fromkeys(races, True)},
    )


BEHIND = [2.0, 3.0, 2.5, 2.0, 90.0]
CLOSE = [0.1, 0.0, 0.2, 0.1, 0.0]
BEST = [0.0] * 5


def on_suite(monkeypatch: pytest.MonkeyPatch, name: str, suite: Evidence) -> Conclusion:
    monkeypatch.setattr(suite_tasks, "load_suite", lambda: suite)
    return claims.ALL[name].run()


def test_better_over_tasks_is_by_margins_and_no_task_decides_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lead = suite_tasks.lead(tasks({"adam": BEST, "momentum": BEHIND}), "adam", "momentum")
    assert lead.effect == pytest.approx(2.9), "the last counts as five"
    assert lead.n == 5
    one = suite_tasks.lead(tasks({"adam": BEST, "momentum": [0, 0, 0, 0, 1000]}), "adam", "momentum")
    assert one.ci95[0] < 0
    over = tasks({"adam": BEST, "momentum": BEHIND, "rmsprop": BEHIND})
    better = on_suite(monkeypatch, "adam-beats-its-halves", over)
    assert better.verdict == "holds"
    assert "adam wins against momentum on 5 of 5 tasks" in better.says
    close = tasks({"adam": BEST, "momentum": BEHIND, "rmsprop": CLOSE})
    finding = on_suite(monkeypatch, "adam-beats-its-halves", close)
    assert finding.verdict == "does not hold"
    assert finding.measured[0].effect == pytest.approx(0.08), "the one that is harder to beat decides"
    assert [m.effect for m in finding.measured[1:3]] == [5, 0], "won and lost"


@pytest.mark.parametrize(
    ("adam", "adamax", "nadam", "expected"),
    [
        (BEHIND, BEST, BEST, ("holds", "")),
        (BEHIND, BEHIND, BEST, ("holds only if", "it is nadam")),
        (BEST, BEHIND, CLOSE, ("does not hold", "")),
        ([0, 4, 0, 3, 0], BEST, BEST, ("inconclusive", "")),
    ],
)
def test_one_of_two_may_improve(
    monkeypatch: pytest.MonkeyPatch,
    adam: list[float],
    adamax: list[float],
    nadam: list[float],
    expected: tuple[str, str],
) -> None:
    suite = tasks({"adam": adam, "adamax": adamax, "nadam": nadam})
    finding = on_suite(monkeypatch, "adamax-and-nadam-improve-on-adam", suite)
    assert (finding.verdict, finding.condition) == expected


def test_defaults_rank_reversals_and_chance_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tasks({"adam": BEST, "momentum": BEHIND})
    assert on_suite(monkeypatch, "adam-needs-no-tuning", suite).verdict == "holds"
    suite = replace(suite, defaults={"adam": {f"task {i}": i < 3 for i in range(10)}})
    bad = on_suite(monkeypatch, "adam-needs-no-tuning", suite)
    assert bad.verdict == "does not hold"
    assert "task 9" in bad.says
    suite = replace(suite, defaults={"adam": {f"task {i}": i < 8 for i in range(10)}})
    assert on_suite(monkeypatch, "adam-needs-no-tuning", suite).verdict == "inconclusive"

    name = "best-optimizer-depends-on-the-problem"
    assert on_suite(monkeypatch, name, suite).verdict == "does not hold", "adam leads on all"
    reversal = RankReversal("adam", "momentum", ("task 0",), ("task 1",))
    assert on_suite(monkeypatch, name, replace(suite, reversals=(reversal,))).verdict == "holds"
    single = replace(reversal, weak_task="task 1")  # rests on a race that was not repeated
    assert on_suite(monkeypatch, name, replace(suite, reversals=(single,))).verdict == "does not hold"
    assert on_suite(monkeypatch, name, tasks({"adam": CLOSE, "momentum": BEHIND})).verdict == "inconclusive"

    name = "every-optimizer-learns-every-task"
    assert on_suite(monkeypatch, name, tasks({"adam": BEST, "momentum": CLOSE})).verdict == "holds"
    failed = on_suite(monkeypatch, name, tasks({"adam": BEST, "momentum": BEHIND}))
    assert failed.verdict == "does not hold"
    assert "momentum on task 4" in failed.says


def test_shares_have_exact_intervals() -> None:
    assert proportion(10, 10).ci95 == pytest.approx((0.6915, 1), abs=1e-4)
    assert proportion(0, 10).ci95 == pytest.approx((0, 0.3085), abs=1e-4)
    assert proportion(5, 10).ci95 == pytest.approx((0.1871, 0.8129), abs=1e-4)


def test_without_a_suite_it_is_said_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"python studies/suite\.py"):
        suite_tasks.load_suite(tmp_path / "none.json")
    few = tmp_path / "few.json"
    write_evidence(tasks({"adam": [0.0, 0.0], "momentum": [1.0, 1.0]}), few)
    with pytest.raises(ValueError, match="has 2 tasks"):
        suite_tasks.load_suite(few)
    write_evidence(tasks({"adam": BEST}), few)
    assert len(suite_tasks.load_suite(few).tasks) == 5


def test_a_lead_is_over_the_tasks_of_both() -> None:
    suite = tasks({"adam": BEST, "soap": BEHIND})
    races = dict(suite.tasks)
    races["task 4"] = replace(races["task 4"], regrets={"adam": 0.0})
    lead = suite_tasks.lead(replace(suite, tasks=races), "adam", "soap")
    assert (lead.n, lead.effect) == (4, pytest.approx(2.375))


@pytest.mark.parametrize("claim", SUITE, ids=lambda claim: claim.id)
def test_claims_about_many_tasks_read_the_suite(claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = ("adam", "momentum", "rmsprop", "adadelta", "adamax", "nadam")
    suite = tasks({entry: BEST if entry == "adam" else BEHIND for entry in entries})
    finding = on_suite(monkeypatch, claim.id, suite)
    assert finding.verdict in claims.VERDICTS
    assert finding.measured[0].ci95[0] <= finding.measured[0].effect <= finding.measured[0].ci95[1]
    assert all(m.what for m in finding.measured)
    says = re.sub(r"task \d", "task", finding.says)
    assert unmeasured({**Result(claim, finding).to_dict(), "says": says}) == []
