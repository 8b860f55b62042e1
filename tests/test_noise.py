"""Random numbers of training are those of a plain loop: in their order in memory, and unchanged by evaluations."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp
from gradprix.rules import sgd
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.training import Trainer
from gradprix.training.callbacks import Callback
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Trial


class Transposed(nn.Module):
    """Draws noise in the layout of a transposed tensor."""

    def __init__(self, noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.noise, self.first, self.second = noise, nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.noise(self.first(x).transpose(0, 1)).transpose(0, 1).mean(1))


class Images(nn.Module):
    """Dropout of images whose channels are last in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(30, 3)

    def forward(self, x: Tensor) -> Tensor:
        images = x.unflatten(1, (1, 5)).permute(0, 3, 1, 2)
        return self.head(functional.dropout(images, 0.3, self.training).flatten(1))


class Encoder(nn.Module):
    """Layer of a transformer, whose attention returns transposed tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, 0.2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: Transposed(lambda x: functional.dropout(x, 0.3)),
    "rand_like": lambda: Transposed(lambda x: x + torch.rand_like(x)),
    "randn_like": lambda: Transposed(lambda x: x + torch.randn_like(x)),
    "bernoulli_": lambda: Transposed(lambda x: x * torch.empty_like(x).bernoulli_(0.5)),
    "images": Images,
    "encoder": Encoder,
}


class Losses(Callback):
    """Records the losses of the first model."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step_end(self, trainer: Trainer, losses: Tensor) -> None:
        self.values.append(float(losses[trainer.order.index(0)]))


def plain_losses(task: gp.Task, trial: Trial) -> list[float]:
    data, model, losses = task.loaded, init_model(task.model, trial.seed).train(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.values["lr"])
    train, noise = data.split(trial.seed).train, RngState(stream(trial.seed, "noise"))
    order, reading = stream(trial.seed, "order"), [RngState(stream(trial.seed, "examples"))]
    for _ in range(task.epochs):
        for index in train[torch.randperm(len(train), generator=order)].split(task.batch_size):
            inputs, targets = data.take(index[None], reading)
            optimizer.zero_grad()
            with noise:
                loss = task.loss(model(inputs[0]), targets[0])
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


class Jittered(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Examples to which every access adds noise."""

    def __init__(self, examples: Tensor) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.examples[i] + torch.randn_like(self.examples[i]), i % 3


def make_task(name: str, dtype: torch.dtype, jittered: bool = False) -> gp.Task:
    x = torch.randn(40, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    return gp.Task(
        name=name,
        model=lambda: MODELS[name]().to(dtype),
        loss=functional.cross_entropy,
        metric=gp.Metric("accuracy", gp.tasks.accuracy, True, 0.01),
        baseline=1 / 3,
        data=lambda: gp.Data.from_dataset(Jittered(x)) if jittered else gp.Data(x, torch.arange(40) % 3),
        batch_size=8,
        epochs=2,
    )


def train(task: gp.Task, stacked: bool) -> tuple[list[float], list[float]]:
    """Return the losses of a stack's first model, and of a plain loop without the evaluations of the stack."""
    trials = [Trial(sgd, sgd.values(lr=lr), seed, 8, 2, "constant", False) for lr in (0.1, 0.3) for seed in (0, 1)]
    losses = Losses()
    Trainer(task, trials, ExecutionMode(stacked=stacked), [losses]).run()
    return losses.values, plain_losses(task, trials[0])


@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "sequential"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_noise_is_that_of_a_plain_loop(name: str, dtype: torch.dtype, stacked: bool) -> None:
    values, expected = train(make_task(name, dtype), stacked)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "sequential"])
def test_evaluations_do_not_change_how_examples_are_augmented(stacked: bool) -> None:
    values, expected = train(make_task("dropout", torch.float32, jittered=True), stacked)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)
