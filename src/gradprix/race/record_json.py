"""Conversion of records to and from JSON, including records that earlier versions saved."""

import math
from collections.abc import Mapping
from operator import methodcaller
from typing import Any

import msgspec

from gradprix.stats.recommendation import RecommendationReason
from gradprix.training.execution_mode import ExecutionMode, RejectionCause
from gradprix.training.trial import FailureKind

from .diagnosis_record import Diagnosis, Finding, MeasurementKind
from .record import SCHEMA_VERSION, RaceRecord

PHRASES = {
    RecommendationReason.BASELINE_UNBEATEN: "nothing wins against it",
    RecommendationReason.ONLY_LEADER: "it leads alone",
    RecommendationReason.ONLY_WINNER: "it alone wins",
    RecommendationReason.WIDEST_TOLERANCE: "widest learning-rate window",
    RecommendationReason.WIDE_TOLERANCE_CHEAPEST_STEP: "wide learning-rate window, cheapest step",
    RecommendationReason.CHEAPEST_STEP: "cheapest step",
    RecommendationReason.ONLY_CANDIDATE: "the only one near the best",
    RecommendationReason.FASTEST_STEP: "fastest step",
    RecommendationReason.BEST_MEAN_OF_WIDEST: "best mean of the widest windows",
    RecommendationReason.BEST_MEAN: "best mean",
    RecommendationReason.ONLY_STABLE: "the only stable one",
}
"""Phrase for each reason of a recommendation in records of version 1."""


class RecordError(ValueError):
    """Raised if this version of gradprix cannot read a saved record."""


def to_json(value: Any, finite: bool = False) -> Any:
    """Return the JSON form of a record or of a part of one, with infinities and NaN as Python writes them.

    NumPy's numbers, which users give as margins and chance levels, become Python's.

    Args:
        value: the record.
        finite: replace infinities and NaN by None, because other programs refuse them in JSON.
    """
    return _convert(msgspec.to_builtins(value, enc_hook=methodcaller("item")), finite)


def _convert(value: Any, finite: bool) -> Any:
    """Return a copy with lists in place of tuples, and None in place of non-finite numbers if they must be finite."""
    if isinstance(value, dict):
        return {key: _convert(each, finite) for key, each in value.items()}
    if finite and isinstance(value, float) and not math.isfinite(value):
        return None
    return [_convert(each, finite) for each in value] if isinstance(value, list | tuple) else value


def read_record(data: Mapping[str, Any], mode: Mapping[str, Any] | None = None) -> RaceRecord:
    """Read a record from its JSON form.

    Args:
        data: JSON form of a record, written by this version or an earlier one.
        mode: JSON form of the execution mode, which was saved separately. It is needed for records of version 1.

    Raises:
        RecordError: if the record is of a later version, or damaged.
    """
    schema = data.get("schema", 1) if isinstance(data, Mapping) else 1
    if schema not in range(1, SCHEMA_VERSION + 1):
        raise RecordError(
            f"its record has version {schema}, and this version of gradprix reads versions 1 to {SCHEMA_VERSION}: it "
            "was saved by a newer gradprix. Update gradprix to open it."
        )
    try:
        return msgspec.convert(_upgrade(data, mode) if schema == 1 else data, RaceRecord)
    except (msgspec.ValidationError, LookupError, TypeError, AttributeError) as error:
        raise RecordError(
            f"its record, of version {schema}, cannot be read ({error}). Run the command that began the race again: it "
            "makes a new record and reuses the finished runs."
        ) from error


def read_mode(data: Mapping[str, Any]) -> ExecutionMode:
    """Read an execution mode from its JSON form, written by this version or an earlier one."""
    modern = {key: value for key, value in data.items() if key not in ("why", "refused")}
    for key, sentence in (("stack_rejection", data.get("why")), ("device_rejection", data.get("refused"))):
        if sentence:
            modern[key] = {"cause": RejectionCause.FAILS, "message": sentence}
    return msgspec.convert(modern, ExecutionMode)


def read_diagnosis(data: Mapping[str, Any]) -> Diagnosis:
    """Read a diagnosis from its JSON form, written by this version or an earlier one."""
    entries = {
        name: {**entry, "reasons": [_upgrade_measurement(each) for each in entry["reasons"]]}
        for name, entry in data["entries"].items()
    }
    return msgspec.convert({**data, "entries": entries}, Diagnosis)


def _upgrade(data: Mapping[str, Any], mode: Mapping[str, Any] | None) -> dict[str, Any]:
    """Convert the JSON form of a record of version 1, which had sentences in place of codes, to the current version.

    Args:
        data: JSON form of the record.
        mode: JSON form of the execution mode; None if it was not saved.
    """
    reasons = {phrase: reason for reason, phrase in PHRASES.items()}
    verdict = {**data["verdict"], "reason": reasons[data["verdict"]["why"]]}
    upgraded = {
        **data,
        "schema": SCHEMA_VERSION,
        "verdict": verdict,
        "plan": {**data["plan"], "mode": read_mode(mode or {})},
        "tried": {name: [_upgrade_run(run) for run in runs] for name, runs in data["tried"].items()},
        "failed": [{**run, "kind": FailureKind.EXCEPTION} for run in data["failed"]],
    }
    if "why" in data:
        upgraded["why"] = read_diagnosis(data["why"])
    return upgraded


def _upgrade_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a tuning run of version 1, which did not separate the hyperparameters from the result."""
    result = {"seed", "first", "spread", "start", "loss", "metric", "diverged", "error"}
    point = {key: value for key, value in run.items() if key not in result}
    failure = None if run.get("error") is None else FailureKind.EXCEPTION
    return {"point": point, "failure": failure, **{key: run[key] for key in result if key in run}}


def _upgrade_measurement(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Convert a measurement of version 1, which had a sentence in place of a finding.

    The finding follows from the kind of the measurement and from the side of the threshold on which the confidence
    interval lies.
    """
    if "words" not in data:
        return data
    kind, low, high = MeasurementKind(data["kind"]), data["low"], data["high"]
    finding = {
        MeasurementKind.STEP_LENGTH: Finding.STEPS_TOO_LONG if low and low > 1 else Finding.STEPS_SHORT,
        MeasurementKind.STABILITY: Finding.UNSTABLE,
        MeasurementKind.NOISE_SCALE: (
            Finding.BATCH_ABOVE_NOISE_SCALE if high is not None and high < 1 else Finding.BATCH_BELOW_NOISE_SCALE
        ),
        MeasurementKind.RATE_KEPT: Finding.RATE_WORN_OUT,
        MeasurementKind.HARDEST_TENTH: Finding.GROUP_NEGLECTED if high and high < 1 else Finding.GROUP_FAVOURED,
        MeasurementKind.RARE_CLASSES: Finding.GROUP_NEGLECTED if high and high < 1 else Finding.GROUP_FAVOURED,
        MeasurementKind.DIVERGED: Finding.DIVERGED,
    }[kind]
    rest = {key: value for key, value in data.items() if key != "words"}
    return {**rest, "finding": finding if data["words"] else None}
