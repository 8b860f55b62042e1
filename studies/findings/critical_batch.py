"""Critical batch sizes, and what depends on them: the noise scale, momentum and the best learning rate."""

import numpy as np

from gradprix.claims.decisions import Decision, all_of, any_of, is_above, is_within
from gradprix.claims.estimates import Measured, geometric_mean, mean
from gradprix.claims.registry import Quantities

from . import batch_runs, noisy_quadratic
from .answers import conjunction
from .batch_runs import OPTIMIZERS, noise_scales, tuned_curves
from .noisy_quadratic import AGREES, HELPS, LITTLE, RAISES
from .registry import experiment

N, TARGET = batch_runs.N, batch_runs.TARGET
SMALL = 16  # largest batch size for the exponent of the learning rate
HELPS_NETWORK = 1.5  # factor in steps by which momentum helps on the network
EXPONENTS = {"sgd": (0.75, 1.25), "adam": (0.3, 0.7)}  # ranges around 1 and ½


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
    curves = tuned_curves("sgd", quick)
    critical = curves.critical()
    return {
        "ratio": geometric_mean(critical - np.log(average)),
        "critical": geometric_mean(critical),
        "simple": geometric_mean(np.log(average)),
        "misfit": mean(curves.misfit()),
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
    return any_of(
        {
            "the problem is the digits network": conjunction(*network),
            "it is the noisy quadratic": conjunction(*quadratic),
        }
    )


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


def decide_rates(m: Quantities) -> Decision:
    """Return the verdict: an exponent of about 1 for SGD, and of about ½ for Adam."""
    return all_of(*(is_within(m[name], *bounds) for name, bounds in EXPONENTS.items()))


@experiment("learning-rate-scales-with-batch", decide_rates)
def measure_rates(quick: bool) -> Quantities:
    """Measure the exponent of the batch size in the best learning rate of SGD and of Adam."""
    exponents = {name: tuned_curves(name, quick).rate_exponents(SMALL) for name in EXPONENTS}
    gap: Measured = mean(exponents["sgd"] - exponents["adam"])
    return {**{name: mean(values) for name, values in exponents.items()}, "gap": gap}
