"""What modified rules do, from the papers and their authors' code, written out plainly or made of torch's classes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Params = Sequence[nn.Parameter]
Step = Callable[[], None]
Oracle = Callable[[Params], Step]
"""Function that takes parameters, and returns a function that steps them with their gradients."""


def each(update: Callable[..., Tensor], **given: Any) -> Oracle:
    """The update of one tensor, `update(x, g, t, s)`, for all tensors; `s` is a dictionary for its state."""

    def make(params: Params) -> Step:
        states: list[dict[str, Any]] = [{} for _ in params]
        steps = iter(range(1, 10**6))

        def step() -> None:
            t = next(steps)
            for p, s in zip(params, states, strict=True):
                p.data = update(p.detach().clone(), p.grad, t, s, **given)

        return step

    return make


def torch_class(cls: Any, **given: Any) -> Oracle:
    return lambda params: cls(params, **given).step


def mean_of(s: dict[str, Any], name: str, value: Tensor, beta: float) -> Tensor:
    s[name] = beta * s.get(name, torch.zeros_like(value)) + (1 - beta) * value
    return s[name]


def masked(update: Tensor, g: Tensor) -> Tensor:
    """github.com/kyleliang919/C-Optim, c_adamw.py: the mask by its mean, which is at least a thousandth."""
    mask = (update * g > 0).to(g.dtype)
    return update * (mask / mask.mean().clamp(min=1e-3))


def c_lion(x: Tensor, g: Tensor, t: int, s: Any, lr: float, betas: Any, wd: float) -> Tensor:
    x = x * (1 - lr * wd)
    update = torch.sign(s.get("m", torch.zeros_like(x)) * betas[0] + g * (1 - betas[0]))
    mean_of(s, "m", g, betas[1])
    return x - lr * masked(update, g)


def adam_terms(g: Tensor, t: int, s: Any, betas: Any, eps: float) -> tuple[Tensor, Tensor]:
    """Adam's mean and denominator, both corrected."""
    m, v = mean_of(s, "m", g, betas[0]), mean_of(s, "v", g * g, betas[1])
    return m / (1 - betas[0] ** t), v.sqrt() / math.sqrt(1 - betas[1] ** t) + eps


def c_adamw(x: Tensor, g: Tensor, t: int, s: Any, lr: float, betas: Any, wd: float, eps: float = 1e-8) -> Tensor:
    x = x - lr * wd * x
    m, denominator = adam_terms(g, t, s, betas, eps)
    return x - lr * masked(m, g) / denominator


def c_nadamw(x: Tensor, g: Tensor, t: int, s: Any, lr: float, betas: Any, wd: float, caution: bool = True) -> Tensor:
    """github.com/huggingface/pytorch-image-models, nadamw.py; without caution, NAdamW of AlgoPerf's baselines."""
    x = x * (1 - lr * wd)
    m, v = mean_of(s, "m", g, betas[0]), mean_of(s, "v", g * g, betas[1])
    m = m * betas[0] + g * (1 - betas[0])
    m = masked(m, g) if caution else m
    return x - lr / (1 - betas[0] ** t) * m / (v.sqrt() / math.sqrt(1 - betas[1] ** t) + 1e-8)


def c_adopt(x: Tensor, g: Tensor, t: int, s: Any, lr: float, betas: Any, wd: float) -> Tensor:
    """adopt.py of the same package, decoupled, clipped."""
    if t == 1:
        s["v"], s["m"] = g * g, torch.zeros_like(x)
        return x
    x = x - lr * wd * x
    normed = (g / s["v"].sqrt().clamp(min=1e-6)).clamp(-((t - 1) ** 0.25), (t - 1) ** 0.25)
    mean_of(s, "m", normed, betas[0])
    mean_of(s, "v", g * g, betas[1])
    return x - lr * masked(s["m"], g)


def c_momentum(x: Tensor, g: Tensor, t: int, s: Any, lr: float, momentum: float, wd: float) -> Tensor:
    """Algorithm 1 of the paper for SGD with momentum, whose weight decay is part of the gradient."""
    g = g + wd * x
    s["b"] = momentum * s.get("b", torch.zeros_like(x)) + g
    return x - lr * masked(s["b"], g)


def cwd(x: Tensor, update: Tensor, lr: float, wd: float) -> Tensor:
    """Cautious weight decay, Algorithm 1: x - lr (u + λ 1[u x >= 0] x)."""
    return x - lr * (update + wd * (update * x >= 0).to(x.dtype) * x)


def cwd_adamw(x: Tensor, g: Tensor, t: int, s: Any, lr: float, betas: Any, wd: float) -> Tensor:
    m, denominator = adam_terms(g, t, s, betas, 1e-8)
    return cwd(x, m / denominator, lr, wd)


def cwd_lion(x: Tensor, g: Tensor, t: int, s: Any, lr: float, betas: Any, wd: float, caution: bool = False) -> Tensor:
    update = torch.sign(s.get("m", torch.zeros_like(x)) * betas[0] + g * (1 - betas[0]))
    mean_of(s, "m", g, betas[1])
    return cwd(x, masked(update, g) if caution else update, lr, wd)


def cwd_momentum(x: Tensor, g: Tensor, t: int, s: Any, lr: float, momentum: float, wd: float) -> Tensor:
    s["b"] = momentum * s.get("b", torch.zeros_like(x)) + g
    return cwd(x, s["b"], lr, wd)


def sgdw(x: Tensor, g: Tensor, t: int, s: Any, lr: float, momentum: float, wd: float) -> Tensor:
    """github.com/huggingface/pytorch-image-models, sgdw.py."""
    x = x * (1 - lr * wd)
    s["b"] = momentum * s.get("b", torch.zeros_like(x)) + g
    return x - lr * s["b"]


def mars_gradient(g: Tensor, s: Any, beta1: float, gamma: float) -> Tensor:
    """github.com/AGI-Arena/MARS, mars.py, update_fn."""
    c = (g - s.get("last_grad", torch.zeros_like(g))) * (gamma * (beta1 / (1.0 - beta1))) + g
    s["last_grad"] = g.clone()
    norm = torch.norm(c)
    return c / norm if norm > 1.0 else c


def mars_adamw(x: Tensor, g: Tensor, t: int, s: Any, lr: float, betas: Any, wd: float, gamma: float) -> Tensor:
    m, denominator = adam_terms(mars_gradient(g, s, betas[0], gamma), t, s, betas, 1e-8)
    return x - lr * (wd * x + m / denominator)


def mars_lion(x: Tensor, g: Tensor, t: int, s: Any, lr: float, beta: float, wd: float, gamma: float) -> Tensor:
    return x - lr * (wd * x + mean_of(s, "m", mars_gradient(g, s, beta, gamma), beta).sign())


def lookahead(inner: Oracle, steps: int, alpha: float) -> Oracle:
    """github.com/michaelrzhang/lookahead, lookahead_pytorch.py."""

    def make(params: Params) -> Step:
        take, cached = inner(params), [p.detach().clone() for p in params]
        counter = iter(range(1, 10**6))

        def step() -> None:
            take()
            if next(counter) % steps == 0:
                for p, slow in zip(params, cached, strict=True):
                    p.data = alpha * p.detach() + (1.0 - alpha) * slow
                    slow.copy_(p.detach())

        return step

    return make


def clipped(inner: Oracle, norm: float = 0.0, value: float = 0.0) -> Oracle:
    """torch's functions, in the order value, norm, before a step of torch's class."""

    def make(params: Params) -> Step:
        take = inner(params)

        def step() -> None:
            if value:
                nn.utils.clip_grad_value_(params, value)
            if norm:
                nn.utils.clip_grad_norm_(params, norm)
            take()

        return step

    return make


def adaptively_clipped(inner: Oracle, ratio: float) -> Oracle:
    """github.com/huggingface/pytorch-image-models, agc.py, with the norm of the whole tensor."""

    def make(params: Params) -> Step:
        take = inner(params)

        def step() -> None:
            for p in params:
                assert p.grad is not None
                most, norm = p.detach().norm().clamp(min=1e-3) * ratio, p.grad.norm()
                p.grad = torch.where(norm < most, p.grad, p.grad * (most / norm.clamp(min=1e-6)))
            take()

        return step

    return make


def wrapped(cls: Any, interpolation: float = 0.9, decay: float = 0.0, **given: Any) -> Oracle:
    """The Schedule-Free authors' wrapper around a class of torch, wrap_schedulefree.py, with x, y and z apart."""

    def make(params: Params) -> Step:
        base = cls(params, **given)
        points = [(p.detach().clone(), p.detach().clone()) for p in params]  # x and z; parameters hold y
        steps, sums = iter(range(10**6)), [0.0]

        def step() -> None:
            k, lr = next(steps), given["lr"]
            for p, (_, z) in zip(params, points, strict=True):
                y = p.detach().clone()
                z.sub_(y, alpha=lr * decay)
                p.data = z
            base.step()
            weight = (k + 1) ** 0.0 * lr**2
            sums[0] += weight
            for p, (x, z) in zip(params, points, strict=True):
                x.lerp_(z, weight / sums[0])
                p.data = x.lerp(z, 1 - interpolation)

        return step

    return make
