"""Finding on the stability of Adam: its threshold on a quadratic, and the preconditioned sharpness of a network."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, hessian

from gradprix.claims.network_training import Training, make_trial
from gradprix.rules import adam

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from findings import adaptive_stability
from findings.adaptive_stability import TASK, threshold


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("share", "is_stable"), [(0.99, True), (1.01, False)])
def test_descent_with_averaged_gradients_is_stable_below_the_threshold(
    beta1: float, share: float, is_stable: bool
) -> None:
    lr = 0.1
    curvature = share * threshold(lr, beta1)
    # m ← β₁ m + (1 − β₁) h x, x ← x − lr m
    step = np.array([[beta1, (1 - beta1) * curvature], [-lr * beta1, 1 - lr * (1 - beta1) * curvature]])
    assert (np.abs(np.linalg.eigvals(step)).max() < 1) is np.bool_(is_stable)


def test_the_threshold_is_38_over_the_learning_rate() -> None:
    assert threshold(1.0, 0.9) == pytest.approx(38)


def test_power_iteration_finds_the_largest_eigenvalue_of_the_preconditioned_hessian() -> None:
    task = TASK.change(model=lambda: torch.nn.Linear(64, 3), loss=narrow_error, epochs=5)
    training = Training(task, [make_trial(task, "adam", 1e-2, seed) for seed in (0, 1)])
    training.run()
    steps = training.total_steps
    gains = adaptive_stability.preconditioner_gains(training, steps, 0.9)
    size, direction = adaptive_stability.sharpness(training, gains, None)
    size, _ = adaptive_stability.sharpness(training, gains, direction)
    for row in range(2):
        assert float(size[row]) == pytest.approx(dense_sharpness(training, gains, row), rel=0.05)


def narrow_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Half the squared distance of three outputs from three bits of the target, a quadratic in the weights."""
    bits = (targets[:, None] >> torch.arange(3)) & 1
    return 0.5 * (outputs - bits.to(outputs.dtype)).square().sum(-1).mean()


def dense_sharpness(training: Training, gains: dict[str, torch.Tensor], row: int) -> float:
    """The largest eigenvalue of √P H √P by the full matrix."""
    model, weights = training.task.network(0), training.weights(row)["weight"]
    bias = training.weights(row)["bias"]
    inputs, targets = training.task.loaded.take(training.task.loaded.split(row).train)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parameters = {"weight": flat[:-3].view_as(weights), "bias": flat[-3:]}
        return training.task.loss(functional_call(model, parameters, (inputs,)), targets)

    matrix = hessian(loss)(torch.cat([weights.flatten(), bias]))
    root = torch.cat([gains[name][row].flatten() for name in ("weight", "bias")]).sqrt()
    return float(torch.linalg.eigvalsh((root[:, None] * matrix * root).double())[-1])


def test_gains_are_the_steps_of_the_rule() -> None:
    training = Training(TASK.change(epochs=1), [make_trial(TASK.change(epochs=1), "adam", 1e-3, 0)])
    training.run()
    t, state = training.total_steps, training.stack.rule_state(0)
    gains = adaptive_stability.preconditioner_gains(training, t, 0.9)
    for name, values in state.items():
        corrected = values["m"] / (1 - 0.9**t) / ((values["v"] / (1 - 0.999**t)).sqrt() + adaptive_stability.EPS)
        assert torch.allclose(values["m"] * gains[name][0], corrected)
    assert adam.values()["beta2"] == adaptive_stability.BETA2
