"""Comparison of three batch sizes on a network by speed and noise: one example, mini-batch and full batch."""

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

from .claim import experiment
from .decisions import Decision, all_of, is_relevant
from .estimates import Measured, geometric_mean, mean
from .network_gradient_noise import gradient_noise
from .network_training import CONSTANT, FINAL, Training, make_trial, seeds, tuned
from .registry import Quantities

N = 16
PASSES = 5  # epochs of the comparison at equal examples
BATCHES = {"sgd": 1, "minibatch": CONSTANT.batch_size, "gd": 0}  # examples per step; 0 for the full batch
MOST = {"minibatch": 40, "gd": 800}
"""Maximum number of epochs in which to reach the loss that `sgd` has after `PASSES` epochs."""
TUNED = 300  # number of epochs for which the learning rate of `gd` is tuned in that comparison
FASTER = 1.1  # a training loss larger by a tenth, or a time longer by a tenth, counts as slower
NOISIER = 0.1  # if ten more updates in a hundred raise the training loss, training counts as noisier
LAST = 64  # number of final updates for which it is checked whether they raise the loss on all training examples
TIMED = 5  # number of timings of an epoch, after a first one that includes compilation

Array = NDArray[Any]


@dataclass(frozen=True)
class Runs:
    """Results of SGD, mini-batch and full-batch gradient descent, by name (the keys of `BATCHES`).

    Args:
        loss: loss on all training examples after `PASSES` epochs, `[seeds]`.
        epochs: number of epochs to the loss that `sgd` has after `PASSES` epochs, `[seeds]`; the maximum in `MOST` if
            this loss was not reached.
        raised: proportion of the last updates that raised the loss on all training examples, `[seeds]`.
        log_duration: logarithm of the duration of an epoch relative to that of `gd`, `[timings]`.
    """

    loss: Mapping[str, Array]
    epochs: Mapping[str, Array]
    raised: Mapping[str, Array]
    log_duration: Mapping[str, Array]

    def duration_ratio(self, a: str, b: str) -> Measured:
        """Return the time that `b` takes to reach a training loss, divided by the time that `a` takes."""
        return duration_ratio(self.epochs[a], self.epochs[b], self.log_duration[a], self.log_duration[b])


@cache
def _train(quick: bool) -> Runs:
    """Train with each of the three batch sizes, with a learning rate tuned for the same number of epochs."""
    run_seeds = seeds(quick, N)
    short, longer = (CONSTANT.change(epochs=epochs) for epochs in (PASSES, TUNED))
    best = {name: tuned(short, (name,), quick, by="train")[name] for name in BATCHES}
    after = {name: _loss_curves(name, best[name], PASSES, run_seeds) for name in BATCHES}
    loss = {name: curve[:, -1] for name, (curve, _) in after.items()}
    epochs, last_losses = {"sgd": np.full(len(run_seeds), float(PASSES))}, {"sgd": after["sgd"][1]}
    # For `gd`, a few epochs are a few updates, for which the best learning rate differs from that for hundreds of
    # epochs. It is tuned with one seed (a quick tuning), which suffices for full batches.
    rates = {"minibatch": best["minibatch"], "gd": tuned(longer, ("gd",), True, by="train")["gd"]}
    for name, most in MOST.items():
        curve, last_losses[name] = _loss_curves(name, rates[name], most, run_seeds, loss["sgd"])
        is_reached = curve <= loss["sgd"][:, None]
        epochs[name] = np.where(is_reached.any(1), is_reached.argmax(1) + 1.0, float(most))
    raised = {name: (np.diff(losses) > 0).mean(1) for name, losses in last_losses.items()}
    timed = np.log([[_epoch_seconds(size, best[name]) for name, size in BATCHES.items()] for _ in range(TIMED + 1)])[1:]
    return Runs(loss, epochs, raised, {name: timed[:, i] - timed[:, -1] for i, name in enumerate(BATCHES)})


def _loss_curves(
    name: str, lr: float, epochs: int, run_seeds: range, until: Array | None = None
) -> tuple[Array, Array]:
    """Train one network per seed, and return the training loss after each epoch and after each of the last updates.

    Args:
        name: name of the entry.
        lr: learning rate.
        epochs: maximum number of epochs.
        run_seeds: the seeds.
        until: target loss of each seed. Training stops when all are reached. Its last update is not known in advance
            then, and losses after the last epochs are returned in place of those after the last updates.

    Returns:
        Losses after each epoch, `[seeds, epochs]`, and after each of the last updates, `[seeds, updates]`.
    """
    task = CONSTANT.change(epochs=epochs)
    training = Training(task, [make_trial(task, name, lr, seed) for seed in run_seeds])
    curve, last = [], []
    least = torch.full((len(run_seeds),), torch.inf, dtype=torch.float64)
    for t, _ in training.steps():
        is_end, is_late = t % training.steps_per_epoch == 0, until is None and t >= training.total_steps - LAST
        if not (is_end or is_late):
            continue
        loss = training.losses(training.stack.data.train).mean(1)
        curve += [loss] * is_end
        last += [loss] * is_late
        least = torch.minimum(least, loss)
        if until is not None and (least <= torch.as_tensor(until)).all():
            break
    return torch.stack(curve, 1).numpy(), torch.stack(last or curve[-LAST:], 1).numpy()


def _epoch_seconds(size: int, lr: float) -> float:
    """Return the duration in seconds of one epoch of a PyTorch training loop with one model on one thread.

    Args:
        size: batch size; 0 for full batches.
        lr: learning rate.
    """
    split, model = CONSTANT.loaded.split(FINAL), CONSTANT.network(FINAL)
    optimizer = optim.SGD(model.parameters(), lr=lr)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        batches = torch.split(split.train, size or len(split.train))
        start_time = perf_counter()
        for batch in batches:
            optimizer.zero_grad()
            inputs, targets = CONSTANT.loaded.take(batch)
            CONSTANT.loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return perf_counter() - start_time
    finally:
        torch.set_num_threads(threads)


def duration_ratio(epochs: Array, other: Array, log_duration: Array, other_log_duration: Array) -> Measured:
    """Return the ratio of the training times of two settings: the ratio of epochs times the ratio of epoch durations.

    The number of epochs varies between seeds, and the duration of an epoch between timings. Their errors are
    independent, so that the half-widths of the intervals add in quadrature.

    Args:
        epochs: number of epochs of the first setting, `[seeds]`.
        other: number of epochs of the second setting, `[seeds]`.
        log_duration: logarithm of the duration of an epoch of the first setting, `[timings]`.
        other_log_duration: logarithm of the duration of an epoch of the second setting, `[timings]`.

    Returns:
        Time of the second setting divided by that of the first.
    """
    ratio, cost = mean(np.log(other / epochs)), mean(other_log_duration - log_duration)
    half = float(np.hypot(ratio.effect - ratio.ci95[0], cost.effect - cost.ci95[0]))
    middle = ratio.effect + cost.effect
    return Measured("", exp(middle), (exp(middle - half), exp(middle + half)), ratio.n)


def decide_single_examples(m: Quantities) -> Decision:
    """Return the verdict on steps with one example, from the ratios of losses and times, and from the noise."""
    examples, seconds = (is_relevant(m[name], FASTER, 1) for name in ("examples", "seconds"))
    noise = is_relevant(m["noise"], NOISIER)
    if seconds is False:
        return all_of(examples, noise, condition="progress is counted by examples, not by seconds")
    return all_of(examples, noise, seconds)


@experiment("one-sample-steps-are-faster-but-noisy", decide=decide_single_examples)
def measure_single_examples(quick: bool) -> Quantities:
    """Compare one example per step with the full batch."""
    runs = _train(quick)
    return {
        "examples": geometric_mean(np.log(runs.loss["gd"] / runs.loss["sgd"])),
        "seconds": runs.duration_ratio("sgd", "gd"),
        "noise": mean(runs.raised["sgd"] - runs.raised["gd"]),
    }


@experiment("mini-batches-balance", decide=lambda m: all_of(*(is_relevant(ratio, 1, 1) for ratio in m.values())))
def measure_mini_batches(quick: bool) -> Quantities:
    """Compare mini-batches with one example per step and with the full batch."""
    runs = _train(quick)
    log_noise = [log(noise[1] / noise[CONSTANT.batch_size]) for noise in gradient_noise(quick)]
    return {
        "sgd": runs.duration_ratio("minibatch", "sgd"),
        "gd": runs.duration_ratio("minibatch", "gd"),
        "noise": geometric_mean(log_noise),
    }
