"""Classification of small handwritten digits: real data that trains in a second."""

from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.data import Data
from gradprix.tasks.task import Metric, Task


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of examples whose highest output is at the target class."""
    return (outputs.argmax(-1) == targets).double().mean()


def mlp() -> nn.Module:
    """Build an MLP 64-64-64-10 with ReLU."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def load_data() -> Data:
    """Load scikit-learn's 1,797 digits, scaled to 0..1."""
    # The file that `sklearn.datasets.load_digits` reads; importing scikit-learn takes as long as importing torch.
    file = metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), delimiter=",")
    return Data(torch.tensor(table[:, :-1] / 16, dtype=torch.float32), torch.tensor(table[:, -1]).long(), stratify=True)


def make_task(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task. Its examples are part of scikit-learn, so no other copy can be given.

    Args:
        preset: `"small"` and `"large"` differ in the number of epochs.
        path: must be None.

    Raises:
        ValueError: if a path is given.
    """
    if path is not None:
        raise ValueError("digits takes no copy of its data: its examples are part of scikit-learn.")
    changes = {"small": {"epochs": 5, "trials": 6, "seeds": 6}, "large": {"epochs": 60}}
    return digits.change(**changes.get(preset, {}))


digits = Task(
    name="digits",
    model=mlp,
    loss=functional.cross_entropy,
    metric=Metric("test accuracy", accuracy, higher_is_better=True, margin=0.005, percent=True),
    baseline=183 / 1797,  # predicting 3, the most common digit
    data=load_data,
    batch_size=32,
    epochs=20,
    noise=0.007,  # median over pairs in a default race
    about="1,797 handwritten digits of 8 × 8 pixels (scikit-learn), an MLP 64-64-64-10.",
)
