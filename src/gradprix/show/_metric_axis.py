"""Vertical axis of the figures of tuning, which shows the validation metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradprix.race import RaceRecord
from gradprix.race.run_records import TuningRun

from ._formatting import margin, scale
from ._svg import GREY
from .axes import percent_axis

MIN_HEIGHT, MAX_HEIGHT = 10.0, 20.0
"""Minimum and maximum height of the panels, in margins from the best entry. The optimum of a much worse entry may
therefore be beyond the axis."""


@dataclass(frozen=True)
class MetricAxis:
    """Vertical axis that all panels share, in displayed units.

    Args:
        best: end of the axis with the better values.
        worst: end with the worse values. Runs beyond it are drawn at this end.
        percent: values are percentages.
    """

    best: float
    worst: float
    percent: bool

    @classmethod
    def from_record(cls, record: RaceRecord, near: Mapping[str, Sequence[TuningRun]]) -> "MetricAxis":
        """Choose the ends of the axis so that the tuning runs near the optimum of each entry are visible.

        Args:
            record: record of a race.
            near: for each entry, the tuning runs near its optimum.
        """
        metric, step = record.plan.metric, margin(record)
        sign = -1 if metric.higher_is_better else 1
        costs = [sign * run.metric for runs in record.tuning_runs.values() for run in runs if run.is_scored]
        costs = costs or [0.0, 1.0]
        near_costs = [[sign * run.metric for run in runs] for runs in near.values() if runs]
        first = min(map(fmean, near_costs), default=min(costs))
        reach = max(c for c in [first, *chain(*near_costs)] if c <= first + MAX_HEIGHT * step) + 2 * step
        worst = min(max(first + MIN_HEIGHT * step, reach), max(costs))
        pad = 0.06 * (worst - min(costs)) or 1e-6
        unit = sign * scale(record)
        return cls(unit * (min(costs) - pad), unit * (worst + pad), metric.percent)

    def is_beyond(self, value: float) -> bool:
        """Return True if a value is beyond the worse end of the axis, or NaN."""
        return not (value >= self.worst if self.best > self.worst else value <= self.worst)

    def clip(self, value: float) -> float:
        """Clip a value to the worse end of the axis."""
        return self.worst if self.is_beyond(value) else value

    def apply(self, axes: Axes) -> None:
        """Apply the axis to a panel."""
        low, high = sorted((self.best, self.worst))
        pad = 0.04 * (high - low)
        axes.set_ylim(low - pad, high + pad)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        percent_axis(axes.yaxis, self.percent)

    def draw_zone(self, axes: Axes, limit: float) -> None:
        """Draw the band between the better end of the axis and a limit, unless the limit is beyond the axis."""
        if not self.is_beyond(limit):
            axes.axhspan(*sorted((limit, self.best + 0.05 * (self.best - self.worst))), color=GREY, alpha=0.18, lw=0)
