"""Decision rules: criteria on measured quantities, and the verdicts that follow from them."""

from collections.abc import Mapping
from typing import Literal, get_args

from .estimates import Measured

Verdict = Literal["holds", "holds only if", "does not hold", "not settled"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""Possible verdicts, in the order in which they are counted."""
Decision = Verdict | tuple[Verdict, str]
"""A verdict, or "holds only if" with its condition."""
Answer = bool | None
"""Answer of one criterion; None if the confidence interval leaves it open."""


def is_above(m: Measured, threshold: float) -> Answer:
    """Return whether the whole interval is above a threshold, or, for False, below it."""
    return True if m.ci95[0] > threshold else False if m.ci95[1] <= threshold else None


def is_below(m: Measured, threshold: float) -> Answer:
    """Return whether the whole interval is below a threshold, or, for False, above it."""
    return True if m.ci95[1] < threshold else False if m.ci95[0] >= threshold else None


def is_within(m: Measured, low: float, high: float) -> Answer:
    """Return True if the 95 % interval lies inside the range, False if it lies outside, None if it overlaps a bound."""
    return True if low < m.ci95[0] and m.ci95[1] < high else False if m.ci95[1] < low or high < m.ci95[0] else None


def is_relevant(m: Measured, least: float, null: float = 0.0) -> Answer:
    """Return True if an effect is significant and matters, False if it is too small to matter, else None.

    Args:
        m: the effect.
        least: smallest effect that matters.
        null: value without an effect: 0, or 1 for a ratio.
    """
    return True if m.ci95[0] > null and m.effect >= least else False if m.ci95[1] < least else None


def is_equivalent(m: Measured, low: float, high: float, null: float = 0.0) -> Answer:
    """Return True if the interval is inside a margin, False if the effect is significant and outside, else None."""
    if low < m.ci95[0] and m.ci95[1] < high:
        return True
    return False if not m.ci95[0] <= null <= m.ci95[1] and not low < m.effect < high else None


def negate(answer: Answer) -> Answer:
    """Return the opposite answer; an open one stays open."""
    return None if answer is None else not answer


def all_of(*answers: Answer, condition: str = "") -> Decision:
    """Return the verdict of a claim that requires every answer.

    Args:
        *answers: the answers.
        condition: what the claim leaves out; with it, "holds" becomes "holds only if".
    """
    if False in answers:
        return "does not hold"
    return "not settled" if None in answers else ("holds only if", condition) if condition else "holds"


def any_of(answers: Mapping[str, Answer], prefix: str = "") -> Decision:
    """Return the verdict of a claim that holds only under the conditions whose answer is True.

    Args:
        answers: answer by condition, "it is large" for example.
        prefix: what precedes the conditions.
    """
    true = [condition for condition, answer in answers.items() if answer]
    if None in answers.values() or not answers:
        return "not settled"
    if len(true) == len(answers):
        return "holds"
    return ("holds only if", prefix + " or ".join(true)) if true else "does not hold"
