"""Tuner of an optimizer without tuned hyperparameters."""

from collections.abc import Sequence

from .tuner import Phase, PhaseKind, Request, Score, Tuner, TuningResult


class NoSearch(Tuner):
    """Tuner that runs one trial, for the validation metric of an optimizer that has nothing to tune."""

    def __init__(self) -> None:
        super().__init__([Phase(PhaseKind.SPREAD, 1)])

    def ask(self) -> list[Request]:
        """Return the trial."""
        return [] if self.is_done else [Request((), 0)]

    def tell(self, scores: Sequence[Score]) -> None:
        """Finish tuning."""
        self.finished_phases += 1

    @property
    def result(self) -> TuningResult:
        """The empty point."""
        return TuningResult((), (), ((),))
