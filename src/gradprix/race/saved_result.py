"""Base class of the results of a race, of tuning one optimizer, and of a comparison with the published suite."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from gradprix.utils.wording import printable

from .best import Best

if TYPE_CHECKING:
    from pandas import DataFrame


class RecordWithBest(Protocol):
    """Record that names an optimizer to use."""

    @property
    def best(self) -> Best:
        """The optimizer with its tuned hyperparameters."""


Record = TypeVar("Record", bound=RecordWithBest, covariant=True)


@dataclass(frozen=True)
class SavedResult(Generic[Record]):
    """Result of training runs.

    Args:
        record: complete record.
        folder: folder of the runs; None if they were not saved.
        reused: number of training runs whose outcomes were reused from earlier calls.
    """

    record: Record
    folder: Path | None = None
    reused: int = 0

    @property
    @abstractmethod
    def text(self) -> str:
        """Result in sentences."""

    @property
    def best(self) -> Best:
        """Optimizer with its tuned hyperparameters; `result.best.make(model.parameters())` constructs it."""
        return self.record.best

    @property
    @abstractmethod
    def entries(self) -> "DataFrame":
        """Data frame of the entries, best mean first, with `entry`, `mean`, `low`, `high`, `diverged` and `code`."""

    def __repr__(self) -> str:
        return printable(self.text)
