"""Sentences and tables of the sections of a race report, computed from the record."""

import shlex
from collections import Counter
from typing import NamedTuple

import numpy as np

from gradprix.race import RaceRecord
from gradprix.stats.verdict import PairVerdict, own_interval
from gradprix.text.answer import format_failures
from gradprix.utils.wording import format_list

from ._formatting import format_distance, format_value

COUNTED = {
    PairVerdict.WINS: "won",
    PairVerdict.SLIGHTLY_AHEAD: "slightly ahead",
    PairVerdict.TIES: "tied",
    PairVerdict.INCONCLUSIVE: "inconclusive",
}


class Estimate(NamedTuple):
    """Formatted estimate.

    Args:
        number: formatted number.
        interval: formatted confidence interval; empty if there is none.
        is_clear: print the number bold, because it supports a conclusion.
    """

    number: str
    interval: str = ""
    is_clear: bool = False


def format_comparisons(record: RaceRecord) -> list[str]:
    """Return sentences about the pairwise comparisons.

    They give the number of comparisons with each verdict, and the additional seeds that would make inconclusive
    comparisons of the recommended entry conclusive.
    """
    pairs, chosen = record.verdict.pairs, record.verdict.recommended
    counts = Counter(pair.verdict for pair in pairs)
    each = ", ".join(f"{counts[verdict]} {COUNTED[verdict]}" for verdict in PairVerdict if counts[verdict])
    text = [f"Of {len(pairs)} pairs: {each}."] if len(counts) > 1 else []
    needs = {p.b if p.a == chosen else p.a: p for p in pairs if chosen in (p.a, p.b)}
    few = sorted((pair.more_seeds, name) for name, pair in needs.items() if pair.more_seeds)[:3]
    if few:
        each = format_list([f"{name} (about {seeds:,})" for seeds, name in few])
        text.append(f"More seeds would first settle the comparisons of {chosen} with {each}.")
    return text


def format_warnings(record: RaceRecord) -> list[str]:
    """Return warnings about the validity of the results, one sentence each."""
    lines = []
    edge = [f"{entry.name} ({', '.join(entry.edges)})" for entry in record.entries if entry.edges]
    if edge:
        lines.append(
            f"The best setting of {format_list(edge, len(edge))} is at the edge of the search range: "
            "the optimum may lie further out. Widen the range."
        )
    if not record.plan.tested:
        lines.append(
            "The score is the one that the learning rates were tuned by: it flatters all entries, and those most that "
            "were lucky in tuning. Have the loop yield “test”, a score of examples that nothing is tuned by."
        )
    lines += format_failures(record.failed)
    scored = format_value(record, record.plan.chance_level)
    lines += [
        f"{entry.name} diverged on {entry.final.diverged} of {record.budget.seeds} final seeds; these score {scored}."
        for entry in record.entries
        if entry.final.diverged
    ]
    return lines


def format_tuning(record: RaceRecord) -> str:
    """Describe the tuning trials and the criterion that selected the tuned values."""
    tried, what = record.tuning_runs.values(), "points"
    if record.plan.tunes_learning_rate_only:
        what = "rates"
    searches, counts, replicated, further = 1, set(), 0, 0
    for runs in tried:
        starts = {run.seed for run in runs if run.spread}  # the first seed of each search
        searches, first = max(searches, len(starts)), sum(run.seed in starts for run in runs)
        counts.add(first // max(1, len(starts)))
        replicated = max(replicated, (len(runs) - first) // max(1, len(starts)))
        further = max(further, len({run.seed for run in runs} - starts) // max(1, len(starts)))
    ran = " to ".join(dict.fromkeys(str(n) for n in (min(counts), max(counts))))
    text = f"{ran} {what} ran on one tuning seed"
    if searches > 1:
        text = f"In each of {searches} independent searches, {text}"
    if not further:
        return f"{text}. The lowest validation loss after the last step was taken."
    text += f", and the best {replicated // further} of them on {further} more."
    name = record.plan.metric.name.removeprefix("test ")
    if what == "points" or record.verdict.bound is None:  # earlier versions chose one of the learning rates, too
        return f"{text} The best mean validation {name} over all seeds was taken."
    combined = "; the choices of the searches are weighted by the response curve" if searches > 1 else ""
    return (
        f"{text} The tuned rate is the mean of these, on a logarithmic scale and weighted by their validation loss and "
        f"{name} over all seeds{combined}."
    )


def format_tuning_variance(record: RaceRecord) -> str:
    """Describe the tuning variance that the comparisons allow for.

    Returns an empty string for records of earlier versions, which ignore it.
    """
    deviation = record.verdict.tuning_deviation
    if deviation is None:
        return ""
    return (
        "Comparisons and bounds allow for the variation from tuning: "
        f"±{format_distance(record, deviation)} (standard deviation of each mean)."
    )


def format_measures(record: RaceRecord) -> dict[str, list[Estimate]]:
    """Return the estimates of the task's additional measures, for each entry by its name.

    They are means over the final runs that did not diverge, in the order of the measures. The dictionary is empty if
    there are no additional measures.
    """
    each = record.artifacts.numbers.values()
    return {entry.name: [_mean(values.get(entry.name, ())) for values in each] for entry in record.ranking if each}


def _mean(values: tuple[float | None, ...]) -> Estimate:
    """Return the formatted mean of the values that are not None, with its confidence interval."""
    finite = [value for value in values if value is not None]
    if len(finite) < 2:
        return Estimate(f"{finite[0]:.4g}" if finite else "-")
    low, high = own_interval(finite)
    return Estimate(f"{np.mean(finite):.4g}", f"{low:.4g} to {high:.4g}")


def make_text_tables(record: RaceRecord) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Return a table for each kind of text that the models generated, as (header, rows).

    A table has a row for each source text and a column for each entry.
    """
    tables = {}
    for name, outputs in record.artifacts.texts.items():
        own = [outputs[entry.name] for entry in record.ranking if entry.name in outputs]
        head = ["", *(entry.name for entry in record.ranking if entry.name in outputs)]
        sources = dict.fromkeys(source for texts in own for source in texts)
        tables[name] = head, [[source, *(texts.get(source, "") for texts in own)] for source in sources]
    return tables


def format_command(record: RaceRecord) -> str:
    """Return the command line that reproduces this race."""
    plan = record.plan
    words = ["gradprix", "race", plan.task, "--optimizers", ",".join(entry.name for entry in plan.entries)]
    budget = ["trials", "seeds", "seed"] + ["epochs", "batch_size", "schedule"] * (not plan.loop)
    if plan.loop:
        words += ["--direction", "max" if plan.metric.higher_is_better else "min"]
    if plan.baseline:
        words += ["--baseline", plan.baseline]
    if plan.tune and not plan.tunes_learning_rate_only:
        words += ["--tune", ",".join(plan.tune)]
    for name in budget:
        words += [f"--{name.replace('_', '-')}", str(getattr(plan, name))]
    words += ["--compile"] * plan.compiled
    if not plan.metric.relative:  # the option takes an absolute margin, in the metric's units
        words += ["--margin", f"{plan.metric.margin:g}"]
    return shlex.join(words)
