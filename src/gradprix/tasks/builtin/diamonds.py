"""What a diamond costs: a table with numbers and categories."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.archive_reader import DataError
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import content
from gradprix.tasks.task import Metric, Task

MEMBER = "plotnine/data/diamonds.csv"
NUMBERS = {
    "carat": (0.8, 0.47),
    "depth": (61.7, 1.4),
    "table": (57.5, 2.2),
    "x": (5.7, 1.1),
    "y": (5.7, 1.1),
    "z": (3.5, 0.7),
}
"""About the mean and the deviation of each column. They are fixed, so that no split has a say in what another sees."""
CATEGORIES = {
    "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
    "color": tuple("JIHGFED"),
    "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
}
"""From the worst to the best: a column of zeros and ones each."""
DOLLARS = 2_400
"""About the median price. Targets are the logarithm of the price over it: their mean is about 0, their deviation 1."""
LARGEST = 30.0
"""Millimetres: no diamond of these weights measures more."""


def mlp(width: int, layers: int = 2) -> nn.Module:
    """Layers of one width with rectifiers.

    Args:
        width: of each.
        layers: how many, without the last, which has one output.
    """
    widths = [len(NUMBERS) + sum(map(len, CATEGORIES.values())), *[width] * layers]
    inner = [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*inner, nn.Linear(width, 1), nn.Flatten(0))


def r2(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of the targets' variance that is explained: 1 − Σ (y − ŷ)² / Σ (y − ȳ)²."""
    outputs, targets = outputs.double(), targets.double()
    return 1 - (targets - outputs).square().sum() / (targets - targets.mean()).square().sum()


def in_dollars(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """How far off the price is."""
    found, true = (DOLLARS * logarithm.double().exp() for logarithm in (network(inputs), targets))
    return {"mean absolute error in dollars": float((found - true).abs().mean())}


def data(path: Path | None, step: int) -> Data:
    """Every so manyth diamond, of those that can be, each once.

    146 rows occur twice and are taken once, or copies of training examples would be tested on. 23 rows are left out
    because a dimension is 0 (20 rows) or above 30 mm (3 rows): slips of those who typed them, with no price to learn.

    Args:
        path: a copy of one's own: plotnine's wheel, or the table in it.
        step: of how many one is taken.

    Raises:
        DataError: when they cannot be had or read.
    """
    table = content("diamonds", MEMBER, path)
    try:
        header, *rows = dict.fromkeys(table.decode().replace('"', "").splitlines())
        values = zip(*(row.split(",") for row in rows), strict=True)
        columns = dict(zip(header.split(","), values, strict=True))
        price = np.array(columns["price"], float)
        numbers = np.stack([np.array(columns[name], float) for name in NUMBERS], 1)
        kinds = [np.array(columns[name])[:, None] == np.array(known) for name, known in CATEGORIES.items()]
        if not (price.min() > 0 and all(kind.any(1).all() for kind in kinds)):
            raise ValueError("a price or a category is unknown")
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} is no copy of {Path(MEMBER).name}: {error}.") from error
    mean, deviation = np.array(list(NUMBERS.values())).T
    sizes = numbers[:, -3:]
    can_be = (sizes.min(1) > 0) & (sizes.max(1) < LARGEST)
    inputs = np.concatenate([(numbers - mean) / deviation, *kinds], 1)
    return Data(inputs[can_be][::step], np.log(price[can_be] / DOLLARS)[::step])


def make(preset: str = "default", path: Path | None = None) -> Task:
    """The task.

    Args:
        preset: `"small"` takes every tenth diamond; `"large"` a wider and deeper network.
        path: a copy of one's own of the archive, or of the table in it.
    """
    changes: dict[str, Any] = {
        "small": {"model": partial(mlp, 32), "epochs": 10, "trials": 6, "seeds": 6},
        "large": {"model": partial(mlp, 256, 3), "epochs": 60, "trials": 19, "seeds": 16},
    }.get(preset, {})
    return diamonds.change(data=partial(data, path, 10 if preset == "small" else 1), **changes)


diamonds = Task(
    name="diamonds",
    model=partial(mlp, 64),
    loss=functional.mse_loss,
    metric=Metric("test R²", r2, higher_is_better=True, margin=0.0005),
    baseline=0.0,  # always answering the mean
    data=partial(data, None, 1),
    batch_size=128,
    epochs=30,
    noise=0.0002,  # the median over pairs of a default race
    about="The logarithm of the price of 53,772 diamonds (ggplot2's, by way of plotnine), an MLP 26-64-64-1.",
    entries=("adamw", "nadam", "rmsprop", "momentum", "nesterov", "adagrad"),
    trials=13,
    seeds=16,
    after=in_dollars,
)
