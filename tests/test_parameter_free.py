"""Rules that estimate the learning rate for a whole group, against the arithmetic of their authors' classes."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradprix import optim

Step = Callable[[list[Tensor], list[Tensor], dict[str, Any]], list[Tensor]]
"""Step of all tensors of a group: their values, their gradients, and what is kept between steps."""
pytestmark = pytest.mark.usefixtures("float64")


def dog(
    xs: Any, gs: Any, kept: Any, lr: float = 1.0, reps_rel: float = 1e-6, eps: float = 1e-8, wd: float = 0.0
) -> Any:
    """github.com/formll/dog, dog.py, class DoG: all tensors of the group as one long vector."""
    gs = [g + wd * x for x, g in zip(xs, gs, strict=True)]
    squares = torch.stack([(g**2).sum() for g in gs]).sum()
    if not kept:
        kept["start"] = [x.clone() for x in xs]
        kept["rbar"] = reps_rel * (1 + torch.stack([x.norm() for x in xs]).norm())
        kept["G"] = squares + eps
    else:
        distance = torch.stack([(x - a).norm() for x, a in zip(xs, kept["start"], strict=True)]).norm()
        kept["rbar"] = torch.maximum(kept["rbar"], distance)
        kept["G"] = kept["G"] + squares
    eta = lr * kept["rbar"] / torch.sqrt(kept["G"])
    return [x - eta * g for x, g in zip(xs, gs, strict=True)]


def dadapt_adam(
    xs: Any,
    gs: Any,
    kept: Any,
    lr: float = 1.0,
    betas: Any = (0.9, 0.999),
    eps: float = 1e-8,
    wd: float = 0.0,
    d0: float = 1e-6,
    growth_rate: float = math.inf,
) -> Any:
    """github.com/facebookresearch/dadaptation, dadapt_adam.py, version 3.2, with decouple=True."""
    beta1, beta2 = betas
    root = beta2**0.5
    kept.setdefault("d", d0)
    kept.setdefault("numerator", 0.0)
    own = kept.setdefault("own", [{name: torch.zeros_like(x) for name in "mvs"} for x in xs])
    dlr, dot, sk_l1 = kept["d"] * lr, 0.0, 0.0
    for g, h in zip(gs, own, strict=True):
        denominator = h["v"].sqrt() + eps
        dot += dlr * torch.dot(g.flatten(), (h["s"] / denominator).flatten()).item()
        h["m"] = beta1 * h["m"] + dlr * (1 - beta1) * g
        h["v"] = beta2 * h["v"] + (1 - beta2) * g * g
        h["s"] = root * h["s"] + dlr * (1 - root) * g
        sk_l1 += h["s"].abs().sum().item()
    kept["numerator"] = root * kept["numerator"] + (1 - root) * dot
    if sk_l1 == 0:
        return xs
    d_hat = kept["numerator"] / ((1 - root) * sk_l1)
    kept["d"] = max(kept["d"], min(d_hat, kept["d"] * growth_rate))
    moved = []
    for x, h in zip(xs, own, strict=True):
        x = x - wd * dlr * x
        moved.append(x - h["m"] / (h["v"].sqrt() + eps))
    return moved


def prodigy(
    xs: Any,
    gs: Any,
    kept: Any,
    lr: float = 1.0,
    betas: Any = (0.9, 0.999),
    eps: float = 1e-8,
    wd: float = 0.0,
    use_bias_correction: bool = False,
    safeguard_warmup: bool = False,
    d0: float = 1e-6,
    d_coef: float = 1.0,
) -> Any:
    """github.com/konstmish/prodigy, prodigy.py, version 1.1.2: decouple=True, beta3=None, no limit of the growth."""
    beta1, beta2 = betas
    beta3 = math.sqrt(beta2)
    if not kept:
        kept.update(d=d0, d_max=d0, numerator=0.0, k=0, own=[])
        kept["own"] = [{"start": x.clone(), **{name: torch.zeros_like(x) for name in "mvs"}} for x in xs]
    d, k, own = kept["d"], kept["k"], kept["own"]
    correction = ((1 - beta2 ** (k + 1)) ** 0.5) / (1 - beta1 ** (k + 1)) if use_bias_correction else 1
    dlr = d * lr * correction
    numerator, denominator = kept["numerator"] * beta3, 0.0
    for x, g, h in zip(xs, gs, own, strict=True):
        numerator += (d / d0) * dlr * torch.dot(g.flatten(), (h["start"] - x).flatten()).item()
        h["m"] = beta1 * h["m"] + d * (1 - beta1) * g
        h["v"] = beta2 * h["v"] + d * d * (1 - beta2) * g * g
        h["s"] = beta3 * h["s"] + (d / d0) * (d if safeguard_warmup else dlr) * g
        denominator += h["s"].abs().sum().item()
    if denominator == 0:
        return xs
    d_hat = d_coef * numerator / denominator
    if d == d0:
        d = max(d, d_hat)
    d_max = max(kept["d_max"], d_hat)
    d = d_max
    kept.update(d=d, d_max=d_max, numerator=numerator, k=k + 1)
    moved = []
    for x, h in zip(xs, own, strict=True):
        x = x - wd * dlr * x
        moved.append(x - dlr * h["m"] / (h["v"].sqrt() + d * eps))
    return moved


ADAM = {"betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.3}
CASES: list[tuple[str, Step, list[dict[str, Any]]]] = [
    ("DoG", dog, [{}, {"lr": 0.5, "reps_rel": 1e-2, "eps": 1e-3, "weight_decay": 0.1}]),
    ("DAdaptAdam", dadapt_adam, [{}, {"lr": 0.5, **ADAM, "d0": 1e-3}, {"d0": 1e-2, "growth_rate": 1.02}]),
    (
        "Prodigy",
        prodigy,
        [
            {},
            {"lr": 0.5, **ADAM, "d0": 1e-3, "d_coef": 2.0, "safeguard_warmup": True},
            {"use_bias_correction": True, "d0": 1e-3},
        ],
    ),
]
NAMES = [name for name, *_ in CASES]
TABLE = [pytest.param(name, step, given, id=f"{name}-{given}") for name, step, many in CASES for given in many]
SHARED = {
    "DoG": {"rbar", "G"},
    "DAdaptAdam": {"d", "numerator_weighted"},
    "Prodigy": {"d", "d_numerator"},
}
"""What a group has in common."""


def parameters(dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes: tuple[tuple[int, ...], ...] = ((3, 5), (4, 3, 2, 2), (7,), (), (1100,))
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def give(params: list[torch.nn.Parameter], t: int) -> None:
    """Gradients of a noisy quadratic around one, so that estimates grow."""
    generator = torch.Generator().manual_seed(1000 + t)
    for p in params:
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        p.grad = (p.detach().double() - 1 + 0.3 * noise).to(p.dtype)


@pytest.mark.parametrize(("name", "step", "given"), TABLE)
@pytest.mark.parametrize("fused", [None, False], ids=["fused", "eager"])
def test_agrees_with_the_authors(name: str, step: Step, given: dict[str, Any], fused: bool | None) -> None:
    params, kept = parameters(), dict[str, Any]()
    theirs = [p.detach().clone() for p in params]
    optimizer = getattr(optim, name)(params, **given, fused=fused)
    plain = {"wd" if key == "weight_decay" else key: value for key, value in given.items()}
    for t in range(1, 81):
        give(params, t)
        optimizer.step()
        theirs = step(theirs, [p.grad for p in params], kept, **plain)
        for p, x in zip(params, theirs, strict=True):
            torch.testing.assert_close(p.detach(), x, rtol=1e-9, atol=1e-11)
    group = optimizer.param_groups[0]
    if "d" in kept:
        assert kept["d"] > 10 * plain.get("d0", 1e-6) or "growth_rate" in given
        assert group["d"] == pytest.approx(kept["d"], rel=1e-9)
    else:
        assert [group["rbar"], group["G"]] == pytest.approx([float(kept["rbar"]), float(kept["G"])], rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_zero_gradients_move_nothing(name: str) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        params = parameters(dtype)
        before = [p.detach().clone() for p in params]
        optimizer = getattr(optim, name)(params)
        for _ in range(4):
            for p in params:
                p.grad = torch.zeros_like(p)
            optimizer.step()
        assert all(torch.equal(p, x) for p, x in zip(params, before, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_continues_to_the_bit(name: str) -> None:
    def run(saved_at: int | None) -> list[Tensor]:
        params = parameters()
        optimizer = getattr(optim, name)(params)
        for t in range(20):
            if t == saved_at:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = getattr(optim, name)(params, lr=0.5)
                optimizer.load_state_dict(pickle.loads(pickle.dumps(state)))
            give(params, t)
            optimizer.step()
        assert {k for k in optimizer.state_dict()["param_groups"][0] if k in SHARED[name]} == SHARED[name]
        return [p.detach() for p in params]

    assert all(torch.equal(p, q) for p, q in zip(run(None), run(11), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_near_float32(name: str) -> None:
    half, single = parameters(torch.bfloat16), parameters(torch.float32)
    for p, q in zip(half, single, strict=True):
        q.data.copy_(p.data)
    a, b = getattr(optim, name)(half), getattr(optim, name)(single)
    for t in range(60):
        give(half, t)
        for p, q in zip(half, single, strict=True):
            assert p.grad is not None
            q.grad = p.grad.float()
        a.step()
        b.step()
    for p, q in zip(half, single, strict=True):
        torch.testing.assert_close(p.detach().float(), q.detach(), rtol=1e-2, atol=1e-2)
