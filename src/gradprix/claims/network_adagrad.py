"""AdaGrad over a long training run, compared with Adam."""

from math import log

import numpy as np

from gradprix.explain.tracing import trace
from gradprix.race import ENTRIES

from .claim import experiment
from .decisions import Answer, any_of, is_above, is_below
from .estimates import geometric_mean
from .network_training import CONSTANT, seeds, train_final, tuned
from .registry import Quantities

N = 16
PASSES = 60
EFFECT = 2.0  # if the loss decreases by a smaller factor over the second half of training, training has stalled
TRACED, QUICK_TRACED = 3, 2  # models whose effective learning rates are traced
TASK = CONSTANT.change(epochs=PASSES)
PAIR = ("adagrad", "adam")


@experiment(
    "adagrad-stalls-on-a-network",
    decide=lambda m: any_of(
        {
            "its learning rate is the tuned one": has_stalled(m, "tuned"),
            "its learning rate is small, as the default one is": has_stalled(m, "default"),
        }
    ),
)
def measure(quick: bool) -> Quantities:
    """Compare AdaGrad with Adam by the decrease of the loss over the second half of training.

    Both are run at tuned and at default learning rates. The decay of AdaGrad's effective learning rate is measured too.
    """
    run_seeds = seeds(quick, N)
    rates = {
        "tuned": tuned(TASK, PAIR, quick, by="train"),
        "default": {name: ENTRIES[name].default_rate for name in PAIR},
    }
    decrease = {}
    for arm, used in rates.items():
        for name, outcomes in train_final(TASK, used, run_seeds).items():
            curves = np.log([[point[1] for point in outcome.curve] for outcome in outcomes])
            decrease[f"{name}_{arm}"] = geometric_mean(curves[:, PASSES // 2] - curves[:, -1])
    traced = run_seeds[: QUICK_TRACED if quick else TRACED]
    shrinkage = [_learning_rate_decay(seed, rates["tuned"]["adagrad"]) for seed in traced]
    return {**decrease, "effective": geometric_mean(shrinkage)}


def _learning_rate_decay(seed: int, lr: float) -> float:
    """Return the log ratio of AdaGrad's late to its early effective learning rate, averaged over layers."""
    total = PASSES * -(-len(TASK.loaded.split(seed).train) // TASK.batch_size)
    layers = trace("adagrad", TASK, total, seed=seed, lr=lr).layers.values()
    few = total // 20
    ratios = [layer.rate[-few:].mean() / layer.rate[2 * few : 3 * few].mean() for layer in layers]
    return sum(log(ratio) for ratio in ratios) / len(ratios)


def has_stalled(m: Quantities, arm: str) -> Answer:
    """Return True if AdaGrad has stalled while Adam has not, False otherwise, None if inconclusive."""
    stalled, continues = is_below(m[f"adagrad_{arm}"], EFFECT), is_above(m[f"adam_{arm}"], EFFECT)
    return False if False in (stalled, continues) else None if None in (stalled, continues) else True
