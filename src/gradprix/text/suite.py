"""Results of a suite, in sentences. Each says whether it depends on a single task."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gradprix.utils.wording import format_choice, format_count, format_list

from .units import format_duration

if TYPE_CHECKING:
    from gradprix.race.evidence import Evidence
    from gradprix.race.suite_record import RankReversal, Selection, SuiteSummary, TaskSummary


def format_suite(summary: "SuiteSummary") -> list[str]:
    """Return the conclusions of a suite as a list of sentences.

    They are about the best single choice for all tasks, the entries that lead most often, the regret of the
    recommendations, rank reversals, entries that did not race on all tasks, tuned learning rates at the edge of the
    search range, and tasks on which the default learning rate suffices.
    """
    sentences = (
        format_single_choice(summary),
        format_worst_cases(summary),
        format_leaders(summary),
        format_recommendation(summary),
        format_reversal_count(summary),
        format_incomplete(summary),
        format_edges(summary),
        format_defaults(summary),
    )
    return [sentence for sentence in sentences if sentence]


def format_single_choice(summary: "SuiteSummary") -> str:
    """Name the entry with the smallest mean regret."""
    best = summary.selections.mean
    regret = summary.regrets[best.entries[0]]
    return (
        f"Best single choice for all tasks: {format_choice(best.entries)}, on average {regret.mean:.1f} margins behind "
        f"the best of each task, at most {regret.largest:.1f} ({regret.worst_task})."
        f"{format_stability('The choice', best, summary)}"
    )


def format_worst_cases(summary: "SuiteSummary") -> str:
    """Name the entries with the smallest largest regret and with the smallest median, and what each is bad at."""
    safest, typical = summary.selections.largest, summary.selections.median
    if safest.entries == summary.selections.mean.entries:
        sentence = f"No other optimizer{_complete(summary)} has a smaller largest regret."
    else:
        sentence = (
            f"{format_list(safest.entries)} {_verb(safest.entries)} never more than "
            f"{summary.regrets[safest.entries[0]].largest:.1f} margins behind, less than any other{_complete(summary)}."
        )
    sentence += format_stability("This", safest, summary)
    if set(typical.entries) & set(safest.entries):
        return sentence
    regret = summary.regrets[typical.entries[0]]
    return (
        f"{sentence} {format_list(typical.entries)} {_verb(typical.entries, 'has', 'have')} the smallest median "
        f"({regret.median:.2f}), but {_verb(typical.entries, 'was', 'were')} {regret.largest:.1f} behind on "
        f"{regret.worst_task}.{format_stability('The smallest median', typical, summary)}"
    )


def format_leaders(summary: "SuiteSummary") -> str:
    """Name the entries that are most often among the leaders."""
    most = summary.selections.leading
    count = sum(most.entries[0] in task.leaders for task in summary.tasks.values())
    subject = f"Of the optimizers{_complete(summary)}, most" if _complete(summary) else "Most"
    return (
        f"{subject} often among the leaders: {format_list(most.entries)}, on {count} of "
        f"{format_count(len(summary.tasks), 'task')}.{format_stability('This', most, summary)}"
    )


def format_stability(subject: str, selection: "Selection", summary: "SuiteSummary") -> str:
    """Say whether a selection is the same without any one of the tasks, and otherwise what it would be.

    The sentence begins with a space. It is empty for a suite of a single task.
    """
    if len(summary.tasks) == 1:
        return ""
    if not selection.without:
        return f" {subject} is the same whichever task is left out."
    others: dict[tuple[str, ...], list[str]] = {}
    for task, entries in selection.without.items():
        others.setdefault(entries, []).append(task)
    each = [f"without {format_choice(tasks)} it would be {format_list(entries)}" for entries, tasks in others.items()]
    return f" {subject} depends on single tasks: {'; '.join(each)}."


def _complete(summary: "SuiteSummary") -> str:
    """Return the restriction of a comparison to the entries that raced on all tasks; empty if all of them did."""
    return " that raced on all tasks" if len(summary.complete) < len(summary.entries) else ""


def format_recommendation(summary: "SuiteSummary") -> str:
    """Format the regret of the recommended entries of all tasks."""
    regret = summary.recommendation
    if not regret.largest:
        return "On every task, the optimizer that its race recommends has the best mean: a regret of 0 margins."
    return (
        f"The optimizer that the race on a task recommends is {regret.mean:.2f} margins behind the best mean on "
        f"average, at most {regret.largest:.2f} ({regret.worst_task})."
    )


def format_reversal_count(summary: "SuiteSummary") -> str:
    """Count the rank reversals: on several tasks, confirmed by a second race, refuted by it, and on a single race."""
    if not summary.reversals:
        return (
            "No rank reversals: no two optimizers win against each other on different tasks (family-wise error rate "
            "5 % over all pairs of all tasks)."
        )
    alone = [each for each in summary.reversals if each.weak_task is not None]
    confirmed = sum(each.is_confirmed for each in alone)
    repeated = sum(each.second_race is not None for each in alone)
    counts = {
        "on several tasks for either side": len(summary.reversals) - len(alone),
        "confirmed by a second race with other seeds": confirmed,
        "not confirmed by it, and therefore not named": repeated - confirmed,
        "on a single race for one side, which was not repeated": len(alone) - repeated,
    }
    each = [f"{count} {what}" for what, count in counts.items() if count]
    return f"Pairs of optimizers of which each wins on some task: {'; '.join(each)}."


def format_reversals(summary: "SuiteSummary") -> list[str]:
    """Return a sentence for each confirmed rank reversal."""
    return [format_reversal(each) for each in summary.reversals if each.is_confirmed]


def format_reversal(reversal: "RankReversal") -> str:
    """Say on which tasks each entry of a pair wins against the other, and what a second race found."""
    a, b = reversal.a, reversal.b
    sentence = (
        f"{a} wins against {b} on {format_list(reversal.a_wins)}, {b} against {a} on {format_list(reversal.b_wins)}"
    )
    second = reversal.second_race
    if second is None:
        return f"{sentence}."
    low, high = second.ci95
    return (
        f"{sentence}. A second race on {second.task}: {second.winner} ahead by {second.difference:.1f} margins "
        f"({low:.1f} to {high:.1f})."
    )


def format_incomplete(summary: "SuiteSummary") -> str:
    """Format the regrets of the entries that did not race on all tasks; empty if there are none."""
    each = []
    for name in summary.entries:
        if name not in summary.complete:
            regret = summary.regrets[name]
            each.append(
                f"{name} on {regret.tasks} of {len(summary.tasks)}, on average {regret.mean:.1f} margins behind, at "
                f"most {regret.largest:.1f} ({regret.worst_task})"
            )
    return f"Not on all tasks, and therefore no single choice: {'; '.join(each)}." if each else ""


def format_edges(summary: "SuiteSummary") -> str:
    """Name the entries whose best learning rate is at the edge of the search range; empty if there are none."""
    edges = {
        entry: [name for name, task in summary.tasks.items() if entry in task.at_edge] for entry in summary.entries
    }
    each = [f"{entry} on {format_list(names)}" for entry, names in edges.items() if names]
    return (
        f"Best learning rate at the edge of the grid, so that others may be better: {'; '.join(each)}." if each else ""
    )


def format_defaults(summary: "SuiteSummary") -> str:
    """Count the tasks on which the default learning rate of each entry suffices; empty if none were tried."""
    counts = {name: (sum(tasks.values()), len(tasks)) for name, tasks in summary.defaults.items() if tasks}
    if not counts:
        return ""
    each = [f"{name} {counts[name][0]} of {counts[name][1]}" for name in summary.entries if counts.get(name, (0,))[0]]
    rest = len(counts) - len(each)
    if rest:
        each.append(f"{format_count(rest, 'optimizer')} none" if each else "none")
    everyone = format_list(each, most=len(each))
    return f"Tasks on which the default learning rate is within the margin of the tuned one: {everyone}."


def format_first_choice(task: "TaskSummary") -> str:
    """Recommend entries for problems similar to a task: first the group of which any will do, then the single name."""
    bound = task.bounds.get(task.recommended)
    tie_break = f"{task.recommended} is the tie-break, which may differ between machines."
    if bound is None or task.level is None:
        return f"Use {format_choice(task.leaders)}: the leaders, with no significant difference among them. {tie_break}"
    level = f"({100 * task.level:.0f} %, {task.seeds} seeds)"
    if len(task.candidates) > 1:
        largest = max(task.bounds[name] for name in task.candidates)
        any_of_them = "either" if len(task.candidates) == 2 else "any of them"
        return (
            f"Use {format_choice(task.candidates)}; {any_of_them} will do. Each is at most {_round_up(largest)} "
            f"margins behind the best {level}. {tie_break}"
        )
    if task.candidates:
        return f"Use {task.recommended}: at most {_round_up(bound)} margins behind the best {level}."
    return (
        f"No optimizer is shown to be within a margin of the best. {task.recommended} has the best mean, and is at "
        f"most {_round_up(bound)} margins behind {level}; other machines may find another one."
    )


def format_leaders_of(task: "TaskSummary") -> str:
    """Name the leaders of a task, and what the ranking does not tell."""
    ranking = sorted(task.leaders, key=task.regrets.__getitem__)
    verb = "Leader, which" if len(ranking) == 1 else "Leaders, which"
    edges = f" Best learning rate at the edge of the search range: {format_list(task.at_edge)}." if task.at_edge else ""
    return f"{verb} no other wins against: {format_list(ranking)}.{_format_too_variable(task)}{edges}"


def _format_too_variable(task: "TaskSummary") -> str:
    """Name the entries that no other wins against only because their runs vary; empty if there are none."""
    if not task.too_variable:
        return ""
    by_regret = sorted(task.regrets, key=task.regrets.__getitem__)
    names = [name for name in by_regret if name in task.too_variable]
    other = next(name for name in by_regret if name not in (*task.too_variable, *task.leaders))
    runs, means = ("its runs", "its mean is") if len(names) == 1 else ("their runs", "their means are")
    return (
        f" No other wins against {format_choice(names)} either, but only because {runs} vary so much: "
        f"{means} worse than that of {other}, which is no leader."
    )


def format_similar_problem(evidence: "Evidence", name: str) -> list[str]:
    """Recommend optimizers for a problem similar to a task of the published suite, with the origin of the advice."""
    task = evidence.tasks[name]
    return [
        f"{name}: {task.about}",
        format_first_choice(task),
        format_leaders_of(task),
        f"Raced by {evidence.command}: {task.trials} trials + {task.seeds} held-out seeds each, learning rate only, "
        f"{format_duration(task.seconds)} ({evidence.machine.cpu}, torch {evidence.versions['torch']}).",
        "One model, one data set, one budget: where yours differs, race them on it: gradprix race mine.py:task",
    ]


def format_regrets_title(summary: "SuiteSummary") -> str:
    """Name the entry with the smallest mean regret, and its largest regret."""
    best = summary.entries[0]
    regret = summary.regrets[best]
    return (
        f"{best} is {regret.mean:.1f} margins behind the best of a task on average, the least of all"
        f"{_complete(summary)}, and at most {regret.largest:.1f} ({regret.worst_task})."
    )


def format_profile_title(summary: "SuiteSummary") -> str:
    """Name the entries that are within one margin of the best on the most tasks."""
    names = summary.selections.near.entries
    count = sum(task.regrets[names[0]] <= 1 for task in summary.tasks.values())
    total = format_count(len(summary.tasks), "task")
    return f"{format_list(names)} {_verb(names)} within one margin of the best on {count} of {total}."


def _round_up(margins: float) -> str:
    """Format an upper bound in margins, rounded up to two digits after the point."""
    return f"{-(-round(100 * margins, 6) // 1) / 100:.2f}"


def _verb(names: Iterable[str], one: str = "is", several: str = "are") -> str:
    return one if len(list(names)) == 1 else several
