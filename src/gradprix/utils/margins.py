"""Margins: the smallest difference between two means that matters."""


def absolute_margin(margin: float, relative: bool, better: float) -> float:
    """Return a margin in the metric's units.

    Args:
        margin: the margin.
        relative: True if `margin` is a fraction of the better of the two means that are compared.
        better: the better mean.
    """
    return margin * abs(better) if relative else margin
