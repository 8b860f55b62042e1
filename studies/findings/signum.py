"""Signum between SGD and Adam on a transformer."""

import numpy as np

from gradprix.claims.decisions import all_of, is_above
from gradprix.claims.estimates import mean, ratio_of_means
from gradprix.claims.registry import Quantities
from gradprix.rules import adam, sgd, signum
from gradprix.show.figure import Chart
from gradprix.tasks import find

from .figures import interval_rows
from .registry import experiment
from .training import Arm, train, tune

SIZE, EPOCHS, TUNING_SEEDS, SEEDS = 8, 3, 2, 12
MOST = 0.75
ARMS = {
    "sgd": [Arm(sgd, 4.7e-3, 0.22, {"momentum": momentum}) for momentum in (0.9, 0.95)],
    "signum": [Arm(signum, 2.2e-4, 1e-2, {"momentum": momentum}) for momentum in (0.9, 0.95)],
    "adam": [Arm(adam, 1e-3, 4.7e-2, {"beta1": beta1, "beta2": 0.95}) for beta1 in (0.9, 0.95)],
}


def draw(m: Quantities) -> Chart:
    """Draw the test perplexity of each optimizer."""
    rows = {name: m[name] for name in ARMS}
    return interval_rows("signum-closes-most-of-the-gap", "test perplexity per character", rows)


@experiment(
    "signum-closes-most-of-the-gap", lambda m: all_of(is_above(m["share"], MOST), is_above(m["gap"], 0)), draw=draw
)
def measure(quick: bool) -> Quantities:
    """Return the test perplexities of SGD with momentum, Signum and Adam, and the share of the gap."""
    task = find("charlm", "small", None).change(batch_size=SIZE, epochs=1 if quick else EPOCHS)
    spacing, most, tuning_seeds, seeds = (5, 3, 1, 4) if quick else (2, 24, TUNING_SEEDS, SEEDS)
    tuned = [tune(task, arms[:1] if quick else arms, tuning_seeds, spacing, most) for arms in ARMS.values()]
    outcomes = dict(zip(ARMS, train(task, tuned, seeds), strict=True))
    perplexity = {name: np.exp([outcome.test_loss for outcome in each]) for name, each in outcomes.items()}
    gap = perplexity["sgd"] - perplexity["adam"]
    return {
        "share": ratio_of_means(perplexity["sgd"] - perplexity["signum"], gap),
        "gap": mean(gap),
        "behind": mean(perplexity["signum"] - perplexity["adam"]),
        **{name: mean(values) for name, values in perplexity.items()},
    }
