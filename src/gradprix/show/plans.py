"""Terminal output of plans."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from gradprix.race import Plan, SuiteEntryPlan
from gradprix.race.plan import QUARTER
from gradprix.text.answer import format_tuned
from gradprix.text.plan import format_options
from gradprix.text.units import format_duration, format_value
from gradprix.utils.wording import format_count, format_list

from ._formatting import format_epochs, format_integer
from .tables import GAP, NARROW, listing, make_table


def summarize_plan(race_plan: Plan, seconds: float | None, where: str, at_least: bool = False) -> RenderableType:
    """Summarize a plan before it runs.

    Args:
        race_plan: plan of a race.
        seconds: measured estimate of the duration, if any.
        where: description of the machine.
        at_least: the estimate is a lower bound.
    """
    described, metric = race_plan.description, race_plan.task.metric
    entries = described["entries"]
    batches = {(entry["batch_size"], entry["updates"]) for entry in entries}
    own_batches = ["batch", "updates"] if len(batches) > 1 else []
    rows = []
    for entry in entries:
        fixed = ", ".join(f"{name}={setting}" for name, setting in entry["fixed"].items())
        tuned = ", ".join(format_range(name, axis) for name, axis in entry["space"].items()) or "nothing: 1 trial"
        own = [str(entry["batch_size"] or "all"), format_integer(entry["updates"])] if own_batches else []
        rows.append([entry["name"], *own, f"{entry['optimizer']}({fixed})", tuned])
    table = _table_of_entries(["", *own_batches, "optimizer", "tuned"], rows)
    margin = f"{100 * metric.margin:g} % of the better mean" if metric.relative else format_value(metric, metric.margin)
    effect, short = format_detectable_difference(race_plan), race_plan.quarter_runs
    quarter = [f"And {max(short.values())} runs of each with a quarter of the examples."] if short else []
    lines = [
        f"{race_plan.task.name}: {race_plan.task.about}",
        f"Every run: {describe_run(race_plan)}{'' if own_batches else _describe_batches(*batches.pop())}.",
        f"Every optimizer: {race_plan.trials} tuning trials ({format_tuned(race_plan.tuned)}), "
        f"then {_describe_seeds(race_plan.analysis_seeds)}, the same for all.",
        *quarter,
        f"{'Up to ' * (len(race_plan.analysis_seeds) > 1)}{race_plan.runs:,} training runs in total"
        f"{_format_total_examples(race_plan)}.",
        f"Detectable difference (80 % power): {effect}. Differences below {margin} do not matter here.",
    ]
    if race_plan.left_out:
        lines.append(f"To fit the time it does without {format_list(described['left_out'])}.")
    if seconds is not None:
        lines.append(f"Takes {'more than' if at_least else 'about'} {format_duration(seconds)} on {where}.")
    return Group(*(Text(line) for line in lines), Text(), table)


def _table_of_entries(head: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """Return a table of entries, or a list if the table would not fit a narrow terminal."""
    numbers = range(1, len(head) - 2)
    if sum(max(map(len, column)) + GAP for column in zip(head, *rows, strict=True)) > NARROW + GAP:
        return listing(head[:-2], [(row[:-2], f"{row[-2]}, tuned: {row[-1]}") for row in rows])
    table = make_table(*head, right=tuple(numbers))
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def summarize_suite_plan(plans: Sequence[Plan], seconds: Mapping[str, float], where: str) -> RenderableType:
    """Summarize the plans of a suite before they run, with the estimated duration."""
    rows = [
        ((plan.task.name, f"{plan.runs:,} training runs", format_duration(seconds[plan.task.name])), plan.task.about)
        for plan in plans
    ]
    training_runs, total = sum(race_plan.runs for race_plan in plans), sum(seconds.values())
    entries = format_list([entry.name for entry in plans[0].entries])
    task_count = format_count(len(plans), "task")
    text = f"{entries} on {task_count}: {training_runs:,} training runs, about {format_duration(total)} on {where}."
    return Group(Text(text), Text(), listing(("task", "work", "time"), rows))


def summarize_suite_entry_plan(
    plans: Sequence[SuiteEntryPlan], seconds: Mapping[str, float], where: str
) -> RenderableType:
    """Summarize the plans of a comparison with the published suite before they run, with the estimated duration."""
    table = make_table("task", "control", "tuning", "final", "of the suite", "time", right=(1, 2, 3, 4, 5))
    for plan in plans:
        counts = map(str, (plan.control_runs, plan.tuning_runs, plan.seeds))
        share = f"{100 * plan.runs / plan.published.runs:.1f} %"
        table.add_row(plan.task.name, *counts, share, format_duration(seconds[plan.task.name]))
    runs, published = sum(plan.runs for plan in plans), sum(plan.published.runs for plan in plans)
    what = f"{plans[0].label} against the published suite on {format_count(len(plans), 'task')}"
    share, time = f"{100 * runs / published:.1f} % of those of the suite", format_duration(sum(seconds.values()))
    text = f"{what}: {runs:,} training runs, {share}, about {time} on {where}."
    about = "Control: published final runs that are repeated, to check that this machine can be compared with them."
    return Group(Text(text), Text(), table, Text(), Text(about))


def _describe_batches(size: int | None, updates: int | None) -> str:
    """Describe the batches of a run as a clause; empty for a training loop, which makes its own."""
    if updates is None:
        return ""
    batches = f"batches of {size:,}" if size else "batches of all examples"
    return f", {format_count(updates, 'update')} on {batches}"


def describe_run(race_plan: Plan) -> str:
    """Describe the length and the schedule of the training runs of a plan."""
    if race_plan.examples is None:
        return "as long as your own loop trains"
    schedule = "schedule tuned" if "schedule" in race_plan.tuned else f"{race_plan.task.schedule} schedule"
    length = f"{race_plan.examples:,} training examples in {format_epochs(race_plan.task.epochs)}"
    options = format_options(race_plan.description.get("options", {}), race_plan.tuned)
    return ", ".join([length, schedule, *options])


def format_detectable_difference(race_plan: Plan) -> str:
    """Format the detectable difference, in the metric's units if the variation from seeds and tuning is known."""
    deviations, seeds = race_plan.minimum_detectable_difference, race_plan.seeds
    noise, metric = race_plan.task.noise, race_plan.task.metric
    if not noise or metric.relative:
        return f"{deviations:.1f} standard deviations of a paired difference, and more to allow for tuning"
    from_tuning = race_plan.expected_tuning_deviation
    size = deviations * math.sqrt(noise**2 + 2 * seeds * from_tuning**2)
    return f"about {format_value(metric, size)}, of which seeds alone {format_value(metric, deviations * noise)}"


def _format_total_examples(race_plan: Plan) -> str:
    """Format the number of examples in all runs of a plan; empty if it is unknown."""
    if race_plan.examples is None:
        return ""
    short = sum(race_plan.quarter_runs.values())
    examples = (race_plan.runs - short + QUARTER * short) * race_plan.examples
    return f", {examples / 1e6:.1f} million examples"


def _describe_seeds(analysis_seeds: Sequence[int]) -> str:
    *earlier, most = analysis_seeds
    if not earlier:
        return f"{most} held-out seeds"
    return f"up to {most} held-out seeds, analysed after {', '.join(map(str, analysis_seeds))}"


def format_range(name: str, ends: list[Any]) -> str:
    """Format a search space: `lr 0.001 to 1` for a range, `batch_size 16/32/64` for a choice.

    Args:
        name: name of the hyperparameter.
        ends: first and last value of the range, or all values of the choice.
    """
    if all(isinstance(end, float) for end in ends):
        return f"{name} {ends[0]:g} to {ends[-1]:g}"
    return f"{name} {'/'.join(map(str, ends))}"
