"""Answer of a race in words, derived from its numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradprix.stats.recommendation import too_variable

if TYPE_CHECKING:
    from gradprix.race.plan import Plan
    from gradprix.stats.verdict import Verdict
    from gradprix.tasks import Metric


def format_list(names: Sequence[str], most: int = 12) -> str:
    """Format names as `a, b and c`."""
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def format_count(count: int, noun: str) -> str:
    """Format a count with its noun: `1 task`, `2 tasks`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def format_value(metric: "Metric", *values: float) -> str:
    """Format one value or a range in the metric's unit: `97.2 to 97.4 %`."""
    written = [f"{100 * value:.1f}" if metric.percent else f"{value:.4g}" for value in values]
    return " to ".join(dict.fromkeys(written)) + (" %" if metric.percent else "")


def format_answer(
    plan: "Plan",
    means: Mapping[str, float],
    verdict: "Verdict",
    diverged: Mapping[str, int],
    chosen: str,
    why: str,
    code: str,
    updates: Mapping[str, int | None],
) -> str:
    """Return the first lines of the answer: leaders, entries behind them, and the recommended optimizer."""
    if all(count == plan.seeds for count in diverged.values()):
        return (
            f"{plan.task.name}: every final run of every optimizer diverged, so there is nothing to choose between. "
            "Look at the task's loss and data first; smaller learning rates may help."
        )
    trail = format_behind(plan.task.metric, means, verdict)
    lead = format_leaders(plan, means, verdict, diverged)
    if plan.baseline is not None:
        lead, trail = format_baseline_comparison(plan.baseline, plan.task.metric, means, verdict), ""
    first = f"{plan.task.name}: {lead}"
    lines = [first, f"{trail}{'  ' * bool(trail)}Take {chosen} ({why}): {code}", *format_unequal_updates(plan, updates)]
    return "\n".join(lines)


def format_leaders(plan: "Plan", means: Mapping[str, float], verdict: "Verdict", diverged: Mapping[str, int]) -> str:
    """Format the leaders, the differences among them, and the entries that are too variable to rank."""
    metric = plan.task.metric
    vague = too_variable(means, verdict.leaders, metric.higher_is_better)
    leaders = [name for name in verdict.leaders if name not in vague]
    reach = format_value(metric, *sorted((min(means[n] for n in leaders), max(means[n] for n in leaders))))
    verdicts = {pair.words for pair in verdict.pairs if pair.a in leaders and pair.b in leaders}
    relation = "differ by less than matters" if verdicts <= {"ties", "slightly ahead"} else "are not told apart"
    lead = "lead and " if len(leaders) < len(means) else ""
    text = f"{leaders[0]} leads{'' if vague else ' alone'} ({reach})."
    if len(leaders) > 1:
        text = f"{format_list(leaders)} {lead}{relation} ({reach})."
    if vague:
        verb = "vary" if len(vague) > 1 else "varies"
        values = format_value(metric, *sorted((means[vague[0]], means[vague[-1]])))
        text += f"  {format_list(vague)} {verb} too much to be told from them ({values})."
    erratic = [f"{n} diverged on {diverged[n]} of {plan.seeds} seeds" for n in verdict.leaders if diverged[n]]
    return f"{text}  {format_list(erratic)}: too erratic to be told from the others." if erratic else text


def format_baseline_comparison(baseline: str, metric: "Metric", means: Mapping[str, float], verdict: "Verdict") -> str:
    """Format the entries that win against the baseline, are slightly ahead of it, or lose to it."""

    def entries_with(words: str, ahead: bool) -> list[str]:
        pairs = [pair for pair in verdict.pairs if pair.words == words]
        names = [pair.a if ahead else pair.b for pair in pairs if baseline == (pair.b if ahead else pair.a)]
        return sorted(names, key=lambda name: means[name], reverse=metric.higher_is_better)

    def reach(names: Sequence[str]) -> str:
        return format_value(metric, *sorted((means[names[0]], means[names[-1]])))

    won, lost = entries_with("wins", True), entries_with("wins", False)
    close = entries_with("slightly ahead", True)
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


def format_behind(metric: "Metric", means: Mapping[str, float], verdict: "Verdict") -> str:
    """Format the entries that another entry wins against, best first; empty if there are none."""
    behind = [name for name in means if name not in verdict.leaders]
    if not behind:
        return ""
    behind.sort(key=lambda name: means[name], reverse=metric.higher_is_better)
    reach = format_value(metric, *sorted((means[behind[0]], means[behind[-1]])))
    return f"{format_list(behind)} {'trail' if len(behind) > 1 else 'trails'} ({reach})."


def format_unequal_updates(plan: "Plan", updates: Mapping[str, int | None]) -> list[str]:
    """Return a line on the numbers of updates if they differ between entries at equal numbers of examples."""
    if len(set(updates.values())) <= 1:
        return []
    each = ", ".join(f"{name} {count:,}" for name, count in updates.items())
    return [
        f"All saw the same {plan.examples:,} examples, in different numbers of updates ({each}): "
        "at equal examples, whoever sees more of them before each update makes fewer updates."
    ]


def format_protocol(plan: "Plan", verdict: "Verdict") -> str:
    """Return the last line of the answer: inconclusive comparisons and the protocol."""
    unsettled = sum(pair.words == "not settled" for pair in verdict.pairs)
    pairs = {0: "Every pair is settled", 1: "Not settled: 1 pair"}.get(unsettled, f"Not settled: {unsettled} pairs")
    if plan.baseline is not None:
        pairs = f"Against {plan.baseline}: {pairs[0].lower()}{pairs[1:]}"
    return (
        f"{pairs}.  {plan.trials} trials + {plan.seeds} fresh seeds each, {format_tuned(plan)}, {format_schedule(plan)}"
    )


def format_tuned(plan: "Plan") -> str:
    """Format the tuned hyperparameters."""
    one = plan.tuned == ["lr"]
    return "learning rate only" if one else f"{format_list(plan.tuned)} tuned where an optimizer has them"


def format_schedule(plan: "Plan") -> str:
    """Format the learning-rate schedule."""
    if "schedule" in plan.tuned:
        return "schedule tuned"
    known = {"constant": "constant rate", "warmup": "constant rate after a warm-up", "its own": "its own schedule"}
    return known.get(plan.task.schedule, f"{plan.task.schedule} decay")


def format_failures(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each optimizer with failed training runs."""
    by_entry: dict[str, list[Mapping[str, Any]]] = {}
    for each in failed:
        by_entry.setdefault(each["entry"], []).append(each)
    return [
        f"{_many(len(runs))} of {name} could not be trained and count as diverged. The first, with learning rate "
        f"{runs[0]['lr']:g} and seed {runs[0]['seed']}: {runs[0]['error'].rstrip('.')}. The same command tries again."
        for name, runs in by_entry.items()
    ]


def format_unreproduced(reruns: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a warning for each final run that its replication in a new process did not reproduce."""
    return [
        f"Warning: the final run of {each['entry']} with seed {each['seed']} came out otherwise when it was repeated "
        f"alone in a new process ({_difference(each)}), so the result may "
        "depend on what ran before. Look for state that task, loop or optimizer keep between runs (module globals, "
        "class attributes, caches), and for random numbers that do not begin at the seed."
        for each in reruns
        if not each["same"]
    ]


def _difference(rerun: Mapping[str, Any]) -> str:
    again, first = _score(rerun["again"]), _score(rerun["metric"])
    return f"{again} instead of {first}" if again != first else f"the same score, {first}, by other losses"


def _score(metric: float | None) -> str:
    return "diverged" if metric is None else f"{metric:.6g}"


def _many(count: int) -> str:
    return "A network" if count == 1 else f"{count} networks"
