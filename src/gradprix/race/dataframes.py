"""Conversion of a race's record to data frames."""

from collections.abc import Callable
from typing import Any

import pandas as pd

Record = dict[str, Any]


def verdict(record: Record) -> pd.DataFrame:
    """Return one row per pair: both entries, difference, interval, p-value, verdict, and seeds to settle it."""
    rows = [{**pair, "low": pair["ci95"][0], "high": pair["ci95"][1]} for pair in record["verdict"]["pairs"]]
    return pd.DataFrame(rows)[["a", "b", "difference", "low", "high", "p", "words", "more_seeds"]]


def entries(record: Record) -> pd.DataFrame:
    """Return one row per entry, best mean first: tuned values, mean, interval, and the rest of the terminal's table."""
    rows = [
        {
            "entry": entry["name"],
            "optimizer": entry["optimizer"],
            **entry["tuned"],
            "mean": entry["final"]["mean"],
            "low": entry["final"]["ci95"][0],
            "high": entry["final"]["ci95"][1],
            "diverged": entry["final"]["diverged"],
            "leads": entry["leads"],
            "window": entry["window"],
            "updates": entry["updates"],
            "memory": entry["memory"],
            "code": entry["code"],
        }
        for entry in record["entries"]
    ]
    higher = record["plan"]["metric"]["higher_is_better"]
    return pd.DataFrame(rows).sort_values("mean", ascending=not higher, ignore_index=True)


def trials(record: Record) -> pd.DataFrame:
    """Return one row per tuning run, in the order of the tuners' requests."""
    return pd.DataFrame([{"entry": name, **run} for name, runs in record["tried"].items() for run in runs])


def finals(record: Record) -> pd.DataFrame:
    """Return one row per final run: `entry`, `seed` (its index, the same for all entries), `metric`, `loss`."""
    rows = [
        {"entry": entry["name"], "seed": seed, "metric": value, "loss": loss}
        for entry in record["entries"]
        for seed, (value, loss) in enumerate(zip(entry["final"]["values"], entry["losses"], strict=True))
    ]
    return pd.DataFrame(rows)


def curves(record: Record) -> pd.DataFrame:
    """Return one row per run and epoch: `entry`, `seed`, `examples`, `train_loss`, `valid_loss`, `valid_metric`."""
    names = ("train_loss", "valid_loss", "valid_metric")
    rows = [
        {"entry": name, "seed": seed, "examples": examples, **{key: curve[key][seed][epoch] for key in names}}
        for name, curve in record["curves"].items()
        for seed in range(len(curve["valid_loss"]))
        for epoch, examples in enumerate(curve["examples"])
    ]
    return pd.DataFrame(rows)


FRAMES: dict[str, Callable[[Record], pd.DataFrame]] = {
    "entries": entries,
    "verdict": verdict,
    "trials": trials,
    "finals": finals,
    "curves": curves,
}
