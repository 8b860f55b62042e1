"""Classification of tabular data from scikit-learn.

gradprix race examples/table.py
"""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from torch import nn

import gradprix as gp


def data() -> gp.Data:
    table, benign = load_breast_cancer(return_X_y=True)
    return gp.Data(StandardScaler().fit_transform(table), benign, stratify=True)


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(-1) == targets).double().mean()


task = gp.Task(
    name="tumours",
    model=lambda: nn.Sequential(
        nn.Linear(30, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2)
    ),
    loss=nn.functional.cross_entropy,
    metric=gp.Metric(
        "accuracy", accuracy, higher_is_better=True, margin=0.005, percent=True
    ),
    baseline=357 / 569,
    data=data,
    batch_size=32,
    epochs=20,
    about="569 tumours, 30 measurements of each, an MLP with dropout.",
)


if __name__ == "__main__":
    print(gp.race(task, "adamw,nadam,rmsprop,momentum", out="runs/tumours"))
