"""Combination of answers to criteria."""

from gradprix.claims.decisions import Answer


def conjunction(*answers: Answer) -> Answer:
    """Return True if all answers are True, False if any is False, None if it is inconclusive.

    Example:
        >>> conjunction(True, None), conjunction(False, None)
        (None, False)
    """
    return False if False in answers else None if None in answers else True
