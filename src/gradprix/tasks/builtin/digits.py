"""Handwritten digits, 8 by 8: real, and trained in a second."""

from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.data import Data
from gradprix.tasks.task import Metric, Task


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of examples whose highest output is the target."""
    return (outputs.argmax(-1) == targets).double().mean()


def mlp() -> nn.Module:
    """64-64-64-10 with rectifiers."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def data() -> Data:
    """scikit-learn's 1,797 digits, scaled to 0..1."""
    # What `sklearn.datasets.load_digits` reads: to import scikit-learn takes as long as to import torch.
    file = metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), delimiter=",")
    return Data(torch.tensor(table[:, :-1] / 16, dtype=torch.float32), torch.tensor(table[:, -1]).long(), stratify=True)


def make(preset: str = "default", path: Path | None = None) -> Task:
    """The task. Its examples come with scikit-learn, so that there is no other copy of them.

    Args:
        preset: `"small"`, `"default"` or `"large"`.
        path: must be None.

    Raises:
        ValueError: when given a path.
    """
    if path is not None:
        raise ValueError("the examples of digits are those of scikit-learn: there is no other copy to take.")
    changes = {"small": {"epochs": 5, "trials": 6, "seeds": 6}, "large": {"epochs": 60}}
    return digits.change(**changes.get(preset, {}))


digits = Task(
    name="digits",
    model=mlp,
    loss=functional.cross_entropy,
    metric=Metric("test accuracy", accuracy, higher_is_better=True, margin=0.005, percent=True),
    baseline=183 / 1797,  # always answering 3, the most common digit
    data=data,
    batch_size=32,
    epochs=20,
    noise=0.007,  # the median over pairs of a default race
    about="1,797 handwritten digits of 8 × 8 pixels (scikit-learn), an MLP 64-64-64-10.",
)
