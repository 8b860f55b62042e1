"""AdaGrad over a long training: whether it stalls where Adam goes on."""

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
"""Over the second half of training: a loss that halves goes on, one that falls by less than that has stalled."""
TRACED = 3
"""Networks whose effective rates are looked at."""
TASK = STEADY.change(epochs=PASSES)
PAIR = ("adagrad", "adam")


def stalls(
    tuned_falls: tuple[Measured, Measured], default_falls: tuple[Measured, Measured], shrunk: Measured
) -> Finding:
    """AdaGrad's stalling, judged by how far the loss still falls in the second half of training.

    Args:
        tuned_falls: of AdaGrad and of Adam at their tuned rates, how many times smaller the loss becomes.
        default_falls: likewise, at their default rates.
        shrunk: AdaGrad's effective rate at the end, over that after a tenth of training; for the record.
    """
    answers = [_stalls(*falls) for falls in (tuned_falls, default_falls)]
    says = (
        f"Over the second half of {PASSES} passes over digits, the training loss becomes {tuned_falls[0].said('.1f')} "
        f"times smaller with AdaGrad and {tuned_falls[1].said('.1f')} times with Adam at tuned rates, "
        f"{default_falls[0].said('.1f')} and {default_falls[1].said('.1f')} times at default ones. AdaGrad's effective "
        f"rate, tuned, ends at {shrunk.said()} of what it is after a tenth of them."
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
    """Whether one has stalled while the other goes on; None when that cannot be said."""
    if adagrad.ci95[1] < EFFECT < adam.ci95[0]:
        return True
    return False if adagrad.ci95[0] > EFFECT or adam.ci95[1] < EFFECT else None


def _adagrad_stalls(quick: bool) -> Finding:
    known = seeds(quick, N)
    rates = tuned(TASK, PAIR, quick, by="train")
    default = {name: ENTRIES[name].default_rate for name in PAIR}
    falls = []
    for kind, used in (("tuned", rates), ("default", default)):
        each = []
        for name, outcomes in finals(TASK, used, known).items():
            curves = np.log([[point[1] for point in outcome.curve] for outcome in outcomes])
            what = f"how many times smaller the training loss becomes in the second half, {name} at its {kind} rate"
            each.append(times(what, (curves[:, PASSES // 2] - curves[:, -1]).tolist()))
        falls.append((each[0], each[1]))
    shrunk = [_shrunk(seed, rates["adagrad"]) for seed in known[: 2 if quick else TRACED]]
    what = "effective rate of adagrad, tuned, in the last twentieth of training over that after a tenth"
    return stalls(falls[0], falls[1], times(what, shrunk))


def _shrunk(seed: int, lr: float) -> float:
    """The logarithm of AdaGrad's effective rate in the end over that after a tenth of the steps, mean over layers."""
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
