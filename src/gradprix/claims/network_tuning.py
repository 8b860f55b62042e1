"""Comparisons of tuned and default learning rates, of Adam and of several other optimizers."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from gradprix.race import ENTRIES
from gradprix.stats.verdict import judge
from gradprix.tasks import Metric, Task, digits
from gradprix.tasks.builtin.long_tail import class_accuracy
from gradprix.training.trainer import train_stack
from gradprix.training.trial import Outcome
from gradprix.tuning.learning_rate_grid import grid_learning_rate, spread_points

from .claim import experiment
from .decisions import all_of, is_equivalent, is_relevant, negate
from .estimates import Measured, exact, mean
from .network_outliers import KINDS
from .network_training import DIGITS_MARGIN, make_trial, seeds, train_final, tuned
from .registry import Quantities

N = 32
HALVES = ("momentum", "rmsprop")
SEVERAL = ("momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam", "adamax", "nadam")
PROBLEMS = {
    "digits": digits,
    "rare_digits": KINDS["rare"].change(
        schedule="cosine", metric=Metric("mean accuracy of classes", class_accuracy, True, margin=0.01, percent=True)
    ),
}
MARGINS = {name: 100 * task.metric.margin for name, task in PROBLEMS.items()}
SEEDS = {"digits": 32, "rare_digits": 64}  # rare digits have a fifth as many test examples
QUICK = 4  # seeds of a quick run


@cache
def _train_tuned(quick: bool) -> dict[str, list[float]]:
    """Return the test accuracies of tuned Adam, momentum and RMSprop, and of Adam at its default learning rate.

    They are in percentage points, one per seed. The key of Adam at its default is `"default"`.
    """
    run_seeds = seeds(quick, N)
    outcomes_by_name = {
        **train_final(digits, tuned(digits, ("adam", *HALVES), quick), run_seeds),
        "default": train_final(digits, {"adam": ENTRIES["adam"].default_rate}, run_seeds)["adam"],
    }
    return {name: [_percent(outcome) for outcome in outcomes] for name, outcomes in outcomes_by_name.items()}


def _percent(outcome: Outcome) -> float:
    assert outcome.test_metric is not None, "all of these runs are tested"
    return 100 * outcome.test_metric


@experiment(
    "adam-beats-its-halves-on-digits",
    decide=lambda m: all_of(*(is_relevant(lead, DIGITS_MARGIN) for lead in m.values())),
    say=lambda m: (
        "On digits, all tuned, Adam's test accuracy is "
        f"{' and '.join(f'{lead:+.2f} points above {half}' for half, lead in m.items())}."
    ),
)
def measure_halves(quick: bool) -> Quantities:
    """Compare Adam with momentum and with RMSprop by the simultaneous intervals of a race.

    The smaller lead comes first.
    """
    values = {name: _train_tuned(quick)[name] for name in ("adam", *HALVES)}
    leads = {}
    for pair in judge(values, higher_is_better=True, margin=DIGITS_MARGIN, baseline="adam").pairs:
        sign, (low, high) = (1, pair.ci95) if pair.a == "adam" else (-1, (-pair.ci95[1], -pair.ci95[0]))
        half = pair.b if pair.a == "adam" else pair.a
        leads[half] = Measured("", sign * pair.difference, (low, high), len(values["adam"]))
    return dict(sorted(leads.items(), key=lambda lead: lead[1].effect))


@experiment("adam-needs-no-tuning-on-digits", decide=lambda m: all_of(negate(is_relevant(m["lost"], DIGITS_MARGIN))))
def measure_default(quick: bool) -> Quantities:
    """Compare Adam's default learning rate with its tuned one."""
    accuracies = _train_tuned(quick)
    return {
        "lost": mean(np.subtract(accuracies["adam"], accuracies["default"])),
        "tuned": exact(tuned(digits, ("adam", *HALVES), quick)["adam"]),
    }


def _differences(task: Task, run_seeds: Sequence[int]) -> list[float]:
    """Return the difference in the test metric between two ways to use the same number of runs, for each seed.

    One way is Adam at several learning rates, the other is several optimizers at their default learning rates. The run
    with the lowest validation loss is selected in either case.
    """
    adam = ENTRIES["adam"]
    grid = spread_points(adam.space["lr"], adam.default_rate, len(SEVERAL))  # type: ignore[arg-type]  # it is a range
    arms = (
        [("adam", grid_learning_rate(point)) for point in grid],
        [(name, ENTRIES[name].default_rate) for name in SEVERAL],
    )
    trials = [make_trial(task, name, lr, seed) for seed in run_seeds for arm in arms for name, lr in arm]
    outcomes = iter(train_stack(task, trials))
    best = [
        [_percent(min((next(outcomes) for _ in arm), key=lambda outcome: outcome.valid_loss)) for arm in arms]
        for _ in run_seeds
    ]
    return [a - b for a, b in best]


@experiment(
    "several-at-defaults-equal-one-tuned",
    decide=lambda m: all_of(*(is_equivalent(m[name], -margin, margin) for name, margin in MARGINS.items())),
)
def measure_several(quick: bool) -> Quantities:
    """Compare Adam at several learning rates with several optimizers at their defaults on each problem."""
    return {
        name: mean(_differences(task, seeds(quick, SEEDS[name])[: QUICK if quick else None]))
        for name, task in PROBLEMS.items()
    }
