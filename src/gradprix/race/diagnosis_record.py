"""Diagnosis of the final runs in the record of a race."""

from enum import StrEnum

import msgspec
from msgspec import field


class MeasurementKind(StrEnum):
    """Measured property of an entry's final runs."""

    STEP_LENGTH = "steps"
    SHARPNESS = "edge"
    NOISE_SCALE = "noise"
    EFFECTIVE_RATE = "rate"
    HARDEST_TENTH = "hard"
    RARE_CLASSES = "rare"
    DIVERGED = "diverged"


class Finding(StrEnum):
    """Conclusion from a measurement whose whole confidence interval is beyond a threshold."""

    STEPS_TOO_LONG = "steps_too_long"
    STEPS_SHORT = "steps_short"
    UNSTABLE = "unstable"
    BATCH_BELOW_NOISE_SCALE = "batch_below_noise_scale"
    BATCH_ABOVE_NOISE_SCALE = "batch_above_noise_scale"
    RATE_WORN_OUT = "rate_worn_out"
    GROUP_NEGLECTED = "group_neglected"
    GROUP_FAVOURED = "group_favoured"
    DIVERGED = "diverged"


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """A measured property of an entry with its 95 % confidence interval; None stands for infinite or unknown numbers.

    Args:
        n: number of measurements, or of runs.
        finding: the conclusion; None if the measurement is inconclusive.
    """

    kind: MeasurementKind
    number: float | None
    low: float | None
    high: float | None
    n: int
    finding: Finding | None = None


class UpdateStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of an entry's updates at some steps, medians over runs; None where undefined.

    Args:
        rate: effective learning rate, ‖u‖ / ‖g‖.
        ratio: update to weights, ‖u‖ / ‖x‖.
        cosine: cosine of the update and the negative gradient.
    """

    step: tuple[int, ...]
    rate: tuple[float | None, ...]
    ratio: tuple[float | None, ...]
    cosine: tuple[float | None, ...]


class EntryDiagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements and update statistics of one entry."""

    measurements: tuple[Measurement, ...] = field(name="reasons")
    updates: UpdateStatistics = field(name="moves")


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Diagnosis of a race.

    Args:
        identity: hash of the plan, and version of the measurements.
        budget: time limit of the measurements in seconds.
        runs: final runs per entry that were measured.
        seconds: time that the diagnosis took.
    """

    identity: tuple[str, int] = field(name="of")
    budget: float
    runs: int
    seconds: float
    entries: dict[str, EntryDiagnosis]
