"""Conversion of a race's record to data frames."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from .record import RaceRecord
from .run_records import TuningRun, TuningRuns


def verdict(record: RaceRecord) -> pd.DataFrame:
    """Return one row per pair: both entries, difference, interval, p-value, verdict, and seeds to settle it."""
    rows = [
        (pair.a, pair.b, pair.difference, *pair.ci95, pair.p, pair.verdict.value, pair.more_seeds)
        for pair in record.verdict.pairs
    ]
    return pd.DataFrame(rows, columns=["a", "b", "difference", "low", "high", "p", "words", "more_seeds"])


def entries(record: RaceRecord) -> pd.DataFrame:
    """Return one row per entry, best mean first: tuned values, mean, interval, and the rest of the terminal's table."""
    rows = [
        {
            "entry": entry.name,
            "optimizer": entry.optimizer,
            **entry.tuned,
            "mean": entry.final.mean,
            "low": entry.final.ci95[0],
            "high": entry.final.ci95[1],
            "diverged": entry.final.diverged,
            "leads": entry.is_leader,
            "window": entry.tolerance_decades,
            "updates": entry.updates,
            "memory": entry.memory,
            "code": entry.code,
        }
        for entry in record.entries
    ]
    return pd.DataFrame(rows).sort_values("mean", ascending=not record.plan.metric.higher_is_better, ignore_index=True)


def trials(record: RaceRecord) -> pd.DataFrame:
    """Return one row per tuning run, in the order of the tuners' requests."""
    return tuning_frame(record.tuning_runs)


def tuning_frame(tuning_runs: TuningRuns) -> pd.DataFrame:
    """Return one row per tuning run: entry, tuned values, seed, loss, metric, and whether it diverged."""
    return pd.DataFrame([_trial(name, run) for name, runs in tuning_runs.items() for run in runs])


def _trial(entry: str, run: TuningRun) -> dict[str, Any]:
    row = {
        "entry": entry,
        **run.point,
        "seed": run.seed,
        "first": run.first,
        "spread": run.spread,
        "start": run.start,
        "loss": run.loss,
        "metric": run.metric,
        "diverged": run.diverged,
    }
    return row if run.error is None else {**row, "error": run.error}


def finals(record: RaceRecord) -> pd.DataFrame:
    """Return one row per final run: `entry`, `seed` (its index, the same for all entries), `metric`, `loss`."""
    rows = [
        {"entry": entry.name, "seed": seed, "metric": value, "loss": loss}
        for entry in record.entries
        for seed, (value, loss) in enumerate(zip(entry.final.values, entry.losses, strict=True))
    ]
    return pd.DataFrame(rows)


def curves(record: RaceRecord) -> pd.DataFrame:
    """Return one row per run and epoch: `entry`, `seed`, `examples`, `train_loss`, `valid_loss`, `valid_metric`."""
    names = ("train_loss", "valid_loss", "valid_metric")
    rows = [
        {"entry": name, "seed": seed, "examples": examples, **{key: getattr(curve, key)[seed][epoch] for key in names}}
        for name, curve in record.curves.items()
        for seed in range(len(curve.valid_loss))
        for epoch, examples in enumerate(curve.examples)
    ]
    return pd.DataFrame(rows)


FRAMES: dict[str, Callable[[RaceRecord], pd.DataFrame]] = {
    "entries": entries,
    "verdict": verdict,
    "trials": trials,
    "finals": finals,
    "curves": curves,
}
