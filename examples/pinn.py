"""A physics-informed network for a damped oscillator.

gradprix race examples/pinn.py

The network u(t) solves u'' + 2 δ u' + ω² u = 0 with u(0) = 1 and u'(0) = 0. Its
loss is the residual of the equation, so a step needs second derivatives.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import gradprix as gp
from gradprix.show.palette import colour

DELTA, OMEGA = 1.0, 8.0


def exact(t: Tensor) -> Tensor:
    frequency = math.sqrt(OMEGA**2 - DELTA**2)
    oscillation = (frequency * t).cos() + DELTA / frequency * (frequency * t).sin()
    return (-DELTA * t).exp() * oscillation


def derivative(u: Tensor, t: Tensor) -> Tensor:
    return torch.autograd.grad(u.sum(), t, create_graph=True)[0]


class Oscillator(nn.Module):
    """Return the solution and the residual of the equation."""

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.network = nn.Sequential(*layers, nn.Linear(32, 1))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.detach().requires_grad_()
        u = 1 + t**2 * self.network(t)  # fulfils the initial conditions
        velocity = derivative(u, t)
        residual = derivative(velocity, t) + 2 * DELTA * velocity + OMEGA**2 * u
        return u, residual / OMEGA**2


def loss(outputs: tuple[Tensor, Tensor], _: Tensor) -> Tensor:
    return outputs[1].square().mean()


def error(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    return (outputs[0] - targets).square().mean().sqrt()


times = torch.linspace(0, 1.5, 240)[:, None]
task = gp.Task(
    name="oscillator",
    model=Oscillator,
    loss=loss,
    metric=gp.Metric("RMS error", error, False, margin=0.2, relative=True),
    baseline=float(exact(times).square().mean().sqrt()),
    data=lambda: gp.Data(times, exact(times)),
    batch_size=48,
    epochs=250,
    about="A physics-informed network: 32 × 32 tanh units, second derivatives.",
)


def solve(
    optimizer: torch.optim.Optimizer, model: nn.Module, steps: int = 750
) -> Tensor:
    """Train a model with an optimizer and cosine decay, and return its solution."""
    schedule = gp.schedule("cosine", steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(times[torch.randperm(len(times))[:48]]), times).backward()
        optimizer.step()
        scheduler.step()
    return model(times)[0].detach()


def draw(result: gp.Result, file: str) -> None:
    """Draw the solutions of the recommended optimizer and of Adam's default."""
    figure, axis = plt.subplots(figsize=(7, 3))
    axis.plot(
        times, exact(times), color="grey", linewidth=5, alpha=0.4, label="exact"
    )
    best = result.best
    for make, name, label in (
        (best.make, best.name, f"{best.name}, tuned"),
        (torch.optim.Adam, "adam", "Adam, default learning rate"),
    ):
        torch.manual_seed(0)
        model = Oscillator()
        u = solve(make(model.parameters()), model)
        axis.plot(times, u, color=colour(name), label=label)
    axis.set(xlabel="time", ylabel="displacement")
    axis.legend(frameon=False)
    figure.savefig(file, bbox_inches="tight")


if __name__ == "__main__":
    result = gp.race(
        task,
        "adam,soap,rmsprop,nesterov",
        trials=13,
        seeds=8,
        out="runs/oscillator",
    )
    print(result)
    draw(result, "pinn.svg")
