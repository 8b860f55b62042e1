"""Landscapes as formulas: symbolic gradients, and the sampled loss planes of a network."""

import pytest
import torch

from gradprix.explain import LANDSCAPES, SLICES, digits_path
from gradprix.explain.differentiation import with_derivatives
from gradprix.rules.ir import Assign, Tree
from gradprix.rules.parser import parse_expression


@pytest.mark.parametrize("name", LANDSCAPES)
def test_symbolic_gradients_are_those_of_autograd(name: str) -> None:
    landscape = LANDSCAPES[name](
        **{"ravine": {"condition": 7.0, "angle": 20.0}, "bowl": {"curvature": 3.0}}.get(name, {})
    )
    points = 4 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_autograd = landscape.change(value=lambda p: landscape.value(p)).gradient(points)
    for ours, theirs in zip(landscape.gradient(points), by_autograd, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_equal_parameters_give_the_same_landscape() -> None:
    """Tuned learning rates are cached by landscape."""
    ravine = LANDSCAPES["ravine"]
    assert ravine(condition=5) is ravine(5.0, 0) is not ravine(5.0, 1)
    with pytest.raises(TypeError, match="depth"):
        ravine(depth=3)


@pytest.mark.parametrize("body", ["abs(x) + y", "x ** y", "x / y"])
def test_formulas_without_a_known_derivative_are_refused(body: str) -> None:
    assigned = Assign("value", parse_expression(body, "surface", {}, ["x", "y"]), 1)
    with pytest.raises(ValueError, match="derivative"):
        with_derivatives(Tree((), (assigned,), ("value",)), ("x", "y"))


@pytest.mark.slow
def test_sampled_loss_planes_are_those_of_the_network() -> None:
    """The file is made by studies/loss_planes.py; training on another CPU differs by rounding errors."""
    landscape, plane = SLICES["digits-path"](), digits_path()
    x, y, losses = landscape.grid(13)
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    spread = float(losses.max() - losses.min())
    torch.testing.assert_close(losses, plane.landscape.value(points), rtol=0.02, atol=0.01 * spread)
