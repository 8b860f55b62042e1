"""Averages of the weights on top of AdamW."""

import numpy as np

from gradprix.claims import Measured
from gradprix.claims.decisions import Decision, all_of, is_relevant
from gradprix.claims.estimates import mean
from gradprix.claims.registry import Quantities
from gradprix.rules import adamw, ema
from gradprix.show.figure import Chart
from gradprix.tasks import Task, find

from .figures import interval_rows
from .registry import experiment
from .training import Arm, train, tune

TASKS = {"digits": None, "diamonds": "small", "tailed": "small"}
"""Preset of each task."""
LOW, HIGH = 1e-3, 3.3e-2
DECAYS = (0.95, 0.99)
TRIALS, TUNING_SEEDS, SEEDS = 10, 2, 16
EFFECT = 0.2
"""Smallest mean gain that counts, in margins."""


def decide(m: Quantities) -> Decision:
    """Return the verdict from the mean gains at a constant learning rate and with cosine decay."""
    needs_constant = is_relevant(m["cosine"], EFFECT) is False
    condition = "the learning rate is constant, as in the original" if needs_constant else ""
    return all_of(is_relevant(m["constant"], EFFECT), condition=condition)


def draw(m: Quantities) -> Chart:
    """Draw the mean gains and the gain on each task."""
    rows: dict[str, Measured] = {}
    for schedule, suffix in (("constant", ""), ("cosine", "_cosine")):
        rows |= {f"mean, {schedule}": m[schedule], **{f"{task}, {schedule}": m[task + suffix] for task in TASKS}}
    return interval_rows("ema-improves-adamw-on-mlps", "gain by the average, in margins", rows, 0.0)


@experiment("ema-improves-adamw-on-mlps", decide, draw=draw)
def measure(quick: bool) -> Quantities:
    """Return the gain by an average of the weights on each task, at a constant learning rate and with cosine decay."""
    quantities: dict[str, Measured] = {}
    for schedule, suffix in (("constant", ""), ("cosine", "_cosine")):
        gains = {}
        for name, preset in TASKS.items():
            task = find(name, preset, None).change(schedule=schedule)
            gains[name] = measure_gain(task.change(epochs=2) if quick else task, quick)
        quantities[schedule] = mean(sum(gains.values()) / len(gains))
        quantities |= {name + suffix: mean(values) for name, values in gains.items()}
    return quantities


def measure_gain(task: Task, quick: bool) -> np.ndarray:
    """Return the gain by an average of the weights for each held-out seed, in margins of the task."""
    plain = Arm(adamw, LOW, HIGH)
    averaged = [Arm(ema(adamw, decay=decay, warmup=False), LOW, HIGH) for decay in DECAYS]
    seeds = 1 if quick else TUNING_SEEDS
    best_plain = tune(task, [plain], seeds, 4 if quick else 1)
    best_averaged = tune(task, averaged, seeds, 4 if quick else 2)
    outcomes = train(task, [best_plain, best_averaged], 4 if quick else SEEDS)
    plain_metric, averaged_metric = (np.array([o.test_metric for o in each]) for each in outcomes)
    sign = 1 if task.metric.higher_is_better else -1
    return sign * (averaged_metric - plain_metric) / task.metric.margin
