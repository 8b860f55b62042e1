"""Runs repeated on another machine: how often noise makes a bundle differ, and how often a changed entry is found."""

from dataclasses import replace

import numpy as np
import pytest

from gradprix import rules
from gradprix.race.run_comparison import NoiseScale, compare_within_noise
from gradprix.training.trial import Outcome, Trial

MARGIN = 0.3
ADAM = Trial(rules.adam, rules.adam.values(lr=0.1), 0, 8, 2, "constant", True)


def is_different(rng: np.random.Generator, entries: int, seeds: int, repeated: int, shift: float) -> bool:
    """Compare final runs of a bundle with repetitions that end as other seeds do. One entry is shifted.

    The metric has a standard deviation of 1 between seeds, in any entry.
    """
    trials, stated, again, scales = {}, {}, {}, {}
    for number in range(entries):
        name, outcomes = f"entry{number}", []
        for seed, (one, other) in enumerate(rng.standard_normal((seeds, 2))):
            key = f"{name}-{seed}"
            stated[key] = Outcome([(8, one, one, 0.0)], 0.0, one + shift * (number == 0), None)
            outcomes.append(stated[key])
            if seed < repeated:
                trials[key] = replace(ADAM, entry=name, seed=seed)
                again[key] = Outcome([(8, other, other, 0.0)], 0.0, other, None)
        scales[name, ADAM.epochs] = NoiseScale.from_finals(outcomes, MARGIN)
    result = compare_within_noise(trials, stated, again, scales, True)
    return bool(result.different or result.shifted)


@pytest.mark.parametrize(
    ("entries", "seeds", "repeated", "shift", "low", "high"),
    [
        (10, 8, 3, 0.0, 0.0, 0.04),
        (10, 8, 8, 0.0, 0.0, 0.06),
        (17, 32, 3, 0.0, 0.0, 0.04),
        (10, 8, 3, 4.0, 0.5, 1.0),
        (17, 32, 3, 4.0, 0.8, 1.0),
        (10, 8, 3, 1.0, 0.0, 0.1),
        (10, 8, 8, 4.0, 0.95, 1.0),
        (17, 32, 32, 2.0, 0.95, 1.0),
    ],
)
def test_noise_and_shifts_make_a_bundle_differ_with_these_probabilities(
    entries: int, seeds: int, repeated: int, shift: float, low: float, high: float
) -> None:
    """The page on bundles states them in words."""
    rng, bundles = np.random.default_rng(0), 4_000 // seeds
    found = sum(is_different(rng, entries, seeds, repeated, shift) for _ in range(bundles))
    assert low <= found / bundles <= high
