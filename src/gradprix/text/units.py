"""Values, differences and ranges in the metric's unit."""

import math
from typing import Protocol

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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


def format_factor(decades: float) -> str:
    """Format the width of a range, given in decades, as the factor between its ends: `×2.2`."""
    wide = 10**decades
    return f"×{wide:,.0f}" if wide >= 100 else f"×{wide:.2g}"


def format_duration(seconds: float) -> str:
    """Format a duration with about two digits, with its unit: `0.44 ms`, `0.35 s`, `42 s`, `3.5 min`, `2.1 h`."""
    if 0 < seconds < 0.0995:
        return f"{1e3 * seconds:.2g} ms"
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 99.5:
        return f"{minutes:.2g} min"
    return f"{minutes / 60:.2g} h" if minutes < 99.5 * 60 else f"{minutes / 60:,.0f} h"


def format_quantity(number: float, digits: int = 2) -> str:
    """Format a number with some significant digits, without an exponent unless it is very large or very small.

    Example:
        >>> format_quantity(0.00253), format_quantity(1234.5), format_quantity(1.25e-7)
        ('0.0025', '1,200', '1.2 × 10⁻⁷')
    """
    if number == 0 or not math.isfinite(number):
        return f"{number:g}".replace("-", "−").replace("inf", "∞")
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 <= power < 6:
        text = f"{float(f'{number:.{digits - 1}e}'):,.{max(0, digits - 1 - power)}f}"
    else:
        text = f"{mantissa} × 10{str(power).translate(SUPERSCRIPTS)}"
    return text.replace("-", "−")
