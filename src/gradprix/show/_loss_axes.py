"""Axis of the tuning objective: logarithmic for positive losses, linear for scores and losses of any sign."""

import math
from dataclasses import dataclass
from typing import Any

from plotly import graph_objects as go

from gradprix.race import RaceRecord

from .style import escape_label, padded, ticks

TOP, FAR = 60.0, 25.0
"""Clipping limits of the axis, beyond which a loss is only "too high": a multiple of the near-optimal limit on a
logarithmic axis, and a multiple of its distance from the best loss on a linear axis."""


@dataclass(frozen=True)
class LossAxis:
    """Axis shared by all tuning runs of a race.

    Args:
        name: axis title.
        score: values are scores of a custom training loop, not losses.
        started: the initial loss is known.
        turn: −1 if the loss is a negated score, otherwise 1.
        log: the axis is logarithmic.
        best: end of the axis on the better side, as a loss.
        worst: opposite end, at which diverged runs are drawn.
        limit: largest near-optimal loss.
    """

    name: str
    score: bool
    started: bool
    turn: int
    log: bool
    best: float
    worst: float
    limit: float

    @classmethod
    def from_record(cls, record: RaceRecord) -> "LossAxis":
        """Return the axis that fits the tuning runs of a record."""
        metric, loop = record.plan.metric, record.plan.loop
        losses = [run.loss for runs in record.tuning_runs.values() for run in runs if run.diverged is None] or [1.0]
        limit, best, worst = math.inf, min(losses), max(losses)
        name = f"validation {metric.name}" if loop else "validation loss"
        started = record.initial_loss is not None
        turn = -1 if loop and metric.higher_is_better else 1
        known = math.isfinite(limit)
        if best > 0 and not loop:
            top = min(1.1 * worst, TOP * limit) if known else 1.1 * worst
            return cls(name, loop, started, turn, True, 0.8 * best, max(top, best), limit)
        top = min(worst, best + FAR * (limit - best)) if known and limit > best else worst
        pad = 0.08 * (top - best) or 0.5
        return cls(name, loop, started, turn, False, best - pad, top + pad, limit)

    def position(self, loss: float) -> float:
        """Return the axis value at which a loss is drawn."""
        return self.turn * min(loss, self.worst)

    def near_optimal_range(self) -> list[float]:
        """Return the ends of the near-optimal range, in ascending order."""
        limit = min(self.limit, self.worst * (1.25 if self.log else 1))
        return sorted((self.turn * self.best, self.turn * limit))

    def axis(self) -> dict[str, Any]:
        """Return the plotly axis settings."""
        if self.log:
            low, high = math.log10(self.best), math.log10(1.25 * self.worst)
            return {"type": "log", "range": [low, high], **ticks(low, high)}
        low, high = sorted((self.turn * self.best, self.turn * self.worst))
        pad = 0.04 * (high - low)
        return {"range": [low - pad, high + pad]}

    def draw(self, fig: go.Figure) -> None:
        """Apply the axis to all panels, with its title and the near-optimal range."""
        low, high = self.near_optimal_range()
        look = {"type": "rect", "fillcolor": "rgba(128,128,128,0.16)", "line": {"width": 0}, "layer": "below"}
        panels = dict.fromkeys((trace.xaxis or "x", trace.yaxis or "y") for trace in fig.data)
        zones = [{**look, "xref": f"{x} domain", "x0": 0, "x1": 1, "yref": y, "y0": low, "y1": high} for x, y in panels]
        fig.update_layout(shapes=zones)  # in one call: add_hrect takes a tenth of a second for each panel
        fig.update_yaxes(**self.axis())
        fig.update_yaxes(title=escape_label(self.name), col=1)

    def describe(self) -> str:
        """Describe the near-optimal range for a caption."""
        if self.score:
            side = "or more, two margins below" if self.turn < 0 else "or less, two margins above"
            return f"{self.turn * self.limit:.3g} {side} the median entry's best"
        how = "a twentieth of the way from the median entry's best to the loss at the start"
        return f"up to {self.limit:.3g}, " + (how if self.started else "near the median entry's best")


def late_loss_axis(values: list[float]) -> dict[str, Any]:
    """Return an axis that fits losses late in training, logarithmic if all are positive."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) <= 0:
        return {"range": padded(values)}
    low, high = padded([math.log10(value) for value in finite])
    return {"type": "log", "range": [low, high], **ticks(low, high)}
