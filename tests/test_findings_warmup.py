"""Finding on warm-up: usable learning rates, and the schedule that is trained."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from findings import warmup


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [([0.9, 0.95, 0.9, 0.1], 4), ([0.9, 0.95, 0.1, 0.9], 8), ([0.95, 0.1, 0.1, 0.1], 1)],
)
def test_the_largest_usable_learning_rate_is_found(accuracy: list[float], expected: float) -> None:
    assert warmup.largest_usable([1, 2, 4, 8], np.array([accuracy]), 0.85) == pytest.approx([expected])


def test_a_seed_without_a_usable_learning_rate_is_an_error() -> None:
    with pytest.raises(AssertionError, match="usable"):
        warmup.largest_usable([1, 2], np.array([[0.1, 0.1]]), 0.85)


def test_the_learning_rate_rises_over_a_quarter_of_the_steps() -> None:
    factors = [warmup.warmup_factor(100, t) for t in (0, 12, 24, 25, 99)]
    assert factors == pytest.approx([0.04, 0.52, 1, 1, 1])


def test_warmed_and_other_runs_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(warmup.RATES, "sgd", (0.25, 0.5, 1.0, 1e6))
    cold, warm = (warmup.train("sgd", is_warmed, [7_000], quick=True) for is_warmed in (False, True))
    assert cold[0].shape == (1, 4)
    assert cold[0][0, 0] > 0.5 > cold[0][0, -1], "trains at a usual learning rate, and not at a huge one"
    assert not np.array_equal(cold, warm)
