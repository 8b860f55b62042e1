"""Findings on batch sizes: fits, exact dynamics of the noisy quadratic, and the noise scale."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from findings import batch_curves, batch_runs, noisy_quadratic
from findings.answers import conjunction

SIZES = np.array([1, 4, 16, 64, 256])


@pytest.mark.parametrize(("smin", "critical"), [(10, 30), (200, 3), (5, 1_000)])
def test_a_critical_batch_size_is_found(smin: float, critical: float) -> None:
    assert batch_curves.fit_critical_batch(SIZES, smin * (1 + critical / SIZES)) == pytest.approx((smin, critical))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(x - 0.3) ** 2 + 2 for x in (-2, -1, 0, 1, 2)], (0.3, 2)),
        ([np.inf, np.inf, 3, 4, 5], (0, 3)),
        ([1, 2, 3, 4, 5], (-2, 1)),
    ],
)
def test_the_best_learning_rate_lies_on_a_parabola(steps: list[float], expected: tuple[float, float]) -> None:
    grid = np.array([-2.0, -1, 0, 1, 2])
    assert batch_curves.interpolate_optimum(grid, np.array(steps)) == pytest.approx(expected)


@pytest.mark.parametrize("name", list(noisy_quadratic.METHODS))
def test_expected_losses_are_those_of_simulated_runs(name: str) -> None:
    method, h, lr, size = noisy_quadratic.METHODS[name], noisy_quadratic.curvatures(True)[:50], 0.05, 256
    steps = int(noisy_quadratic.expected_steps(method, h, torch.tensor([lr], dtype=torch.float64), size)[0])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2_000, len(h), generator=generator, dtype=torch.float64)
    v = torch.zeros_like(x)
    for _ in range(steps):
        noise = (h / size).sqrt() * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        v = method.momentum * v - lr * (h * x + noise) / h**method.power
        x = x + v
    loss = float(0.5 * (h * x.square()).sum(1).mean())
    assert loss == pytest.approx(noisy_quadratic.TARGET, rel=0.05)


def test_a_learning_rate_beyond_the_edge_never_reaches_the_target() -> None:
    h, rates = noisy_quadratic.curvatures(True), torch.tensor([0.5, 2.5], dtype=torch.float64)
    steps = noisy_quadratic.expected_steps(noisy_quadratic.METHODS["sgd"], h, rates, float("inf"))
    assert torch.isfinite(steps).tolist() == [True, False]


def test_steps_to_a_target_fall_with_the_learning_rate() -> None:
    steps = batch_runs.steps_to_target("minibatch", 64, [0.05, 0.2], [7_000, 7_001], target=1.5)
    assert steps.shape == (2, 2)
    assert np.isfinite(steps[:, 1]).all()
    assert (steps[:, 1] < steps[:, 0]).all()


def test_steps_that_obey_the_relation_have_no_misfit() -> None:
    steps = np.array([20 * (1 + 30 / SIZES), 5 * (1 + 8 / SIZES)])
    curves = batch_runs.Curves(SIZES.tolist(), steps, np.array([0.1 * SIZES, 0.2 * SIZES**0.5]))
    assert curves.misfit() == pytest.approx([0, 0], abs=1e-6)
    assert np.exp(curves.critical()) == pytest.approx([30, 8])
    assert curves.rate_exponents(16) == pytest.approx([1, 0.5])


@pytest.mark.parametrize(
    ("answers", "expected"),
    [((True, True), True), ((True, None), None), ((None, False), False), ((True, False), False)],
)
def test_answers_are_combined(answers: tuple[bool | None, ...], expected: bool | None) -> None:
    assert conjunction(*answers) is expected
