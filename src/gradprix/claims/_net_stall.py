"""AdaGrad over a long training run, compared with Adam."""

from math import log

import numpy as np

from gradprix.explain.tracing import trace
from gradprix.race import ENTRIES

from ._claim import Claim, Finding, Measured
from ._network_experiment import STEADY, finals, seeds, times, tuned

ALPHA = 0.05
N = 16
PASSES = 60
EFFECT = 2.0
"""Over the second half of training: a smaller decrease of the loss than this factor counts as stalled."""
TRACED = 3
"""Networks whose effective learning rates are traced."""
TASK = STEADY.change(epochs=PASSES)
PAIR = ("adagrad", "adam")


def stalls(
    tuned_falls: tuple[Measured, Measured], default_falls: tuple[Measured, Measured], shrunk: Measured
) -> Finding:
    """Return the verdict from the decrease of the loss in the second half of training.

    Args:
        tuned_falls: factors by which the loss decreases with AdaGrad and Adam at tuned learning rates.
        default_falls: the same at default learning rates.
        shrunk: AdaGrad's final effective learning rate over that after a tenth of training; for the record.
    """
    answers = [_stalls(*falls) for falls in (tuned_falls, default_falls)]
    says = (
        f"Over the second half of {PASSES} passes over digits, the training loss becomes {tuned_falls[0].text('.1f')} "
        f"times smaller with AdaGrad and {tuned_falls[1].text('.1f')} times with Adam at tuned rates, "
        f"{default_falls[0].text('.1f')} and {default_falls[1].text('.1f')} times at default ones. AdaGrad's effective "
        f"rate, tuned, ends at {shrunk.text()} of what it is after a tenth of them."
    )
    measured = [*tuned_falls, *default_falls, shrunk]
    if answers == [True, True]:
        return Finding("holds", says, measured)
    if answers == [False, True]:
        return Finding("holds only if", says, measured, "its rate is small, as the default one is")
    if answers == [True, False]:
        return Finding("holds only if", says, measured, "its rate is the tuned one")
    return Finding("not settled" if None in answers else "does not hold", says, measured)


def _stalls(adagrad: Measured, adam: Measured) -> bool | None:
    """Return True if AdaGrad has stalled while Adam continues, False if not, None if inconclusive."""
    if adagrad.ci95[1] < EFFECT < adam.ci95[0]:
        return True
    return False if adagrad.ci95[0] > EFFECT or adam.ci95[1] < EFFECT else None


def _adagrad_stalls(quick: bool) -> Finding:
    run_seeds = seeds(quick, N)
    rates = tuned(TASK, PAIR, quick, by="train")
    default = {name: ENTRIES[name].default_rate for name in PAIR}
    falls = []
    for kind, used in (("tuned", rates), ("default", default)):
        each = []
        for name, outcomes in finals(TASK, used, run_seeds).items():
            curves = np.log([[point[1] for point in outcome.curve] for outcome in outcomes])
            what = f"how many times smaller the training loss becomes in the second half, {name} at its {kind} rate"
            each.append(times(what, (curves[:, PASSES // 2] - curves[:, -1]).tolist()))
        falls.append((each[0], each[1]))
    shrunk = [_rate_decay(seed, rates["adagrad"]) for seed in run_seeds[: 2 if quick else TRACED]]
    what = "effective rate of adagrad, tuned, in the last twentieth of training over that after a tenth"
    return stalls(falls[0], falls[1], times(what, shrunk))


def _rate_decay(seed: int, lr: float) -> float:
    """Return the log ratio of AdaGrad's final effective learning rate to the early one, averaged over layers."""
    total = PASSES * -(-len(TASK.loaded.split(seed).train) // TASK.batch_size)
    layers = trace("adagrad", TASK, total, seed=seed, lr=lr).layers.values()
    few = total // 20
    ratios = [layer.rate[-few:].mean() / layer.rate[2 * few : 3 * few].mean() for layer in layers]
    return sum(log(ratio) for ratio in ratios) / len(ratios)


CLAIMS = (
    Claim(
        id="adagrad-stalls-on-a-network",
        account="AdaGrad's learning rate decays until learning stops.",
        prediction="On digits at a constant rate, AdaGrad's training loss hardly falls any more in the second half of "
        f"{PASSES} passes, while Adam's does; at tuned rates, and at default ones.",
        decides=f"How many times smaller the training loss becomes in the second half, over {N} seeds: AdaGrad has "
        f"stalled if its 95 % interval is below {EFFECT:g} and Adam's is above; it has not if AdaGrad's is above, or "
        "Adam's is below. Holds if it has at tuned and at default rates, only for one of them if for one; does not "
        "hold if for neither.",
        run=_adagrad_stalls,
        on="networks",
        source="Zeiler 2012, arXiv:1212.5701, section 3.1",
    ),
)
