"""Batch size on the digits network: steps to a training loss with SGD, momentum and Adam, at tuned learning rates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap

from gradprix.claims.decisions import Answer, Decision, all_of, any_of, is_above, is_within
from gradprix.claims.estimates import Measured, geometric_mean, mean
from gradprix.claims.network_training import CONSTANT, FINAL, make_trial, seeds
from gradprix.claims.registry import Quantities
from gradprix.tasks.rng import stream
from gradprix.training import ModelStack, Trial, compute_outputs, runtime_settings

from . import noisy_quadratic
from .batch_curves import fit_critical_batch, interpolate_optimum
from .noisy_quadratic import AGREES, HELPS, LITTLE, RAISES
from .registry import experiment

N = 6
SIZES, QUICK_SIZES = (1, 4, 16, 64, 256, 512), (4, 16, 64, 256)
SMALL = 16  # largest batch size for the exponent of the learning rate
TARGET, QUICK_TARGET = 0.1, 0.3  # training loss to be reached, of 2.3 at the start
MONITORED = 256  # training examples on which the loss is monitored
STEP_RATIO = 1.06  # ratio of the numbers of steps at which it is
REACH = 3  # factors of two in the learning rate on either side of the best one at the size before
SHIFTS = 3  # the grid is centred anew, and runs repeated, while the best learning rate of a seed is at its edge
PATIENCE = 1.5  # a stack ends after this multiple of the steps of its slowest seed
LONGEST = 30_000  # maximum number of steps
HELPS_NETWORK = 1.5  # factor in steps by which momentum helps on the network
EXPONENTS = {"sgd": (0.75, 1.25), "adam": (0.3, 0.7)}  # ranges around 1 and ½

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
        return np.log([fit_critical_batch(self.sizes, row)[1] for row in self.steps])

    def rate_exponents(self) -> Array:
        """Return the exponent of the batch size in the best learning rate up to `SMALL`, for each seed."""
        few = np.array(self.sizes) <= SMALL
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


def decide_noise_scale(m: Quantities) -> Decision:
    """Return the problems on which the noise scale predicts the critical batch size."""
    return any_of(
        {
            "the problem is the digits network": is_within(m["ratio"], 1 / AGREES, AGREES),
            "it is the noisy quadratic": is_within(m["quadratic"], 1 / AGREES, AGREES),
        }
    )


@experiment("noise-scale-predicts-critical-batch", decide_noise_scale)
def measure_noise_scale(quick: bool) -> Quantities:
    """Compare the critical batch size of SGD with the noise scale, on the network and on the noisy quadratic."""
    scales, _, steps = noise_scales(quick)
    average = np.trapezoid(scales, steps, axis=0) / (steps[-1] - steps[0])
    critical = tuned_curves("sgd", quick).critical()
    return {
        "ratio": geometric_mean(critical - np.log(average)),
        "critical": geometric_mean(critical),
        "simple": geometric_mean(np.log(average)),
        "quadratic": noisy_quadratic.measure_noise_scale(quick)["ratio"],
    }


def decide_growth(m: Quantities) -> Decision:
    """Return the starting points from which the noise scale grows."""
    starts = {
        "it is compared with the start": is_above(m["growth"], 1),
        "it is compared with the point of half the loss": is_above(m["late"], 1),
    }
    return any_of(starts)


@experiment("noise-scale-grows-as-the-loss-falls", decide_growth)
def measure_growth(quick: bool) -> Quantities:
    """Compare the noise scale at the target with that at the start, and where the loss has fallen to a half."""
    scales, losses, _ = noise_scales(quick)
    half = (losses <= losses[0] / 2).argmax(0)
    late = scales[-1] / scales[half, np.arange(scales.shape[1])]
    return {"growth": geometric_mean(np.log(scales[-1] / scales[0])), "late": geometric_mean(np.log(late))}


def decide_methods(m: Quantities) -> Decision:
    """Return the problems on which momentum helps at large batches alone and the critical batch size rises."""
    network = (
        is_above(m["large"], HELPS_NETWORK),
        is_within(m["small"], 1 / LITTLE, LITTLE),
        is_above(m["momentum"], RAISES),
        is_above(m["adam"], RAISES),
    )
    quadratic = (
        is_above(m["quadratic_large"], HELPS),
        is_within(m["quadratic_small"], 1 / LITTLE, LITTLE),
        is_above(m["quadratic_momentum"], RAISES),
        is_above(m["quadratic_preconditioned"], RAISES),
    )
    return any_of({"the problem is the digits network": join(network), "it is the noisy quadratic": join(quadratic)})


@experiment("momentum-helps-at-large-batches", decide_methods)
def measure_methods(quick: bool) -> Quantities:
    """Compare SGD with momentum and Adam over batch sizes, on the network and on the noisy quadratic."""
    curves = {name: tuned_curves(name, quick) for name in OPTIMIZERS}
    log_steps = {name: np.log(curve.steps) for name, curve in curves.items()}
    critical = {name: curve.critical() for name, curve in curves.items()}
    quadratic = noisy_quadratic.measure_methods(quick)
    return {
        "large": geometric_mean(log_steps["sgd"][:, -1] - log_steps["momentum"][:, -1]),
        "small": geometric_mean(log_steps["sgd"][:, 0] - log_steps["momentum"][:, 0]),
        "momentum": geometric_mean(critical["momentum"] - critical["sgd"]),
        "adam": geometric_mean(critical["adam"] - critical["sgd"]),
        **{f"quadratic_{name}": m for name, m in quadratic.items()},
    }


def join(answers: Sequence[Answer]) -> Answer:
    """Return True if all answers are True, False if one is False, else None."""
    return False if False in answers else None if None in answers else True


def decide_rates(m: Quantities) -> Decision:
    """Return the verdict: an exponent of about 1 for SGD, and of about ½ for Adam."""
    return all_of(*(is_within(m[name], *bounds) for name, bounds in EXPONENTS.items()))


@experiment("learning-rate-scales-with-batch", decide_rates)
def measure_rates(quick: bool) -> Quantities:
    """Measure the exponent of the batch size in the best learning rate of SGD and of Adam."""
    exponents = {name: tuned_curves(name, quick).rate_exponents() for name in EXPONENTS}
    gap: Measured = mean(exponents["sgd"] - exponents["adam"])
    return {**{name: mean(values) for name, values in exponents.items()}, "gap": gap}
