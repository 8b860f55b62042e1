"""Search spaces of hyperparameters."""

import math
from dataclasses import dataclass
from typing import Any, Protocol


class Axis(Protocol):
    """Search space of one hyperparameter, whose values are mapped to positions in the unit interval."""

    def from_unit(self, position: float) -> Any:
        """Return the value at a position from 0 to 1, rounded to a few digits."""
        ...

    def to_unit(self, value: Any) -> float:
        """Return the position of a value; positions from 0 to 1 are inside the search space."""
        ...


@dataclass(frozen=True)
class Log:
    """Logarithmic range from `low` to `high`, both positive. A search may extend it beyond these limits.

    Args:
        low: smallest value.
        high: largest value.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < float("inf"):
            raise ValueError(f"log({self.low:g}, {self.high:g}): give two positive numbers, the smaller first.")

    def from_unit(self, position: float) -> float:
        """Return the value at a position, rounded to three digits. Positions below 0 or above 1 extend the range."""
        return float(f"{self.low * (self.high / self.low) ** position:.3g}")

    def to_unit(self, value: float) -> float:
        """Return the position of a value, which is below 0 or above 1 outside the range; 0 for values up to zero."""
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else 0.0


@dataclass(frozen=True)
class OneMinus:
    """Range of values just below one, such as decay rates, logarithmic in 1 − value.

    Args:
        low: smallest 1 − value.
        high: largest 1 − value.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high <= 1:
            raise ValueError(f"one_minus({self.low:g}, {self.high:g}): give two numbers up to 1, the smaller first.")

    def from_unit(self, position: float) -> float:
        """Return the value at a position from 0 to 1, such that 1 − value has two digits."""
        complement = float(f"{self.high * (self.low / self.high) ** min(max(position, 0.0), 1.0):.2g}")
        return float(f"{1 - complement:.12g}")

    def to_unit(self, value: float) -> float:
        """Return the position of a value; 1 for values of one or more."""
        return math.log((1 - value) / self.high) / math.log(self.low / self.high) if value < 1 else 1.0


@dataclass(frozen=True)
class Choice:
    """Finite set of values."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(_to_python(value) for value in self.values))
        if len(set(self.values)) < 2 or len(set(self.values)) < len(self.values):
            raise ValueError(f"choice{self.values}: give two different values or more.")

    def from_unit(self, position: float) -> Any:
        """Return the value at a position from 0 to 1. Each value has an equal part of the unit interval."""
        return self.values[min(max(int(position * len(self.values)), 0), len(self.values) - 1)]

    def to_unit(self, value: Any) -> float:
        """Return the position of a value: the middle of its part of the unit interval, or 0.5 for any other value."""
        return (self.values.index(value) + 0.5) / len(self.values) if value in self.values else 0.5


def _to_python(value: Any) -> Any:
    """Convert lists to tuples, and scalars of NumPy and torch to Python numbers."""
    if isinstance(value, list | tuple):
        return tuple(_to_python(each) for each in value)
    return value.item() if hasattr(value, "item") else value


def log(low: float, high: float) -> Log:
    """Return a logarithmic search range: `log(1e-4, 1e-1)` spans three decades.

    Args:
        low: smallest value, above zero.
        high: largest value, above `low`.

    Raises:
        ValueError: unless 0 < low < high.
    """
    return Log(low, high)


def one_minus(low: float, high: float) -> OneMinus:
    """Return a search range that is logarithmic in 1 − value: `one_minus(0.01, 0.5)` spans 0.99 to 0.5.

    Args:
        low: smallest 1 − value, above zero.
        high: largest 1 − value, up to one.

    Raises:
        ValueError: unless 0 < low < high <= 1.
    """
    return OneMinus(low, high)


def choice(*values: Any) -> Choice:
    """Return a finite search space: `choice(16, 32, 64)`.

    Args:
        *values: the values to choose from.

    Raises:
        ValueError: if there are fewer than two values, or if two values are equal.
    """
    return Choice(values)


USUAL: dict[str, Axis] = {
    "beta1": one_minus(2e-2, 0.5),
    "beta2": one_minus(1e-4, 1e-1),
    "beta3": one_minus(1e-4, 1e-1),
    "momentum": one_minus(5e-3, 0.3),
    "rho": one_minus(1e-3, 0.5),
    "eps": log(1e-10, 1),
    "weight_decay": log(1e-6, 1e-2),
}
"""Default search spaces of hyperparameters other than the learning rate.

`beta1` and `momentum` follow the baselines of Dahl et al. 2023, arXiv:2306.07179, appendix; `beta2` and `eps` lie
within those of Sivaprasad et al. 2020, arXiv:1910.11758.
"""
OWN_DECAY = log(5e-3, 1)
"""Default search space of decoupled weight decay: Dahl et al. 2023, arXiv:2306.07179."""
