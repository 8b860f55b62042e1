"""Reinforcement learning: REINFORCE balances a pole on a cart.

gradprix race examples/reinforcement.py:train --direction max
"""

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import gradprix as gp
from gradprix.show.palette import colour

CARTS, STEPS = 16, 100


def move(state: Tensor, push: Tensor) -> Tensor:
    """Return the next states of all carts.

    Barto et al. 1983, doi:10.1109/TSMC.1983.6313077.
    """
    _, v, angle, w = state.unbind(-1)
    force = 10 * (2 * push - 1)
    a = (force + 0.05 * w**2 * angle.sin()) / 1.1
    turn = (9.8 * angle.sin() - angle.cos() * a) / (
        0.5 * (4 / 3 - 0.1 * angle.cos() ** 2 / 1.1)
    )
    a = a - 0.05 * turn * angle.cos() / 1.1
    return state + 0.02 * torch.stack([v, a, w, turn], -1)


def play(policy: nn.Module) -> tuple[Tensor, Tensor]:
    """Play one episode with each cart.

    Returns:
        Log-probabilities of the actions, and whether each pole was standing, both
        `[steps, carts]`.
    """
    state = 0.1 * torch.rand(CARTS, 4) - 0.05
    standing, logs, alive = torch.ones(CARTS), [], []
    for _ in range(STEPS):
        action = torch.distributions.Bernoulli(logits=policy(state)[:, 0])
        push = action.sample()
        logs.append(action.log_prob(push))
        alive.append(standing)
        state = move(state, push)
        standing = standing * (state[:, 2].abs() < 0.21) * (state[:, 0].abs() < 2.4)
    return torch.stack(logs), torch.stack(alive)


def train(
    make_optimizer: Callable[..., Any], seed: int
) -> Iterator[dict[str, float]]:
    torch.set_num_threads(1)
    policy = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = make_optimizer(policy.parameters())
    for _ in range(10):
        for _ in range(2):
            logs, alive = play(policy)
            returns = alive.flip(0).cumsum(0).flip(0)
            advantage = (returns - returns.mean(1, keepdim=True)) / STEPS
            optimizer.zero_grad()
            (-(logs * alive * advantage).sum(0).mean()).backward()
            optimizer.step()
        with torch.no_grad():
            scores = [play(policy)[1].sum(0).mean().item() for _ in range(2)]
        yield {"valid": scores[0], "test": scores[1]}


def draw(result: gp.Result, file: str) -> None:
    """Draw the mean learning curve of each optimizer over the final seeds."""
    figure, axis = plt.subplots(figsize=(7, 3))
    for name, runs in result.curves.groupby("entry"):
        curve = runs.groupby("examples")["valid_metric"].mean()
        axis.plot(range(1, 1 + len(curve)), curve, color=colour(name), label=name)
    axis.set(
        xlabel="iterations of 32 episodes", ylabel="steps until the pole falls"
    )
    axis.legend(frameon=False)
    figure.savefig(file, bbox_inches="tight")


if __name__ == "__main__":
    result = gp.race(
        train,
        "adam,rmsprop,nesterov",
        direction="max",
        trials=10,
        seeds=6,
        out="runs/reinforcement",
    )
    print(result)
    draw(result, "reinforcement.svg")
