"""Stacked convolutions against torch's, one row at a time."""

from typing import Any

import pytest
import torch
from torch.func import vmap
from torch.nn import functional

from gradprix.training import convolution
from gradprix.training.batched_ops import StackedOperations

KINDS = {
    "plain": ("conv2d", (4, 3, 3, 3), (2, 3, 8, 7), {}),
    "strided": ("conv2d", (4, 3, 5, 3), (2, 3, 9, 8), {"stride": (2, 1), "padding": (2, 1)}),
    "dilated": ("conv2d", (4, 3, 3, 3), (2, 3, 9, 8), {"dilation": 2, "padding": 1}),
    "in groups": ("conv2d", (6, 2, 3, 3), (2, 4, 6, 6), {"groups": 2, "padding": [1]}),
    "each channel by itself": ("conv2d", (6, 1, 3, 3), (2, 3, 6, 6), {"groups": 3}),
    "one pixel": ("conv2d", (4, 3, 1, 1), (2, 3, 5, 6), {}),
    "one pixel, strided": ("conv2d", (4, 3, 1, 1), (2, 3, 5, 6), {"stride": 2}),
    "same": ("conv2d", (4, 3, 3, 3), (2, 3, 5, 6), {"padding": "same"}),
    "one channel": ("conv2d", (4, 1, 3, 3), (2, 1, 8, 7), {"stride": 2}),
    "no example": ("conv2d", (4, 3, 3, 3), (0, 3, 8, 7), {}),
    "one example": ("conv2d", (4, 3, 3, 3), (3, 5, 6), {}),
    "lines": ("conv1d", (4, 3, 3), (2, 3, 9), {"stride": 2, "padding": 1, "dilation": 2}),
    "one pixel of a line": ("conv1d", (4, 3, 1), (2, 3, 9), {}),
    "blocks": ("conv3d", (4, 3, 3, 2, 1), (2, 3, 5, 6, 4), {"padding": (1, 0, 1)}),
    "transposed": ("conv_transpose2d", (3, 4, 3, 3), (2, 3, 5, 4), {"stride": 2, "padding": 1, "output_padding": 1}),
    "transposed, in groups": ("conv_transpose2d", (4, 2, 3, 3), (2, 4, 5, 4), {"groups": 2, "dilation": 2}),
    "transposed lines": ("conv_transpose1d", (3, 4, 3), (2, 3, 5), {"stride": 3, "output_padding": 1}),
    "transposed blocks": ("conv_transpose3d", (3, 4, 2, 3, 2), (2, 3, 3, 4, 3), {"stride": (1, 2, 1)}),
}


def given(kind: str, rows: int, dtype: torch.dtype, bias: bool = True) -> tuple[str, list[Any], dict[str, Any]]:
    name, weight, image, more = KINDS[kind]
    generator = torch.Generator().manual_seed(1)
    shapes = [image, weight]
    if bias:
        shapes.append((weight[1] * more.get("groups", 1) if "transpose" in name else weight[0],))
    return name, [torch.randn(rows, *shape, generator=generator, dtype=dtype) for shape in shapes], more


def stacked(name: str, tensors: list[Any], more: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Outputs and gradients of whole stacks."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    with StackedOperations():
        out = vmap(lambda x, *rest: getattr(functional, name)(x, *rest, **more))(*leaves)
    return out.detach(), list(torch.autograd.grad((out * waves(out)).sum(), leaves))


def apart(name: str, tensors: list[Any], more: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The same, one row after the other."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = torch.stack([getattr(functional, name)(*row, **more) for row in zip(*leaves, strict=True)])
    return out.detach(), list(torch.autograd.grad((out * waves(out)).sum(), leaves))


def waves(x: Any) -> Any:
    """What makes each pixel count in its own way, and each row in the same."""
    return torch.arange(x[0].numel(), dtype=x.dtype).sin().view(x.shape[1:])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("large", [True, False], ids=["each row by itself", "in one"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_one_at_a_time(
    kind: str, large: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "LARGE", 0 if large else 1e9)
    asked = given(kind, 3, torch.float64, bias)
    for ours, theirs in zip(flat(stacked(*asked)), flat(apart(*asked)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("large", [True, False], ids=["each row by itself", "in one"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("same", "no example", "one example")])
def test_a_row_is_the_same_to_the_bit_wherever_it_is(kind: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "LARGE", 0 if large else 1e9)
    name, tensors, more = given(kind, 33, torch.float32)
    first = [x[:1] for x in tensors]
    alone = flat(stacked(name, [x.expand(2, *x.shape[1:]) for x in first], more))
    for rows, row in ((3, 1), (8, 7), (17, 9), (33, 32)):
        others = [x[:rows].clone() for x in tensors]
        for x, own in zip(others, first, strict=True):
            x[row] = own[0]
        for ours, theirs in zip(flat(stacked(name, others, more)), alone, strict=True):
            assert torch.equal(ours[row], theirs[0])


def test_only_what_needs_a_gradient_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    name, tensors, more = given("strided", 3, torch.float64)
    every = apart(name, tensors, more)[1]
    for large in (0, 1e9):
        monkeypatch.setattr(convolution, "LARGE", large)
        for i, wanted in enumerate(every):
            leaves = [x.clone().requires_grad_(k == i) for k, x in enumerate(tensors)]
            with StackedOperations():
                out = vmap(lambda x, *rest: getattr(functional, name)(x, *rest, **more))(*leaves)
            (gradient,) = torch.autograd.grad((out * waves(out)).sum(), leaves[i])
            torch.testing.assert_close(gradient, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("large", [True, False], ids=["each row by itself", "in one"])
def test_channels_lie_together_in_memory(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "LARGE", 0 if large else 1e9)
    for kind in ("plain", "one channel"):
        assert stacked(*given(kind, 3, torch.float32))[0].stride(2) == 1


POOLS = {
    "max": ("max_pool2d", (2,), {}),
    "max, with edges": ("max_pool2d", (3, 2, 1), {"ceil_mode": True}),
    "mean": ("avg_pool2d", (2, 1), {"count_include_pad": False}),
    "to a size": ("adaptive_avg_pool2d", ((2, 3),), {}),
    "to one": ("adaptive_avg_pool2d", (1,), {}),
}


@pytest.mark.parametrize("large", [True, False], ids=["each row by itself", "in one"])
@pytest.mark.parametrize("pool", POOLS)
def test_pools_take_rows_as_they_lie(pool: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "LARGE", 0 if large else 1e9)
    name, args, more = POOLS[pool]

    def network(x: Any, weight: Any, bias: Any) -> Any:
        return getattr(functional, name)(functional.conv2d(x, weight, bias, padding=1).relu(), *args, **more)

    for dtype, close in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        tensors = given("plain", 9, dtype)[1]
        leaves = [x.clone().requires_grad_() for x in tensors]
        with StackedOperations():
            out = vmap(network)(*leaves)
        ours = [out.detach(), *torch.autograd.grad((out * waves(out)).sum(), leaves)]
        out = torch.stack([network(*row) for row in zip(*leaves, strict=True)])
        theirs = [out.detach(), *torch.autograd.grad((out * waves(out)).sum(), leaves)]
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=close, atol=close)


def test_a_pool_may_say_which_places_it_took() -> None:
    images = torch.randn(3, 2, 4, 8, 6)
    with StackedOperations():
        out, places = vmap(lambda x: functional.max_pool2d(x, 2, return_indices=True))(images)
    for row, image in enumerate(images):
        alone = functional.max_pool2d(image, 2, return_indices=True)
        assert torch.equal(out[row], alone[0])
        assert torch.equal(places[row], alone[1])


def test_complex_numbers_go_by_torchs_own_way() -> None:
    name, tensors, more = given("plain", 3, torch.float64)
    complex_ = [torch.complex(x, x.flip(0)) for x in tensors]
    with StackedOperations():
        out = vmap(lambda *row: getattr(functional, name)(*row, **more))(*complex_)
    rows = [getattr(functional, name)(*row, **more) for row in zip(*complex_, strict=True)]
    torch.testing.assert_close(out, torch.stack(rows))


def test_what_comes_first_may_be_called_by_its_name() -> None:
    name, (x, weight, bias), _ = given("plain", 3, torch.float32)
    with StackedOperations():
        out = vmap(lambda *row: getattr(functional, name)(input=row[0], weight=row[1], bias=row[2]))(x, weight, bias)
    assert torch.equal(out, stacked(name, [x, weight, bias], {})[0])


def flat(found: tuple[Any, list[Any]]) -> list[Any]:
    return [found[0], *found[1]]
