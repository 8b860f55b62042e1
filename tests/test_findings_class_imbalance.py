"""Findings on rare classes: the problems, their gradient, and descent on one-hot inputs."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from findings import class_imbalance
from findings.class_imbalance import FEATURES, GROUPS, PER_GROUP, draw_problem


@pytest.mark.parametrize("kind", ["zipf", "centred"])
def test_classes_of_each_group_are_half_as_frequent(kind: str) -> None:
    problem = draw_problem(0, kind)
    counts = [problem.targets[problem.groups == k].bincount()[2**k - 1 :] for k in range(GROUPS)]
    assert [count.tolist() for count in counts] == [[PER_GROUP // 2**k] * 2**k for k in range(GROUPS)]
    assert float(problem.inputs.mean()) == pytest.approx(0.5 if kind == "zipf" else 0, abs=0.01)


def test_balanced_classes_differ_by_one_example() -> None:
    counts = draw_problem(0, "balanced").targets.bincount()
    assert int(counts.max() - counts.min()) <= 1
    assert len(counts) == draw_problem(0, "zipf").classes


def test_the_gradient_is_that_of_the_cross_entropy() -> None:
    problem = draw_problem(0, "zipf")
    weights = (0.1 * torch.randn(problem.classes, FEATURES)).requires_grad_()
    loss = functional.cross_entropy(problem.inputs @ weights.mT, problem.targets)
    assert torch.allclose(problem.gradient(weights), torch.autograd.grad(loss, weights)[0], atol=1e-6)
    assert torch.allclose(problem.losses(torch.zeros_like(weights)), torch.ones(len(problem.targets)))


def test_sign_descent_treats_all_classes_alike() -> None:
    losses = class_imbalance.train_on_indicators(0.01, (50, 100), signs=True)
    assert torch.allclose(losses, losses[:, :1].expand_as(losses))
    assert (losses[1] < losses[0]).all()


def test_descent_depends_on_frequency_times_steps() -> None:
    rate, times = 0.5, (200, 400)
    losses = class_imbalance.train_on_indicators(rate, times, signs=False)
    frequency = class_imbalance.class_frequencies()
    assert float(frequency.sum()) == pytest.approx(1)
    assert float(losses[1, 1]) == pytest.approx(float(losses[0, 0]), rel=0.02)  # half as frequent, twice as long
    assert (losses[:, 1:] > losses[:, :-1]).all(), "rarer classes are slower"
