"""What the figures of a race show, as sentences: the titles of the figures."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from gradprix.stats.verdict import PairVerdict
from gradprix.utils.wording import format_count, format_list, format_number

from .units import format_points, format_value

if TYPE_CHECKING:
    from gradprix.race.plan_description import MetricDescription
    from gradprix.race.record import EntryResult, RaceRecord

NARROW = 0.5
"""Width of a learning-rate tolerance, in decades, below which the learning rate must be tuned closely."""
MOST_NAMES = 3


def format_ranking_title(record: "RaceRecord") -> str:
    """Name the entries whose mean is within the margin of the best one, or of the baseline."""
    metric, best = record.plan.metric, record.ranking[0]
    reference = record.entry(record.plan.baseline) if record.plan.baseline else best
    margin = record.plan.metric.least(best.final.mean) if record.verdict.margin is None else record.verdict.margin
    others = [entry for entry in record.ranking if entry is not reference]
    near = [entry.name for entry in others if abs(entry.final.mean - reference.final.mean) <= margin]
    value = f"{reference.name} ({format_value(metric, reference.final.mean)})"
    which = "the baseline" if record.plan.baseline else "the best mean"
    distance = _format_margin(metric, margin)
    if len(near) == len(others):
        return f"All means are within {distance} of {which}, that of {value}."
    if not near:
        return f"No other mean is within {distance} of {which}, that of {value}."
    names = format_list(near) if len(near) <= MOST_NAMES else f"{format_number(len(near))} others".capitalize()
    verb = "is" if len(near) == 1 else "are"
    return f"{names} {verb} within {distance} of {which}, that of {value}."


def _format_margin(metric: "MetricDescription", margin: float) -> str:
    """Format the margin with the digits that it has: `0.25 points`."""
    if not metric.percent:
        return format_points(metric, margin)
    points = f"{100 * margin:.3g}"
    return f"{points} point{'s' * (points != '1')}"


def format_pairs_title(record: "RaceRecord") -> str:
    """Count the significant comparisons, and name the entry that wins most of them."""
    pairs = record.verdict.pairs
    winners = [pair.a for pair in pairs if pair.verdict is PairVerdict.WINS]
    ahead = sum(pair.verdict is PairVerdict.SLIGHTLY_AHEAD for pair in pairs)
    if not winners:
        slight = f"; {format_count(ahead, 'lead')} within the margin" if ahead else ""
        which = f"None of the {len(pairs)} comparisons shows a" if len(pairs) > 1 else "The comparison shows no"
        return f"{which} difference beyond the margin{slight}."
    if len(pairs) == 1:
        return f"The comparison shows a difference beyond the margin: {winners[0]} wins."
    text = (
        f"{len(winners)} of {format_count(len(pairs), 'comparison')} {'show' if winners[1:] else 'shows'} a difference"
    )
    counts = {name: winners.count(name) for name in dict.fromkeys(winners)}
    most = max(counts.values())
    names = [entry.name for entry in record.ranking if counts.get(entry.name) == most]
    each = " each" * (len(names) > 1)
    return f"{text} beyond the margin; {format_list(names, MOST_NAMES)} {'win' if each else 'wins'} {most}{each}."


def format_standing(record: "RaceRecord", entry: "EntryResult") -> str:
    """Describe an entry's comparisons in a few words: to whom it loses, or how it compares with the best.

    In a race with a baseline, it is the comparison with the baseline.
    """
    name, baseline = entry.name, record.plan.baseline
    if name == baseline:
        return "baseline"
    if baseline is not None:
        pair = record.pair(name, baseline)
        forward = {"wins": "wins against", "slightly ahead": "slightly ahead of", "ties": "ties with"}
        backward = {"wins": "loses to", "slightly ahead": "slightly behind", "ties": "ties with"}
        phrase = (forward if pair.a == name else backward).get(pair.words)
        return f"{phrase} {baseline}" if phrase else "inconclusive"
    for verdict, phrase in ((PairVerdict.WINS, "loses to"), (PairVerdict.SLIGHTLY_AHEAD, "slightly behind")):
        ahead = {pair.a for pair in record.verdict.pairs if pair.b == name and pair.verdict is verdict}
        if ahead:
            first = next(each.name for each in record.ranking if each.name in ahead)
            return f"{phrase} {first}" + (f" and {len(ahead) - 1} more" if len(ahead) > 1 else "")
    best = record.ranking[0].name
    if name == best:
        return "best mean"
    return f"ties with {best}" if record.pair(name, best).verdict is PairVerdict.TIES else "inconclusive"


def format_sensitivity_title(record: "RaceRecord") -> str:
    """Name the entries with the widest learning-rate tolerance, and the entry with the narrowest.

    Entries whose tuning runs all diverged have no tolerance, and are left out.
    """
    entries = [
        entry
        for entry in record.ranking
        if "lr" in entry.tuned and any(run.is_scored for run in record.tuning_runs[entry.name])
    ]
    if not entries:
        return "All tuning runs diverged."
    widest, narrowest = (pick(entries, key=lambda entry: entry.tolerance_decades) for pick in (max, min))
    if widest.tolerance_decades < NARROW:
        which = "Every optimizer" if len(entries) > 1 else widest.name
        return f"{which} needs its learning rate in a range of {_factor(widest)}× or less: tune it closely."
    names = [entry.name for entry in entries if _factor(entry) == _factor(widest)]
    rates = f"learning rates in a range of {_factor(widest)}× come close to"
    if len(names) == len(entries):
        return f"For {'each optimizer' if len(names) > 1 else widest.name}, {rates} its best."
    best = "the best of each" if len(names) > 1 else "its best"
    text = f"{_format_names(names, 'is', 'are')} most forgiving: {rates} {best}"
    if narrowest.tolerance_decades <= 0.05:
        return f"{text}; {narrowest.name} needs one learning rate of those tried."
    return f"{text}; for {narrowest.name}, it is {_factor(narrowest)}×."


def _factor(entry: "EntryResult") -> str:
    factor = 10**entry.tolerance_decades
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.2g}"


def format_curves_title(record: "RaceRecord") -> str:
    """Name the entries with the best median validation metric at half of training and at the end."""
    pick = max if record.plan.metric.higher_is_better else min
    middles = {}
    for entry in record.ranking:
        values = [
            [record.plan.chance_level if value is None or value != value else value for value in run]
            for run in record.curves[entry.name].valid_metric
        ]
        middles[entry.name] = [median(run[at] for run in values) for at in ((len(values[0]) - 1) // 2, -1)]
    half, last = (_names_of_best({name: each[at] for name, each in middles.items()}, pick) for at in (0, 1))
    is_once = len(record.curves[last[0]].valid_metric[0]) < 2
    if len(half) == len(last) == len(middles):
        when = "after training" if is_once else "at half of training and at the end"
        return f"All optimizers have the same median validation score {when}."
    if is_once:
        return f"{_format_names(last, 'has', 'have')} the best validation score after training."
    if half == last:
        return f"{_format_names(half, 'is', 'are')} ahead at half of training and at the end."
    first, names = _format_names(half, "is", "are"), format_list(last, MOST_NAMES)
    return f"By the median validation score, {first} ahead at half of training, {names} at the end."


def _names_of_best(scores: Mapping[str, float], pick: Callable[..., float]) -> list[str]:
    """Return the names of all that have the best score."""
    best = pick(scores.values())
    return [name for name, score in scores.items() if score == best]


def _format_names(names: Sequence[str], singular: str, plural: str) -> str:
    """Format names with a verb: `adam is`, `adam and sgd are`."""
    return f"{format_list(names, MOST_NAMES)} {plural if len(names) > 1 else singular}"


def format_points_title(record: "RaceRecord") -> str:
    """Name the recommended entry's tuned values."""
    tuned = record.entry(record.best.name).tuned
    values = [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in tuned.items()]
    return f"{record.best.name} works best at {format_list(values)}." if values else "Nothing was tuned."


def format_budget_title(record: "RaceRecord") -> str:
    """Name the entries with the best expected validation score after few trials, and after all.

    The score of an entry without tuned hyperparameters is the same after any number of trials.
    """
    pick = max if record.plan.metric.higher_is_better else min
    expected = {name: values for name, values in record.efficiency.expected.items() if values}
    most = max(map(len, expected.values()))
    few = min(3, most)
    best = [
        _names_of_best({name: values[min(trials, len(values)) - 1] for name, values in expected.items()}, pick)
        for trials in range(few, most + 1)
    ]
    first, last = best[0], best[-1]
    start = f"With {format_count(few, 'trial')}"
    if all(len(names) == len(expected) for names in best):
        return f"{start}{' or more' * (few < most)}, all optimizers are expected to do equally well."
    if all(names == first for names in best):
        return f"{start}{' or more' * (few < most)}, {_format_names(first, 'is', 'are')} expected to do best."
    if first == last:
        return f"{start} and with {most}, {_format_names(first, 'is', 'are')} expected to do best."
    names = format_list(last, MOST_NAMES)
    return f"{start}, {_format_names(first, 'is', 'are')} expected to do best, with {most}, {names}."
