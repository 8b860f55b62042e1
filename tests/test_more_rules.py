"""The rules that torch lacks, against their authors' arithmetic written out plainly, and what only they need."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from gradprix import optim, rules
from gradprix.kernels import compute_evaluation_point, eager_step
from published_updates import CASES as PUBLISHED

Update = Callable[[torch.Tensor, torch.Tensor, int, dict[str, Any]], torch.Tensor]
pytestmark = pytest.mark.usefixtures("float64")


def lion(x: Any, g: Any, t: int, s: Any, lr: float = 1e-4, betas: Any = (0.9, 0.99), wd: float = 0.0) -> Any:
    """github.com/google/automl, lion_pytorch.py: decay, step by the sign of one mean, keep another."""
    m = s.setdefault("m", torch.zeros_like(x))
    x = x * (1 - lr * wd)
    update = m * betas[0] + g * (1 - betas[0])
    x = x - lr * torch.sign(update)
    s["m"] = m * betas[1] + g * (1 - betas[1])
    return x


def adan(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 1e-3,
    betas: Any = (0.98, 0.92, 0.99),
    eps: float = 1e-8,
    wd: float = 0.0,
) -> Any:
    """github.com/sail-sg/Adan, adan.py, one tensor, proximal decay."""
    b1, b2, b3 = betas
    zero = torch.zeros_like(x)
    diff = g - s.get("previous", g)
    s["m"] = b1 * s.get("m", zero) + (1 - b1) * g
    s["d"] = b2 * s.get("d", zero) + (1 - b2) * diff
    s["n"] = b3 * s.get("n", zero) + (1 - b3) * (b2 * diff + g) ** 2
    denominator = torch.sqrt(s["n"]) / math.sqrt(1 - b3**t) + eps
    x = x - lr / (1 - b1**t) * s["m"] / denominator
    x = x - lr * b2 / (1 - b2**t) * s["d"] / denominator
    s["previous"] = g
    return x / (1 + lr * wd)


def ademamix(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 1e-3,
    betas: Any = (0.9, 0.999, 0.9999),
    alpha: float = 2.0,
    eps: float = 1e-8,
    wd: float = 0.0,
) -> Any:
    """github.com/apple/ml-ademamix, pytorch/ademamix.py, without warm-ups."""
    b1, b2, b3 = betas
    zero = torch.zeros_like(x)
    s["fast"] = b1 * s.get("fast", zero) + (1 - b1) * g
    s["slow"] = b3 * s.get("slow", zero) + (1 - b3) * g
    s["v"] = b2 * s.get("v", zero) + (1 - b2) * g * g
    denominator = torch.sqrt(s["v"]) / math.sqrt(1 - b2**t) + eps
    update = (s["fast"] / (1 - b1**t) + alpha * s["slow"]) / denominator
    return x - lr * (update + wd * x)


def adopt(
    x: Any, g: Any, t: int, s: Any, lr: float = 1e-3, betas: Any = (0.9, 0.9999), eps: float = 1e-6, wd: float = 0.0
) -> Any:
    """github.com/iShohei220/adopt, src/adopt/adopt.py, decouple=True; its step counts from zero."""
    step = t - 1
    if step == 0:
        s["v"], s["m"] = g * g, torch.zeros_like(x)
        return x
    x = x - lr * wd * x
    normed = (g / torch.clamp(torch.sqrt(s["v"]), min=eps)).clamp(-(step**0.25), step**0.25)
    s["m"] = s["m"] + (1 - betas[0]) * (normed - s["m"])
    s["v"] = betas[1] * s["v"] + (1 - betas[1]) * g * g
    return x - lr * s["m"]


def schedule_free(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float,
    beta: float,
    wd: float,
    warmup_steps: float,
    r: float,
    weight_lr_power: float,
    adamw: tuple[float, float] | None = None,
    paper: bool = True,
) -> Any:
    """github.com/facebookresearch/schedule_free, three classes' loop over tensors; x is their y."""
    k, y, z = t - 1, x, s.get("z", x)
    rate = lr * ((k + 1) / warmup_steps if k < warmup_steps else 1.0)
    if adamw is not None:
        beta2, eps = adamw
        correction = 1 - beta2 ** (k + 1)
        rate = rate * math.sqrt(correction) if paper else rate
        s["v"] = beta2 * s.get("v", torch.zeros_like(x)) + (1 - beta2) * g * g
        g = g / (torch.sqrt(s["v"] if paper else s["v"] / correction) + eps)
    s["lr_max"] = max(rate, s.get("lr_max", -1.0))
    weight = ((k + 1) ** r) * (s["lr_max"] ** weight_lr_power)
    s["weight_sum"] = s.get("weight_sum", 0.0) + weight
    try:
        c = weight / s["weight_sum"]
    except ZeroDivisionError:
        c = 0
    g = g + wd * y
    y = torch.lerp(y, z, c)
    y = y + rate * (beta * (1 - c) - 1) * g
    s["z"] = z - rate * g
    return y


def schedule_free_sgd(
    x: Any, g: Any, t: int, s: Any, lr: float = 1.0, momentum: float = 0.9, wd: float = 0.0, **more: float
) -> Any:
    more = {"warmup_steps": 0, "r": 0.0, "weight_lr_power": 2.0, **more}
    return schedule_free(x, g, t, s, lr, momentum, wd, **more)


def schedule_free_adamw(
    x: Any, g: Any, t: int, s: Any, lr: float = 2.5e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8, **more: float
) -> Any:
    more = {"wd": 0.0, "warmup_steps": 0, "r": 0.0, "weight_lr_power": 2.0, **more}
    return schedule_free(x, g, t, s, lr, betas[0], adamw=(betas[1], eps), **more)


def adamw_schedule_free(*given: Any, **more: Any) -> Any:
    return schedule_free_adamw(*given, paper=False, **more)


def lamb(
    x: Any, g: Any, t: int, s: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-6, wd: float = 1e-2
) -> Any:
    """arXiv:1904.00962, Algorithm 2; where either length is zero the ratio is one, as in its authors' code."""
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", torch.zeros_like(x)) + (1 - betas[1]) * g * g
    update = s["m"] / (1 - betas[0] ** t) / (torch.sqrt(s["v"] / (1 - betas[1] ** t)) + eps) + wd * x
    weights, length = x.square().sum().sqrt().item(), update.square().sum().sqrt().item()
    return x - lr * (weights / length if weights > 0 and length > 0 else 1.0) * update


CASES: list[tuple[str, Update, list[dict[str, Any]]]] = [
    ("Lion", lion, [{}, {"lr": 0.1, "betas": (0.5, 0.8), "weight_decay": 0.3}]),
    ("Adan", adan, [{}, {"lr": 0.1, "betas": (0.9, 0.5, 0.8), "eps": 1e-3, "weight_decay": 0.3}]),
    (
        "AdEMAMix",
        ademamix,
        [{}, {"lr": 0.1, "betas": (0.5, 0.8, 0.99), "alpha": 5.0, "eps": 1e-3, "weight_decay": 0.3}],
    ),
    ("ADOPT", adopt, [{}, {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.3}]),
    (
        "ScheduleFreeSGD",
        schedule_free_sgd,
        [
            {},
            {"lr": 0.3, "momentum": 0.5, "weight_decay": 0.1, "warmup_steps": 7},
            {"lr": 0.3, "r": 1.0, "weight_lr_power": 0.0},
            {"lr": 0.0},
        ],
    ),
    (
        "ScheduleFreeAdamW",
        schedule_free_adamw,
        [
            {},
            {"lr": 0.3, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.1, "warmup_steps": 7},
            {"r": 1.0, "weight_lr_power": 0.0},
        ],
    ),
    (
        "AdamWScheduleFree",
        adamw_schedule_free,
        [
            {},
            {"lr": 0.3, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.1, "warmup_steps": 7},
            {"r": 1.0, "weight_lr_power": 0.0},
        ],
    ),
    ("LAMB", lamb, [{}, {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.3}]),
    *PUBLISHED,
]
NAMES = [name for name, *_ in CASES] + ["Muon"]  # whose numbers are in test_muon.py
SCHEDULE_FREE = ["ScheduleFreeSGD", "ScheduleFreeAdamW", "AdamWScheduleFree"]
TABLE = [pytest.param(name, update, given, id=f"{name}-{given}") for name, update, many in CASES for given in many]


def parameters(name: str, dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    """Matrices lying and standing; for all but Muon the kernel of a convolution, a vector and a number, too."""
    shapes: list[tuple[int, ...]] = [(3, 5), (6, 2)]
    shapes += [(4, 3, 2, 2), (4, 1, 1, 1), (7,), ()] if name != "Muon" else []
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def give(params: list[torch.nn.Parameter], t: int) -> None:
    generator = torch.Generator().manual_seed(1000 + t)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype) * 10.0 ** (t % 4 - 2)


@pytest.mark.parametrize(("name", "update", "given"), TABLE)
@pytest.mark.parametrize("fused", [None, False], ids=["fused", "eager"])
def test_agrees_with_the_authors(name: str, update: Update, given: dict[str, Any], fused: bool | None) -> None:
    params = parameters(name)
    theirs: list[tuple[torch.Tensor, dict[str, Any]]] = [(p.detach().clone(), {}) for p in params]
    optimizer = getattr(optim, name)(params, **given, fused=fused)
    plain = {"wd" if key == "weight_decay" else key: value for key, value in given.items()}
    for t in range(1, 51):
        give(params, t)
        optimizer.step()
        for i, (p, (x, state)) in enumerate(zip(params, theirs, strict=True)):
            theirs[i] = update(x, p.grad, t, state, **plain), state
            torch.testing.assert_close(p.detach(), theirs[i][0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_zero_gradients_move_nothing(name: str) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        params = parameters(name, dtype)
        before = [p.detach().clone() for p in params]
        optimizer = getattr(optim, name)(params, weight_decay=0.0)
        for _ in range(4):
            for p in params:
                p.grad = torch.zeros_like(p)
            optimizer.step()
        for p, x in zip(params, before, strict=True):
            assert torch.equal(p, x)


IN_THE_STEP = [*SCHEDULE_FREE, "LAMB", "NovoGrad", "LARS", "SOAP"]
DECOUPLED = [n for n in NAMES if getattr(optim, n).rule.owns_weight_decay and n not in IN_THE_STEP]


@pytest.mark.parametrize("name", DECOUPLED)
def test_weight_decay_is_of_the_weights_alone(name: str) -> None:
    decayed, plain = parameters(name), parameters(name)
    a, b = (getattr(optim, name)(p, lr=0.1, weight_decay=wd) for p, wd in ((decayed, 0.5), (plain, 0.0)))
    for t in (1, 2):
        before = [(p.detach().clone(), q.detach().clone()) for p, q in zip(decayed, plain, strict=True)]
        give(decayed, t)
        give(plain, t)
        a.step()
        b.step()
    # The gradients were the same: whatever the second step added is the same, and the rest is the shrinking.
    factor = 1 / 1.05 if name == "Adan" else 0.95
    for (x, y), p, q in zip(before, decayed, plain, strict=True):
        added = (q - y) * (factor if name == "Adan" else 1)
        torch.testing.assert_close(p.detach(), factor * x + added.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_continues_to_the_bit(name: str) -> None:
    def run(saved_at: int | None) -> list[torch.Tensor]:
        params = parameters(name)
        optimizer = getattr(optim, name)(params, lr=0.01)
        for t in range(20):
            if t == saved_at:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = getattr(optim, name)(params, lr=0.5)
                optimizer.load_state_dict(pickle.loads(pickle.dumps(state)))
            give(params, t)
            optimizer.step()
        return [p.detach() for p in params]

    for p, q in zip(run(None), run(11), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_near_float32(name: str) -> None:
    half, single = parameters(name, torch.bfloat16), parameters(name, torch.float32)
    for p, q in zip(half, single, strict=True):
        q.data.copy_(p.data)
    a, b = getattr(optim, name)(half, lr=1e-3), getattr(optim, name)(single, lr=1e-3)
    for t in range(60):
        give(half, t)
        for p, q in zip(half, single, strict=True):
            assert p.grad is not None
            q.grad = p.grad.float()
        a.step()
        b.step()
    for p, q in zip(half, single, strict=True):
        torch.testing.assert_close(p.detach().float(), q.detach(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_maximize_is_the_negative_gradient(name: str) -> None:
    up, down = parameters(name), parameters(name)
    a, b = getattr(optim, name)(up, maximize=True), getattr(optim, name)(down)
    for t in range(5):
        give(up, t)
        give(down, t)
        for p in down:
            assert p.grad is not None
            p.grad.neg_()
        a.step()
        b.step()
    assert all(torch.equal(p, q) for p, q in zip(up, down, strict=True))


def test_three_betas() -> None:
    p = [torch.nn.Parameter(torch.ones(3))]
    assert optim.Adan(p).param_groups[0]["betas"] == (0.98, 0.92, 0.99)
    assert optim.AdEMAMix(p, betas=(0.5, 0.6, 0.7)).values({"betas": (0.5, 0.6, 0.7)})["beta3"] == 0.7
    for make in (lambda: optim.Adan(p, betas=(0.9, 0.99)), lambda: optim.Adam(p, betas=(0.9, 0.99, 0.999))):
        with pytest.raises(ValueError, match=r"has \d. Give as many"):
            make()


@pytest.mark.parametrize("name", SCHEDULE_FREE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_eval_shows_the_average_and_train_the_way_on(name: str, dtype: torch.dtype) -> None:
    ours, plain = parameters(name, dtype), parameters(name, dtype)
    optimizer, other = getattr(optim, name)(ours, lr=0.1), getattr(optim, name)(plain, lr=0.1)
    beta = optimizer.values(optimizer.param_groups[0]).get("momentum", 0.9)
    for t in range(20):
        give(ours, t)
        give(plain, t)
        optimizer.step()
        other.step()
        optimizer.eval()
        optimizer.eval()  # once is as good as twice
        for p, q in zip(ours, plain, strict=True):
            held = other.state[q]
            y = q.detach() + held["compensation"].float() if "compensation" in held else q.detach()
            average = torch.lerp(y, held["z"], 1 - 1 / beta)
            close = {"rtol": 1e-12, "atol": 1e-12} if dtype is torch.float64 else {"rtol": 1e-2, "atol": 1e-2}
            torch.testing.assert_close(p.detach(), average.to(dtype), **close)
        with pytest.raises(RuntimeError, match=rf"{name} is in eval mode.*Call optimizer.train\(\)"):
            optimizer.step()
        optimizer.train()
        optimizer.train()
        assert all(torch.equal(p, q) for p, q in zip(ours, plain, strict=True)), "looking changes no bit"


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_a_checkpoint_of_eval_mode_trains_on(name: str) -> None:
    a, b = parameters(name), parameters(name)
    first, straight = getattr(optim, name)(a), getattr(optim, name)(b)
    for t in range(5):
        give(a, t)
        give(b, t)
        first.step()
        straight.step()
    first.eval()
    c = [torch.nn.Parameter(p.detach().clone()) for p in a]
    second = getattr(optim, name)(c)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with pytest.raises(RuntimeError, match="eval mode"):
        second.step()
    second.train()
    for t in range(5, 10):
        give(b, t)
        give(c, t)
        straight.step()
        second.step()
    assert all(torch.equal(p, q) for p, q in zip(b, c, strict=True))


def test_eval_and_train_do_nothing_where_one_point_is_all() -> None:
    p = parameters("Lion")
    optimizer = optim.Lion(p)
    give(p, 1)
    optimizer.step()
    before = [x.detach().clone() for x in p]
    optimizer.eval()
    assert all(torch.equal(x, y) for x, y in zip(p, before, strict=True))
    optimizer.step()
    optimizer.train()
    untouched = optim.ScheduleFreeSGD(p)
    untouched.eval()
    untouched.train()


def test_a_rule_of_ones_own_may_say_where_to_evaluate() -> None:
    assert optim.from_rule(rules.schedule_free_sgd) is optim.ScheduleFreeSGD
    values = rules.adam.values()
    x = torch.ones(3)
    moved, state = eager_step(rules.adam, values, 1, x, x, {})
    assert compute_evaluation_point(rules.adam, values, 1, moved, state) is moved


def test_a_rule_of_matrices_says_what_it_cannot_step() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = type("Bare", (optim.RuleOptimizer,), {}, rule=rules.muon, arguments="lr")([p])
    with pytest.raises(RuntimeError, match=r"muon steps matrices of real numbers, and a parameter has shape \(3,\)"):
        optimizer.step()
