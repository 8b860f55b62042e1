"""Learning rates that a network tolerates with and without warm-up."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprix.claims.decisions import Decision, any_of, is_above, is_equivalent
from gradprix.claims.estimates import Measured, geometric_mean, mean
from gradprix.claims.network_training import CONSTANT, DIGITS_MARGIN, TUNING, Training, make_trial, seeds
from gradprix.claims.registry import Quantities
from gradprix.show.figure import Chart

from .answers import conjunction
from .figures import interval_rows
from .registry import experiment

N, TUNING_SEEDS = 8, 3
EPOCHS, QUICK_EPOCHS = 12, 6  # of 34 steps each
WARM_UP = 0.25  # share of the steps over which the learning rate rises linearly
USABLE = 0.05  # at a usable learning rate the accuracy is at most five points below that of the best without warm-up
LARGER = 1.25  # a largest usable learning rate that is a quarter larger counts as larger
ENTRIES: Mapping[str, str] = {"sgd": "minibatch", "adam": "adam"}
RATES: Mapping[str, tuple[float, ...]] = {
    "sgd": tuple(2 ** (k / 2) for k in range(-8, 9)),
    "adam": tuple(2 ** (k / 2) for k in range(-20, -1)),
}

Array = NDArray[Any]


def warmup_factor(steps: int, t: int) -> float:
    """Return the factor on the learning rate at a step, counted from 0, of a run with this number of steps."""
    return min(1.0, (t + 1) / (WARM_UP * steps))


def train(name: str, is_warmed: bool, run_seeds: Sequence[int], quick: bool) -> tuple[Array, Array]:
    """Train at every learning rate, which is constant after the warm-up if there is one.

    Returns:
        The accuracies on validation and on test examples after the last step, `[seeds, rates]` each.
    """
    task = CONSTANT.change(epochs=QUICK_EPOCHS if quick else EPOCHS)
    training = Training(task, [make_trial(task, ENTRIES[name], lr, seed) for seed in run_seeds for lr in RATES[name]])
    if is_warmed:
        training.schedule = partial(warmup_factor, training.total_steps)
    training.run()
    data, shape = training.stack.data, (len(run_seeds), len(RATES[name]))
    valid, test = (np.reshape(training.metrics(part), shape) for part in (data.valid, data.test))
    return np.nan_to_num(valid), np.nan_to_num(test)


def largest_usable(rates: Sequence[float], accuracy: Array, least: float) -> Array:
    """Return the largest learning rate of each seed at which the accuracy is high enough.

    Args:
        rates: the learning rates, in ascending order.
        accuracy: accuracies, `[seeds, rates]`.
        least: accuracy that is high enough. Some learning rate of each seed must reach it.
    """
    is_usable = accuracy >= least
    assert is_usable.any(1).all(), "some learning rate of each seed is usable"
    return np.asarray(rates)[len(rates) - 1 - is_usable[:, ::-1].argmax(1)]


def decide(m: Quantities) -> Decision:
    """Return the optimizers for which warm-up allows larger learning rates and does nothing else."""
    answers = {
        name: conjunction(
            is_above(m[f"larger_{name}"], LARGER),
            is_equivalent(m[f"same_{name}"], -DIGITS_MARGIN, DIGITS_MARGIN),
        )
        for name in ENTRIES
    }
    return any_of({"the optimizer is SGD": answers["sgd"], "it is Adam": answers["adam"]})


def draw(m: Quantities) -> Chart:
    """Draw the factor by which warm-up raises the largest usable learning rate."""
    rows = {"SGD": m["larger_sgd"], "Adam": m["larger_adam"]}
    title = "largest usable learning rate, with warm-up over without"
    return interval_rows("warmup-allows-larger-learning-rates", title, rows, 1.0, is_log=True)


@experiment("warmup-allows-larger-learning-rates", decide, draw=draw)
def measure(quick: bool) -> Quantities:
    """Compare the largest usable learning rates, and accuracies at equal and at tuned learning rates."""
    results: dict[str, Measured] = {}
    run_seeds, tuning_seeds = seeds(quick, N), range(TUNING, TUNING + TUNING_SEEDS)
    for name, rates in RATES.items():
        best = [int(train(name, is_warmed, tuning_seeds, quick)[0].mean(0).argmax()) for is_warmed in (False, True)]
        (valid, test), (warm_valid, warm_test) = (
            train(name, is_warmed, run_seeds, quick) for is_warmed in (False, True)
        )
        least = float(valid[:, best[0]].mean()) - USABLE
        larger = largest_usable(rates, warm_valid, least) / largest_usable(rates, valid, least)
        results |= {
            f"larger_{name}": geometric_mean(np.log(larger)),
            f"same_{name}": mean(100 * (warm_test - test)[:, best[0]]),
            f"tuned_{name}": mean(100 * (warm_test[:, best[1]] - test[:, best[0]])),
        }
    return results
