"""A task of your own.

Race it with:  gradprix race FILE

Change the four parts that are marked, one after the other: each run of the command says what is still wrong.
"""

import torch
from sklearn.datasets import load_wine
from torch import nn

import gradprix as gp


# 1. The examples: tensors, arrays, data frames. For a torch Dataset, use `gp.Data.from_dataset(dataset)`, or
#    `gp.Data.from_dataset(train, test)` if there are official test examples. gradprix splits the rest itself,
#    differently for every seed.
def data() -> gp.Data:
    """178 wines, 13 measurements of each, from three growers."""
    wine = load_wine()
    inputs = torch.tensor(wine.data, dtype=torch.float32)
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    return gp.Data(inputs, wine.target, stratify=True)  # stratify: for classes


# 2. The network: a new one at each call, its weights drawn from torch's generator.
def model() -> nn.Module:
    """A network with two layers."""
    return nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))


# 3. The loss to minimise, a mean over the batch; and the metric to compare, over all held-out examples at once.
loss = nn.functional.cross_entropy


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The share of wines that are classified correctly."""
    return (outputs.argmax(-1) == targets).double().mean()


# 4. The task.
task = gp.Task(
    name="wine",
    model=model,
    loss=loss,
    # margin: the smallest difference that matters
    metric=gp.Metric("accuracy", accuracy, higher_is_better=True, margin=0.01, percent=True),
    baseline=71 / 178,  # the metric of the best constant answer; a run that diverged scores this
    data=data,
    batch_size=16,
    epochs=20,
    about="178 wines from three growers, an MLP 13-32-3.",
)
