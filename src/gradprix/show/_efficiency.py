"""Tuning budget and speed: results with fewer trials, at default settings, and time to the target."""

import math
from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Any

from plotly import graph_objects as go

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.utils.wording import format_list

from . import _page
from ._page import scale, value
from .style import apply_layout, padded, rounded, styles

SOME = (1, 2, 3)
"""Numbers of trials for which the caption names the best entry."""


def budget(record: RaceRecord) -> go.Figure:
    """Plot the expected best validation metric after n random trials, one line per entry."""
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
            name=escape(entry.name),
            line={"color": look["color"], "dash": look["dash"], "width": 2},
            marker={"symbol": look["symbol"], "size": 8},
            hovertemplate="%{x} trials: %{y:.4~g}",
        )
    fig.update_xaxes(title="trials, drawn at random from the first phase of tuning", dtick=1)
    fig.update_yaxes(title=f"validation {escape(metric.name.removeprefix('test '))}", range=padded(displayed))
    fig.update_yaxes(ticksuffix=" %" if metric.percent else "")
    return apply_layout(fig, 460, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})


def read_budget(record: RaceRecord) -> str:
    """Return the caption of `budget`, with the best entries for few trials."""
    expected, chances = record.efficiency.expected, record.efficiency.probability_best
    turn = 1 if record.plan.metric.higher_is_better else -1
    most = min(map(len, expected.values()))
    best = []
    for k in [k for k in SOME if k < most]:
        name = max(expected, key=lambda name: turn * expected[name][k - 1])
        share = f"best of all in {100 * chances[name][k - 1]:.0f}&nbsp;% of draws"
        trials = "1 trial" if k == 1 else f"{k} trials"
        best.append(f"with {trials} {escape(name)} ({value(record, expected[name][k - 1])}, {share})")
    what = "learning rates" if record.plan.tunes_learning_rate_only else "points"
    return (
        f"Expected best validation score after n trials: {what} drawn at random from the first phase of tuning, which "
        "spreads them evenly over the range. "
        + (f"Highest: {format_list(best)}. " if best else "")
        + "All on one tuning seed, so the variation between seeds is included. The axis fits two trials and more."
    )


def pace(record: RaceRecord) -> str:
    """Return the table of defaults, targets and times, with a legend of its columns."""
    efficiency, seeds = record.efficiency, record.budget.seeds
    timed = not record.plan.loop
    head = ["entry", "at its default", "tuned", "gained by tuning", "usable learning-rate range", "reached the target"]
    head += ["examples until then", "a step by itself", "seconds until then"] if timed else ["epochs until then"]
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _row(record, e))}</tr>" for e in record.ranking)
    name = escape(record.plan.metric.name.removeprefix("test "))
    text = (
        f"Default and tuned: validation {name} on the first tuning seed; “-” where the default rate lies outside of "
        f"what was tried. The target is a validation {name} of {value(record, efficiency.target)}, what the median "
        f"entry's tuning reached but for the margin: on how many of {seeds} final seeds a tuned entry reached it, and "
        f"the median of {'examples' if timed else 'epochs'} seen by then, runs that did not reach it counted as later "
        "than all that did. "
        "Under a schedule that falls to zero, most progress comes late."
    )
    if timed:
        text += (
            " A step by itself: forward, backward and the optimizer, of one network in a loop of its own with all of "
            "torch's threads on the machine that raced, as your training would run."
        )
    return f'<p class="note">{text}</p>{_page.table(head, f"<tbody>{rows}</tbody>")}'


def _row(record: RaceRecord, entry: EntryResult) -> Sequence[Any]:
    efficiency, name = record.efficiency, entry.name
    turn = 1 if record.plan.metric.higher_is_better else -1
    start, tuned = efficiency.default[name], efficiency.tuned[name]
    examples = efficiency.examples[name]
    seen = until(examples)
    cells = [
        f"<b>{escape(name)}</b>",
        "-" if start is None else value(record, start),
        value(record, tuned),
        "-" if start is None else _page.signed(record, turn * (tuned - start)),
        _page.factor(entry.tolerance_decades),
        f"{sum(x is not None for x in examples)} of {len(examples)}",
        "-" if seen is None else f"{seen:,.0f}",
    ]
    step = record.cost.step_seconds[name]
    if step is not None:
        cells += [f"{1e3 * step:.3g} ms", "-" if (took := seconds(record, entry)) is None else f"{took:.3g} s"]
    return cells


def until(examples: Sequence[float | None]) -> float | None:
    """Return the median number of examples to the target; None if half of the runs did not reach it."""
    middle = median(math.inf if seen is None else seen for seen in examples)
    return middle if math.isfinite(middle) else None


def seconds(record: RaceRecord, entry: EntryResult) -> float | None:
    """Estimate the seconds to the target for a plain training loop, without evaluation."""
    seen, step = until(record.efficiency.examples[entry.name]), record.cost.step_seconds[entry.name]
    if seen is None or step is None or not entry.updates or not record.plan.examples:
        return None
    return float(seen / record.plan.examples * entry.updates * step)
