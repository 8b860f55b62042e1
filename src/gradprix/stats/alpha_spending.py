"""Error spending over interim analyses.

Looking at a verdict, adding seeds and looking again inflates the error rate. A race therefore spends its family-wise
error rate of 5 % over a few planned interim analyses (Pocock 1977, doi:10.1093/biomet/64.2.191; Lan & DeMets 1983,
doi:10.1093/biomet/70.3.659). The levels add up, which is valid whatever the correlation between analyses, and the
intervals of all analyses hold simultaneously.
"""

from collections.abc import Sequence
from itertools import pairwise

LOOKS = ((16, 0.035), (32, 0.045), (64, 0.05))
"""Pairs of (maximum number of seeds, error that may have been spent by then). The first error is above 2^-5, the
smallest p-value of six seeds."""

InterimAnalysis = tuple[int, float]
"""An interim analysis: (number of seeds, its level)."""


class NoAnalysisLeftError(ValueError):
    """No error is left for an interim analysis with this number of seeds."""


def cumulative_level(seeds: int) -> float:
    """Return the error that analyses with at most `seeds` seeds may spend in total."""
    return next((share for most, share in LOOKS if seeds <= most), LOOKS[-1][1])


def next_level(looks: Sequence[InterimAnalysis], seeds: int) -> float:
    """Return the level of an interim analysis, given the past ones. Repeating an analysis returns its level.

    Args:
        looks: past interim analyses.
        seeds: number of seeds of this analysis.

    Raises:
        NoAnalysisLeftError: if no error is left for this number of seeds.
    """
    for taken, given in looks:
        if taken == seeds:
            return given
    left = cumulative_level(seeds) - sum(given for _, given in looks)
    if left < 1e-6:
        before = ", ".join(str(taken) for taken, _ in looks)
        affordable = [most for most, share in LOOKS if share > sum(given for _, given in looks) + 1e-6]
        hint = (
            f"The next look is with {affordable[0]} seeds (--seeds {affordable[0]})"
            if affordable
            else "There is none after that"
        )
        raise NoAnalysisLeftError(
            f"this race was looked at with {before} seeds: another look with {seeds} would give chance one try too "
            f"many. {hint}; or race anew in another folder (--out, --seed)."
        )
    return left


def remaining_analyses(seeds: int, spent: float, most: int) -> list[tuple[int, int, float]]:
    """Return the remaining interim analyses as (fewest seeds, most seeds, level).

    Args:
        seeds: number of seeds analysed so far.
        spent: error spent so far.
        most: maximum number of seeds.
    """
    ends = [count for count, _ in LOOKS]
    edges = [seeds, *(end for end in ends if end > seeds)]
    spans = [(low + 1, high) for low, high in pairwise(edges)] + [(max(edges[-1], ends[-1]) + 1, most)]
    return [(low, high, left) for low, high in spans if (left := cumulative_level(high) - spent) > 1e-6]
