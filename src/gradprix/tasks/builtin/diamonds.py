"""Regression of the price of diamonds: a table with numbers and categories."""

from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.archive_reader import DataError
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import read_source
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
"""Approximate mean and standard deviation of each column. They are constants, so that no split leaks into another."""
CATEGORIES = {
    "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
    "color": tuple("JIHGFED"),
    "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
}
"""Categories from worst to best, encoded one-hot."""
MEDIAN_PRICE = 2_400
"""Approximate median in dollars. Targets are log(price / median), with mean near 0 and standard deviation near 1."""
MAX_SIZE = 30.0
"""Upper limit of a plausible dimension, in millimetres."""


def mlp(width: int, layers: int = 2) -> nn.Module:
    """Build an MLP with ReLU and one output.

    Args:
        width: size of the hidden layers.
        layers: number of hidden layers.
    """
    widths = [len(NUMBERS) + sum(map(len, CATEGORIES.values())), *[width] * layers]
    hidden = [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 1), nn.Flatten(0))


def r2(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the coefficient of determination: 1 − Σ (y − ŷ)² / Σ (y − ȳ)²."""
    outputs, targets = outputs.double(), targets.double()
    return 1 - (targets - outputs).square().sum() / (targets - targets.mean()).square().sum()


def error_in_dollars(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the mean absolute error of the price."""
    predicted, true = (MEDIAN_PRICE * log_price.double().exp() for log_price in (network(inputs), targets))
    return {"mean absolute error in dollars": float((predicted - true).abs().mean())}


def load_data(path: Path | None, step: int) -> Data:
    """Load every `step`-th diamond, without 23 rows in which a dimension is 0 (20 rows) or above 30 mm (3 rows).

    Args:
        path: a local copy of plotnine's wheel or of the table in it, or None.
        step: distance between the rows that are used.

    Raises:
        DataError: if the data cannot be obtained or read.
    """
    table = _read_table(path)
    sizes = table[["x", "y", "z"]]
    table = table[((sizes > 0) & (sizes < MAX_SIZE)).all(axis=1)]
    mean, std = np.array(list(NUMBERS.values())).T
    numbers = (table[list(NUMBERS)].to_numpy() - mean) / std
    one_hot = [table[name] == value for name, values in CATEGORIES.items() for value in values]
    return Data(np.column_stack([numbers, *one_hot])[::step], np.log(table["price"].to_numpy() / MEDIAN_PRICE)[::step])


def _read_table(path: Path | None) -> Any:
    """Return the table as a data frame, without 146 duplicate rows, which would be in both training and test set."""
    import pandas as pd

    content = read_source("diamonds", MEMBER, path)
    numbers = [*NUMBERS, "price"]
    try:
        table = pd.read_csv(BytesIO(content), dtype=str).drop_duplicates()
        table[numbers] = table[numbers].astype(float)
        if table[numbers].isna().any(axis=None) or not table["price"].min() > 0:
            raise ValueError("a number is missing, or a price is not positive")
        if not table[list(CATEGORIES)].isin(CATEGORIES).all(axis=None):
            raise ValueError("a category is unknown")
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} is not a copy of {Path(MEMBER).name}: {error}.") from error
    return table


def make_task(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task.

    Args:
        preset: `"small"` has a tenth of the diamonds, `"large"` a wider and deeper network.
        path: a local copy of the archive or of the table in it, or None.
    """
    changes: dict[str, Any] = {
        "small": {"model": partial(mlp, 32), "epochs": 10, "trials": 6, "seeds": 6},
        "large": {"model": partial(mlp, 256, 3), "epochs": 60, "trials": 26, "seeds": 32},
    }.get(preset, {})
    return diamonds.change(data=partial(load_data, path, 10 if preset == "small" else 1), **changes)


diamonds = Task(
    name="diamonds",
    model=partial(mlp, 64),
    loss=functional.mse_loss,
    metric=Metric("test R²", r2, higher_is_better=True, margin=0.0005),
    baseline=0.0,  # predicting the mean
    data=partial(load_data, None, 1),
    batch_size=128,
    epochs=30,
    noise=0.0002,  # median over pairs in a default race
    about="The logarithm of the price of 53,772 diamonds (ggplot2's, by way of plotnine), an MLP 26-64-64-1.",
    entries=("adamw", "nadam", "rmsprop", "momentum", "nesterov", "adagrad"),
    trials=26,
    seeds=16,
    after=error_in_dollars,
)
