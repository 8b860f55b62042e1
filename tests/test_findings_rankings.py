"""Findings about rankings: orders by single seeds and by halves of the seeds, and domination, on made-up races."""

import sys
from pathlib import Path

import numpy as np
import pytest

from records import make_record

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from findings import rankings

NOISE = np.random.default_rng(0).normal(0, 0.001, (4, 16))


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        ([1, 1, 1, 1], 0),
        ([2, 2, 2, -1], 1 / 4),
        ([3, 3, 3, 0], 1 / 8),
        ([1, -1], 1),
    ],
)
def test_orders_of_single_seeds_are_compared_with_the_other_seeds(difference: list[float], expected: float) -> None:
    assert rankings.wrong_orders(np.array(difference, dtype=float)) == pytest.approx(expected)


@pytest.mark.parametrize("higher", [True, False])
def test_reversed_orders_are_sorted_by_the_size_of_the_first_difference(higher: bool) -> None:
    clear, base = [0.9] * 16, 0.5 + NOISE[0]
    flipped = [*(base[:8] + 0.001 * np.array([3, -2] * 4)), *(base[8:] - 0.01)]  # slightly above, then below
    by_size = rankings.reversals(make_record({"a": clear, "b": list(base), "c": flipped}, higher_is_better=higher))
    assert by_size == {True: [True], False: [False, False]}


def dominated(beaten: int) -> dict:
    """Races on seven tasks in which `a` is the best, but on some tasks `b`."""
    shifts = [(0.8, 0.9) if i < beaten else (0.9, 0.8) for i in range(7)]
    return {
        f"task {i}": make_record({"a": a + NOISE[0], "b": b + NOISE[1], "c": 0.3 + NOISE[2]})
        for i, (a, b) in enumerate(shifts)
    }


@pytest.mark.parametrize(("beaten", "verdict"), [(0, "does not hold"), (2, "inconclusive"), (3, "holds")])
def test_domination_is_decided_by_tasks_with_another_winner(
    beaten: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rankings, "races", lambda: dominated(beaten))
    rankings.verdicts.cache_clear()
    m = rankings.measure_domination(True)
    rankings.verdicts.cache_clear()
    assert m["beaten"].effect == beaten
    assert m["where"].endswith("by b" if beaten else "")
    assert rankings.decide_domination(m) == verdict
