"""Last batches, odd models, and code of a task that fails in the middle of a race."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp
from gradprix.race import ENTRIES, TaskError, make_plan
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trainer import train_stack
from gradprix.training.trial import Outcome, Trial

X = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()
FEW: dict[str, Any] = {"trials": 2, "seeds": 6, "epochs": 2, "processes": 1}
STACKED, SEQUENTIAL = ExecutionMode(), ExecutionMode(stacked=False)
BOTH = pytest.mark.parametrize("how", [STACKED, SEQUENTIAL], ids=["stacked", "sequential"])


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(-1) == target).double().mean()


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def task(model: Callable[[], nn.Module] = plain, **given: Any) -> gp.Task:
    metric = gp.Metric("accuracy", given.pop("score", accuracy), higher_is_better=True, margin=0.01)
    usual: dict[str, Any] = {
        "loss": functional.cross_entropy,
        "data": lambda: gp.Data(X, Y),
        "batch_size": 16,
        "epochs": 2,
    }
    return gp.Task(name="mine", model=model, metric=metric, baseline=0.5, **{**usual, **given})


def trial(lr: float = 0.1, seed: int = 3, epochs: int = 2) -> Trial:
    entry = ENTRIES["minibatch"]
    return Trial(entry.rule, entry.values(lr), seed, 16, epochs, "constant", True)


# Last batches


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


SPACE = {"lr": gp.log(0.01, 1), "batch_size": gp.choice(16, 47)}


@pytest.mark.parametrize(
    ("given", "entries"),
    [
        ({"batch_size": 47}, "adam,minibatch"),  # 48 examples to train on
        ({}, ("adam", gp.Entry("odd", ENTRIES["minibatch"].rule, batch_size=47))),
        (
            {},
            (
                "adam",
                gp.Entry(
                    "odd", ENTRIES["minibatch"].rule, space={"lr": gp.log(0.01, 1), "batch_size": gp.choice(16, 47)}
                ),
            ),
        ),
    ],
    ids=["task", "entry", "tuned"],
)
def test_a_last_batch_of_one_that_a_model_cannot_train_on_is_refused(given: dict[str, Any], entries: Any) -> None:
    with pytest.raises(TaskError, match=r"batches of 47, the last of 48 examples has size 1,.* another batch size"):
        gp.race(task(normed, **given), entries, **FEW)


def test_a_last_evaluation_batch_of_one_is_tried_too() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.layer(x).squeeze()
            assert output.dim() == 1
            return output

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(output, target.float())

    data = gp.Data(torch.cat([X, X[:1] + 1]), torch.cat([Y, Y[:1]]), test=torch.arange(80, 81))
    odd = task(Squeezed, loss=loss, data=lambda: data, score=lambda o, y: ((o > 0) == y).double().mean())
    with pytest.raises(TaskError, match="the last of 1 examples has size 1, .* in evaluation"):
        gp.race(odd, "adam,minibatch", **FEW)


def test_a_last_batch_of_one_that_works_is_trained_on() -> None:
    result = gp.race(task(batch_size=47), "adam,minibatch", **FEW)
    assert result.record.entries[0].updates == 4


# Odd models


class Empty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = plain()
        self.nothing, self.none = nn.Parameter(torch.empty(0)), nn.Parameter(torch.empty(3, 0))

    def forward(self, x: Tensor) -> Any:
        return self.layers(x) + self.none.sum()


def test_parameters_without_elements_change_nothing() -> None:
    result, same = (gp.race(task(model), "adam,minibatch,lion", **FEW) for model in (Empty, plain))
    assert result.record.plan.mode == same.record.plan.mode
    for entry, other in zip(result.record.entries, same.record.entries, strict=True):
        assert entry.final.values == pytest.approx(other.final.values, abs=0.1)


class Energy(nn.Module):
    """Its output is the slope of an energy, as a force field's is."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
        return slope[:, :2]


class EnergyOfInputs(Energy):
    """Asks for gradients of the inputs themselves instead of a copy."""

    def forward(self, x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(self.energy(x.requires_grad_()).sum(), x, create_graph=self.training)
        return slope[:, :2]


class SortedEnergy(Energy):
    """Sorts, which programs of a row do not have, so that it runs as operations of torch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sort(1).values)


class Physics(nn.Module):
    """Returns its inputs, too, by which the loss differentiates, as physics-informed networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        return self.net(x), x


def residual(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    u, x = output
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return (slope.sum(1) - u[:, 0]).square().mean() + (u[:, 0] - target).square().mean()


ODD: dict[str, Any] = {
    "energy": {"model": Energy},
    "energy of inputs": {"model": EnergyOfInputs},
    "energy of sorted inputs": {"model": SortedEnergy},
    "physics": {"model": Physics, "loss": residual, "score": lambda o, y: ((o[0][:, 0] > 0.5) == y).double().mean()},
}


@pytest.mark.parametrize("kind", ODD)
def test_models_that_differentiate_race(kind: str) -> None:
    def after(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
        network(inputs)
        return {"one": 1.0}

    result = gp.race(task(**ODD[kind], after=after), "adam,minibatch", **FEW)
    assert not result.record.failed
    mode = result.record.plan.mode
    assert mode.stacked == (kind != "energy of sorted inputs")
    assert mode.stacked or "differentiates by itself" in mode.stack_rejection.message
    assert all(value == 1.0 for values in result.record.artifacts.numbers["one"].values() for value in values)


@BOTH
@pytest.mark.parametrize("kind", [Energy, EnergyOfInputs])
def test_such_a_model_is_evaluated_as_in_a_plain_loop(kind: type[Energy], how: ExecutionMode) -> None:
    from gradprix.tasks.rng import init_model, stream

    outcome, *_ = train_stack(task(kind), [trial()] * 4, mode=how)
    model, split, order = init_model(kind, 3), gp.Data(X, Y).split(3), stream(3, "order")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for index in split.train[torch.randperm(48, generator=order)].split(16):
            optimizer.zero_grad()
            functional.cross_entropy(model(X[index]), Y[index]).backward()
            optimizer.step()
    assert outcome.test_loss == pytest.approx(functional.cross_entropy(model(X[split.test]), Y[split.test]).item())


# Code that fails later


class Counting(nn.Module):
    """Fails after some steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.steps = plain(), 0

    def forward(self, x: Tensor) -> Any:
        self.steps += self.training
        if self.steps > 5:
            raise ValueError("too many steps")
        return self.layers(x)


class Corrupt(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Some examples cannot be read."""

    def __len__(self) -> int:
        return 800

    def __getitem__(self, i: int) -> Any:
        if i == 500:
            raise OSError("image 500 is truncated")
        return X[i % 80], Y[i % 80]


def choosy(output: Tensor, target: Tensor) -> Tensor:
    loss = functional.cross_entropy(output, target)
    if float(loss.detach()) < 0.65:
        raise ValueError("the loss is low")
    return loss


def strict(output: Tensor, target: Tensor) -> Tensor:
    if accuracy(output, target) > 0.6:
        raise KeyError("too good")
    return accuracy(output, target)


def failing_after(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    if accuracy(network(inputs), targets) > 0.6:
        raise ValueError("no picture")
    return {}


FAILING: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": Counting}, "its model or loss fails with .* ValueError: too many steps .*test_faults.py, line"),
    "loss": ({"loss": choosy}, "its model or loss (in evaluation )?fails with .* ValueError: the loss is low"),
    "metric": ({"score": strict}, "its metric fails with (adam|minibatch) at .*KeyError: 'too good'"),
    "data": (
        {"data": lambda: gp.Data.from_dataset(Corrupt(), memory=0.0), "batch_size": 64},
        "reading its examples fails with .*OSError: image 500 is truncated",
    ),
    "after": (
        {"after": failing_after},
        "its after fails with (adam|minibatch) at learning rate .*ValueError: no picture",
    ),
}


@pytest.mark.parametrize("kind", FAILING)
def test_code_that_fails_in_a_worker_ends_the_race_with_one_sentence(kind: str) -> None:
    given, says = FAILING[kind]
    with pytest.raises(TaskError, match=rf"task 'mine' cannot be raced: {says}") as caught:
        gp.race(task(**given), "adam,minibatch", **{**FEW, "epochs": 8})
    assert "\n" not in str(caught.value)


def test_the_message_names_the_entry_and_not_its_rule() -> None:
    def score(output: Tensor, target: Tensor) -> float:
        raise KeyError("no score")

    plan = make_plan(task(score=score), "momentum,minibatch")
    for entry in plan.entries:
        with pytest.raises(TaskError, match=f"its metric fails with {entry.name} at learning rate 0.1, seed"):
            train_stack(plan.task, [plan.final_trial(entry, {"lr": 0.1}, 0)])


# What fails because a network has diverged, has diverged


def finite(output: Tensor, target: Tensor) -> float:
    assert output.isfinite().all(), "not finite"
    return float(accuracy(output, target))


class Assertive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x) ** 3
        if not bool(output.isfinite().all()):
            raise ValueError("not finite")
        return output


def mean_square(output: Tensor, target: Tensor) -> Tensor:
    return (output - 1).square().mean()


DIVERGING: dict[str, tuple[dict[str, Any], ExecutionMode]] = {
    "metric, stacked": ({"score": finite, "loss": mean_square}, STACKED),
    "metric, sequential": ({"score": finite, "loss": mean_square}, SEQUENTIAL),
    "model": ({"model": Assertive, "loss": mean_square}, SEQUENTIAL),
    "decomposition": (
        {"loss": lambda o, y: mean_square(o, y) + 0 * torch.linalg.cholesky(o.mT @ o + torch.eye(2)).sum()},
        STACKED,
    ),
}


@pytest.mark.parametrize("kind", DIVERGING)
def test_what_fails_on_a_diverged_network_has_diverged(kind: str) -> None:
    given, how = DIVERGING[kind]
    wild = task(**{"model": lambda: nn.Linear(4, 2), **given})
    (outcome,) = train_stack(wild, [trial(1e6, epochs=20)], mode=how)
    assert isinstance(outcome, Outcome)
    assert outcome.diverged is not None
    assert outcome.error is None
    assert outcome.test_metric == 0.5


def test_a_race_with_diverging_networks_whose_metric_fails_goes_on() -> None:
    wild = gp.Entry("wild", ENTRIES["minibatch"].rule, space={"lr": gp.log(1e5, 1e7)})
    result = gp.race(task(lambda: nn.Linear(4, 2), loss=mean_square, score=finite, epochs=20), ("adam", wild), **FEW)
    assert [entry.final.diverged for entry in result.record.entries] == [0, 6]
    assert not result.record.failed
