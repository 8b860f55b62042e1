"""Three batch sizes on a network: one example per step, mini-batches and the full batch, by speed and noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import exp, log
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gradprix import optim

from ._claim import Claim, Finding, Measured, Verdict, mean
from ._net_noise import N as NOISE_SEEDS
from ._net_noise import noise
from ._network_experiment import FINAL, STEADY, Training, is_more, seeds, times, trial, tuned

ALPHA = 0.05
N = 16
PASSES = 5
"""Epochs of the comparison at equal examples."""
BATCHES = {"sgd": 1, "minibatch": STEADY.batch_size, "gd": 0}
"""Examples per step; 0 for the full batch."""
MOST = {"minibatch": 40, "gd": 800}
"""Maximum number of epochs to reach the loss that one example per step has after `PASSES`."""
TUNED = 300
"""Epochs over which gd's learning rate is tuned for that."""
FASTER = 1.1
"""A training loss a tenth larger, or a time a tenth longer, counts as slower."""
NOISIER = 0.1
"""A difference of ten in a hundred updates that raise the training loss counts as noisier."""
LAST = 64
"""Number of final updates that are checked for raising the loss on all training examples."""
TIMED = 5
"""Timings of an epoch, after a first one that includes compilation."""


Array = NDArray[Any]


@dataclass(frozen=True)
class Runs:
    """Results of the three, by name.

    Args:
        loss: loss on all training examples after `PASSES` epochs, `[seeds]`.
        passes: epochs to reach the loss of `sgd` after `PASSES`, `[seeds]`; the maximum if it was not reached.
        raised: share of the last updates that raised the loss on all training examples, `[seeds]`.
        pace: logarithm of an epoch's duration relative to gd's, one per timing.
    """

    loss: Mapping[str, Array]
    passes: Mapping[str, Array]
    raised: Mapping[str, Array]
    pace: Mapping[str, Array]


@cache
def _runs(quick: bool) -> Runs:
    """Train the three, each with the learning rate that is best for it over as many epochs."""
    run_seeds = seeds(quick, N)
    short, longer = (STEADY.change(epochs=passes) for passes in (PASSES, TUNED))
    best = {name: tuned(short, (name,), quick, by="train")[name] for name in BATCHES}
    after = {name: _loss_curves(name, best[name], PASSES, run_seeds) for name in BATCHES}
    loss = {name: curve[:, -1] for name, (curve, _) in after.items()}
    passes, updates = {"sgd": np.full(len(run_seeds), float(PASSES))}, {"sgd": after["sgd"][1]}
    # The best learning rate over a few epochs of gd, that is, a few updates, differs from that over hundreds of epochs;
    # full batches need one seed only.
    rates = {"minibatch": best["minibatch"], "gd": tuned(longer, ("gd",), True, by="train")["gd"]}
    for name, most in MOST.items():
        curve, updates[name] = _loss_curves(name, rates[name], most, run_seeds, loss["sgd"])
        is_reached = curve <= loss["sgd"][:, None]
        passes[name] = np.where(is_reached.any(1), is_reached.argmax(1) + 1.0, float(most))
    raised = {name: (np.diff(losses) > 0).mean(1) for name, losses in updates.items()}
    timed = np.log([[_seconds(size, best[name]) for name, size in BATCHES.items()] for _ in range(TIMED + 1)])[1:]
    pace = {name: timed[:, i] - timed[:, -1] for i, name in enumerate(BATCHES)}
    return Runs(loss, passes, raised, pace)


def _loss_curves(
    name: str, lr: float, passes: int, run_seeds: range, until: Array | None = None
) -> tuple[Array, Array]:
    """Return the training loss of each seed after each epoch, and after each of the last updates.

    Args:
        name: name of the entry.
        lr: learning rate.
        passes: maximum number of epochs.
        run_seeds: the seeds.
        until: target losses; training stops when all are reached, and the last epochs replace the last updates.
    """
    task = STEADY.change(epochs=passes)
    training = Training(task, [trial(task, name, lr, seed) for seed in run_seeds])
    curve, last = [], []
    least = torch.full((len(run_seeds),), torch.inf, dtype=torch.float64)
    for t, _ in training.steps():
        ends, late = t % training.each == 0, until is None and t >= training.total - LAST
        if not (ends or late):
            continue
        loss = training.losses(training.trainer.train).mean(1)
        curve += [loss] * ends
        last += [loss] * late
        least = torch.minimum(least, loss)
        if until is not None and (least <= torch.as_tensor(until)).all():
            break
    return torch.stack(curve, 1).numpy(), torch.stack(last or curve[-LAST:], 1).numpy()


def _seconds(size: int, lr: float) -> float:
    """Return the duration of one epoch of a plain training loop, one network on one thread."""
    split, model = STEADY.loaded.split(FINAL), STEADY.network(FINAL)
    step = optim.SGD(model.parameters(), lr=lr)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        parts = torch.split(split.train, size or len(split.train))
        start_time = perf_counter()
        for part in parts:
            step.zero_grad()
            inputs, targets = STEADY.loaded.take(part)
            STEADY.loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            step.step()
        return perf_counter() - start_time
    finally:
        torch.set_num_threads(threads)


def quicker(what: str, passes: Array, than: Array, pace: Array, than_pace: Array) -> Measured:
    """Return the speed ratio of two settings: the ratio of epochs times the ratio of epoch durations.

    Epochs vary between seeds and durations between timings, independently, so that their squared errors add up.

    Args:
        what: description.
        passes: epochs of the first, `[seeds]`.
        than: epochs of the second.
        pace: logarithm of the first's epoch duration, `[timings]`.
        than_pace: that of the second.
    """
    ratio, cost = mean(what, np.log(than / passes).tolist()), mean(what, (than_pace - pace).tolist())
    half = float(np.hypot(ratio.effect - ratio.ci95[0], cost.effect - cost.ci95[0]))
    middle = ratio.effect + cost.effect
    return Measured(what, exp(middle), (exp(middle - half), exp(middle + half)), ratio.n)


def faster_but_noisy(per_example: Measured, per_second: Measured, noise: Measured) -> Finding:
    """Return the verdict on one-sample steps by examples, by seconds and by noise."""
    examples, time, noisy = is_more(per_example, FASTER, 1), is_more(per_second, FASTER, 1), is_more(noise, NOISIER)
    says = (
        f"After {PASSES} passes over digits gradient descent's training loss is {per_example.text('.1f')} times that "
        f"of one-sample steps. To come down to theirs it takes {per_second.text()} times the time they take. Near the "
        f"end, of the one-sample updates {noise.text('.0%')} more raise the loss."
    )
    measured = [per_example, per_second, noise]
    if examples is False or noisy is False:
        return Finding("does not hold", says, measured)
    if None in (examples, time, noisy):
        return Finding("not settled", says, measured)
    if time:
        return Finding("holds", says, measured)
    return Finding("holds only if", says, measured, "progress is counted by examples, not by seconds")


def _faster_but_noisy(quick: bool) -> Finding:
    runs = _runs(quick)
    ahead, jumps = np.log(runs.loss["gd"] / runs.loss["sgd"]), runs.raised["sgd"] - runs.raised["gd"]
    return faster_but_noisy(
        times("training loss after as many examples, gd over sgd", ahead.tolist()),
        quicker(
            "seconds to one training loss, gd over sgd",
            *(runs.passes["sgd"], runs.passes["gd"], runs.pace["sgd"], runs.pace["gd"]),
        ),
        mean("share of the last updates that raise the training loss, sgd - gd", jumps.tolist()),
    )


def balances(than_one: Measured, than_all: Measured, calmer: Measured) -> Finding:
    """Return the verdict on mini-batches: less noise than one example, and no slower than either.

    Args:
        than_one: time of one-sample steps relative to mini-batches.
        than_all: time of gradient descent relative to mini-batches.
        calmer: squared noise of one example relative to a mini-batch.
    """
    says = (
        f"A gradient of one example has {calmer.text('.1f')} times the squared noise of a mini-batch of "
        f"{STEADY.batch_size}. To one training loss one-sample steps take {than_one.text('.1f')} times the time of "
        f"mini-batches, and gradient descent {than_all.text('.1f')} times."
    )
    measured = [than_one, than_all, calmer]
    answers = [is_more(ratio, 1, 1) for ratio in measured]
    verdict: Verdict = "does not hold" if False in answers else "not settled" if None in answers else "holds"
    return Finding(verdict, says, measured)


def _balances(quick: bool) -> Finding:
    runs = _runs(quick)
    one, some, all_ = ((runs.passes[name], runs.pace[name]) for name in ("sgd", "minibatch", "gd"))
    calmer = [log(noise_by_size[1] / noise_by_size[STEADY.batch_size]) for noise_by_size in noise(quick)]
    return balances(
        quicker("seconds to one training loss, sgd over minibatch", some[0], one[0], some[1], one[1]),
        quicker("seconds to one training loss, gd over minibatch", some[0], all_[0], some[1], all_[1]),
        times("squared noise of a gradient, one example over a mini-batch", calmer),
    )


CLAIMS = (
    Claim(
        id="one-sample-steps-are-faster-but-noisy",
        account="Stochastic gradient descent updates after every example: faster, but noisy, with erratic jumps.",
        prediction="On digits, at constant rates tuned for each, its training loss after as many examples is lower "
        "than gradient descent's, it comes to that loss in less time, and more of its updates raise the loss.",
        decides=f"Each of three effects over {N} paired seeds counts if its 95 % interval is off no effect and it is "
        f"large enough: a tenth in loss after {PASSES} passes; a tenth in seconds to that loss (a loop of one's own "
        f"on one thread, timed in the same process); {100 * NOISIER:.0f} in a hundred of the last {LAST} updates that "
        "raise the loss of all training examples. Holds if all do; only by examples, if all but the second do; does "
        "not hold if the first or the third surely does not.",
        run=_faster_but_noisy,
        on="networks",
    ),
    Claim(
        id="mini-batches-balance",
        account="Mini-batches balance the two: less noise than single examples, and still efficient.",
        prediction=f"On digits, a mini-batch of {STEADY.batch_size} has a less noisy gradient than one example, and "
        "comes to the same training loss in less time than both one-sample steps and gradient descent.",
        decides=f"Holds if the 95 % intervals of all three ratios, over {N} paired seeds (of noise over "
        f"{NOISE_SEEDS}), are above one; does not hold if one is below.",
        run=_balances,
        on="networks",
        source="Bottou et al. 2018, arXiv:1606.04838, section 3",
    ),
)
