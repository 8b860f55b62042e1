"""The smallest difference that matters."""


def absolute_margin(margin: float, relative: bool, better: float) -> float:
    """Return a margin in the metric's units; a relative one is a fraction of the better of two means."""
    return margin * abs(better) if relative else margin
