"""Error spending over interim analyses.

Analysing a race, adding seeds and analysing it again inflates the error rate. A race therefore spends its family-wise
error rate of 5 % over a few planned interim analyses (Pocock 1977, doi:10.1093/biomet/64.2.191; Lan & DeMets 1983,
doi:10.1093/biomet/70.3.659). The share of an analysis is its level. The levels add up to the error rate, which is valid
whatever the correlation between analyses, and the confidence intervals of all analyses hold simultaneously.
"""

from collections.abc import Sequence
from itertools import pairwise

SPENDING_SCHEDULE = ((7, 0.035), (8, 0.01), (16, 0.025), (32, 0.04), (64, 0.05))
"""Pairs of (number of seeds, cumulative error that analyses with at most this number of seeds may spend).

The smallest p-value that n seeds can give is 2^-(n-1). Races with eight seeds or more start with a level of 0.01, above
2^-7. Races with six or seven seeds spend most of the error rate at once, because 2^-5 is above 0.01.
"""
ANALYSIS_SEEDS = (8, 16, 32, 64)
"""Numbers of seeds at which a race performs an interim analysis."""

InterimAnalysis = tuple[int, float]
"""Interim analysis that was performed: (number of seeds, level)."""


class NoAnalysisLeftError(ValueError):
    """Raised if past analyses have spent the whole error that is available at this number of seeds."""


def cumulative_level(seeds: int) -> float:
    """Return the error that analyses with at most `seeds` seeds may spend in total."""
    return next((share for most, share in SPENDING_SCHEDULE if seeds <= most), SPENDING_SCHEDULE[-1][1])


def planned_level(seeds: int) -> float:
    """Return the level of an analysis with `seeds` seeds, if all planned analyses with fewer seeds were performed."""
    earlier = [count for count in ANALYSIS_SEEDS[:-1] if count < seeds]
    return cumulative_level(seeds) - (cumulative_level(earlier[-1]) if earlier else 0.0)


def next_level(past: Sequence[InterimAnalysis], seeds: int) -> float:
    """Return the level of an interim analysis: the error that past analyses have left for it.

    Repeating a past analysis spends no further error: its original level is returned.

    Args:
        past: interim analyses that were already performed.
        seeds: number of seeds of this analysis.

    Raises:
        NoAnalysisLeftError: if no error is left for this number of seeds.
    """
    if seeds in (levels := dict(past)):
        return levels[seeds]
    spent = sum(level for _, level in past)
    if (left := cumulative_level(seeds) - spent) >= 1e-6:
        return left
    before = ", ".join(str(count) for count, _ in past)
    affordable = [most for most, share in SPENDING_SCHEDULE if most > seeds and share > spent + 1e-6]
    hint = (
        f"The next interim analysis is with {affordable[0]} seeds (--seeds {affordable[0]})"
        if affordable
        else "There is none after that"
    )
    raise NoAnalysisLeftError(
        f"this race was analysed with {before} seeds: another interim analysis with {seeds} would exceed its error "
        f"rate of 5 %. {hint}; or race anew in another folder (--out, --seed)."
    )


def remaining_analyses(seeds: int, spent: float, most: int) -> list[tuple[int, int, float]]:
    """Return the numbers of seeds at which a race may be analysed once more, and the levels of such analyses.

    Args:
        seeds: number of seeds of the last analysis.
        spent: part of the error rate of 5 % that the analyses so far have used up.
        most: maximum number of seeds.

    Returns:
        Tuples of (smallest number of seeds, largest number of seeds, level of an analysis in this range), ascending.
    """
    ends = [count for count, _ in SPENDING_SCHEDULE]
    edges = [seeds, *(end for end in ends if end > seeds)]
    spans = [(low + 1, high) for low, high in pairwise(edges)] + [(max(edges[-1], ends[-1]) + 1, most)]
    return [(low, high, left) for low, high in spans if (left := cumulative_level(high) - spent) > 1e-6]
