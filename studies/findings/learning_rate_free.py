"""Finding about optimizers without a learning rate, against tuned NAdam."""

from collections.abc import Mapping
from functools import cache

import numpy as np

from gradprix.claims.decisions import all_of, is_relevant
from gradprix.claims.estimates import exact, mean
from gradprix.claims.registry import Quantities
from gradprix.race import ENTRIES
from gradprix.show.figure import Chart

from .figures import interval_rows
from .registry import experiment
from .small_tasks import TASKS as FOUR
from .small_tasks import Arm, lead_in_margins, learning_rates, small_task, train, tuning_losses

TASKS = (*FOUR, "mnist")
SEEDS, QUICK_SEEDS = 12, 2
BASELINE = ENTRIES["nadam"]
FREE = ("prodigy", "dadapt_adam", "dog")
UNTUNED = (*FREE, "schedule_free_adamw")
"""Optimizers without a learning rate, and one without a schedule, which are trained at their defaults."""
EFFECT, MOST = 0.5, 5.0  # margins: a lag that matters, and the limit to which the mean lag on one task is clipped


@cache
def baseline_losses(name: str, quick: bool) -> Mapping[float, float]:
    """Return the mean validation loss of the baseline on tuning seeds at each learning rate, on one task."""
    rates = learning_rates(BASELINE, quick)
    return dict(
        zip(rates, tuning_losses(small_task(name, quick), [(BASELINE, lr) for lr in rates], quick), strict=True)
    )


def calibrated_rate(name: str, quick: bool) -> float:
    """Return the learning rate of the baseline that suits all tasks but one best.

    It has the smallest geometric mean of the loss relative to the best loss. The left-out task is `name`.
    """
    others = [baseline_losses(other, quick) for other in TASKS if other != name]
    return min(others[0], key=lambda lr: sum(np.log(losses[lr] / min(losses.values())) for losses in others))


def clip_mean(lag: np.ndarray) -> np.ndarray:
    """Return the lags on one task, scaled so that their mean is at most `MOST` margins in size."""
    size = abs(float(lag.mean()))
    return lag * (MOST / size) if size > MOST else lag


@cache
def lags(quick: bool) -> Mapping[str, np.ndarray]:
    """Return the lag of other settings behind the tuned baseline in margins, `[tasks, seeds]`.

    The others are the optimizers of `UNTUNED`, and the baseline at its default learning rate (`default`) and at the one
    that suits the other tasks best (`calibrated`).
    """
    table: dict[str, list[np.ndarray]] = {}
    for name in TASKS:
        task, losses = small_task(name, quick), baseline_losses(name, quick)
        arms: dict[str, Arm] = {each: (ENTRIES[each], ENTRIES[each].default_rate) for each in UNTUNED}
        arms["default"] = BASELINE, BASELINE.default_rate
        arms["calibrated"] = BASELINE, calibrated_rate(name, quick)
        tuned = BASELINE, min(losses, key=losses.__getitem__)
        best, *others = train(task, [tuned, *arms.values()], QUICK_SEEDS if quick else SEEDS)
        for arm, runs in zip(arms, others, strict=True):
            table.setdefault(arm, []).append(clip_mean(lead_in_margins(task, best, runs)))
    return {arm: np.array(rows) for arm, rows in table.items()}


def draw(m: Quantities) -> Chart:
    """Draw the lag of each optimizer."""
    rows = {name: m[name] for name in UNTUNED}
    rows |= {"nadam, calibrated": m["calibrated"], "nadam, default": m["default"]}
    return interval_rows("learning-rate-free-methods-lag", "lag behind tuned NAdam, margins", rows, 0.0)


@experiment("learning-rate-free-methods-lag", lambda m: all_of(is_relevant(m["least"], EFFECT)), draw=draw)
def measure(quick: bool) -> Quantities:
    """Compare optimizers without a learning rate, at their defaults, with tuned NAdam."""
    each = {name: mean(table.mean(0)) for name, table in lags(quick).items()}
    least = min(FREE, key=lambda name: each[name].effect)
    behind = int((lags(quick)[least].mean(1) >= EFFECT).sum())
    return {"least": each[least], "behind": exact(behind, len(TASKS)), **each, "method": least}
