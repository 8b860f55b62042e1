"""Findings about speed-ups: what a tuned learning rate gains, and what new optimizers gain over tuned AdamW."""

from collections.abc import Mapping
from functools import cache
from math import exp

import numpy as np

from gradprix.claims.decisions import all_of, is_below, is_relevant
from gradprix.claims.estimates import Measured
from gradprix.claims.registry import Quantities
from gradprix.race import ENTRIES
from gradprix.show.figure import Chart

from .figures import interval_rows
from .registry import experiment
from .small_tasks import TASKS, Arm, small_task, train, tune

SEEDS, QUICK_SEEDS = 6, 2
BASELINE, DEFAULT = "adamw", "default"
MODERN = ("muon", "lion", "adopt")
SHARES = (0.25, 0.35, 0.5, 0.71, 1.0)
"""Shares of the examples. A run with a share has a whole schedule of its own: a checkpoint in the middle of a longer
run, at a high learning rate, would be worse."""
TWOFOLD, LITTLE = 2.0, 1.4
DRAWS = 1_000  # bootstrap samples of the seeds
Losses = Mapping[str, np.ndarray]
"""Validation loss at the end of the runs of each optimizer, `[shares, seeds]`."""


def needed_share(losses: np.ndarray, target: float) -> float:
    """Return the logarithm of the smallest share of the examples with which a loss is reached.

    Between the shares, the loss is interpolated linearly in the logarithm of the share. If the smallest share that was
    tried reaches the loss already, the result is its logarithm: less than that cannot be told.

    Args:
        losses: loss with each of `SHARES`, `[shares]`.
        target: the loss to reach, at least the smallest of the losses.

    Example:
        >>> round(exp(needed_share(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), 3.5)), 2)
        0.42
    """
    first, shares = int(np.argmax(losses <= target)), np.log(SHARES)
    if first == 0 or not np.isfinite(losses[first - 1]):
        return float(shares[first])
    part = (losses[first - 1] - target) / (losses[first - 1] - losses[first])
    return float(shares[first - 1] + part * (shares[first] - shares[first - 1]))


def log_speedup(faster: np.ndarray, slower: np.ndarray) -> float:
    """Return the logarithm of the ratio of the examples that two optimizers need to reach the same loss.

    The loss is the larger one of the full runs of both. The result is positive if the first optimizer needs fewer.

    Args:
        faster: loss of the first optimizer with each share of the examples, `[shares]`.
        slower: the same of the second optimizer.
    """
    target = float(max(faster[-1], slower[-1]))
    return needed_share(slower, target) - needed_share(faster, target)


@cache
def losses(optimizer: str, quick: bool) -> Losses:
    """Return the losses of an optimizer on each task, at the learning rate tuned on full runs.

    Args:
        optimizer: name of the optimizer; `DEFAULT` stands for the baseline at its default learning rate.
        quick: train few models for one epoch.
    """
    table = {}
    for name in TASKS:
        task, entry = small_task(name, quick, small=True), ENTRIES[BASELINE if optimizer == DEFAULT else optimizer]
        arm: Arm = (entry, entry.default_rate) if optimizer == DEFAULT else tune(task, [entry], quick)[0][1]
        seeds = QUICK_SEEDS if quick else SEEDS
        runs = [train(task, [arm], seeds, share=share)[0] for share in SHARES]
        table[name] = np.array([[outcome.valid_loss for outcome in each] for each in runs])
    return table


def speedups(faster: Losses, slower: Losses) -> dict[str, Measured]:
    """Return the speed-up on each task and their geometric mean, `mean`, with bootstrap intervals over seeds."""
    rng, logs = np.random.default_rng(0), {}
    for name in faster:
        a, b = faster[name], slower[name]
        samples = [np.arange(a.shape[1]), *rng.integers(a.shape[1], size=(DRAWS, a.shape[1]))]
        logs[name] = np.array([log_speedup(a[:, index].mean(1), b[:, index].mean(1)) for index in samples])
    logs["mean"] = np.mean(list(logs.values()), axis=0)
    seeds = next(iter(faster.values())).shape[1]
    return {name: _ratio(each[0], each[1:], seeds) for name, each in logs.items()}


def _ratio(estimate: float, draws: np.ndarray, seeds: int) -> Measured:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Measured("", exp(estimate), (exp(min(low, estimate)), exp(max(high, estimate))), seeds)


def draw_tuning(m: Quantities) -> Chart:
    """Draw the speed-up by tuning on each task."""
    rows = {name: m[name] for name in (*TASKS, "mean")}
    return interval_rows("tuning-the-learning-rate-gains-twofold", "speed-up by a tuned learning rate", rows, 1.0, True)


@experiment(
    "tuning-the-learning-rate-gains-twofold",
    lambda m: all_of(is_relevant(m["largest"], TWOFOLD, null=1)),
    draw=draw_tuning,
)
def measure_tuning(quick: bool) -> Quantities:
    """Measure the speed-up of AdamW by a tuned learning rate."""
    gains = speedups(losses(BASELINE, quick), losses(DEFAULT, quick))
    where = max(TASKS, key=lambda name: gains[name].effect)
    return {"largest": gains[where], **gains, "where": where}


def draw_modern(m: Quantities) -> Chart:
    """Draw the mean speed-up of each new optimizer."""
    rows = {name: m[name] for name in MODERN}
    return interval_rows("new-optimizers-gain-little-over-tuned-adamw", "speed-up over tuned AdamW", rows, 1.0, True)


@experiment(
    "new-optimizers-gain-little-over-tuned-adamw",
    lambda m: all_of(is_below(m["best"], LITTLE)),
    draw=draw_modern,
)
def measure_modern(quick: bool) -> Quantities:
    """Measure the speed-up of new optimizers over tuned AdamW."""
    gains = {name: speedups(losses(name, quick), losses(BASELINE, quick)) for name in MODERN}
    best = max(MODERN, key=lambda name: gains[name]["mean"].effect)
    means = {name: each["mean"] for name, each in gains.items()}
    return {"best": means[best], **means, **{name: gains[best][name] for name in TASKS}, "optimizer": best}
