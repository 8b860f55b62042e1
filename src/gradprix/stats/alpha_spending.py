"""How much of the chance of a false word each look at a race may use, so that "more seeds" is honest.

Whoever looks at a verdict, adds seeds and looks again gives chance more than one try. So the 5 % of the whole race are
spent over a few fixed looks (Pocock 1977, doi:10.1093/biomet/64.2.191; Lan & DeMets 1983, doi:10.1093/biomet/70.3.659,
here added up, which holds whatever the looks have in common), and the intervals of all looks hold together.
"""

from collections.abc import Sequence
from itertools import pairwise

LOOKS = ((16, 0.035), (32, 0.045), (64, 0.05))
"""Up to so many seeds, so much may have been spent. The first is above 2^-5, the least p-value of six seeds."""

Look = tuple[int, float]
"""(how many seeds, the level it was given) of a look that was taken."""


class NoLookLeftError(ValueError):
    """All that looks with so many seeds may spend has been spent."""


def allowed(seeds: int) -> float:
    """What looks with up to so many seeds may spend in all."""
    return next((share for most, share in LOOKS if seeds <= most), LOOKS[-1][1])


def level(looks: Sequence[Look], seeds: int) -> float:
    """The level of a look: what is left of what may be spent by then. A look that was taken is the same again.

    Args:
        looks: those that were taken.
        seeds: how many seeds are looked at.

    Raises:
        NoLookLeftError: when nothing is left.
    """
    for taken, given in looks:
        if taken == seeds:
            return given
    left = allowed(seeds) - sum(given for _, given in looks)
    if left < 1e-6:
        before = ", ".join(str(taken) for taken, _ in looks)
        later = [most for most, share in LOOKS if share > sum(given for _, given in looks) + 1e-6]
        hint = f"The next look is with {later[0]} seeds (--seeds {later[0]})" if later else "There is none after that"
        raise NoLookLeftError(
            f"this race was looked at with {before} seeds: another look with {seeds} would give chance one try too "
            f"many. {hint}; or race anew in another folder (--out, --seed)."
        )
    return left


def later(seeds: int, spent: float, most: int) -> list[tuple[int, int, float]]:
    """The looks that are left: from so many seeds, to so many, at this level.

    Args:
        seeds: how many were looked at.
        spent: what was spent.
        most: how many seeds there can be.
    """
    ends = [count for count, _ in LOOKS]
    edges = [seeds, *(end for end in ends if end > seeds)]
    spans = [(low + 1, high) for low, high in pairwise(edges)] + [(max(edges[-1], ends[-1]) + 1, most)]
    return [(low, high, left) for low, high in spans if (left := allowed(high) - spent) > 1e-6]
