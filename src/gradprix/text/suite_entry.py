"""Results of a comparison of one optimizer with the published suite, in sentences."""

from typing import TYPE_CHECKING

from gradprix.stats.verdict import PairVerdict
from gradprix.utils.wording import format_count, format_list

from .answer import format_failures, format_unreproduced
from .units import format_difference, format_duration, format_points, format_value

if TYPE_CHECKING:
    from gradprix.race import Pair
    from gradprix.race.suite_entry_record import SuiteComparison, TaskComparison

PHRASES = {
    (PairVerdict.WINS, True): "wins against",
    (PairVerdict.SLIGHTLY_AHEAD, True): "is slightly ahead of",
    (PairVerdict.SLIGHTLY_AHEAD, False): "is slightly behind",
    (PairVerdict.WINS, False): "loses to",
}
"""Phrase for each conclusive verdict that is no tie, for a worse (True) and a better (False) mean of the other."""
OPPOSITE = {PairVerdict.WINS: "loses", PairVerdict.SLIGHTLY_AHEAD: "slightly behind"}
"""Verdict from the point of view of the entry with the worse mean, where it differs."""
SHOWN = 3
"""Number of published optimizers that are named beside the new one."""


def format_suite_entry(record: "SuiteComparison") -> list[str]:
    """Return the result of a comparison on all tasks: regret, comparisons, control and cost, a sentence each."""
    tasks, regrets, name = list(record.tasks.values()), record.regrets, record.name
    own, rank = regrets[name], f"rank {1 + list(regrets).index(name)} of {len(regrets)}"
    worst = max(tasks, key=lambda task: task.regrets[name])
    others = [other for other in regrets if other != name]
    distance = f"{name} is {own.mean:.1f} margins behind the best"
    lines = [
        f"{distance} on {worst.task}, {rank}."
        if len(tasks) == 1
        else f"{distance} of {len(tasks)} tasks on average, {rank}, and at most {own.largest:.1f} ({worst.task}).",
        f"Margins of the best published optimizers{' on average' * (len(tasks) > 1)}: "
        f"{format_list([f'{other} {regrets[other].mean:.1f}' for other in others[:SHOWN]])}.",
        _format_all_pairs(record),
        format_control(tasks),
        format_cost(tasks),
    ]
    for task in tasks:
        warnings = format_divergence(task) + format_edges(task)
        warnings += [*format_failures(task.failed), *format_unreproduced(task.reruns)]
        lines += [f"{task.task}: {warning}" for warning in warnings]
    return lines


def _format_all_pairs(record: "SuiteComparison") -> str:
    """Count the verdicts of all comparisons."""
    tasks = record.tasks.values()
    counts = {
        words: sum(len(task.entries_with(verdict, ahead)) for task in tasks for ahead in sides)
        for words, verdict, sides in (
            ("wins", PairVerdict.WINS, (True,)),
            ("leads slightly", PairVerdict.SLIGHTLY_AHEAD, (True,)),
            ("loses", PairVerdict.WINS, (False,)),
            ("is slightly behind", PairVerdict.SLIGHTLY_AHEAD, (False,)),
            ("ties", PairVerdict.TIES, (True, False)),
        )
    }
    each = [f"{words} in {count}" for words, count in counts.items() if count]
    total = sum(len(task.pairs) for task in tasks)
    left = total - sum(counts.values())
    if not left:
        return f"{record.name} {format_list(each)} of {format_count(total, 'comparison')}."
    rest = f"{left} of {format_count(total, 'comparison')} {'is' if left == 1 else 'are'} inconclusive"
    return f"{record.name} {format_list(each)}; {rest}." if each else f"{rest}."


def format_comparison(task: "TaskComparison") -> list[str]:
    """Return the result on one task: mean, rank, bound and comparisons, in three sentences, and a warning."""
    name, metric = task.name, task.metric
    bound = f"at most {format_difference(metric, task.bound)} behind the best" if task.bound else "not behind the best"
    lines = [
        f"{task.task}: {name} reaches {format_value(metric, task.final.mean)}, rank {task.rank} of {len(task.means)}, "
        f"{bound} (95 %).",
        f"{name} {format_verdicts(task)}.",
        format_recommended(task),
    ]
    return [*lines, *format_divergence(task)]


def format_divergence(task: "TaskComparison") -> list[str]:
    """Return a warning if final runs diverged."""
    diverged, seeds = task.final.diverged, len(task.final.values)
    if task.final.all_diverged:
        advice = "check its step" + ", or give a gp.Entry with smaller learning rates in its space" * (
            "lr" in task.tuned
        )
        return [f"{task.name} diverged on all {seeds} seeds, so that no tuned value is better than another: {advice}."]
    return [f"{task.name} diverged on {diverged} of {format_count(seeds, 'seed')}."] if diverged else []


def format_verdicts(task: "TaskComparison", most: int = 12) -> str:
    """Name the published optimizers that an optimizer wins against, loses to, and ties with, without its own name.

    Args:
        task: comparison on a task.
        most: number of names in a list.
    """
    parts = [
        f"{phrase} {format_list(names, most)}"
        for (verdict, ahead), phrase in PHRASES.items()
        if (names := task.entries_with(verdict, ahead))
    ]
    ties = [name for ahead in (False, True) for name in task.entries_with(PairVerdict.TIES, ahead)]
    if ties:
        parts.append(f"ties with {format_list(ties, most)}")
    left = sum(pair.verdict is PairVerdict.INCONCLUSIVE for pair in task.pairs)
    if not parts:
        return "differs significantly from none of the published optimizers"
    return ", ".join(parts) + f"; {format_count(left, 'comparison')} inconclusive" * bool(left)


def format_recommended(task: "TaskComparison") -> str:
    """Compare with the entry that the published race recommends: difference, interval and verdict."""
    pair, metric = task.pair(task.recommended), task.metric
    sign = 1 if pair.a == task.name else -1
    ends = sorted(sign * end for end in pair.ci95)
    return (
        f"Against {task.recommended}, which the suite recommends here: {format_difference(metric, pair.difference)} "
        f"{'ahead' if sign == 1 else 'behind'} (lead, 95 %: {format_points(metric, *ends)}), {verdict_on(task, pair)}."
    )


def verdict_on(task: "TaskComparison", pair: "Pair") -> str:
    """Return the verdict of a comparison from the point of view of the new optimizer, in a word or two."""
    return pair.words if pair.a == task.name else OPPOSITE.get(pair.verdict, pair.words)


def format_control(tasks: "list[TaskComparison]") -> str:
    """Say whether repeated published runs agree with the published ones, and what follows."""
    runs = sum(len(task.control.runs) for task in tasks)
    differing = [task for task in tasks if task.control.differing]
    if not differing:
        return f"Control: {runs} published final runs, repeated here, agree to the bit: same CPU type."
    count = sum(task.control.differing for task in differing)
    where = "" if len(tasks) == 1 else f" on {format_list([task.task for task in differing])}"
    return (
        f"Control: {count} of {runs} published final runs, repeated here, end elsewhere{where}, by no more than "
        "rounding explains: another CPU type, or other versions. Comparisons there allow for a shift between machines."
    )


def format_cost(tasks: "list[TaskComparison]") -> str:
    """Compare the numbers of training runs."""
    runs, published = sum(task.runs for task in tasks), sum(task.published_runs for task in tasks)
    seconds = format_duration(sum(task.seconds for task in tasks))
    return f"{runs:,} training runs in {seconds}, {100 * runs / published:.1f} % of those of the published suite."


def format_edges(task: "TaskComparison") -> list[str]:
    """Return a warning if a tuned value is at the edge of the search range.

    If every final run diverged, no value is the best.
    """
    if not task.edges or task.final.all_diverged:
        return []
    return [f"The best {format_list(task.edges)} of {task.name} is at the edge of what was tried: widen its space."]
