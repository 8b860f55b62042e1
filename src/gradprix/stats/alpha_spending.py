"""Error spending over interim analyses.

Analysing a race, adding seeds and analysing it again inflates the error rate. A race therefore spends its family-wise
error rate of 5 % over a few planned interim analyses (Pocock 1977, doi:10.1093/biomet/64.2.191; Lan & DeMets 1983,
doi:10.1093/biomet/70.3.659). The levels add up, which is valid whatever the correlation between analyses, and the
intervals of all analyses hold simultaneously.
"""

from collections.abc import Sequence
from itertools import pairwise

SPENDING_SCHEDULE = ((7, 0.035), (8, 0.01), (16, 0.025), (32, 0.04), (64, 0.05))
"""Pairs of (maximum number of seeds, error that may have been spent by then). The first error of a longer race is above
2^-7, the smallest p-value of eight seeds. A race of six or seven seeds, whose smallest p-value is 2^-5, spends most of
the error at once."""
ANALYSIS_SEEDS = (8, 16, 32, 64)
"""Numbers of seeds after which a race is analysed."""

InterimAnalysis = tuple[int, float]
"""An interim analysis: (number of seeds, its level)."""


class NoAnalysisLeftError(ValueError):
    """No error is left for an interim analysis with this number of seeds."""


def cumulative_level(seeds: int) -> float:
    """Return the error that analyses with at most `seeds` seeds may spend in total."""
    return next((share for most, share in SPENDING_SCHEDULE if seeds <= most), SPENDING_SCHEDULE[-1][1])


def planned_level(seeds: int) -> float:
    """Return the level of an analysis with `seeds` seeds after all planned earlier ones."""
    earlier = [count for count in ANALYSIS_SEEDS[:-1] if count < seeds]
    return cumulative_level(seeds) - (cumulative_level(earlier[-1]) if earlier else 0.0)


def next_level(past: Sequence[InterimAnalysis], seeds: int) -> float:
    """Return the level of an interim analysis, given the past ones. Repeating an analysis returns its level.

    Args:
        past: past interim analyses.
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
    """Return the remaining interim analyses as (fewest seeds, most seeds, level).

    Args:
        seeds: number of seeds analysed so far.
        spent: error spent so far.
        most: maximum number of seeds.
    """
    ends = [count for count, _ in SPENDING_SCHEDULE]
    edges = [seeds, *(end for end in ends if end > seeds)]
    spans = [(low + 1, high) for low, high in pairwise(edges)] + [(max(edges[-1], ends[-1]) + 1, most)]
    return [(low, high, left) for low, high in spans if (left := cumulative_level(high) - spent) > 1e-6]
