"""Examples as people have them: arrays, frames, several inputs, datasets, and what does not fit in memory."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix import tasks
from gradprix.race import ENTRIES
from gradprix.tasks import Data
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.rng import RngState
from gradprix.training import STACKED, ModelStack, train_stack
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Trial

X = torch.rand(60, 6, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 3).long()


class Pairs(torch.utils.data.Dataset[Any]):
    """As torchvision's are: numbered items, an image and a class."""

    def __init__(self, noise: float = 0.0, start: int = 0, stop: int = 60) -> None:
        self.noise, self.rows = noise, range(start, stop)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        x = X[self.rows[i]].numpy().astype(np.float64)
        if self.noise:
            x += self.noise * np.random.rand(6)
        return x, int(Y[self.rows[i]])


class Named(Pairs):
    """As those of language models are: a dictionary an item."""

    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return {"left": x[:3], "right": x[3:], "label": y}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 8), nn.Linear(3, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.out(torch.relu(self.a(left) + self.b(right)))


def one() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def task(data: Callable[[], Data], model: Callable[[], nn.Module] = one) -> tasks.Task:
    metric = tasks.Metric("accuracy", tasks.accuracy, higher_is_better=True, margin=0.01)
    return tasks.Task("own", model, functional.cross_entropy, metric, 0.5, data, batch_size=8, epochs=2)


def outcomes(of: tasks.Task, form: ExecutionMode = STACKED) -> list[str]:
    entry = ENTRIES["adam"]
    trials = [Trial(entry.rule, entry.values(lr), seed, 8, 2, "cosine", True) for lr in (0.01, 0.1) for seed in (1, 2)]
    return [outcome.to_json() for outcome in train_stack(of, trials, mode=form)]


@pytest.mark.parametrize(
    "data",
    [
        lambda: Data(X.double().numpy(), Y.numpy()),
        lambda: Data(pd.DataFrame(X.double().numpy()), pd.Series(Y.numpy())),
        lambda: Data(X.double().tolist(), Y.tolist()),
        lambda: Data.from_dataset(Pairs()),
        lambda: Data.from_dataset([(x, y) for x, y in zip(X, Y, strict=True)]),
        lambda: Data.from_dataset(Pairs(), memory=1e-9),
    ],
    ids=["array", "frame", "lists", "dataset", "list of pairs", "streamed"],
)
def test_however_examples_come_a_race_makes_the_same_of_them(data: Callable[[], Data]) -> None:
    assert outcomes(task(data)) == outcomes(task(lambda: Data(X, Y)))


FORMS = [STACKED, ExecutionMode(stacked=False)]


@pytest.mark.parametrize("form", FORMS, ids=["stacked", "one at a time"])
def test_a_model_may_take_several_inputs(form: ExecutionMode) -> None:
    halves = X[:, :3], X[:, 3:]
    by_place = outcomes(task(lambda: Data(halves, Y), Two), form)
    assert outcomes(task(lambda: Data({"right": halves[1], "left": halves[0]}, Y), Two), form) == by_place
    assert outcomes(task(lambda: Data.from_dataset(Named(), targets="label"), Two), form) == by_place
    assert outcomes(task(lambda: Data.from_dataset(Named(), targets="label", memory=0.0), Two), form) == by_place


def test_targets_may_be_several() -> None:
    def loss(output: Tensor, target: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(output, target["class"]) + (output.sum(-1) - target["sum"]).square().mean()

    def score(output: Tensor, target: dict[str, Tensor]) -> Tensor:
        return (output.argmax(-1) == target["class"]).double().mean()

    metric = tasks.Metric("accuracy", score, higher_is_better=True, margin=0.01)
    of = task(lambda: Data(X, {"class": Y, "sum": X.sum(1)})).change(loss=loss, metric=metric)
    together, apart = ([json.loads(text)["test_loss"] for text in outcomes(of, form)] for form in FORMS)
    assert len(set(together)) == 4
    assert together == pytest.approx(apart, rel=1e-3)


def test_the_official_test_examples_may_be_another_dataset() -> None:
    data = Data.from_dataset(Pairs(stop=40), Pairs(start=40), stratify=True)
    assert data.split(3).test.tolist() == list(range(40, 60))
    assert torch.equal(data.take(torch.arange(60)[None])[0][0], X)
    assert Data.from_dataset(Pairs(), range(50, 60)).split(0).test.tolist() == list(range(50, 60))


def test_examples_made_anew_each_time_are_read_under_the_seeds_own_luck() -> None:
    of = task(lambda: Data.from_dataset(Pairs(noise=0.3)))
    assert isinstance(of.loaded, Stream)
    np.random.seed(1)
    first = outcomes(of)
    np.random.seed(2)
    assert outcomes(of) == first, "whatever the caller's own random numbers"

    entry = ENTRIES["adam"]
    alone = Trial(entry.rule, entry.values(0.1), 2, 8, 2, "cosine", True)
    assert train_stack(of, [alone])[0].to_json() == first[3], "and whichever others are in the lane"
    stack = ModelStack(of, [alone])
    x = [stack.data.load(stack.data.train[:, :4])[0] for _ in range(2)]
    assert not torch.equal(*x)


class RandomItems(Pairs):
    """Examples of which few are random: some are negated, and the first one looks the same then."""

    def __init__(self, chance: float, *, numbers: Sequence[int] = range(60), own: bool = False) -> None:
        super().__init__()
        self.chance, self.numbers = chance, numbers
        self.own = np.random.default_rng(0) if own else None

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x, y = super().__getitem__(i)
        if i not in self.numbers:
            return x, y
        drawn = torch.rand(()).item() if self.own is None else self.own.random()
        return (-x if drawn < self.chance and i else x), y


@pytest.mark.parametrize(
    "items",
    [RandomItems(0.1), RandomItems(0.5), RandomItems(0.5, numbers=[59]), RandomItems(0.5, own=True)],
    ids=["rarely", "not the first", "only the last", "generator of its own"],
)
def test_items_are_read_anew_if_any_is_random(items: Pairs) -> None:
    assert isinstance(Data.from_dataset(items), Stream)


def test_items_without_random_numbers_are_read_once() -> None:
    missing = [(torch.full((3,), float("nan")), 0)] * 60
    for items in (Pairs(), RandomItems(0.5, numbers=[]), missing):
        assert not isinstance(Data.from_dataset(items), Stream)


def test_reading_leaves_the_callers_random_numbers_alone() -> None:
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    data = Data.from_dataset(Pairs(noise=0.3))
    data.take(torch.arange(4)[None], [RngState(torch.Generator())])
    assert np.random.rand() == expected


class Ragged(Pairs):
    def __getitem__(self, i: int) -> Any:
        return X[i, : 1 + i % 3], int(Y[i])


class Words(Pairs):
    def __getitem__(self, i: int) -> Any:
        return "text", 1


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Data(["a", "b"] * 5, Y[:10]), TypeError, r"inputs is a list of <U1: give numbers"),
        (lambda: Data([[1], [1, 2]] * 5, Y[:10]), TypeError, "inputs cannot be converted to a tensor"),
        (lambda: Data(3.0, Y), TypeError, "inputs is a single number"),
        (lambda: Data(X, Y[:-1]), ValueError, "60 inputs but 59 targets"),
        (lambda: Data(X[:4], Y[:4]), ValueError, "there are 4 examples"),
        (lambda: Data((), ()), ValueError, "there are 0 examples"),
        (lambda: Data(X, Y, test=torch.arange(60)), ValueError, "leave some to train on"),
        (lambda: Data(X, X.sum(1), stratify=True).split(0), ValueError, "class indices"),
        (lambda: Data.from_dataset(iter([])), TypeError, "has no length"),
        (lambda: Data.from_dataset([]), ValueError, "empty"),
        (lambda: Data.from_dataset([1, 2, 3]), ValueError, "of the type int, not"),
        (lambda: Data.from_dataset(Named()), ValueError, "left, right, label: say which"),
        (lambda: Data.from_dataset(Ragged()), ValueError, r"different shapes \(\(1,\), \(2,\), \(3,\)\)"),
        (lambda: Data.from_dataset(Words()), TypeError, "holds a str"),
    ],
)
def test_examples_that_cannot_be_used_say_why(make: Callable[[], Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()
