"""How what tuning goes by is drawn: losses in the logarithm; scores, and losses of any sign, as they are."""

import math
from dataclasses import dataclass
from html import escape
from typing import Any

from plotly import graph_objects as go

from ._page import Record
from .style import padded, ticks

TOP, FAR = 60.0, 25.0
"""What is above it says only "too high": so many times the limit of near-best losses; where losses are drawn as they
are, so many times as far from the best as the limit is."""


@dataclass(frozen=True)
class Losses:
    """The axis of all tuning runs of a race.

    Args:
        name: what is drawn.
        score: whether it is the score of a training loop, not a loss.
        started: whether the loss at the start is known.
        turn: −1 where it is a score of which the loss is the negative.
        log: whether it is drawn in the logarithm.
        best: the end of the axis on the better side, as a loss.
        worst: the other end, where diverged runs are.
        limit: up to where a loss is near the best.
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
    def of(cls, record: Record) -> "Losses":
        """Of a race's tuning runs."""
        metric, loop = record["plan"]["metric"], record["plan"]["loop"]
        losses = [run["loss"] for runs in record["tried"].values() for run in runs if run["diverged"] is None] or [1.0]
        limit, best, worst = record["near_limit"], min(losses), max(losses)
        name = f"validation {escape(metric['name'])}" if loop else "validation loss"
        started = record.get("start") is not None
        turn = -1 if loop and metric["higher_is_better"] else 1
        known = math.isfinite(limit)
        if best > 0 and not loop:
            top = min(1.1 * worst, TOP * limit) if known else 1.1 * worst
            return cls(name, loop, started, turn, True, 0.8 * best, max(top, best), limit)
        top = min(worst, best + FAR * (limit - best)) if known and limit > best else worst
        pad = 0.08 * (top - best) or 0.5
        return cls(name, loop, started, turn, False, best - pad, top + pad, limit)

    def shown(self, loss: float) -> float:
        """Where a loss is drawn."""
        return self.turn * min(loss, self.worst)

    def near(self) -> list[float]:
        """The zone of near-best values, from the smaller to the larger."""
        limit = min(self.limit, self.worst * (1.25 if self.log else 1))
        return sorted((self.turn * self.best, self.turn * limit))

    def axis(self) -> dict[str, Any]:
        """The axis."""
        if self.log:
            low, high = math.log10(self.best), math.log10(1.25 * self.worst)
            return {"type": "log", "range": [low, high], **ticks(low, high)}
        low, high = sorted((self.turn * self.best, self.turn * self.worst))
        pad = 0.04 * (high - low)
        return {"range": [low - pad, high + pad]}

    def draw(self, fig: go.Figure) -> None:
        """Give all panels the axis and its title, and the zone of near-best values."""
        low, high = self.near()
        zone = {"fillcolor": "rgba(128,128,128,0.16)", "line_width": 0, "layer": "below"}
        fig.add_hrect(low, high, row="all", col="all", **zone)
        fig.update_yaxes(**self.axis())
        fig.update_yaxes(title=self.name, col=1)

    def describe(self) -> str:
        """What is drawn, and which of it is near-best."""
        if self.score:
            side = "or more, two margins below" if self.turn < 0 else "or less, two margins above"
            return f"{self.turn * self.limit:.3g} {side} the median entry's best"
        how = "a twentieth of the way from the median entry's best to the loss at the start"
        return f"up to {self.limit:.3g}, " + (how if self.started else "near the median entry's best")


def late(values: list[float]) -> dict[str, Any]:
    """An axis that fits losses seen late in training: in the logarithm where all are positive."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) <= 0:
        return {"range": padded(values)}
    low, high = padded([math.log10(value) for value in finite])
    return {"type": "log", "range": [low, high], **ticks(low, high)}
