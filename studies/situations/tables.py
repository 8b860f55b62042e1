"""Situations with tables, datasets and metrics of other libraries."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler, random_split

import gradprix as gp

from .registry import Classes, random, situation, table


def mlp() -> nn.Module:
    """Return a network with one hidden layer for `table`."""
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))


@situation()
def template_task() -> gp.Task:
    """The file that `gradprix new task.py` writes."""
    from gradprix.tasks.templates.task import task

    return task.change(epochs=2)


@situation()
def loader() -> gp.Task:
    """A DataLoader."""
    dataset = TensorDataset(*table())
    return Classes(name="loader", model=mlp, data=lambda: gp.Data.from_loader(DataLoader(dataset, 16, shuffle=True)))


@situation()
def weighted_loader() -> gp.Task:
    """A DataLoader with a WeightedRandomSampler."""

    def data() -> gp.Data:
        sampler = WeightedRandomSampler([1.0 + i % 3 for i in range(200)], 200)
        return gp.Data.from_loader(DataLoader(TensorDataset(*table()), 16, sampler=sampler))

    return Classes(name="weighted-loader", model=mlp, data=data)


class Rows(IterableDataset[Any]):
    """Rows of a table, one after the other."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(*table(), strict=True)


@situation()
def iterable() -> gp.Task:
    """An IterableDataset of a stated length."""
    return Classes(name="iterable", model=mlp, data=lambda: gp.Data.from_dataset(Rows(), length=200))


@situation()
def random_subsets() -> gp.Task:
    """random_split of a dataset."""

    def data() -> gp.Data:
        parts = random_split(TensorDataset(*table()), [150, 50], torch.Generator().manual_seed(0))
        return gp.Data.from_dataset(*parts)

    return Classes(name="random-split", model=mlp, data=data)


class Augmented(torch.utils.data.Dataset[Any]):
    """Rows with noise that is drawn at each access."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x, y = table()
        return x[i] + 0.1 * torch.randn(12), y[i]


@situation()
def augmented() -> gp.Task:
    """Random augmentation in the dataset."""
    return Classes(name="augmented", model=mlp, data=lambda: gp.Data.from_dataset(Augmented()), epochs=1)


def binary(metric: gp.Metric, name: str) -> gp.Task:
    """Return a binary classification task with a metric."""
    return Classes(
        name=name,
        model=lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0)),
        loss=functional.binary_cross_entropy_with_logits,
        metric=metric,
        baseline=0.5,
        data=lambda: gp.Data(random(200, 12), (random(200, 12).sum(1) > 0).float()),
    )


@situation()
def sklearn_auc() -> gp.Task:
    """Area under the ROC curve of scikit-learn as metric."""

    def auc(output: Tensor, target: Tensor) -> float:
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(target, output))

    return binary(gp.Metric("AUC", auc, True, 0.01), "auc")


@situation("torchmetrics")
def torchmetrics_f1() -> gp.Task:
    """F1 of TorchMetrics as metric."""

    def f1(output: Tensor, target: Tensor) -> Tensor:
        from torchmetrics.functional.classification import binary_f1_score

        return binary_f1_score(output, target.long())

    return binary(gp.Metric("F1", f1, True, 0.01), "f1")


@situation(is_mistake=True)
def integer_targets() -> gp.Task:
    """Binary cross-entropy with integer targets, a mistake."""
    task = binary(gp.Metric("accuracy", lambda o, t: ((o > 0) == t).double().mean(), True, 0.01), "integers")
    return task.change(data=lambda: gp.Data(random(200, 12), (random(200, 12).sum(1) > 0).long()))


class Physics(nn.Module):
    """Network for the equation u' = -u with u(0) = 1; the derivative is computed in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.detach().requires_grad_()
        u = 1 + t * self.network(t)
        (slope,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        return u, slope + u


@situation()
def physics() -> gp.Task:
    """Physics-informed network: derivatives in forward."""
    metric = gp.Metric("squared error", lambda o, t: functional.mse_loss(o[0], t), False, 0.05, relative=True)
    t = torch.linspace(0, 2, 160)[:, None]
    return Classes(
        name="pinn",
        model=Physics,
        loss=lambda output, target: output[1].square().mean(),
        metric=metric,
        baseline=1.0,
        data=lambda: gp.Data(t, (-t).exp()),
    )
