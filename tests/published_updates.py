"""Steps of published optimizers, transcribed from the papers or their authors' code in plain torch.

Each function is `update(x, g, t, s, **hyperparameters)`: it returns the next parameter, and keeps its state in the dict
`s`. The names of hyperparameters are those of gradprix; `wd` is the weight decay.
"""

import math
from typing import Any

import torch


def signum(x: Any, g: Any, t: int, s: Any, lr: float = 1e-4, momentum: float = 0.9, wd: float = 0.0) -> Any:
    """arXiv:1802.04434, Algorithm 2: m ← β m + (1 − β) g, x ← x − δ (sign(m) + λ x)."""
    s["m"] = momentum * s.get("m", torch.zeros_like(x)) + (1 - momentum) * g
    return x - lr * (torch.sign(s["m"]) + wd * x)


def grams(
    x: Any, g: Any, t: int, s: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8, wd: float = 0.0
) -> Any:
    """arXiv:2412.17107, Algorithm 1: u is Adam's update, and sign(g) ∘ |u| is applied."""
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", torch.zeros_like(x)) + (1 - betas[1]) * g * g
    u = (s["m"] / (1 - betas[0] ** t)) / (torch.sqrt(s["v"] / (1 - betas[1] ** t)) + eps)
    return x - lr * (torch.sign(g) * u.abs() + wd * x)


def adabelief(
    x: Any, g: Any, t: int, s: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-16, wd: float = 0.0
) -> Any:
    """github.com/juntang-zhuang/Adabelief-Optimizer, 0.2.0, with rectify=False and weight_decouple=False."""
    g = g + wd * x
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + (1 - betas[0]) * g
    residual = g - s["m"]
    s["s"] = betas[1] * s.get("s", torch.zeros_like(x)) + (1 - betas[1]) * residual * residual
    s["s"] = s["s"] + eps  # in place in their code, so that it accumulates
    denominator = torch.sqrt(s["s"]) / math.sqrt(1 - betas[1] ** t) + eps
    return x - lr / (1 - betas[0] ** t) * s["m"] / denominator


def yogi(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 1e-2,
    betas: Any = (0.9, 0.999),
    eps: float = 1e-3,
    initial_accumulator_value: float = 1e-6,
    wd: float = 0.0,
) -> Any:
    """Zaheer et al. 2018, Algorithm 2: v ← v − (1 − β₂) sign(v − g²) g²."""
    g = g + wd * x
    v = s.get("v", torch.full_like(x, initial_accumulator_value))
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + (1 - betas[0]) * g
    s["v"] = v - (1 - betas[1]) * torch.sign(v - g * g) * g * g
    return x - lr * s["m"] / (torch.sqrt(s["v"]) + eps)


def adabound(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 1e-3,
    betas: Any = (0.9, 0.999),
    final_lr: float = 0.1,
    base_lr: float = 1e-3,
    gamma: float = 1e-3,
    eps: float = 1e-8,
    wd: float = 0.0,
) -> Any:
    """github.com/Luolc/AdaBound, adabound.py; `base_lr` is the initial learning rate there."""
    g = g + wd * x
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", torch.zeros_like(x)) + (1 - betas[1]) * g * g
    size = lr * math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t)
    final = final_lr * lr / base_lr
    lower, upper = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
    return x - torch.full_like(x, size).div(torch.sqrt(s["v"]) + eps).clamp(lower, upper) * s["m"]


def adamod(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 1e-3,
    betas: Any = (0.9, 0.999, 0.999),
    eps: float = 1e-8,
    wd: float = 0.0,
) -> Any:
    """github.com/lancopku/AdaMod, adamod.py, whose γ is the third β here, with L2 regularization."""
    g = g + wd * x
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", torch.zeros_like(x)) + (1 - betas[1]) * g * g
    size = lr * math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t)
    rates = torch.full_like(x, size) / (torch.sqrt(s["v"]) + eps)
    s["lr"] = betas[2] * s.get("lr", torch.zeros_like(x)) + (1 - betas[2]) * rates
    return x - torch.minimum(rates, s["lr"]) * s["m"]


def laprop(
    x: Any, g: Any, t: int, s: Any, lr: float = 4e-4, betas: Any = (0.9, 0.999), eps: float = 1e-15, wd: float = 0.0
) -> Any:
    """github.com/Z-T-WANG/LaProp-Optimizer, laprop.py, with L2 regularization."""
    g = g + wd * x
    s["v"] = betas[1] * s.get("v", torch.zeros_like(x)) + (1 - betas[1]) * g * g
    s["c1"] = betas[0] * s.get("c1", 0.0) + (1 - betas[0]) * lr
    s["c2"] = betas[1] * s.get("c2", 0.0) + (1 - betas[1])
    step_of_this_gradient = g / (torch.sqrt(s["v"] / s["c2"]) + eps)
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + (1 - betas[0]) * lr * step_of_this_gradient
    return x - 1 / (s["c1"] / lr) * s["m"]


def acprop(
    x: Any, g: Any, t: int, s: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-16, wd: float = 0.0
) -> Any:
    """optax.contrib.acprop, with eps_root = eps: the gradient is divided by the moment before this step."""
    g = g + wd * x
    before = s.get("s", torch.zeros_like(x))
    scale = torch.ones_like(x) if t == 1 else before / (1 - betas[1] ** (t - 1))
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + (1 - betas[0]) * g
    s["s"] = betas[1] * before + (1 - betas[1]) * (g - s["m"]) ** 2 + eps
    return x - lr * g / (torch.sqrt(scale) + eps)


def qhm(
    x: Any, g: Any, t: int, s: Any, lr: float = 1.0, momentum: float = 0.999, nu: float = 0.7, wd: float = 0.0
) -> Any:
    """github.com/facebookresearch/qhoptim, qhm.py."""
    g = g + wd * x
    s["b"] = s.get("b", torch.zeros_like(x)) * momentum + g * (1 - momentum)
    return x - lr * nu * s["b"] - lr * (1 - nu) * g


def qhadam(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 1e-3,
    betas: Any = (0.995, 0.999),
    nus: Any = (0.7, 1.0),
    eps: float = 1e-8,
    wd: float = 0.0,
) -> Any:
    """github.com/facebookresearch/qhoptim, qhadam.py, whose averages hold no bias."""
    g = g + wd * x
    averages = []
    for i, value in enumerate((g, g * g)):
        s[f"weight{i}"] = 1 + betas[i] * s.get(f"weight{i}", 0.0)
        share = 1 / s[f"weight{i}"]
        s[i] = (1 - share) * s.get(i, torch.zeros_like(x)) + share * value
        averages.append(nus[i] * s[i] + (1 - nus[i]) * value)
    return x - lr * averages[0] / (torch.sqrt(averages[1]) + eps)


def aggmo(x: Any, g: Any, t: int, s: Any, lr: float = 1e-2, betas: Any = (0.0, 0.9, 0.99), wd: float = 0.0) -> Any:
    """github.com/AtheMathmo/AggMo, aggmo.py."""
    g = g + wd * x
    for i, beta in enumerate(betas):
        s[i] = beta * s.get(i, torch.zeros_like(x)) + g
        x = x - lr / len(betas) * s[i]
    return x


def pnm(x: Any, g: Any, t: int, s: Any, lr: float = 1e-1, betas: Any = (0.9, 1.0), wd: float = 0.0) -> Any:
    """github.com/zeke-xie/Positive-Negative-Momentum, pnm.py: the two momenta change places in each step."""
    x = x * (1 - lr * wd)
    positive, negative = ("odd", "even") if t % 2 == 1 else ("even", "odd")
    s[positive] = betas[0] ** 2 * s.get(positive, torch.zeros_like(x)) + (1 - betas[0] ** 2) * g
    norm = math.sqrt((1 + betas[1]) ** 2 + betas[1] ** 2)
    return x - lr * ((1 + betas[1]) * s[positive] - betas[1] * s.get(negative, torch.zeros_like(x))) / norm


def accsgd(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 1e-2,
    kappa: float = 1000.0,
    xi: float = 10.0,
    small_const: float = 0.7,
    wd: float = 0.0,
) -> Any:
    """github.com/rahulkidambi/AccSGD, AccSGD.py."""
    g = g + wd * x
    large_lr = lr * kappa / small_const
    alpha = 1 - small_const * small_const * xi / kappa
    beta = 1 - alpha
    zeta = small_const / (small_const + beta)
    buffer = s.get("buffer", x)
    s["buffer"] = beta * ((1 / beta - 1) * buffer - large_lr * g + x)
    return zeta * (x - lr * g) + (1 - zeta) * s["buffer"]


def optimistic_adam(
    x: Any, g: Any, t: int, s: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8, wd: float = 0.0
) -> Any:
    """arXiv:1711.00141, Algorithm 1: θ ← θ − 2 η d + η (d before), where d is Adam's direction."""
    g = g + wd * x
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", torch.zeros_like(x)) + (1 - betas[1]) * g * g
    before = s.get("d", torch.zeros_like(x))
    s["d"] = (s["m"] / (1 - betas[0] ** t)) / (torch.sqrt(s["v"] / (1 - betas[1] ** t)) + eps)
    return x - 2 * lr * s["d"] + lr * before


def grokfast_adamw(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 1e-3,
    betas: Any = (0.9, 0.999),
    alpha: float = 0.98,
    amplification: float = 2.0,
    eps: float = 1e-8,
    wd: float = 1e-2,
) -> Any:
    """github.com/ironjr/grokfast, gradfilter_ema before a step of AdamW; the average begins at the first gradient."""
    s["slow"] = s.get("slow", g) * alpha + g * (1 - alpha)
    g = g + s["slow"] * amplification
    x = x * (1 - lr * wd)
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", torch.zeros_like(x)) + (1 - betas[1]) * g * g
    return x - lr * (s["m"] / (1 - betas[0] ** t)) / (torch.sqrt(s["v"] / (1 - betas[1] ** t)) + eps)


def kate(
    x: Any, g: Any, t: int, s: Any, lr: float = 1e-2, delta: float = 0.0, eps: float = 1e-8, wd: float = 0.0
) -> Any:
    """arXiv:2403.02648, whose η is `delta`, with ε in the denominators."""
    g = g + wd * x
    s["b2"] = s.get("b2", torch.zeros_like(x)) + g**2
    s["m2"] = s.get("m2", torch.zeros_like(x)) + delta * g**2 + g**2 / (s["b2"] + eps)
    return x - lr * torch.sqrt(s["m2"]) * g / (s["b2"] + eps)


def novograd(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 1e-2,
    betas: Any = (0.95, 0.98),
    eps: float = 1e-8,
    wd: float = 0.0,
    grad_averaging: bool = False,
) -> Any:
    """arXiv:1905.11286, Algorithm 1; ε and grad_averaging as in NVIDIA's class for Jasper."""
    square = (g**2).sum()
    s["v"] = betas[1] * s["v"] + (1 - betas[1]) * square if s.get("v", 0) != 0 else square
    d = g / (torch.sqrt(s["v"]) + eps) + wd * x
    d = (1 - betas[0]) * d if grad_averaging else d
    s["m"] = betas[0] * s.get("m", torch.zeros_like(x)) + d
    return x - lr * s["m"]


def lars(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 1.0,
    momentum: float = 0.9,
    trust_coefficient: float = 1e-3,
    wd: float = 0.0,
) -> Any:
    """arXiv:1708.03888, Algorithm 1; where a norm is zero, the local rate is one, as in Optax."""
    weights, slope = x.norm().item(), g.norm().item()
    local = trust_coefficient * weights / (slope + wd * weights) if weights and slope else 1.0
    s["v"] = momentum * s.get("v", torch.zeros_like(x)) + lr * local * (g + wd * x)
    return x - s["v"]


def came(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 2e-4,
    betas: Any = (0.9, 0.999, 0.9999),
    eps: Any = (1e-30, 1e-16),
    d: float = 1.0,
    wd: float = 0.0,
) -> Any:
    """github.com/yangluo7/CAME, CAME.py; its clip_threshold is `d` here."""

    def factored(name: str, value: Any, beta: float) -> Any:
        zeros = torch.zeros_like(value)
        for side, dim in (("row", -1), ("column", -2)):
            mean = s.get(name + side, zeros.mean(dim))
            s[name + side] = mean * beta + value.mean(dim) * (1 - beta)
        row, column = s[name + "row"], s[name + "column"]
        return (row / row.mean(-1, keepdim=True)).rsqrt().unsqueeze(-1) * column.unsqueeze(-2).rsqrt()

    square = g**2 + eps[0]
    if x.dim() >= 2:
        update = factored("square", square, betas[1]) * g
    else:
        s["v"] = s.get("v", torch.zeros_like(x)) * betas[1] + square * (1 - betas[1])
        update = s["v"].rsqrt() * g
    update = update / (update.square().mean().sqrt() / d).clamp(min=1.0)
    s["m"] = s.get("m", torch.zeros_like(x)) * betas[0] + update * (1 - betas[0])
    residual = (update - s["m"]) ** 2 + eps[1]
    step = factored("residual", residual, betas[2]) * s["m"] if x.dim() >= 2 else s["m"]
    return x - lr * wd * x - lr * step


def shampoo(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 0.1,
    momentum: float = 0.0,
    eps: float = 1e-4,
    precondition_frequency: int = 1,
    max_precond_dim: int = 10_000,
    wd: float = 0.0,
) -> Any:
    """arXiv:1802.09568, Algorithm 1, on kernels of convolutions as matrices; vectors are stepped by Adagrad."""
    g = g + wd * x
    if x.dim() < 2:
        s["s"] = s.get("s", torch.zeros_like(x)) + g * g
        step = g / (s["s"].sqrt() + eps)
    else:
        matrix = g.reshape(len(g), -1)
        sides = [side for side in (0, 1) if matrix.shape[side] <= max_precond_dim]
        for side in sides:
            square = matrix @ matrix.T if side == 0 else matrix.T @ matrix
            s[side] = s.get(side, eps * torch.eye(len(square))) + square
            if (t - 1) % precondition_frequency == 0:
                values, vectors = torch.linalg.eigh(s[side])
                s["root", side] = vectors @ torch.diag(values ** (-1 / (2 * len(sides)))) @ vectors.T
        matrix = s["root", 0] @ matrix if 0 in sides else matrix
        step = (matrix @ s["root", 1] if 1 in sides else matrix).reshape(g.shape)
    s["b"] = momentum * s.get("b", torch.zeros_like(x)) + step
    return x - lr * s["b"]


def soap(
    x: Any,
    g: Any,
    t: int,
    s: Any,
    lr: float = 3e-3,
    betas: Any = (0.95, 0.95),
    shampoo_beta: float = 0.0,
    eps: float = 1e-8,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10_000,
    wd: float = 0.01,
) -> Any:
    """github.com/nikhilvyas/SOAP, soap.py, on kernels of convolutions as matrices; a first call takes no step."""
    shape, beta = x.shape, shampoo_beta or betas[1]
    x, g = (y.reshape(len(y), -1) if y.dim() > 1 else y for y in (x, g))
    sides = [side for side in (0, 1) if g.dim() > 1 and g.shape[side] <= max_precond_dim]

    def project(value: Any, back: bool = False) -> Any:
        for side in (0, 1):
            if side in sides:
                value = torch.tensordot(value, s["Q", side], dims=[[0], [int(back)]])
            elif value.dim() > 1:
                value = value.permute(1, 0)
        return value

    if t > 1:
        projected = project(g)
        s["m"] = betas[0] * s.get("m", torch.zeros_like(g)) + (1 - betas[0]) * projected
        s["v"] = betas[1] * s.get("v", torch.zeros_like(g)) + (1 - betas[1]) * projected**2
        size = lr * (1 - betas[1] ** (t - 1)) ** 0.5 / (1 - betas[0] ** (t - 1))
        x = x - size * project(s["m"] / (s["v"].sqrt() + eps), back=True)
        x = x - lr * wd * x
        s["m"] = project(s["m"], back=True)
    for side in sides:
        square = torch.tensordot(g, g, dims=[[1 - side], [1 - side]])
        s["GG", side] = torch.lerp(s.get(("GG", side), torch.zeros_like(square)), square, 1 - beta)
        if t == 1:
            s["Q", side] = torch.flip(torch.linalg.eigh(s["GG", side])[1], [1])
        elif (t - 1) % precondition_frequency == 0:
            m, o = s["GG", side], s["Q", side]
            order = torch.argsort(torch.diag(o.T @ m @ o), descending=True)
            s["v"] = s["v"].index_select(side, order)
            s["Q", side] = torch.linalg.qr(m @ o[:, order])[0]
    if t > 1:
        s["m"] = project(s["m"])
    return x.reshape(shape)


OTHER: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.3}
ADAM: dict[str, Any] = {**OTHER, "betas": (0.5, 0.8), "eps": 1e-3}
CASES: list[tuple[str, Any, list[dict[str, Any]]]] = [
    ("Signum", signum, [{}, OTHER, {"momentum": 0.0}]),
    ("Grams", grams, [{}, ADAM]),
    ("AdaBelief", adabelief, [{}, ADAM]),
    ("Yogi", yogi, [{}, {**ADAM, "initial_accumulator_value": 0.5}]),
    ("AdaBound", adabound, [{}, {**ADAM, "final_lr": 0.3, "base_lr": 0.2, "gamma": 0.1}]),
    ("AdaMod", adamod, [{}, {**ADAM, "betas": (0.5, 0.8, 0.6)}]),
    ("LaProp", laprop, [{}, ADAM]),
    ("ACProp", acprop, [{}, ADAM]),
    ("QHM", qhm, [{}, {**OTHER, "momentum": 0.5, "nu": 0.3}]),
    ("QHAdam", qhadam, [{}, {**ADAM, "nus": (0.3, 0.9)}]),
    ("AggMo", aggmo, [{}, {**OTHER, "betas": (0.5, 0.6, 0.7)}]),
    ("PNM", pnm, [{}, {**OTHER, "betas": (0.5, 0.4)}]),
    ("AccSGD", accsgd, [{}, {**OTHER, "kappa": 50.0, "xi": 3.0, "small_const": 0.5}]),
    ("OptimisticAdam", optimistic_adam, [{}, ADAM]),
    ("GrokfastAdamW", grokfast_adamw, [{}, {**ADAM, "alpha": 0.7, "amplification": 5.0}]),
    ("NovoGrad", novograd, [{}, ADAM, {"grad_averaging": True}]),
    ("LARS", lars, [{}, OTHER, {"momentum": 0.0, "trust_coefficient": 0.1}]),
    ("CAME", came, [{}, {**OTHER, "betas": (0.5, 0.8, 0.9), "eps": (1e-8, 1e-3), "d": 0.5}]),
    ("Shampoo", shampoo, [{}, {**OTHER, "momentum": 0.5, "precondition_frequency": 3, "max_precond_dim": 5}]),
    ("SOAP", soap, [{}, {**ADAM, "shampoo_beta": 0.9, "precondition_frequency": 3, "max_precond_dim": 5}]),
    ("KATE", kate, [{}, {**OTHER, "delta": 0.5, "eps": 1e-3}]),
]
"""Name of the class, its step, and arguments to test it with."""
