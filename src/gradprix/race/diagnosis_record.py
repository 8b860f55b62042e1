"""Diagnosis of the final runs, as part of the record of a race."""

from enum import StrEnum

import msgspec
from msgspec import field


class MeasurementKind(StrEnum):
    """Kind of a measured property of an entry's final runs."""

    TRAINING_LOSS = "loss"
    EFFECTIVE_RATE = "lr"
    RELATIVE_UPDATE = "update"
    GAIN = "gain"
    RATE_KEPT = "rate"
    CURVATURE = "curvature"
    STABILITY = "edge"
    PRECONDITIONING = "preconditioning"
    STEP_LENGTH = "steps"
    NOISE_SCALE = "noise"
    HARDEST_TENTH = "hard"
    RARE_CLASSES = "rare"
    DIVERGED = "diverged"


class Finding(StrEnum):
    """Conclusion from a measurement. It is drawn only if the whole confidence interval is beyond a threshold."""

    UNDERFITS = "underfits"
    STEPS_TOO_LONG = "steps_too_long"
    STEPS_SHORT = "steps_short"
    NOISE_LIMITED = "noise_limited"
    UNSTABLE = "unstable"
    NEAR_STABILITY_LIMIT = "near_stability_limit"
    BATCH_BELOW_NOISE_SCALE = "batch_below_noise_scale"
    BATCH_ABOVE_NOISE_SCALE = "batch_above_noise_scale"
    RATE_WORN_OUT = "rate_worn_out"
    GROUP_NEGLECTED = "group_neglected"
    GROUP_FAVOURED = "group_favoured"
    DIVERGED = "diverged"


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Ratio of two geometric means over runs.

    Args:
        number: estimate.
        low: lower end of its confidence interval. The intervals of all ratios of a diagnosis hold jointly in 95 % of
            races.
        high: upper end.
        is_large: True if the whole interval is beyond a factor that matters.
    """

    number: float
    low: float
    high: float
    is_large: bool


class Trait(StrEnum):
    """Property of update rules by which families of entries are compared."""

    ADAPTIVE = "adaptive"
    MOMENTUM = "momentum"


class FamilyContrast(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison of the entries with a trait and those without it.

    Only entries that agree in all other traits are compared, and their ratios averaged.

    Args:
        trait: the trait.
        kind: compared property.
        members: names of the entries with the trait.
        others: names of the entries without it.
        ratio: ratio of the geometric mean of the members to that of the others.
    """

    trait: Trait
    kind: MeasurementKind
    members: tuple[str, ...]
    others: tuple[str, ...]
    ratio: Ratio


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """Measured property of an entry.

    Args:
        kind: kind of the property.
        number: estimate; None if it is infinite or unknown.
        low: lower end of the 95 % confidence interval; None if it is infinite or unknown.
        high: upper end of the 95 % confidence interval; None if it is infinite or unknown.
        n: number of measurements, or of runs.
        finding: conclusion from the measurement; None if it is inconclusive.
        comparison: ratio to the leaders; None if the property is not compared, and in records of earlier versions.
    """

    kind: MeasurementKind
    number: float | None
    low: float | None
    high: float | None
    n: int
    finding: Finding | None = None
    comparison: Ratio | None = None


class UpdateStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of an entry's updates at some steps. They are medians over runs, or None where undefined.

    Here u is the update, g the gradient, and x the weights.

    Args:
        step: steps of the measurements.
        rate: effective learning rate, ‖u‖ / ‖g‖.
        ratio: update-to-weight ratio, ‖u‖ / ‖x‖.
        cosine: cosine of the angle between the update and the negative gradient.
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
        budget: limit of the counted work of the measurements in nominal seconds; in earlier records, of their time.
        runs: number of final runs per entry that were measured.
        seconds: duration of the diagnosis.
        entries: diagnosis of each entry, by its name.
        families: comparisons of families of entries.
    """

    identity: tuple[str, int] = field(name="of")
    budget: float
    runs: int
    seconds: float
    entries: dict[str, EntryDiagnosis]
    families: tuple[FamilyContrast, ...] = ()
