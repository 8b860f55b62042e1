"""Answer of a race in sentences, made from its record."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from gradprix.stats.recommendation import RecommendationReason, too_variable
from gradprix.stats.verdict import PairVerdict
from gradprix.utils.wording import format_count, format_list

if TYPE_CHECKING:
    from gradprix.race.plan_description import PlanDescription
    from gradprix.race.record import RaceRecord
    from gradprix.race.run_records import FailedRun, Rerun

RECOMMENDATION_REASONS = {
    RecommendationReason.BASELINE_UNBEATEN: "nothing wins against it",
    RecommendationReason.ONLY_LEADER: "the only leader",
    RecommendationReason.ONLY_WINNER: "the only one that wins",
    RecommendationReason.WIDEST_TOLERANCE: "widest usable learning-rate range",
    RecommendationReason.WIDE_TOLERANCE_CHEAPEST_STEP: "wide usable learning-rate range, cheapest step",
    RecommendationReason.CHEAPEST_STEP: "cheapest step",
    RecommendationReason.ONLY_CANDIDATE: "the only one near the best",
    RecommendationReason.FASTEST_STEP: "fastest step",
    RecommendationReason.BEST_MEAN: "best mean",
}
"""Reason of a recommendation as a phrase."""
SCHEDULES = {
    "constant": "constant learning rate",
    "warmup": "constant learning rate after warm-up",
    "its own": "its own schedule",
}
"""Learning-rate schedules that are not a decay."""


class Unit(Protocol):
    """A metric's unit."""

    @property
    def percent(self) -> bool:
        """True if values are shown as percentages."""


def format_value(metric: Unit, *values: float) -> str:
    """Format one value or a range in the metric's unit: `97.2 to 97.4 %`."""
    written = [f"{100 * value:.1f}" if metric.percent else f"{value:.4g}" for value in values]
    return " to ".join(dict.fromkeys(written)) + (" %" if metric.percent else "")


def format_answer(record: "RaceRecord") -> str:
    """Return the answer: leaders, entries behind them, the recommended optimizer, and warnings, one in each line."""
    return "\n".join(answer_lines(record, f": {record.best.code}"))


def answer_lines(record: "RaceRecord", code: str = ".") -> list[str]:
    """Return the lines of the answer.

    Args:
        record: record of a race.
        code: text after the recommended optimizer, such as its constructor call.
    """
    if all(entry.final.diverged == record.budget.seeds for entry in record.entries):
        lines = [
            f"{record.task}: every final run of every optimizer diverged, so there is nothing to choose between. "
            "Look at the task's loss and data first; smaller learning rates may help."
        ]
    else:
        lead, behind = format_leaders(record), format_behind(record)
        if record.plan.baseline is not None:
            lead, behind = format_baseline_comparison(record, record.plan.baseline), ""
        recommended = f"Recommended: {record.best.name} ({RECOMMENDATION_REASONS[record.verdict.reason]}){code}"
        second = "  ".join(filter(None, (behind, recommended)))
        lines = [f"{record.task}: {lead}", second, *format_unequal_updates(record)]
    return [*lines, *format_unreproduced(record.reruns)]


def format_leaders(record: "RaceRecord") -> str:
    """Format the leaders, the differences among them, and the entries that are too variable to rank."""
    metric, means, verdict = record.plan.metric, record.means, record.verdict
    variable = too_variable(means, verdict.leaders, metric.higher_is_better)
    leaders = [name for name in verdict.leaders if name not in variable]
    reach = format_value(metric, *sorted((min(means[n] for n in leaders), max(means[n] for n in leaders))))
    verdicts = {pair.verdict for pair in verdict.pairs if pair.a in leaders and pair.b in leaders}
    is_close = verdicts <= {PairVerdict.TIES, PairVerdict.SLIGHTLY_AHEAD}
    difference = f"no significant difference {'between' if len(leaders) == 2 else 'among'}"
    if len(leaders) == 1:
        text = f"{leaders[0]} leads{'' if variable else ' alone'} ({reach})."
    elif len(leaders) < len(means):
        relation = "differ by less than the margin" if is_close else f"there is {difference} them"
        text = f"{format_list(leaders)} lead, and {relation} ({reach})."
    elif is_close:
        text = f"{format_list(leaders)} differ by less than the margin ({reach})."
    else:
        text = f"there is {difference} {format_list(leaders)} ({reach})."
    if variable:
        verb = "are" if len(variable) > 1 else "is"
        values = format_value(metric, *sorted((means[variable[0]], means[variable[-1]])))
        text += f"  {format_list(variable)} {verb} too variable to rank ({values})."
    seeds, diverged = record.budget.seeds, {entry.name: entry.final.diverged for entry in record.entries}
    erratic = [f"{name} diverged on {diverged[name]} of {seeds} seeds" for name in verdict.leaders if diverged[name]]
    return f"{text}  {format_list(erratic)}: too unstable to rank." if erratic else text


def format_baseline_comparison(record: "RaceRecord", baseline: str) -> str:
    """Format the entries that win against the baseline, are slightly ahead of it, or lose to it."""
    metric, means = record.plan.metric, record.means

    def entries_with(verdict: PairVerdict, ahead: bool) -> list[str]:
        pairs = [pair for pair in record.verdict.pairs if pair.verdict is verdict]
        names = [pair.a if ahead else pair.b for pair in pairs if baseline == (pair.b if ahead else pair.a)]
        return sorted(names, key=lambda name: means[name], reverse=metric.higher_is_better)

    def reach(names: Sequence[str]) -> str:
        return format_value(metric, *sorted((means[names[0]], means[names[-1]])))

    won, lost = entries_with(PairVerdict.WINS, True), entries_with(PairVerdict.WINS, False)
    close = entries_with(PairVerdict.SLIGHTLY_AHEAD, True)
    own = format_value(metric, means[baseline])
    text = [f"nothing wins against {baseline} ({own})."]
    if won:
        verb = "win" if len(won) > 1 else "wins"
        text = [f"{format_list(won)} {verb} against {baseline} ({reach(won)} against {own})."]
    if close:
        text.append(f"{format_list(close)} {'are' if len(close) > 1 else 'is'} slightly ahead of it ({reach(close)}).")
    if lost:
        text.append(f"{format_list(lost)} {'lose' if len(lost) > 1 else 'loses'} to it ({reach(lost)}).")
    return "  ".join(text)


def format_behind(record: "RaceRecord") -> str:
    """Format the entries that another entry wins against, best first; empty if there are none."""
    means = record.means
    behind = [entry.name for entry in record.ranking if entry.name not in record.verdict.leaders]
    if not behind:
        return ""
    reach = format_value(record.plan.metric, *sorted((means[behind[0]], means[behind[-1]])))
    return f"{format_list(behind)} {'are' if len(behind) > 1 else 'is'} behind ({reach})."


def format_unequal_updates(record: "RaceRecord") -> list[str]:
    """Return a line on the numbers of updates if they differ between entries at equal numbers of examples."""
    if len({entry.updates for entry in record.entries}) <= 1:
        return []
    each = ", ".join(f"{entry.name} {entry.updates:,}" for entry in record.entries)
    return [
        f"All entries saw the same {record.budget.examples:,} examples, in different numbers of updates ({each}): "
        "with larger batches, fewer updates."
    ]


def format_protocol(record: "RaceRecord") -> str:
    """Return the last line of the answer: inconclusive comparisons and the protocol."""
    plan = record.plan
    count = sum(pair.verdict is PairVerdict.INCONCLUSIVE for pair in record.verdict.pairs)
    pairs = f"{format_count(count, 'comparison')} inconclusive" if count else "All comparisons conclusive"
    if plan.baseline is not None:
        pairs = f"Against {plan.baseline}: {pairs[0].lower()}{pairs[1:]}"
    schedule = format_schedule(plan)
    return f"{pairs}.  {plan.trials} trials + {plan.seeds} held-out seeds each, {format_tuned(plan.tune)}, {schedule}"


def format_tuned(names: Sequence[str]) -> str:
    """Format the tuned hyperparameters."""
    one = list(names) == ["lr"]
    return "learning rate only" if one else f"{format_list(names)} tuned where an optimizer has them"


def format_schedule(plan: "PlanDescription") -> str:
    """Format the learning-rate schedule."""
    if "schedule" in plan.tune:
        return "schedule tuned"
    return SCHEDULES.get(plan.schedule, f"{plan.schedule} decay")


def format_failures(failed: "Sequence[FailedRun]") -> list[str]:
    """Return a sentence for each optimizer with failed training runs."""
    by_entry: dict[str, list[FailedRun]] = {}
    for run in failed:
        by_entry.setdefault(run.entry, []).append(run)
    return [
        f"{_many(len(runs))} of {name} could not be trained and count as diverged. The first, with learning rate "
        f"{runs[0].learning_rate:g} and seed {runs[0].seed}: {runs[0].error.rstrip('.')}. The same command tries again."
        for name, runs in by_entry.items()
    ]


def format_unreproduced(reruns: "Sequence[Rerun]") -> list[str]:
    """Return a warning for each final run that its replication in a new process did not reproduce."""
    return [
        f"Warning: the final run of {rerun.entry} with seed {rerun.seed} came out otherwise when it was repeated "
        f"alone in a new process ({_difference(rerun)}), so the result may "
        "depend on what ran before. Look for state that task, loop or optimizer keep between runs (module globals, "
        "class attributes, caches), and for random numbers that do not begin at the seed."
        for rerun in reruns
        if not rerun.same
    ]


def _difference(rerun: "Rerun") -> str:
    again, first = _score(rerun.again), _score(rerun.metric)
    return f"{again} instead of {first}" if again != first else f"the same score, {first}, by other losses"


def _score(metric: float | None) -> str:
    return "diverged" if metric is None else f"{metric:.6g}"


def _many(count: int) -> str:
    return "A training run" if count == 1 else f"{count} training runs"
