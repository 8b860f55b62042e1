"""Conversion of the record of a race to pandas data frames."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from .record import RaceRecord
from .run_records import TuningRun, TuningRuns
from .tune_plan import DEFAULT_LABEL
from .tune_record import TuneRecord


def verdict(record: RaceRecord) -> pd.DataFrame:
    """Return a data frame of the comparisons, with a row for each pair of entries.

    The columns are both names, the difference, the ends of its confidence interval, the p-value, the verdict, and the
    number of additional seeds that would make the comparison conclusive.
    """
    rows = [
        (pair.a, pair.b, pair.difference, *pair.ci95, pair.p, pair.verdict.value, pair.more_seeds)
        for pair in record.verdict.pairs
    ]
    return pd.DataFrame(rows, columns=["a", "b", "difference", "low", "high", "p", "verdict", "more_seeds"])


def entries(record: RaceRecord) -> pd.DataFrame:
    """Return a data frame of the entries, with a row for each entry, best mean first.

    It has the tuned values, the mean with its confidence interval, and other properties of the entry.
    """
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
            "gradients": entry.gradients,
            "memory": entry.memory,
            "code": entry.code,
        }
        for entry in record.entries
    ]
    return pd.DataFrame(rows).sort_values("mean", ascending=not record.plan.metric.higher_is_better, ignore_index=True)


def trials(record: RaceRecord) -> pd.DataFrame:
    """Return a data frame of the tuning runs; see `tuning_frame`."""
    return tuning_frame(record.tuning_runs)


def tuning_frame(tuning_runs: TuningRuns) -> pd.DataFrame:
    """Return a data frame of tuning runs, with a row for each run, in the order in which tuners requested them.

    The column `diverged` has the step at which the run diverged.
    """
    return pd.DataFrame([_trial(name, run) for name, runs in tuning_runs.items() for run in runs])


def _trial(entry: str, run: TuningRun) -> dict[str, Any]:
    """Return the row of a tuning run."""
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


def settings_frame(record: TuneRecord) -> pd.DataFrame:
    """Return a data frame of the settings with final runs after tuning one optimizer, best mean first.

    The columns are `entry`, the tuned hyperparameters, `mean`, `low`, `high`, `diverged` and `code`; see `entries`.
    """
    settings = [(record.best.name, record.tuned, record.final, record.best.code)]
    if record.default is not None:
        label = DEFAULT_LABEL.format(record.best.name)
        settings.append((label, record.default.settings, record.default.final, "the default settings"))
    rows = [
        {
            "entry": name,
            **tuned,
            "mean": final.mean,
            "low": final.ci95[0],
            "high": final.ci95[1],
            "diverged": final.diverged,
            "code": code,
        }
        for name, tuned, final, code in settings
    ]
    return pd.DataFrame(rows).sort_values("mean", ascending=not record.plan.metric.higher_is_better, ignore_index=True)


def finals(record: RaceRecord) -> pd.DataFrame:
    """Return a data frame of the final runs, with the columns `entry`, `seed`, `metric` and `loss`.

    `seed` is the index of the seed. The same index means the same seed for all entries.
    """
    rows = [
        {"entry": entry.name, "seed": seed, "metric": value, "loss": loss}
        for entry in record.entries
        for seed, (value, loss) in enumerate(zip(entry.final.values, entry.losses, strict=True))
    ]
    return pd.DataFrame(rows)


def curves(record: RaceRecord) -> pd.DataFrame:
    """Return a data frame of the learning curves, with a row for each final run and epoch.

    Its columns are `entry`, `seed`, `examples`, `train_loss`, `valid_loss` and `valid_metric`.
    """
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
