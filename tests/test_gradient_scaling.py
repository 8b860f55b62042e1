"""`grad_scale` and `found_inf`, as torch's fused classes and `torch.amp.GradScaler` use them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradprix import optim

CLASSES = "SGD Adagrad RMSprop Adadelta Adam AdamW Adamax NAdam RAdam Rprop ASGD Adafactor".split()
FUSED = ["SGD", "Adagrad", "Adam", "AdamW"]
OWN = ["Lion", "Adan", "AdEMAMix", "ADOPT", "ScheduleFreeSGD", "ScheduleFreeAdamW", "LAMB", "Muon"]


def gradient(t: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64).to(dtype)


def numbers(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Parameters, gradients and state by name."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    held = {f"{i} {k}": v for i, p in enumerate(params) for k, v in optimizer.state.get(p, {}).items()}
    own = {f"{i} {what}": v for i, p in enumerate(params) for what, v in (("x", p.detach()), ("grad", p.grad))}
    return {name: value.clone() for name, value in {**held, **own}.items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor], bound: float) -> None:
    assert a.keys() == b.keys()
    for name, value in b.items():
        torch.testing.assert_close(a[name], value, rtol=bound, atol=bound, equal_nan=True, msg=name)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [None, 3.0, 1024.0])
@pytest.mark.parametrize("name", FUSED)
def test_attributes_are_honoured_as_by_torchs_fused_classes(
    name: str, scale: float | None, dtype: torch.dtype, eager: bool
) -> None:
    found = []
    for module in (torch.optim, optim):
        params = [nn.Parameter(gradient(i, torch.Size(shape), dtype)) for i, shape in enumerate(((3, 4), (5,)))]
        optimizer = getattr(module, name)(params, lr=0.1, maximize=True, weight_decay=0.1, fused=True)
        if eager and module is optim:
            optimizer.param_groups[0]["fused"] = False
        for t, overflow in enumerate((1.0, 0.0, 0.0, 1.0, None, 0.0)):
            for i, p in enumerate(params):
                p.grad = (scale or 1) * gradient(10 + t + i, p.shape, dtype)
            optimizer.grad_scale = None if scale is None else torch.tensor(scale, dtype=torch.float32)
            optimizer.found_inf = None if overflow is None else torch.tensor(overflow, dtype=torch.float32)
            optimizer.step()
        found.append(numbers(optimizer))
    assert_equal(found[1], found[0], 1e-6 if dtype is torch.float32 else 1e-12)


@pytest.mark.parametrize("name", [*CLASSES, *OWN])
def test_every_class_divides_by_the_scale_and_leaves_out_steps_that_overflow(name: str) -> None:
    found = []
    for scale in (1.0, 8.0):
        p = nn.Parameter(gradient(0, torch.Size((4, 3)), torch.float64))
        optimizer = getattr(optim, name)([p], lr=0.1)
        for t, overflow in enumerate((False, True, False)):
            p.grad = scale * gradient(t, p.shape, p.dtype)
            if overflow and scale == 1:
                continue
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(float(overflow))
            optimizer.step()
        found.append(numbers(optimizer))
    assert_equal(found[1], found[0], 1e-14)


def test_a_gradient_that_parameters_share_is_divided_once() -> None:
    params = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    params[0].grad = params[1].grad = torch.full((3,), 8.0)
    optimizer = optim.SGD(params, lr=0.25)
    optimizer.grad_scale = torch.tensor(4.0)
    optimizer.step()
    for p in params:
        assert torch.equal(p, torch.full((3,), 0.5))


@pytest.mark.parametrize(
    ("name", "given"), [*((n, {}) for n in CLASSES), *((n, {"fused": True}) for n in FUSED)], ids=str
)
@pytest.mark.parametrize("unscale_first", [False, True])
@pytest.mark.usefixtures("float64")
def test_a_gradient_scaler_works_as_with_torchs_class(name: str, given: dict[str, Any], unscale_first: bool) -> None:
    found = []
    for module in (torch.optim, optim):
        torch.manual_seed(0)
        model = nn.Linear(4, 2).double()
        optimizer = getattr(module, name)(model.parameters(), lr=0.05, **given)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        scales = []
        for t in range(7):
            optimizer.zero_grad()
            inputs = gradient(t, torch.Size((8, 4)), torch.float64) * (float("inf") if t == 3 else 1)
            scaler.scale(model(inputs).pow(2).mean()).backward()
            if unscale_first:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        found.append({**numbers(optimizer), "scales": torch.tensor(scales)})
        assert not hasattr(optimizer, "found_inf")
    assert_equal(found[1], found[0], 1e-12)
