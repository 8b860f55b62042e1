"""What the figures of a race show, as sentences: the titles of the figures."""

from statistics import median
from typing import TYPE_CHECKING

from gradprix.stats.verdict import PairVerdict
from gradprix.utils.wording import format_count, format_list, format_number

from .units import format_points, format_value

if TYPE_CHECKING:
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
    distance = format_points(metric, margin)
    if len(near) == len(others):
        return f"All means are within {distance} of {which}, that of {value}."
    if not near:
        return f"No other mean is within {distance} of {which}, that of {value}."
    names = format_list(near) if len(near) <= MOST_NAMES else f"{format_number(len(near))} others".capitalize()
    verb = "is" if len(near) == 1 else "are"
    return f"{names} {verb} within {distance} of {which}, that of {value}."


def format_pairs_title(record: "RaceRecord") -> str:
    """Count the significant comparisons, and name the entry that wins most of them."""
    pairs = record.verdict.pairs
    winners = [pair.a for pair in pairs if pair.verdict is PairVerdict.WINS]
    ahead = sum(pair.verdict is PairVerdict.SLIGHTLY_AHEAD for pair in pairs)
    if not winners:
        slight = f"; {format_count(ahead, 'lead')} within the margin" if ahead else ""
        return f"None of the {len(pairs)} comparisons shows a difference beyond the margin{slight}."
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
    """Name the entry with the widest learning-rate tolerance, and that with the narrowest."""
    entries = [entry for entry in record.ranking if "lr" in entry.tuned]
    widest, narrowest = (pick(entries, key=lambda entry: entry.tolerance_decades) for pick in (max, min))
    if widest.tolerance_decades < NARROW:
        return f"Every optimizer needs its learning rate in a range of {_factor(widest)}× or less: tune it closely."
    text = f"{widest.name} is most forgiving: learning rates in a range of {_factor(widest)}× come close to its best"
    if _factor(narrowest) == _factor(widest):
        return f"{text}."
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
    half, last = (pick(middles, key=lambda name: middles[name][at]) for at in (0, 1))
    if len(record.curves[last].valid_metric[0]) < 2:
        return f"{last} has the best validation score after training."
    if half == last:
        return f"{last} is ahead at half of training and at the end."
    return f"By the median validation score, {half} is ahead at half of training, {last} at the end."


def format_points_title(record: "RaceRecord") -> str:
    """Name the recommended entry's tuned values."""
    tuned = record.entry(record.best.name).tuned
    values = [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in tuned.items()]
    return f"{record.best.name} works best at {format_list(values)}." if values else "Nothing was tuned."


def format_budget_title(record: "RaceRecord") -> str:
    """Name the entries with the best expected validation score after few trials, and after all."""
    expected = record.efficiency.expected
    pick = max if record.plan.metric.higher_is_better else min
    most = min(map(len, expected.values()))
    few = min(3, most)
    first, last = (pick(expected, key=lambda name: expected[name][trials - 1]) for trials in (few, most))
    if few == most or first == last:
        return f"With {format_count(few, 'trial')}{'' if few == most else ' or more'}, {first} is expected to do best."
    return f"With {format_count(few, 'trial')}, {first} is expected to do best, with {most}, {last}."
