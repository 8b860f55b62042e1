"""Simultaneous confidence intervals of contrasts: differences between an entry and others, or between groups."""

from .permutation_test import LEVEL, Floats, sign_flip_distribution, thresholds


def simultaneous_intervals(contrasts: Floats, level: float = LEVEL) -> tuple[Floats, Floats, Floats]:
    """Return the means of contrasts with max-T confidence intervals, which hold jointly for all of them.

    Args:
        contrasts: value of each contrast under each seed, `[contrasts, seeds]`. All contrasts share the seeds, so that
            they may depend on each other.
        level: probability that at least one interval misses its true mean.

    Returns:
        Means, lower ends and upper ends, `[contrasts]` each.

    Raises:
        ValueError: if there are fewer than six seeds, which have too few sign flips for a level of 0.05.

    References:
        Westfall & Young 1993, section 2.5. See `gradprix.stats.permutation_test`.

    Example:
        >>> import numpy as np
        >>> seeds = np.array([1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1, 0.9])
        >>> means, low, high = simultaneous_intervals(np.array([seeds, seeds - seeds.mean()]))
        >>> bool(low[0] > 0), bool(low[1] < 0 < high[1])
        (True, True)
    """
    if contrasts.shape[1] < 6:
        raise ValueError(f"{contrasts.shape[1]} seeds: simultaneous intervals need at least 6.")
    means, errors, _, largest = sign_flip_distribution(contrasts)
    half = thresholds(contrasts, largest, (level,))[0] * errors
    return means, means - half, means + half
