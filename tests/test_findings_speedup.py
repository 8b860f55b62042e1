"""Findings about speed-ups and optimizers without a learning rate, and the runs that they share."""

import sys
from dataclasses import replace
from math import exp
from pathlib import Path

import numpy as np
import pytest

from gradprix.race import ENTRIES
from gradprix.tasks import digits

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from findings import learning_rate_free, small_tasks, speedup

SHARES = np.array(speedup.SHARES)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.4, 3.0])
def test_the_speedup_of_a_power_law_is_its_factor(factor: float) -> None:
    faster, slower = (factor * SHARES) ** -0.5, SHARES**-0.5
    assert exp(speedup.log_speedup(faster, slower)) == pytest.approx(factor, rel=0.02)
    assert speedup.log_speedup(slower, faster) == pytest.approx(-speedup.log_speedup(faster, slower))


def test_more_than_the_smallest_share_cannot_be_told() -> None:
    assert exp(speedup.log_speedup((9 * SHARES) ** -0.5, SHARES**-0.5)) == pytest.approx(1 / SHARES[0])


def test_a_diverged_run_does_not_reach_the_loss() -> None:
    assert exp(speedup.needed_share(np.array([np.inf, np.inf, 1.0, 0.9, 0.8]), 1.5)) == pytest.approx(SHARES[2])


def test_speedups_have_intervals_over_seeds() -> None:
    noise = np.random.default_rng(0).normal(1, 0.01, (len(SHARES), 8))
    table = dict.fromkeys(("digits", "tailed"), SHARES[:, None] ** (-0.5) * noise)
    gains = speedup.speedups({name: each * 2**-0.25 for name, each in table.items()}, table)
    assert set(gains) == {"digits", "tailed", "mean"}
    for m in gains.values():
        assert m.ci95[0] < m.effect < m.ci95[1]
        assert m.effect == pytest.approx(2**0.5, rel=0.1)
        assert m.n == 8


def test_runs_come_back_by_arm_and_seed_whatever_their_stack() -> None:
    task = digits.change(epochs=1)
    arms = [(ENTRIES["adam"], 1e-2), (replace(ENTRIES["adam"], name="slow", schedule="constant"), 1e-5)]
    fast, slow = small_tasks.train(task, arms, 2)
    assert all(a.valid_loss < b.valid_loss - 0.1 for a, b in zip(fast, slow, strict=True))
    assert (small_tasks.lead_in_margins(task, fast, slow) > 0).all()
    assert fast[0].valid_loss != fast[1].valid_loss
    [tuned] = small_tasks.train(task, arms[:1], 2, is_final=False)
    assert tuned[0].test_metric is None
    assert tuned[0].valid_loss not in [outcome.valid_loss for outcome in fast]


def test_tuning_goes_beyond_the_search_space_until_the_best_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    best = {"low": 1e-7, "inside": 1e-3, "high": 3.0, "diverging": 1e-3}

    def losses(task: object, arms: list[small_tasks.Arm], quick: bool) -> list[float]:
        distances = {(entry.name, lr): abs(np.log(lr / best[entry.name])) for entry, lr in arms}
        return [np.inf if entry.name == "diverging" else distances[entry.name, lr] for entry, lr in arms]

    monkeypatch.setattr(small_tasks, "tuning_losses", losses)
    entries = [replace(ENTRIES["adam"], name=name) for name in best]
    tuned = {entry.name: lr for _, (entry, lr) in small_tasks.tune(digits, entries, False)}
    assert tuned["inside"] == pytest.approx(1e-3)
    assert tuned["high"] == pytest.approx(best["high"], rel=0.3)
    assert tuned["low"] == pytest.approx(1e-6, rel=0.3), "16 learning rates are tried, and no more"


def test_a_share_of_the_examples_is_a_shorter_run() -> None:
    task, arm = digits.change(epochs=4), (ENTRIES["adam"], 1e-3)
    whole, half = (small_tasks.train(task, [arm], 1, share=share)[0][0] for share in (1.0, 0.5))
    assert half.curve[-1][0] == pytest.approx(whole.curve[-1][0] / 2, rel=0.05)


def test_a_calibrated_learning_rate_does_not_see_its_own_task(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {"a": {0.1: 1.0, 0.2: 9.0, 0.3: 9.0}, "b": {0.1: 3.0, 0.2: 1.0, 0.3: 2.0}, "c": {0.1: 9, 0.2: 5, 0.3: 4}}
    monkeypatch.setattr(learning_rate_free, "TASKS", tuple(losses))
    monkeypatch.setattr(learning_rate_free, "baseline_losses", lambda name, quick: losses[name])
    assert [learning_rate_free.calibrated_rate(name, True) for name in losses] == [0.2, 0.1, 0.1]


@pytest.mark.parametrize(("lag", "mean"), [([1.0, 3.0], 2.0), ([10.0, 30.0], 5.0), ([-10.0, -30.0], -5.0)])
def test_the_mean_lag_on_a_task_is_clipped(lag: list[float], mean: float) -> None:
    assert learning_rate_free.clip_mean(np.array(lag)).mean() == pytest.approx(mean)
