"""Answer of a race in sentences, generated from its record."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from gradprix.stats.alpha_spending import ANALYSIS_SEEDS
from gradprix.stats.permutation_test import LEVEL
from gradprix.stats.verdict import PairVerdict
from gradprix.tuning import FEWEST_TWOFOLD
from gradprix.utils.wording import format_choice, format_count, format_list, format_number

from .recommendation import format_reason, recommended_group
from .reduced_budget import format_budget_sensitivity, format_equal_time
from .units import format_difference, format_value

if TYPE_CHECKING:
    from gradprix.race.best import Best
    from gradprix.race.plan_description import PlanDescription
    from gradprix.race.record import RaceRecord
    from gradprix.race.run_records import FailedRun, Rerun

TRAINING = ("batch_size", "schedule", "clip_norm")
"""Names of tuned hyperparameters that are no arguments of the optimizer."""
SCHEDULES = {
    "constant": "constant learning rate",
    "warmup": "constant learning rate after warm-up",
    "its own": "its own schedule",
}
"""Description of each learning-rate schedule that is not a decay."""


def format_answer(record: "RaceRecord") -> str:
    """Return the answer of a race as text, one sentence or warning per line.

    It states the recommended entry with the bound of its regret, the reason, the alternatives, the entries that are
    behind, and warnings.
    """
    return "\n".join(answer_lines(record, f": {format_code(record.best, record.entry(record.best.name).tuned)}"))


def format_code(best: "Best", tuned: "Mapping[str, Any]") -> str:
    """Return the constructor call of an optimizer, with those tuned values that belong to the training.

    Args:
        best: the optimizer.
        tuned: its tuned values.
    """
    settings = [f"{name}={tuned[name]!r}" for name in TRAINING if name in tuned]
    return f"{best.code}, trained with {', '.join(settings)}" if settings else best.code


def answer_lines(record: "RaceRecord", code: str = ".") -> list[str]:
    """Return the answer of a race as a list of lines; see `format_answer`.

    Args:
        record: record of a race.
        code: text to append to the line with the reason, such as a colon and the constructor call of the optimizer.
    """
    shortened = format_equal_time(record), format_budget_sensitivity(record)
    if _all_diverged(record):
        lines = [f"{record.task}: {format_headline(record)}"]
    elif record.plan.baseline is not None:
        comparison, bounded = format_baseline_comparison(record, record.plan.baseline), record.verdict.bound is not None
        lines = [f"{record.task}: {comparison}", f"Recommended: {record.best.name} ({format_reason(record)}){code}"]
        headline = _capitalize(format_headline(record)) if bounded else ""
        lines += filter(None, (headline, format_divergence(record), *shortened))
    else:
        lines = [f"{record.task}: {format_headline(record)}", f"{format_pick(record)}{code}"]
        about_others = format_behind(record), format_divergence(record)
        lines += filter(None, (*about_others, *shortened))
    notes = format_unequal_updates(record), format_gradients(record), format_unreproduced(record.reruns)
    return [*lines, *chain(*notes)]


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def format_headline(record: "RaceRecord") -> str:
    """Format the recommendation, with the upper bound of its regret.

    If several entries are within the margin of the best, all of them are recommended. Records of earlier versions have
    no bound; then the leaders are named instead. If every final run diverged, nothing is recommended.
    """
    verdict, metric = record.verdict, record.plan.metric
    if _all_diverged(record):
        return (
            "every final run of every optimizer diverged, so there is nothing to choose between. Look at the task's "
            "loss and data first; smaller learning rates may help."
        )
    if verdict.bound is None or verdict.margin is None or verdict.level is None:
        leaders = format_list(verdict.leaders)
        return f"use {record.best.name}. {leaders} lead{'s' * (len(verdict.leaders) == 1)}."
    stable = sum(not entry.final.diverged for entry in record.entries)
    count = stable if stable > 1 else len(record.entries)
    best = "the other" if count == 2 else f"the best of these {format_number(count)}"
    if count < len(record.entries):
        best = f"the best of the {format_number(count)} that did not diverge"
    level = f"({100 * verdict.level:.0f}\N{NO-BREAK SPACE}%, {record.budget.seeds} seeds)"
    if len(group := recommended_group(record)) > 1:
        largest = max(record.entry(name).bound or 0.0 for name in group)
        any_of_them = "either" if len(group) == 2 else "any of them"
        distance = f"is at most {format_difference(metric, largest)} behind" if largest else "is not behind"
        return f"use {format_choice(group)}; {any_of_them} will do. Each {distance} {best} {level}."
    if verdict.bound == 0:
        return f"use {record.best.name}. It is not behind {best} {level}."
    bound, margin = (format_difference(metric, each) for each in (verdict.bound, verdict.margin))
    if verdict.bound <= verdict.margin:
        return f"use {record.best.name}. It is at most {bound} behind {best} {level}."
    digits = 2
    while bound == margin and digits < 9:
        digits += 1
        bound, margin = (format_difference(metric, each, digits) for each in (verdict.bound, verdict.margin))
    text = f"use {record.best.name}. It is at most {bound} behind {best} {level}, more than the margin of {margin}"
    return f"{text}{_remedy(record)}."


def _all_diverged(record: "RaceRecord") -> bool:
    return all(entry.final.all_diverged for entry in record.entries)


def format_pick(record: "RaceRecord") -> str:
    """Give the reason for the recommended entry. Where several would do, the choice among them is called a tie-break.

    A tie-break may come out differently on another machine, whose rounding differs.
    """
    name, leaders = record.best.name, record.verdict.leaders
    reason, group = format_reason(record), recommended_group(record)
    tie_break = f"{name} is a tie-break, which may differ between machines: {reason}"
    if len(group) > 1:
        return tie_break
    if not group and name in leaders and len(leaders) > 1:
        return f"Leaders, with no significant difference among them: {format_list(leaders)}. {tie_break}"
    return f"Reason: {reason}"


def _remedy(record: "RaceRecord") -> str:
    """Suggest how to reduce a bound that exceeds the margin: more trials, for two searches, or more seeds.

    Returns an empty string if neither would help.
    """
    plan = record.plan
    if plan.trials < FEWEST_TWOFOLD and plan.tunes_learning_rate_only:
        return f". {FEWEST_TWOFOLD} trials (--trials) would make it smaller"
    return ". More seeds (--seeds) may help" if record.budget.seeds < ANALYSIS_SEEDS[-1] else ""


def format_divergence(record: "RaceRecord") -> str:
    """Format the number of diverged final runs of each entry, or return an empty string if none diverged.

    If no run of the recommended entry diverged, the upper limit of its divergence rate follows (95 % confidence).
    """
    seeds, diverged = record.budget.seeds, {entry.name: entry.final.diverged for entry in record.entries}
    erratic = [f"{name} diverged on {count} of {seeds} seeds" for name, count in diverged.items() if count]
    if not erratic:
        return ""
    text = f"{format_list(erratic)}: too unstable to lead."
    if diverged[record.best.name] == 0:
        at_most = 1 - LEVEL ** (1 / seeds)  # exact one-sided limit, Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404
        text += f"  0 of {seeds} of {record.best.name} diverged: up to {100 * at_most:.0f} % is possible (95 %)."
    return text


def format_baseline_comparison(record: "RaceRecord", baseline: str) -> str:
    """Format the comparison with the baseline: entries that win against it, are slightly ahead of it, or lose to it.

    Args:
        record: record of a race with a baseline.
        baseline: name of the baseline.
    """
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
    """Format the entries that lose to at least one other, best first.

    Returns an empty string if there are no such entries.
    """
    wins = [pair for pair in record.verdict.pairs if pair.verdict is PairVerdict.WINS]
    means, lost = record.means, {pair.b for pair in wins}
    behind = [entry.name for entry in record.ranking if entry.name in lost]
    if not behind:
        return ""
    reach = format_value(record.plan.metric, *sorted((means[behind[0]], means[behind[-1]])))
    if len(behind) > 1:
        return f"{format_list(behind)} each lose to at least one other ({reach})."
    winners = {pair.a for pair in wins}
    return (
        f"{behind[0]} loses to {format_list([each.name for each in record.ranking if each.name in winners])} ({reach})."
    )


def format_unequal_updates(record: "RaceRecord") -> list[str]:
    """Return a note on the number of updates of each entry, as a list with one line.

    Returns an empty list if all entries made the same number of updates.
    """
    if len({entry.updates for entry in record.entries}) <= 1:
        return []
    each = ", ".join(f"{entry.name} {entry.updates:,}" for entry in record.entries)
    return [
        f"All entries saw the same {record.budget.examples:,} examples, in different numbers of updates ({each}): "
        "with larger batches, fewer updates."
    ]


def format_gradients(record: "RaceRecord") -> list[str]:
    """Return a note on entries that compute several gradients in a step, as a list with one line.

    Returns an empty list if there are none.
    """
    several = {
        entry.name: entry.gradients / entry.updates
        for entry in record.entries
        if entry.gradients is not None and entry.updates and entry.gradients > entry.updates
    }
    if not several:
        return []
    each = format_list([f"{name} computed {number:.3g}" for name, number in several.items()])
    others = ", the others one" if len(several) < len(record.entries) else ""
    return [f"Gradients of each batch: {each}{others}. All entries saw the same examples; their times differ."]


def format_protocol(record: "RaceRecord") -> str:
    """Format the number of inconclusive comparisons and the protocol: trials, seeds, tuned values, and schedule."""
    plan = record.plan
    count = sum(pair.verdict is PairVerdict.INCONCLUSIVE for pair in record.verdict.pairs)
    pairs = f"{format_count(count, 'comparison')} inconclusive" if count else "All comparisons conclusive"
    if plan.baseline is not None:
        pairs = f"Against {plan.baseline}: {pairs[0].lower()}{pairs[1:]}"
    budget = f"{plan.trials} trials + {record.budget.seeds} held-out seeds each{format_untuned(record)}"
    return f"{pairs}.  {budget}, {format_tuned(plan.tune)}, {format_schedule(plan)}"


def format_untuned(record: "RaceRecord") -> str:
    """Name the entries without tuned hyperparameters, in parentheses; empty if there are none."""
    names = [entry.name for entry in record.entries if not entry.tuned]
    return f" (1 trial of {format_list(names)}, where nothing is tuned)" if names else ""


def format_tuned(names: Sequence[str]) -> str:
    """Describe the hyperparameters that were tuned."""
    if not names:
        return "nothing tuned"
    one = list(names) == ["lr"]
    return "learning rate only" if one else f"{format_list(names)} tuned where an optimizer has them"


def format_schedule(plan: "PlanDescription") -> str:
    """Describe the learning-rate schedule."""
    if "schedule" in plan.tune:
        return "schedule tuned"
    return SCHEDULES.get(plan.schedule, f"{plan.schedule} decay")


def format_failures(failed: "Sequence[FailedRun]") -> list[str]:
    """Return a sentence for each entry with training runs that failed: their number, and the error of the first one."""
    by_entry: dict[str, list[FailedRun]] = {}
    for run in failed:
        by_entry.setdefault(run.entry, []).append(run)
    return [
        f"{_count_runs(len(runs))} of {name} could not be trained and count as diverged. The first, with "
        f"{_format_learning_rate(runs[0])}seed {runs[0].seed}: {runs[0].error.rstrip('.')}. The same command tries "
        "again."
        for name, runs in by_entry.items()
    ]


def _format_learning_rate(run: "FailedRun") -> str:
    return "" if run.learning_rate is None else f"learning rate {run.learning_rate:g} and "


def format_unreproduced(reruns: "Sequence[Rerun]") -> list[str]:
    """Return a warning for each final run whose repetition in a new process gave another result."""
    return [
        f"Warning: the final run of {rerun.entry} with seed {rerun.seed} came out otherwise when it was repeated "
        f"alone in a new process ({_format_rerun_difference(rerun)}), so the result may "
        "depend on what ran before. Look for state that task, loop or optimizer keep between runs (module globals, "
        "class attributes, caches), and for random numbers that do not begin at the seed."
        for rerun in reruns
        if not rerun.same
    ]


def _format_rerun_difference(rerun: "Rerun") -> str:
    again, first = _format_score(rerun.again), _format_score(rerun.metric)
    return f"{again} instead of {first}" if again != first else f"the same score, {first}, by other losses"


def _format_score(metric: float | None) -> str:
    return "diverged" if metric is None else f"{metric:.6g}"


def _count_runs(count: int) -> str:
    return "A training run" if count == 1 else f"{count} training runs"
