"""Tuning budget and speed: results with fewer trials, results at default settings, and time to the target."""

import math
from collections.abc import Sequence
from statistics import median

from plotly import graph_objects as go

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.utils.wording import format_count

from ._formatting import format_difference, format_value, scale
from .style import apply_layout, escape_label, padded, rounded, styles

CAPTION_TRIALS = (1, 2, 3)
"""Numbers of trials for which the caption names the best entry."""


def budget(record: RaceRecord) -> go.Figure:
    """Plot the expected best validation metric after n random trials against n, with a line for each entry."""
    looks, metric = styles(record), record.plan.metric
    fig, displayed = go.Figure(), []
    for entry in record.ranking:
        expected = [scale(record) * x for x in record.efficiency.expected[entry.name]]
        displayed += expected[1:] or expected
        look = looks[entry.name]
        fig.add_scatter(
            x=list(range(1, len(expected) + 1)),
            y=rounded(expected),
            mode="lines+markers",
            name=look["label"],
            line={"color": look["color"], "dash": look["dash"], "width": 2},
            marker={"symbol": look["symbol"], "size": 8},
            hovertemplate="%{x} trials: %{y:.4~g}",
        )
    fig.update_xaxes(title="trials, drawn at random from the first phase of tuning", dtick=1)
    fig.update_yaxes(title=f"validation {escape_label(metric.name.removeprefix('test '))}", range=padded(displayed))
    fig.update_yaxes(ticksuffix=" %" if metric.percent else "")
    return apply_layout(fig, 460, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})


def format_best_by_trials(record: RaceRecord) -> list[str]:
    """Return a phrase for each number of trials in `CAPTION_TRIALS`.

    It names the entry with the best expected score after that number of trials, the score, and the probability that
    this entry is the best of all.
    """
    expected, chances = record.efficiency.expected, record.efficiency.probability_best
    turn = 1 if record.plan.metric.higher_is_better else -1
    most = min(map(len, expected.values()))
    phrases = []
    for k in [k for k in CAPTION_TRIALS if k < most]:
        name = max(expected, key=lambda name: turn * expected[name][k - 1])
        share = f"best of all in {100 * chances[name][k - 1]:.0f}\u00a0% of draws"
        score = format_value(record, expected[name][k - 1])
        phrases.append(f"with {format_count(k, 'trial')} {name} ({score}, {share})")
    return phrases


def format_speed(record: RaceRecord) -> dict[str, list[str]]:
    """Format the table of efficiency: a list of cells for each entry, by its name."""
    return {entry.name: _format_entry_speed(record, entry) for entry in record.ranking}


def _format_entry_speed(record: RaceRecord, entry: EntryResult) -> list[str]:
    """Format an entry's row of the table of efficiency.

    Returns:
        The score with the default learning rate, the tuned score, their difference, the number of runs that reached the
        target, the number of examples until then, and, if known, the duration of a step and the time to the target.
    """
    efficiency, name = record.efficiency, entry.name
    turn = 1 if record.plan.metric.higher_is_better else -1
    start, tuned = efficiency.default[name], efficiency.tuned[name]
    examples = efficiency.examples[name]
    seen = until(examples)
    cells = [
        "-" if start is None else format_value(record, start),
        format_value(record, tuned),
        "-" if start is None else format_difference(record, turn * (tuned - start)),
        f"{sum(x is not None for x in examples)} of {len(examples)}",
        "-" if seen is None else f"{seen:,.0f}",
    ]
    step = record.cost.step_seconds[name]
    if step is not None:
        cells += [f"{1e3 * step:.3g} ms", "-" if (took := seconds(record, entry)) is None else f"{took:.3g} s"]
    return cells


def until(examples: Sequence[float | None]) -> float | None:
    """Return the median number of examples that runs needed to reach the target.

    Returns None if half of the runs or more did not reach it.

    Args:
        examples: number of examples that each run needed; None if it did not reach the target.
    """
    middle = median(math.inf if seen is None else seen for seen in examples)
    return middle if math.isfinite(middle) else None


def seconds(record: RaceRecord, entry: EntryResult) -> float | None:
    """Estimate the seconds that a plain training loop without evaluation needs to reach the target.

    Returns None if half of the runs or more did not reach the target, or if the duration of a step is unknown.
    """
    seen, step = until(record.efficiency.examples[entry.name]), record.cost.step_seconds[entry.name]
    if seen is None or step is None or not entry.updates or not record.plan.examples:
        return None
    return float(seen / record.plan.examples * entry.updates * step)
