"""Findings about inclusion: search ranges of Adam that contain momentum's, and the rule for a reversal."""

import sys
from pathlib import Path

import numpy as np
import pytest

from gradprix.claims import Measured
from gradprix.race import ENTRIES

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from findings import inclusion
from findings.small_tasks import learning_rates


def test_adam_with_the_largest_eps_tries_the_steps_of_momentum() -> None:
    entry, eps = inclusion.adam(inclusion.EPSILONS[-1]), inclusion.EPSILONS[-1]
    beta1 = entry.rule_defaults["beta1"]
    steps = [lr * (1 - beta1) / eps for lr in learning_rates(entry, False)]
    np.testing.assert_allclose(steps, learning_rates(ENTRIES["momentum"], False))


@pytest.mark.parametrize(
    ("frozen", "free", "expected"),
    [
        ((-1.0, -1.5, -0.6), (0.0, -0.4, 0.4), True),
        ((-1.0, -1.5, -0.6), (-1.0, -1.5, -0.6), None),
        ((-1.0, -2.5, 0.5), (0.0, -0.4, 0.4), None),
        ((-0.3, -0.4, -0.2), (0.0, -0.4, 0.4), False),
        ((1.0, 0.5, 1.5), (1.0, 0.5, 1.5), False),
    ],
)
def test_a_reversal_needs_momentum_ahead_of_the_frozen_arm_alone(
    frozen: tuple[float, float, float], free: tuple[float, float, float], expected: bool | None
) -> None:
    leads = [Measured("", effect, (low, high), 16) for effect, low, high in (frozen, free)]
    assert inclusion.is_reversed(*leads) is expected
