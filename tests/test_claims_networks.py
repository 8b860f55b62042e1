"""Claims tested on networks and on the suite: each can come out either way, and says what it measured."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradprix.claims import _net_batches as batches
from gradprix.claims import _net_early as early
from gradprix.claims import _net_edge as edge
from gradprix.claims import _net_noise as noise
from gradprix.claims import _net_outliers as outliers
from gradprix.claims import _net_stall as stall
from gradprix.claims import _net_tuned as tuned
from gradprix.claims import _network_experiment as lane
from gradprix.claims import _suite_tasks as suite
from gradprix.claims._claim import Claim, Finding, Measured, Result
from gradprix.tasks import digits
from gradprix.training.trainer import train_stack
from test_claims import unmeasured

VERDICTS = ("holds", "holds only if", "does not hold", "not settled")
MODULES = (batches, early, edge, noise, outliers, stall, tuned, suite)
CLAIMS = {claim.id: claim for module in MODULES for claim in module.CLAIMS}


def about(effect: float, half: float = 0.01) -> Measured:
    """Something measured."""
    return Measured("made up", effect, (effect - half, effect + half), 16)


PLANTED: list[tuple[Callable[..., Finding], tuple[Any, ...], str]] = [
    (edge.overshoots, (about(1.05), about(0.98), about(3.0)), "holds only if"),
    (edge.overshoots, (about(2.0), about(0.98), about(3.0)), "does not hold"),
    (edge.overshoots, (about(1.05), about(0.3), about(3.0)), "does not hold"),
    (edge.overshoots, (about(1.2, 0.2), about(1.0), about(3.0)), "not settled"),
    (batches.faster_but_noisy, (about(9.0), about(3.0), about(0.4)), "holds"),
    (batches.faster_but_noisy, (about(9.0), about(0.5), about(0.4)), "holds only if"),
    (batches.faster_but_noisy, (about(0.9), about(3.0), about(0.4)), "does not hold"),
    (batches.faster_but_noisy, (about(9.0), about(3.0), about(0.0)), "does not hold"),
    (batches.faster_but_noisy, (about(9.0), about(1.1, 0.5), about(0.4)), "not settled"),
    (batches.balances, (about(3.0), about(2.0), about(32.0)), "holds"),
    (batches.balances, (about(3.0), about(0.7), about(32.0)), "does not hold"),
    (batches.balances, (about(1.0, 0.5), about(2.0), about(32.0)), "not settled"),
    (noise.falls, (about(-1.0), about(0.3)), "holds"),
    (noise.falls, (about(-0.5), about(0.3)), "does not hold"),
    (noise.falls, (about(-0.96, 0.1), about(0.3)), "not settled"),
    (outliers.neglected, ({("rare", 0.8): about(1.5), ("mislabelled", 0.8): about(1.3)}, ""), "holds"),
    (outliers.neglected, ({("rare", 0.8): about(1.5), ("mislabelled", 0.8): about(1.0)}, ""), "holds only if"),
    (outliers.neglected, ({("rare", 0.8): about(1.02), ("mislabelled", 0.8): about(1.0)}, ""), "does not hold"),
    (outliers.neglected, ({("rare", 0.8): about(1.12, 0.2), ("mislabelled", 0.8): about(1.0)}, ""), "not settled"),
    (outliers.cured, ({("rare", 0.8): about(0.8), ("mislabelled", 0.8): about(0.9)}, ""), "holds"),
    (outliers.cured, ({("rare", 0.8): about(0.1), ("mislabelled", 0.8): about(0.9)}, ""), "holds only if"),
    (outliers.cured, ({("rare", 0.8): about(0.1)}, ""), "does not hold"),
    (outliers.cured, ({("rare", 0.8): about(0.5, 0.2)}, ""), "not settled"),
    (outliers.cured, ({}, ""), "not settled"),
    (stall.stalls, ((about(1.1), about(9.0)), (about(1.1), about(9.0)), about(0.3)), "holds"),
    (stall.stalls, ((about(3.0), about(9.0)), (about(1.1), about(9.0)), about(0.3)), "holds only if"),
    (stall.stalls, ((about(1.1), about(9.0)), (about(3.0), about(9.0)), about(0.3)), "holds only if"),
    (stall.stalls, ((about(3.0), about(9.0)), (about(1.1), about(1.1)), about(0.3)), "does not hold"),
    (stall.stalls, ((about(2.0), about(9.0)), (about(1.1), about(9.0)), about(0.3)), "not settled"),
    (early.only_early, ({10: about(0.7), 300: about(1.0)}, about(0.1), about(0.2)), "holds"),
    (early.only_early, ({10: about(1.0), 300: about(1.0)}, about(0.1), about(0.2)), "does not hold"),
    (early.only_early, ({10: about(0.7), 300: about(1.0)}, about(2.0), about(0.2)), "does not hold"),
    (early.only_early, ({10: about(0.7), 300: about(1.0)}, about(0.4, 0.3), about(0.2)), "not settled"),
    (tuned.all_beaten, ([about(0.9), about(1.0)], 0.5, ""), "holds"),
    (tuned.all_beaten, ([about(0.1), about(1.0)], 0.5, ""), "does not hold"),
    (tuned.all_beaten, ([about(0.5, 0.6), about(1.0)], 0.5, ""), "not settled"),
    (tuned.no_worse, (about(0.1), 0.5, ""), "holds"),
    (tuned.no_worse, (about(0.9), 0.5, ""), "does not hold"),
    (tuned.no_worse, (about(0.4, 0.3), 0.5, ""), "not settled"),
    (tuned.worth_as_much, ([about(0.1), about(-0.1)], [0.5, 1.0], ""), "holds"),
    (tuned.worth_as_much, ([about(0.1), about(-1.5)], [0.5, 1.0], ""), "does not hold"),
    (tuned.worth_as_much, ([about(0.1), about(0.9, 0.5)], [0.5, 1.0], ""), "not settled"),
]


@pytest.mark.parametrize(("judged", "given", "verdict"), PLANTED)
def test_a_verdict_follows_the_numbers(judged: Callable[..., Finding], given: tuple[Any, ...], verdict: str) -> None:
    finding = judged(*given)
    assert finding.verdict == verdict
    assert bool(finding.condition) == (verdict == "holds only if")
    known = {x for part in given for x in flat(part) if isinstance(x, Measured)}
    assert set(finding.measured) <= known | {outliers.NOTHING}


def flat(part: Any) -> list[Any]:
    if isinstance(part, dict):
        return list(part.values())
    return list(part) if isinstance(part, tuple | list) else [part]


def test_every_rule_can_say_yes_and_no() -> None:
    told = {judged: {verdict for each, _, verdict in PLANTED if each is judged} for judged, *_ in PLANTED}
    for judged, verdicts in told.items():
        assert verdicts & {"holds", "holds only if"}, judged
        assert {"does not hold", "not settled"} <= verdicts, judged


def test_every_claim_fixes_what_decides() -> None:
    assert len(CLAIMS) == sum(len(module.CLAIMS) for module in MODULES), "an id for each"
    for module in MODULES:
        assert module.ALPHA == 0.05
    for claim in CLAIMS.values():
        assert claim.account.endswith(".")
        assert claim.prediction.endswith(".")
        assert "olds" in claim.decides
        assert "oes not hold" in claim.decides or "else" in claim.decides


CHEAP = (
    "gradient-noise-falls-as-one-over-batch",
    "momentum-neglects-atypical-samples",
    "acceleration-cures-neglect",
    "adam-beats-its-halves-on-digits",
    "adam-needs-no-tuning-on-digits",
)


@pytest.mark.parametrize("name", CHEAP)
def test_a_quick_run_finds_something(name: str) -> None:
    finding = CLAIMS[name].run(True)
    assert finding.verdict in VERDICTS
    first = finding.measured[0]
    assert first.ci95[0] < first.effect < first.ci95[1]
    assert first.n >= 3
    assert all(math.isfinite(found.effect) for found in finding.measured)
    assert unmeasured(Result(CLAIMS[name], finding).to_dict()) == []


def test_training_step_by_step_is_that_of_a_race() -> None:
    task = digits.change(epochs=2)
    trials = [lane.trial(task, "adam", 1e-2, seed) for seed in (1, 2)]
    training = lane.Training(task, trials)
    for _ in training.steps():
        pass
    raced = train_stack(task, trials)
    assert training.metrics(training.trainer.test) == [outcome.test_metric for outcome in raced]
    assert training.losses(training.trainer.test).mean(1).tolist() == pytest.approx([o.test_loss for o in raced])


def test_rates_are_tuned_on_seeds_of_their_own() -> None:
    assert not set(lane.seeds(False, 300, lane.TUNING)) & set(lane.seeds(False, 300))
    found = lane.tuned(digits.change(epochs=2), ("adam",), True)
    assert 1e-3 < found["adam"] < 1e-1


def test_the_sharpness_is_the_largest_curvature() -> None:
    task = lane.STEADY.change(epochs=2, model=lambda: torch.nn.Linear(64, 10, bias=False))
    training = lane.Training(task, [lane.trial(task, "gd", 0.1, seed) for seed in (1, 2)])
    next(training.steps())
    found, _ = edge.sharpest(training)
    inputs, targets = training.trainer.batch(training.trainer.train)
    for row in range(2):
        weights = training.weights(row)["weight"]
        loss = lambda w, row=row: task.loss(inputs[row] @ w.T, targets[row])  # noqa: E731
        curvature = torch.autograd.functional.hessian(loss, weights).reshape(640, 640)
        assert float(found[row]) == pytest.approx(float(torch.linalg.eigvalsh(curvature)[-1]), rel=1e-2)


def test_first_rises_and_levels() -> None:
    at = edge.SHARES.index(1.0)
    assert edge.first_rise([i >= at for i in range(len(edge.SHARES))]) == pytest.approx(math.sqrt(0.95))
    assert edge.first_rise([False] * len(edge.SHARES)) == edge.SHARES[-1]
    every = np.array([1.0, 0.9, 0.5, 0.3, 0.15])
    same = outliers.at_levels(every, np.log(every))
    assert same == pytest.approx(np.log(outliers.LEVELS)), "on the curve itself it is the levels"
    assert outliers.at_levels(every, np.log(2 * every)) == pytest.approx([x + math.log(2) for x in same])


def test_the_law_of_noise_is_read_off_a_lawful_one() -> None:
    lawful = {size: 3 / size * (1000 - size) / 999 for size in (1, 8, 64, 512)}
    assert noise.slope(lawful, 1000) == pytest.approx(-1)
    assert noise.slope({size: size**-0.5 * (1000 - size) / 999 for size in lawful}, 1000) == pytest.approx(-0.5)


def test_times_add_what_is_unsure_of_passes_and_of_seconds() -> None:
    passes, pace = np.full(4, 10.0), np.zeros(3)
    sure = batches.quicker("", passes, 2 * passes, pace, pace)
    assert sure.effect == pytest.approx(2)
    assert sure.ci95 == pytest.approx((2, 2))
    slower = batches.quicker("", passes, 2 * passes, pace + math.log(8), pace)
    assert slower.effect == pytest.approx(0.25)
    unsure = batches.quicker("", passes, 2 * passes, pace, np.array([-0.1, 0, 0.1]))
    assert unsure.ci95[0] < 2 < unsure.ci95[1]


# The suite.


def tasks(regrets: dict[str, list[float]], trivial: float = 0.1, wins: str = "a") -> dict[str, Any]:
    """As much of a suite as claims read; regrets in margins of 0.01, by entry, one a task."""
    names = [f"task {i}" for i in range(len(next(iter(regrets.values()))))]
    first, *others = regrets
    return {
        "entries": list(regrets),
        "tasks": {
            name: {
                "metric": {"higher_is_better": True},
                "trivial": trivial,
                "margin": 0.01,
                "means": {entry: 0.9 - 0.01 * each[i] for entry, each in regrets.items()},
                "regrets": {entry: each[i] for entry, each in regrets.items()},
                "leads": [entry for entry, each in regrets.items() if each[i] == 0],
                "diverged": dict.fromkeys(regrets, 0),
                "pairs": [{"a": first, "b": other, "words": "wins"} for other in others],
            }
            for i, name in enumerate(names)
        },
        "crossings": [],
        "defaults": {"adam": dict.fromkeys(names, True)},
    }


BEHIND = [2.0, 3.0, 2.5, 2.0, 90.0]
CLOSE = [0.1, 0.0, 0.2, 0.1, 0.0]
BEST = [0.0] * 5


def test_better_over_tasks_is_by_margins_and_no_task_decides_alone() -> None:
    found = suite.lead(tasks({"adam": BEST, "momentum": BEHIND}), "adam", "momentum")
    assert found.effect == pytest.approx(2.9), "the last counts as five"
    assert found.n == 5
    one = suite.lead(tasks({"adam": BEST, "momentum": [0, 0, 0, 0, 1000]}), "adam", "momentum")
    assert one.ci95[0] < 0
    halves = ("momentum", "rmsprop")
    over = tasks({"adam": BEST, "momentum": BEHIND, "rmsprop": BEHIND})
    assert suite.beats_all(over, "adam", halves).verdict == "holds"
    assert "adam wins against momentum on 5 of 5 tasks" in suite.beats_all(over, "adam", halves).says
    close = suite.beats_all(tasks({"adam": BEST, "momentum": BEHIND, "rmsprop": CLOSE}), "adam", halves)
    assert close.verdict == "does not hold"
    assert close.measured[0].effect == pytest.approx(0.08), "the one that is harder to beat decides"
    assert [found.effect for found in close.measured[1:3]] == [5, 0], "won and lost"


def test_one_of_two_may_improve() -> None:
    two = ("adamax", "nadam")
    assert suite.improves(tasks({"adam": BEHIND, "adamax": BEST, "nadam": BEST}), two, "adam").verdict == "holds"
    half = suite.improves(tasks({"adam": BEHIND, "adamax": BEHIND, "nadam": BEST}), two, "adam")
    assert (half.verdict, half.condition) == ("holds only if", "it is nadam")
    neither = suite.improves(tasks({"adam": BEST, "adamax": BEHIND, "nadam": CLOSE}), two, "adam")
    assert neither.verdict == "does not hold"
    unsure = suite.improves(tasks({"adam": [0, 4, 0, 3, 0], "adamax": BEST, "nadam": BEST}), two, "adam")
    assert unsure.verdict == "not settled"


def test_defaults_crossings_and_trivial_answers() -> None:
    found = tasks({"adam": BEST, "momentum": BEHIND})
    assert suite.needs_no_tuning(found).verdict == "holds"
    found["defaults"]["adam"] = {f"task {i}": i < 3 for i in range(10)}
    bad = suite.needs_no_tuning(found)
    assert bad.verdict == "does not hold"
    assert "task 9" in bad.says
    found["defaults"]["adam"] = {f"task {i}": i < 8 for i in range(10)}
    assert suite.needs_no_tuning(found).verdict == "not settled"

    assert suite.depends_on_the_problem(found).verdict == "does not hold", "adam leads on all"
    found["crossings"] = [{"a": "adam", "b": "momentum", "a_wins": ["task 0"], "b_wins": ["task 1"]}]
    assert suite.depends_on_the_problem(found).verdict == "holds"
    assert suite.depends_on_the_problem(tasks({"adam": CLOSE, "momentum": BEHIND})).verdict == "not settled"

    assert suite.all_learn(tasks({"adam": BEST, "momentum": CLOSE})).verdict == "holds"
    failed = suite.all_learn(tasks({"adam": BEST, "momentum": BEHIND}))
    assert failed.verdict == "does not hold"
    assert "momentum on task 4" in failed.says


def test_shares_have_exact_intervals() -> None:
    assert suite.share("", 10, 10).ci95 == pytest.approx((0.6915, 1), abs=1e-4)
    assert suite.share("", 0, 10).ci95 == pytest.approx((0, 0.3085), abs=1e-4)
    assert suite.share("", 5, 10).ci95 == pytest.approx((0.1871, 0.8129), abs=1e-4)


def test_without_a_suite_it_is_said_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"python studies/suite\.py"):
        suite.evidence(tmp_path / "none.json")
    few = tmp_path / "few.json"
    few.write_text(json.dumps(tasks({"adam": [0.0, 0.0], "momentum": [1.0, 1.0]})))
    with pytest.raises(ValueError, match="has 2 tasks"):
        suite.evidence(few)
    few.write_text(json.dumps(tasks({"adam": BEST})))
    assert len(suite.evidence(few)["tasks"]) == 5


@pytest.mark.parametrize("claim", suite.CLAIMS, ids=lambda claim: claim.id)
def test_claims_about_many_tasks_read_the_suite(claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = ("adam", "momentum", "rmsprop", "adadelta", "adamax", "nadam")
    made = tasks({entry: BEST if entry == "adam" else BEHIND for entry in entries})
    monkeypatch.setattr(suite, "evidence", lambda: made)
    finding = claim.run(False)
    assert finding.verdict in VERDICTS
    assert finding.measured[0].ci95[0] <= finding.measured[0].effect <= finding.measured[0].ci95[1]
    names = re.sub(r"task \d", "task", finding.says)
    assert unmeasured({**Result(claim, finding).to_dict(), "says": names}) == []
