"""Finding on separable data: the construction, its two solutions, and what training finds."""

import sys
from pathlib import Path

import pytest
import torch

from gradprix.rules import ALL

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from findings import separable_data
from findings.separable_data import EXAMPLES, POSITIVE, draw_data

DATA = draw_data(3)


def test_each_example_has_its_own_features() -> None:
    shared, own = DATA.inputs[..., :3], DATA.inputs[..., 3:]
    assert torch.equal(shared[..., 0], DATA.labels)
    assert (shared[..., 1:] == 1).all()
    assert torch.equal(own.sum(-1), torch.where(DATA.labels > 0, 1.0, 5.0).double())
    assert (own.sum(1) <= 1).all(), "no feature belongs to two examples"
    assert ((DATA.labels.mean(1) > 0) & (DATA.labels.mean(1) < 1)).all()


@pytest.mark.parametrize("weights", [DATA.minimum_norm(), DATA.equal_weights()], ids=["minimum norm", "equal"])
def test_both_solutions_fit_the_training_set(weights: torch.Tensor) -> None:
    assert torch.einsum("nef,nf->ne", DATA.inputs, weights) == pytest.approx(DATA.labels, abs=1e-9)


def test_only_the_solution_of_minimum_norm_generalizes() -> None:
    assert separable_data.test_error(DATA.minimum_norm()).tolist() == [0, 0, 0]
    assert separable_data.test_error(DATA.equal_weights()).tolist() == pytest.approx([1 - POSITIVE] * 3)


@pytest.mark.parametrize(("name", "expected"), [("sgd", 0), ("adam", 1 - POSITIVE), ("adagrad", 1 - POSITIVE)])
def test_training_finds_the_solution_of_the_theory(name: str, expected: float) -> None:
    error, residual = separable_data.train_selected(DATA, ALL[name], [{}], 300)
    assert error.tolist() == pytest.approx([expected] * 3)
    assert (residual <= separable_data.FITS).all()


def test_the_gradient_is_that_of_the_squared_residual() -> None:
    w = torch.randn(3, 3 + 5 * EXAMPLES, dtype=torch.float64, requires_grad=True)
    loss = 0.5 * (torch.einsum("nef,nf->ne", DATA.inputs, w) - DATA.labels).square().mean(1).sum()
    assert torch.allclose(DATA.gradient(w), torch.autograd.grad(loss, w)[0])
