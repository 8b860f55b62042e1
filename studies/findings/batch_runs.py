"""Runs of the digits network to a training loss, over batch sizes, at tuned learning rates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap

from gradprix.claims.network_training import CONSTANT, FINAL, make_trial, seeds
from gradprix.tasks.rng import stream
from gradprix.training import ModelStack, Trial, compute_outputs, runtime_settings

from .batch_curves import fit_critical_batch, interpolate_optimum

N = 6
SIZES, QUICK_SIZES = (1, 4, 16, 64, 256, 512), (4, 16, 64, 256)
TARGET, QUICK_TARGET = 0.1, 0.3  # training loss to be reached, of 2.3 at the start
MONITORED = 256  # training examples on which the loss is monitored
STEP_RATIO = 1.06  # ratio of the numbers of steps at which it is
REACH = 3  # factors of two in the learning rate on either side of the best one at the size before
SHIFTS = 3  # the grid is centred anew, and runs repeated, while the best learning rate of a seed is at its edge
PATIENCE = 1.5  # a stack ends after this multiple of the steps of its slowest seed
LONGEST = 30_000  # maximum number of steps

Array = NDArray[Any]


@dataclass(frozen=True)
class Optimizer:
    """An optimizer of the comparison.

    Args:
        entry: name of the race entry.
        start: learning rate around which the smallest batch size is tuned.
    """

    entry: str
    start: float


OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": Optimizer("minibatch", 2.0**-5),
    "momentum": Optimizer("momentum", 2.0**-8),
    "adam": Optimizer("adam", 2.0**-10),
}


@dataclass(frozen=True)
class Curves:
    """Results of an optimizer for each seed and batch size, `[seeds, sizes]`.

    Args:
        sizes: batch sizes.
        steps: steps to the target at the best learning rate.
        rates: that learning rate.
    """

    sizes: Sequence[int]
    steps: Array
    rates: Array

    def critical(self) -> Array:
        """Return the logarithm of the critical batch size of each seed."""
        return np.log([self._fit(row)[1] for row in self.steps])

    def misfit(self) -> Array:
        """Return the root mean square relative deviation of the steps from the fitted relation, for each seed."""
        predicted = [smin * (1 + critical / np.array(self.sizes)) for smin, critical in map(self._fit, self.steps)]
        return np.sqrt(np.mean((self.steps / np.array(predicted) - 1) ** 2, axis=1))

    def _fit(self, steps: Array) -> tuple[float, float]:
        return fit_critical_batch(self.sizes, steps)

    def rate_exponents(self, largest: int) -> Array:
        """Return the exponent of the batch size in the best learning rate of each seed.

        Args:
            largest: largest batch size that is used.
        """
        few = np.array(self.sizes) <= largest
        return np.polyfit(np.log(np.array(self.sizes)[few]), np.log(self.rates[:, few]).T, 1)[0]


class Descent:
    """A stack of digits networks trained on batches that are drawn with replacement.

    Drawing with replacement makes the noise of a gradient proportional to 1 / B up to batches of any size.

    Args:
        trials: the runs, all with the same batch size.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        with runtime_settings():
            self.stack = ModelStack(CONSTANT, trials)
        self.count, self.size = len(trials), trials[0].batch_size
        self.generator = stream(FINAL, f"batches of {self.size}")
        self.monitored = self.stack.data.train[:, :MONITORED]

    def step(self) -> None:
        """Perform a step of every network, on a batch drawn for each seed."""
        train = self.stack.data.train
        drawn = torch.randint(train.shape[1], (train.shape[0], self.size), generator=self.generator)
        with runtime_settings():
            self.stack.step(train.gather(1, drawn), 1.0)

    def losses(self) -> Tensor:
        """Return the loss of each network on the monitored training examples, `[runs]`."""
        with runtime_settings():
            evaluation = compute_outputs(self.stack, self.monitored)
        targets = evaluation.targets.expanded()
        stacked = torch.stack([output.whole for output in evaluation.outputs])
        losses = CONSTANT.loss(stacked.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape)[: self.count].double().mean(1)


def monitored_steps() -> Iterator[int]:
    """Yield increasing numbers of steps, in ratios of about `STEP_RATIO`."""
    t = 0
    while t < LONGEST:
        t = max(t + 1, round(t * STEP_RATIO))
        yield t


def steps_to_target(entry: str, size: int, rates: Sequence[float], run_seeds: Sequence[int], target: float) -> Array:
    """Return the steps to the target of each seed and learning rate, `[seeds, rates]`; infinite if not reached in time.

    Between two evaluations the logarithm of the loss is interpolated.
    """
    trials = [replace(make_trial(CONSTANT, entry, lr, s), batch_size=size) for s in run_seeds for lr in rates]
    descent, reached = Descent(trials), np.full(len(trials), np.inf)
    t, before = 0, descent.losses().log().numpy()
    for until in monitored_steps():
        for _ in range(until - t):
            descent.step()
        now = descent.losses().log().numpy()
        is_new = (now <= np.log(target)) & np.isinf(reached)
        share = (before[is_new] - np.log(target)) / (before[is_new] - now[is_new])
        reached[is_new] = t + share * (until - t)
        t, before = until, now
        if t > PATIENCE * reached.reshape(len(run_seeds), -1).min(1).max():
            break
    return reached.reshape(len(run_seeds), -1)


@cache
def tuned_curves(name: str, quick: bool) -> Curves:
    """Tune the learning rate at each batch size, around the best one at the size before, and return the results."""
    optimizer, run_seeds, centre = OPTIMIZERS[name], seeds(quick, N), OPTIMIZERS[name].start
    sizes, target = (QUICK_SIZES, QUICK_TARGET) if quick else (SIZES, TARGET)
    best = []
    for size in sizes:
        for _ in range(SHIFTS):
            rates = [centre * 2.0**k for k in range(-REACH, REACH + 1)]
            steps = steps_to_target(optimizer.entry, size, rates, run_seeds, target)
            if steps.argmin(1).min() > 0 and steps.argmin(1).max() < 2 * REACH:
                break
            centre = rates[int(np.median(steps.argmin(1)))]
        with np.errstate(divide="ignore"):
            best.append([interpolate_optimum(np.log(rates), np.log(row)) for row in steps])
        centre = rates[int(np.median(steps.argmin(1)))]
    log_rates, log_steps = np.moveaxis(np.array(best), -1, 0)
    return Curves(sizes, np.exp(log_steps).T, np.exp(log_rates).T)


@cache
def noise_scales(quick: bool) -> tuple[Array, Array, Array]:
    """Measure the simple noise scale at some steps of a run to the target.

    Returns:
        The noise scale and the training loss of each seed, `[steps, seeds]`, and the steps.

    The runs are those of SGD with the largest batch size, at the median of the best learning rates.
    """
    curves, run_seeds = tuned_curves("sgd", quick), seeds(quick, N)
    lr, most = float(np.median(curves.rates[:, -1])), float(curves.steps[:, -1].mean())
    trials = [replace(make_trial(CONSTANT, "minibatch", lr, s), batch_size=curves.sizes[-1]) for s in run_seeds]
    descent, t, scales, losses, steps = Descent(trials), 0, [], [], []
    for until in np.unique(np.linspace(0, most, 6 if quick else 12).round().astype(int)):
        for _ in range(until - t):
            descent.step()
        t = int(until)
        steps.append(t)
        losses.append(descent.losses().tolist())
        scales.append([_noise_scale(descent, row, seed) for row, seed in enumerate(run_seeds)])
    return np.array(scales), np.array(losses), np.array(steps)


def _noise_scale(descent: Descent, row: int, seed: int) -> float:
    """Return tr Σ / |G|² over all training examples for a network of the stack."""
    model, weights = CONSTANT.network(seed), {name: x[row].clone() for name, x in descent.stack.parameters.items()}
    inputs, targets = CONSTANT.loaded.take(CONSTANT.loaded.split(seed).train)

    def loss(parameters: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return CONSTANT.loss(functional_call(model, parameters, (x[None],)), y[None])

    each = vmap(grad(loss), (None, 0, 0))(weights, inputs, targets)
    squares = sum(float(g.double().flatten(1).square().sum(1).mean()) for g in each.values())
    signal = sum(float(g.double().mean(0).square().sum()) for g in each.values())
    return (squares - signal) / signal
