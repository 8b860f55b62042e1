"""Where a hyperparameter is searched."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Log:
    """A range searched evenly in the logarithm, from `low` to `high`, both positive."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < float("inf"):
            raise ValueError(f"log({self.low:g}, {self.high:g}): give two positive numbers, the smaller first.")


def log(low: float, high: float) -> Log:
    """A search range that is even in the logarithm: `log(1e-4, 1e-1)` is three decades.

    Args:
        low: the smallest value, above zero.
        high: the largest value, above `low`.

    Raises:
        ValueError: unless 0 < low < high.
    """
    return Log(low, high)
