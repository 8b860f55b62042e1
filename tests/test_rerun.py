"""State that a task, a loop or an optimizer keeps between runs is found out by a run alone in a new process."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional

import gradprix as gp

FEW: dict[str, Any] = {"trials": 2, "seeds": 6, "processes": 2}
RUNS: list[int] = []


def data() -> gp.Data:
    x = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    return gp.Data(x, (x.sum(1) > 0).long())


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(-1) == targets).double().mean()


class Plain(nn.Module):
    """Keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x) * self.scale


class Counts(Plain):
    """Keeps a list in its class."""

    made: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.made.append(1)
        self.scale = 1 + 0.1 * len(self.made)


@functools.lru_cache
def backbone() -> dict[str, float]:
    return {"scale": 1.0}


class Cached(Plain):
    """Changes something that a cache keeps."""

    def __init__(self) -> None:
        super().__init__()
        backbone()["scale"] *= 0.9
        self.scale = backbone()["scale"]


class Slows(torch.optim.SGD):
    """Whose learning rate depends on how many there have been."""

    made = 0

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        Slows.made += 1
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            group["lr"] /= Slows.made


class Steady(torch.optim.SGD):
    """Somebody's own that keeps nothing."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)


def task(model: Callable[[], nn.Module]) -> gp.Task:
    metric = gp.Metric("accuracy", accuracy, higher_is_better=True, margin=0.01)
    return gp.Task("tiny", model, functional.cross_entropy, metric, 0.5, data, batch_size=16, epochs=2)


def train(make_optimizer: Callable[..., Any], seed: int, scale: float = 1.0) -> Iterator[dict[str, float]]:
    examples, net = data(), Plain()
    optimizer = make_optimizer(net.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        loss = functional.cross_entropy(scale * net(examples.inputs), examples.targets)
        loss.backward()
        optimizer.step()
        yield {"valid": loss.item(), "test": loss.item()}


def counting(make_optimizer: Callable[..., Any], seed: int) -> Iterator[dict[str, float]]:
    RUNS.append(seed)
    yield from train(make_optimizer, seed, 1 + 0.1 * len(RUNS))


SUBJECTS: dict[str, tuple[Any, Any, bool]] = {
    "task": (task(Plain), "adam,momentum", True),
    "task that counts": (task(Counts), "adam,momentum", False),
    "task with a cache": (task(Cached), "adam,momentum", False),
    "optimizer": (gp.tasks.digits.change(epochs=1), [gp.Entry("own", Steady), "adam"], True),
    "optimizer that counts": (gp.tasks.digits.change(epochs=1), [gp.Entry("own", Slows), "adam"], False),
    "loop": (train, "adam,momentum", True),
    "loop that counts": (counting, "adam,momentum", False),
}


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded machine repeats what an idle one does."""
    monkeypatch.setattr("gradprix.race.rerun.SHORT_RUN", 60.0)
    monkeypatch.setattr("gradprix.race.runner.MIN_TIMEOUT", 300.0)


@pytest.mark.sample(2)
@pytest.mark.parametrize("what", SUBJECTS)
def test_state_that_is_kept_between_runs_is_found_and_said(what: str) -> None:
    subject, optimizers, same = SUBJECTS[what]
    direction = None if isinstance(subject, gp.Task) else "min"
    result = gp.race(subject, optimizers, direction=direction, **FEW)
    (rerun,) = result.to_dict()["reruns"]
    assert rerun["same"] is same
    assert rerun["entry"] == ("own" if "optimizer" in what else "momentum")
    assert rerun["seed"] == 6
    if same:
        assert rerun["metric"] == pytest.approx(rerun["again"], rel=1e-6)
    assert ("alone in a new process" in result.text) is not same


def test_what_is_built_in_is_not_repeated() -> None:
    result = gp.race("digits", "adam,momentum", epochs=1, **FEW)
    assert "reruns" not in result.to_dict()


def test_a_race_that_goes_on_repeats_nothing_again(tmp_path: Path) -> None:
    entries = [gp.Entry("own", Slows), "adam"]
    first, again = (gp.race(task(Plain), entries, out=tmp_path / "race", **FEW) for _ in range(2))
    assert not first.to_dict()["reruns"][0]["same"]
    assert first.to_dict()["reruns"] == again.to_dict()["reruns"] == gp.load(tmp_path / "race").to_dict()["reruns"]


def test_it_is_left_out_where_it_would_take_too_large_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradprix.race.rerun.SHORT_RUN", 0.0)
    result = gp.race(train, "adam,momentum", direction="min", **FEW)
    assert "reruns" not in result.to_dict()
    more = gp.race(train, "adam,momentum", direction="min", **{**FEW, "trials": 4})
    assert len(more.to_dict()["reruns"]) == 1
