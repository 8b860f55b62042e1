"""Tasks that are wrong: each is found out before the race, with a message that says what to do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp
from gradprix.race import TaskError
from gradprix.race._sound import sound

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(-1) == target).double().mean()


def task(**given: Any) -> gp.Task:
    score = given.pop("score", accuracy)
    metric = gp.Metric("accuracy", score, higher_is_better=True, margin=0.01)
    usual = {"model": lambda: nn.Linear(4, 2), "loss": functional.cross_entropy, "data": lambda: gp.Data(X, Y)}
    numbers = {"baseline": 0.5, "batch_size": 8, "epochs": 2}
    return gp.Task(**{"name": "mine", "metric": metric, **numbers, **usual, **given})


def fixed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 2)


SHARED = nn.Linear(4, 2)


def raising(error: Exception) -> Any:
    raise error


class Detached(nn.Module):
    """Its outputs know nothing of its weights."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(4, 2), how

    def forward(self, x: Tensor) -> Tensor:
        output = self.layer(x)
        return output.detach() if self.how == "detach" else output * 0


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({"data": lambda: raising(FileNotFoundError("no x.csv"))}, "its data cannot be loaded: no x.csv"),
    "data that is none": ({"data": lambda: (X, Y)}, r"data\(\) returns a tuple. Return gp.Data"),
    "few examples": ({"data": lambda: gp.Data(X[:3], Y[:3])}, "there are 3 examples"),
    "test within training": (
        {"data": lambda: gp.Data(torch.cat([X, X]), torch.cat([Y, Y]), test=torch.arange(60, 120))},
        "100% of its test examples are also examples to train on",
    ),
    "classes that are none": ({"data": lambda: gp.Data(X, X[:, 0], stratify=True)}, "stratify is for targets"),
    "no model": ({"model": lambda: raising(ImportError("no torchvision"))}, r"model\(\) fails: no torchvision"),
    "model that is none": ({"model": lambda: 3}, r"model\(\) returns a int. Return a new torch.nn.Module"),
    "the same model": ({"model": lambda: SHARED}, "the same network each time"),
    "nothing to train": ({"model": nn.Identity}, "no parameter that can be trained"),
    "the same weights": ({"model": fixed}, "same initial weights under every seed"),
    "shapes that do not fit": (
        {"model": lambda: nn.Linear(3, 2)},
        r"its model fails on a batch \(inputs float32 \(8, 4\), targets int64 \(8,\)\)",
    ),
    "float64": ({"data": lambda: gp.Data(X.double(), Y)}, r"fails on a batch \(inputs float64 .*the same dtype"),
    "loss that fails": ({"loss": functional.mse_loss}, r"its loss fails \(outputs float32 \(8, 2\), inputs"),
    "classes that the model has not": (
        {"data": lambda: gp.Data(X, Y + 5)},
        r"its loss fails .*out of bounds",
    ),
    "loss that is a number": ({"loss": lambda o, t: functional.cross_entropy(o, t).item()}, "its loss is a float"),
    "loss of each": (
        {"loss": lambda o, t: functional.cross_entropy(o, t, reduction="none")},
        r"has the shape \(8,\), not one number. Take its mean",
    ),
    "loss that is none": ({"data": lambda: gp.Data(X / 0, Y)}, "the loss of a batch of new networks is nan"),
    "detached": ({"model": lambda: Detached("detach")}, "does not depend on the weights"),
    "no gradient": ({"model": lambda: Detached("zero")}, "no gradient reaches any weight"),
    "metric that fails": ({"score": lambda o, t: raising(KeyError("acc"))}, "its metric fails: 'acc'"),
    "metric of each": ({"score": lambda o, t: o.argmax(-1) == t}, "its metric fails: .*only one element"),
    "metric that is none": ({"score": lambda o, t: float("nan")}, "its metric is nan"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_wrong_task_says_what_is_wrong(kind: str) -> None:
    given, says = BROKEN[kind]
    with pytest.raises(TaskError, match=f"task 'mine' cannot be raced: .*{says}"):
        sound(task(**given))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"model": fixed, "pretrained": True},
        {"data": lambda: gp.Data(X, Y, test=torch.arange(40, 60))},
        {"data": lambda: gp.Data.of([(x, y) for x, y in zip(X, Y, strict=True)], memory=0.0)},
    ],
    ids=["plain", "fine-tuned", "official test", "streamed"],
)
def test_a_sound_task_passes(given: dict[str, Any]) -> None:
    sound(task(**given))


def test_a_wrong_task_is_refused_before_the_race() -> None:
    wrong: Callable[[], nn.Module] = lambda: nn.Linear(3, 2)  # noqa: E731
    with pytest.raises(TaskError, match="its model fails on a batch"):
        gp.race(task(model=wrong), "adam,minibatch", trials=1, seeds=6)
