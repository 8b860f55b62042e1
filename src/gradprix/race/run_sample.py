"""Random samples of training runs, and the probability with which they contain a changed run."""

import math
import random
from collections.abc import Collection, Mapping

from gradprix.training.trial import Trial

SHARE, PROBABILITY = 0.05, 0.95
"""A sample contains at least one run of any 5 % of the runs with a probability of at least 95 %."""
SEVERAL_FINALS = 3
"""Number of final runs in every sample of the entries whose mean is checked."""


def detection_probability(total: int, drawn: int, share: float = SHARE) -> float:
    """Return the probability that a sample contains a changed run, if a share of the runs was changed.

    Args:
        total: number of runs.
        drawn: number of runs that are drawn at random, without replacement.
        share: share of the runs that were changed; at least one run.

    Example:
        >>> round(detection_probability(612, 55), 3)
        0.953
    """
    changed = max(1, math.ceil(share * total))
    return 1 - math.comb(total - changed, drawn) / math.comb(total, drawn)


def sample_size(total: int, share: float = SHARE, probability: float = PROBABILITY) -> int:
    """Return the smallest number of runs whose sample contains a changed run with a probability.

    Example:
        >>> sample_size(42), sample_size(612)
        (26, 55)
    """
    return next(n for n in range(1, total + 1) if detection_probability(total, n, share) >= probability)


def draw_sample(trials: Mapping[str, Trial], drawn: int, seed: int, several: Collection[str]) -> list[str]:
    """Draw runs at random, and add the runs that are in every sample.

    These are a run of each entry in each phase (tuning, final runs, runs with fewer examples), and more final runs of
    some entries.

    Args:
        trials: all trials by key.
        drawn: number of runs to draw at random.
        seed: seed of the draw.
        several: names of the entries with `SEVERAL_FINALS` final runs.

    Returns:
        Keys of the runs.
    """
    order = sorted(trials)
    random.Random(seed).shuffle(order)
    kinds: dict[tuple[str, bool, float], list[str]] = {}
    for key in order:
        kinds.setdefault((trials[key].entry_name, trials[key].evaluates_test, trials[key].epochs), []).append(key)
    longest = max(trial.epochs for trial in trials.values())
    always = [
        key
        for kind, keys in kinds.items()
        for key in keys[: SEVERAL_FINALS if kind[0] in several and kind[1:] == (True, longest) else 1]
    ]
    return list(dict.fromkeys([*order[:drawn], *always]))
