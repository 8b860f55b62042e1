"""Tables of a suite as text, a list of cells for each row, for pages and the documentation."""

from statistics import median
from typing import TYPE_CHECKING

from gradprix.utils.wording import format_list

from .units import format_difference, format_duration, format_factor, format_value

if TYPE_CHECKING:
    from gradprix.race.suite_record import SuiteSummary, TaskSummary

Rows = list[list[str]]
MISSING = "–"
CHOICES = ("task", "any of these will do", "single name", "learning rate", "behind the best mean", "at most", "leaders")
RACES = (
    "task",
    "metric",
    "best mean (chance level)",
    "margin",
    "trials + seeds",
    "error rate",
    "tuning deviation",
    "time",
)
ENTRIES = (
    "optimizer",
    "tasks",
    "leads on",
    "mean regret",
    "median",
    "largest",
    "default suffices on",
    "learning-rate tolerance (median)",
    "diverged runs",
)
LEFT_OUT = ("without", "single choice of the others", "mean regret", "regret on the task left out")
"""Heads of the tables."""


def choice_rows(summary: "SuiteSummary") -> Rows:
    """Return what to use on each task: the candidates, the tie-break and its regret in margins, and the leaders."""
    return [
        [
            name,
            _format_candidates(task),
            task.recommended,
            f"{task.learning_rates[task.recommended]:g}" if task.recommended in task.learning_rates else MISSING,
            f"{task.regrets[task.recommended]:.2f}",
            f"{task.bounds[task.recommended]:.2f}" if task.bounds else MISSING,
            format_list(sorted(task.leaders, key=task.regrets.__getitem__), most=6),
        ]
        for name, task in summary.tasks.items()
    ]


def _format_candidates(task: "TaskSummary") -> str:
    if task.candidates:
        return format_list(task.candidates)
    return "none is shown to" if task.bounds else MISSING  # there are no bounds in records of earlier versions


def race_rows(summary: "SuiteSummary") -> Rows:
    """Return the numbers of each race: scores, margin, budget, error rate, tuning deviation in margins, and time."""
    return [[name, *_format_race(task)] for name, task in summary.tasks.items()]


def _format_race(task: "TaskSummary") -> list[str]:
    metric = task.metric
    best = (max if metric.higher_is_better else min)(task.means.values())
    return [
        metric.name,
        f"{format_value(metric, best)} ({format_value(metric, task.chance_level)})",
        format_difference(metric, task.margin),
        f"{task.trials} + {task.seeds}",
        MISSING if task.error_rate is None else f"{100 * task.error_rate:g} %",
        MISSING if task.tuning_deviation is None else f"{task.tuning_deviation:.2f}",
        format_duration(task.seconds),
    ]


def entry_rows(summary: "SuiteSummary") -> Rows:
    """Return the results of each entry over its tasks: leads, regrets in margins, defaults, tolerance, divergence."""
    rows = []
    for entry in summary.entries:
        tasks = [task for task in summary.tasks.values() if entry in task.means]
        regret, defaults = summary.regrets[entry], summary.defaults[entry].values()
        rows.append(
            [
                entry,
                str(regret.tasks),
                str(sum(entry in task.leaders for task in tasks)),
                f"{regret.mean:.1f}",
                f"{regret.median:.1f}",
                f"{regret.largest:.1f} ({regret.worst_task})",
                f"{sum(defaults)} of {len(defaults)}" if defaults else MISSING,
                format_factor(median(task.tolerances[entry] for task in tasks)),
                str(sum(task.diverged[entry] for task in tasks)),
            ]
        )
    return rows


def left_out_rows(summary: "SuiteSummary") -> Rows:
    """Return the single choice without each task, and its regret on that task, in margins."""
    return [
        [
            each.task,
            each.choice,
            *(f"{x:.2f}" for x in (each.mean, each.regret, each.overall_mean, each.overall_largest)),
        ]
        for each in summary.left_out
    ]


def left_out_head(summary: "SuiteSummary") -> list[str]:
    """Return the head of the table of `left_out_rows`, with the name of the overall choice."""
    best = summary.entries[0]
    return [*LEFT_OUT, f"{best}: mean regret", f"{best}: largest"]


def regret_rows(summary: "SuiteSummary") -> Rows:
    """Return the regret of each entry on each task, in margins; a dash where it did not race."""
    regrets = [task.regrets for task in summary.tasks.values()]
    return [
        [entry, *(f"{each[entry]:.1f}" if entry in each else MISSING for each in regrets)] for entry in summary.entries
    ]
