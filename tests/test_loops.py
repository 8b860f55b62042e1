"""What a training loop may do with the optimizer that races, and what would make its race senseless."""

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler

import gradprix as gp
from gradprix.race import TaskError

FEW: dict[str, Any] = {"direction": "min", "trials": 2, "seeds": 6, "processes": 2}
STEPS = 10


def constant(rate: float, optimizer: torch.optim.Optimizer, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def warmup(rate: float, optimizer: torch.optim.Optimizer, step: int) -> None:
    constant(rate * min(1.0, (step + 1) / 5), optimizer, step)


def train(
    make_optimizer: Callable[..., Any],
    seed: int,
    schedule: Callable[[Any], Any] = lambda optimizer: None,
    each: Callable[[Any, int], None] = lambda optimizer, step: None,
    other: Any = None,
    params: Callable[[Any], Any] = lambda net: net.parameters(),
    given: dict[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """A plain loop, with a learning rate of whatever kind."""
    x = torch.randn(60, 4)
    y = x @ torch.tensor([1.0, -2.0, 0.5, 3.0])
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    optimizer = make_optimizer(params(net), **(given or {}))
    if other is not None:
        optimizer = other(net.parameters(), lr=0.01)
    scheduler = schedule(optimizer)
    for _ in range(2):
        for step in range(STEPS // 2):
            each(optimizer, step)
            optimizer.zero_grad()
            loss = functional.mse_loss(net(x[8 * step : 8 * step + 8])[:, 0], y[8 * step : 8 * step + 8])
            loss.backward()
            optimizer.step()
            if scheduler is not None and not isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                scheduler.step()
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss)
        with torch.no_grad():
            errors = (net(x)[:, 0] - y).square()
        yield {"valid": errors[40:50].mean(), "test": errors[50:].mean()}


def rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def one_cycle(peak: float | None, optimizer: Any, **given: Any) -> Any:
    return lr_scheduler.OneCycleLR(optimizer, rate(optimizer) if peak is None else peak, total_steps=STEPS + 1, **given)


def cyclic(low: float, optimizer: Any, **given: Any) -> Any:
    return lr_scheduler.CyclicLR(optimizer, low, 0.1, 2, **given)


class LaterEpochs:
    """Sets the learning rate from the second of two epochs on."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.steps = optimizer, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps >= STEPS // 2:
            constant(0.01, self.optimizer, self.steps)


def cyclic_from_rate(optimizer: Any) -> Any:
    return lr_scheduler.CyclicLR(optimizer, rate(optimizer) / 10, rate(optimizer), 2, cycle_momentum=False)


def from_checkpoint(optimizer: torch.optim.Optimizer) -> None:
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 0.01
    optimizer.load_state_dict(state)


OVERRIDES: dict[str, tuple[dict[str, Any], str]] = {
    "one cycle": ({"schedule": partial(one_cycle, 0.01, cycle_momentum=False)}, "OneCycleLR"),
    "cyclic": ({"schedule": partial(cyclic, 0.001, cycle_momentum=False)}, "learning rate"),
    "constant": ({"each": partial(constant, 0.01)}, "learning rate"),
    "warm-up": ({"each": partial(warmup, 0.01)}, "learning rate"),
    "later epochs": ({"schedule": LaterEpochs}, "learning rate"),
    "checkpoint": ({"schedule": from_checkpoint}, "learning rate"),
    "an optimizer of its own": ({"other": torch.optim.SGD}, "make_optimizer"),
}


@pytest.mark.parametrize("how", OVERRIDES)
def test_a_loop_with_learning_rates_of_its_own_is_refused(how: str) -> None:
    arguments, says = OVERRIDES[how]
    with pytest.raises(TaskError, match=says):
        gp.race(partial(train, **arguments), "adam,momentum", **FEW)


MULTIPLIES: dict[str, Callable[[Any], Any]] = {
    "one cycle": partial(one_cycle, None),
    "cyclic": cyclic_from_rate,
    "cosine with a floor": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=1e-4),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, eta_min=1e-6),
    "steps": lambda o: lr_scheduler.StepLR(o, 3),
    "from zero": lambda o: lr_scheduler.LambdaLR(o, lambda step: step / STEPS),
    "plateau with a floor": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, min_lr=1e-6),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("how", MULTIPLIES)
def test_a_loop_whose_schedule_follows_the_learning_rate_races(how: str) -> None:
    result = gp.race(partial(train, schedule=MULTIPLIES[how]), "adam,minibatch", **{**FEW, "trials": 1})
    assert len(result.record.entries) == 2
    assert not result.record.failed


@pytest.mark.parametrize(
    ("optimizers", "tune", "schedule"),
    [
        ("adam,minibatch", "beta1", partial(one_cycle, None)),
        ("minibatch,momentum", "momentum", partial(one_cycle, None)),
    ],
)
def test_momentum_that_is_tuned_must_not_be_the_schedulers(optimizers: str, tune: str, schedule: Any) -> None:
    def skip(optimizer: Any) -> Any:  # plain SGD has no momentum that could cycle
        return schedule(optimizer) if {"betas", "momentum"} & optimizer.defaults.keys() else None

    with pytest.raises(TaskError, match=tune):
        gp.race(partial(train, schedule=skip), optimizers, tune=tune, **FEW)
    without = partial(one_cycle, None, cycle_momentum=False)
    result = gp.race(partial(train, schedule=without), optimizers, tune=tune, **{**FEW, "trials": 3})
    assert not result.record.failed


# Parameter groups


def layers(net: nn.Sequential, **more: Any) -> list[dict[str, Any]]:
    return [{"params": net[0].named_parameters(), **more}, {"params": net[1].named_parameters()}]


def test_groups_have_factors_of_what_is_tuned() -> None:
    def note(optimizer: Any, step: int) -> None:
        a, b = optimizer.param_groups
        assert a["lr"] == pytest.approx(0.1 * b["lr"], rel=1e-12)
        assert a["weight_decay"] == pytest.approx(2 * b["weight_decay"], rel=1e-12)
        assert (a["lr_factor"], a["weight_decay_factor"]) == (0.1, 2)
        assert b["weight_decay"] > 0

    groups = partial(layers, lr_factor=0.1, weight_decay_factor=2)
    loop = partial(train, params=groups, each=note, schedule=lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS))
    entries = ["adamw", "momentum", gp.Entry("torch", torch.optim.AdamW)]
    result = gp.race(loop, entries, tune="weight_decay", **FEW)
    assert not result.record.failed


def test_the_winner_takes_the_same_groups() -> None:
    result = gp.race(partial(train, params=partial(layers, lr_factor=0.1)), "adamw,adam", **{**FEW, "trials": 1})
    made = result.best.make(layers(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)), lr_factor=0.1))
    lr = result.best.arguments["lr"]
    assert [group["lr"] for group in made.param_groups] == pytest.approx([0.1 * lr, lr], rel=1e-12)
    made.add_param_group({"params": nn.Linear(1, 1).named_parameters("more"), "lr_factor": 3})
    assert rate(made) == pytest.approx(0.1 * lr)
    assert made.param_groups[2]["lr"] == pytest.approx(3 * lr)
    assert [group["lr_factor"] for group in pickle.loads(pickle.dumps(made)).param_groups[::2]] == [0.1, 3]


def test_a_group_need_not_decay() -> None:
    groups = partial(layers, weight_decay=0.0)
    result = gp.race(partial(train, params=groups), "adamw,momentum", tune="weight_decay", **FEW)
    assert not result.record.failed


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ({"lr_factor": -0.1}, "lr_factor = -0.1"),
        ({"lr_factor": None}, "lr_factor = None"),
        ({"weight_decay_factor": "0.1"}, "weight_decay_factor = '0.1'"),
        ({"lr_factor": float("nan")}, "lr_factor = nan"),
        ({"lr": 0.1}, "lr of its own"),
        ({"weight_decay": 0.1}, "weight_decay of its own"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused(group: dict[str, Any], says: str) -> None:
    with pytest.raises(TaskError, match=says):
        gp.race(partial(train, params=partial(layers, **group)), "adamw,momentum", tune="weight_decay", **FEW)


def test_a_tuned_value_is_not_given_to_make_optimizer() -> None:
    with pytest.raises(TaskError, match="weight_decay of its own"):
        gp.race(partial(train, given={"weight_decay": 0.0}), "adamw,momentum", tune="weight_decay", **FEW)
