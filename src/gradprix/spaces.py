"""Where a hyperparameter is searched."""

import math
from dataclasses import dataclass
from typing import Any, Protocol


class Axis(Protocol):
    """A range to search, walked by a share from 0 to 1."""

    def at(self, share: float) -> Any:
        """The value there, in few digits."""
        ...

    def share(self, value: Any) -> float:
        """Where a value is."""
        ...


@dataclass(frozen=True)
class Log:
    """A range searched evenly in the logarithm, from `low` to `high`, both positive; the search may leave it."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < float("inf"):
            raise ValueError(f"log({self.low:g}, {self.high:g}): give two positive numbers, the smaller first.")

    def at(self, share: float) -> float:
        """The value there, in three digits."""
        return float(f"{self.low * (self.high / self.low) ** share:.3g}")

    def share(self, value: float) -> float:
        """Where a value is."""
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else 0.0


@dataclass(frozen=True)
class OneMinus:
    """A range of values just below one, such as decays, searched evenly in the logarithm of 1 − value.

    Args:
        low: the smallest 1 − value.
        high: the largest 1 − value.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high <= 1:
            raise ValueError(f"one_minus({self.low:g}, {self.high:g}): give two numbers up to 1, the smaller first.")

    def at(self, share: float) -> float:
        """The value there, its distance from one in two digits."""
        from_one = float(f"{self.high * (self.low / self.high) ** min(max(share, 0.0), 1.0):.2g}")
        return float(f"{1 - from_one:.12g}")

    def share(self, value: float) -> float:
        """Where a value is."""
        return math.log((1 - value) / self.high) / math.log(self.low / self.high) if value < 1 else 1.0


@dataclass(frozen=True)
class Choice:
    """A few values to choose from."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(_plain(value) for value in self.values))
        if len(set(self.values)) < 2 or len(set(self.values)) < len(self.values):
            raise ValueError(f"choice{self.values}: give two different values or more.")

    def at(self, share: float) -> Any:
        """The value there."""
        return self.values[min(max(int(share * len(self.values)), 0), len(self.values) - 1)]

    def share(self, value: Any) -> float:
        """Where a value is: the middle of its part."""
        return (self.values.index(value) + 0.5) / len(self.values) if value in self.values else 0.5


def _plain(value: Any) -> Any:
    """Lists as tuples, and other libraries' numbers as Python's, as what takes them expects."""
    if isinstance(value, list | tuple):
        return tuple(_plain(each) for each in value)
    return value.item() if hasattr(value, "item") else value


def log(low: float, high: float) -> Log:
    """A search range that is even in the logarithm: `log(1e-4, 1e-1)` is three decades.

    Args:
        low: the smallest value, above zero.
        high: the largest value, above `low`.

    Raises:
        ValueError: unless 0 < low < high.
    """
    return Log(low, high)


def one_minus(low: float, high: float) -> OneMinus:
    """A search range for a decay, even in the logarithm of 1 − decay: `one_minus(0.01, 0.5)` is from 0.99 to 0.5.

    Args:
        low: the smallest 1 − decay, above zero.
        high: the largest 1 − decay, up to one.

    Raises:
        ValueError: unless 0 < low < high <= 1.
    """
    return OneMinus(low, high)


def choice(*values: Any) -> Choice:
    """A search among a few values: `choice(16, 32, 64)`.

    Raises:
        ValueError: unless there are two different ones or more.
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
"""Where hyperparameters other than the learning rate are searched, unless a rule says otherwise.

`beta1` and `momentum` as the baselines of Dahl et al. 2023, arXiv:2306.07179, appendix; `beta2` and `eps` within those
of Sivaprasad et al. 2020, arXiv:1910.11758.
"""
OWN_DECAY = log(5e-3, 1)
"""Where weight decay is searched that is not part of the gradient: arXiv:2306.07179 again."""
