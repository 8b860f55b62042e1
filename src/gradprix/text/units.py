"""Values, differences and ranges in the metric's unit."""

import math
from typing import Protocol


class Unit(Protocol):
    """Protocol of objects that define the unit of a metric."""

    @property
    def percent(self) -> bool:
        """True if values are displayed as percentages."""


def format_value(metric: Unit, *values: float) -> str:
    """Format one value of a metric, or two values as a range, with the unit: `97.2 to 97.4 %`.

    A range whose ends are equal after rounding is formatted as one value.
    """
    written = [f"{100 * value:.1f}" if metric.percent else f"{value:.4g}" for value in values]
    return " to ".join(dict.fromkeys(written)) + (" %" if metric.percent else "")


def format_difference(metric: Unit, difference: float, digits: int = 2) -> str:
    """Format the absolute value of a difference, with the unit: `0.43 points` for percentages.

    Args:
        metric: metric, which defines the unit.
        difference: difference of two values of the metric.
        digits: number of significant digits. The difference is rounded up, because it may be an upper bound.
    """
    size = 100 * abs(difference) if metric.percent else abs(difference)
    places = digits - 1 - math.floor(math.log10(size)) if size else 0
    rounded = math.ceil(round(size * 10.0**places, 6)) / 10.0**places
    shown = f"{rounded:.{max(0, places)}f}" if size < 1e6 else f"{rounded:.{digits}g}"
    return shown + (" points" if metric.percent else "")


def format_points(metric: Unit, *values: float) -> str:
    """Format one difference of the metric or a range: `0.5 points`."""
    return format_range(metric, *values) + (" points" if metric.percent else "")


def format_range(metric: Unit, *values: float) -> str:
    """Format one value or a range in the metric's unit, without the unit."""
    written = [f"{100 * value:.1f}" if metric.percent else f"{value:.3g}" for value in values]
    return " to ".join(dict.fromkeys(written)).replace("-", "−")
