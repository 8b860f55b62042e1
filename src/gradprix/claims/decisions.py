"""Decision rules: criteria for measured quantities, and verdicts from the answers to the criteria."""

from collections.abc import Mapping
from typing import Literal, get_args

from .estimates import Measured

Verdict = Literal["holds", "holds only if", "does not hold", "inconclusive"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""Possible verdicts, in the order in which their counts are printed."""
Decision = Verdict | tuple[Verdict, str]
"""A verdict, or a pair of "holds only if" and the condition."""
Answer = bool | None
"""Answer to a criterion: True, False, or None if the confidence interval is inconclusive."""


def is_above(m: Measured, threshold: float) -> Answer:
    """Return True if the 95 % interval lies above the threshold, False if it lies below, None if it contains it."""
    return True if m.ci95[0] > threshold else False if m.ci95[1] <= threshold else None


def is_below(m: Measured, threshold: float) -> Answer:
    """Return True if the 95 % interval lies below the threshold, False if it lies above, None if it contains it."""
    return True if m.ci95[1] < threshold else False if m.ci95[0] >= threshold else None


def is_within(m: Measured, low: float, high: float) -> Answer:
    """Return True if the 95 % interval lies inside the range, False if it lies outside, None if it overlaps a bound."""
    return True if low < m.ci95[0] and m.ci95[1] < high else False if m.ci95[1] < low or high < m.ci95[0] else None


def is_relevant(m: Measured, least: float, null: float = 0.0) -> Answer:
    """Return True if an effect is significant and large enough, False if it is significantly too small, else None.

    Args:
        m: the effect.
        least: smallest effect that is large enough.
        null: value in the absence of an effect: 0 for a difference, 1 for a ratio.
    """
    return True if m.ci95[0] > null and m.effect >= least else False if m.ci95[1] < least else None


def is_equivalent(m: Measured, low: float, high: float, null: float = 0.0) -> Answer:
    """Return True if two arms are equivalent, False if they differ significantly, else None.

    They are equivalent if the 95 % interval of their difference (or ratio) lies within the margin. They differ
    significantly if the interval excludes `null` and the estimate lies outside the margin.

    Args:
        m: difference or ratio of the arms.
        low: lower end of the margin.
        high: upper end of the margin.
        null: value in the absence of a difference: 0 for a difference, 1 for a ratio.
    """
    if low < m.ci95[0] and m.ci95[1] < high:
        return True
    return False if not m.ci95[0] <= null <= m.ci95[1] and not low < m.effect < high else None


def negate(answer: Answer) -> Answer:
    """Return the negation of an answer; the negation of None is None."""
    return None if answer is None else not answer


def all_of(*answers: Answer, condition: str = "") -> Decision:
    """Return the verdict on a claim that holds if all answers are True and does not hold if any is False.

    Args:
        *answers: answers to the criteria; None stands for an inconclusive one.
        condition: condition that the claim does not mention. If given, the verdict "holds" becomes "holds only if" with
            this condition.
    """
    if False in answers:
        return "does not hold"
    return "inconclusive" if None in answers else ("holds only if", condition) if condition else "holds"


def any_of(answers: Mapping[str, Answer], prefix: str = "") -> Decision:
    """Return the verdict on a claim that is tested under several conditions.

    Args:
        answers: answer by condition; a condition is a phrase such as "it is large".
        prefix: text before the list of conditions.

    Returns:
        "inconclusive" if any answer is None. Otherwise "holds" if all answers are True, "does not hold" if all are
        False, and "holds only if" with the conditions whose answer is True if they differ.
    """
    true = [condition for condition, answer in answers.items() if answer]
    if None in answers.values() or not answers:
        return "inconclusive"
    if len(true) == len(answers):
        return "holds"
    return ("holds only if", prefix + " or ".join(true)) if true else "does not hold"
