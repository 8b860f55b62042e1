"""Images as a torch Dataset with random shifts as augmentation.

gradprix race examples/images.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset

import gradprix as gp


class Digits(Dataset):
    """Pairs of an image and its class; training images are shifted randomly."""

    def __init__(self, train: bool) -> None:
        digits = load_digits()
        part = slice(0, 1_400) if train else slice(1_400, None)
        self.images, self.targets, self.shift = (
            digits.images[part] / 16,
            digits.target[part],
            train,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image = torch.tensor(self.images[i], dtype=torch.float32)
        move = torch.randint(-1, 2, (2,)).tolist() if self.shift else (0, 0)
        return image.roll(move, (0, 1))[None], int(self.targets[i])


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(-1) == targets).double().mean()


def model() -> nn.Module:
    convolutions = (
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8 * 4 * 4, 10))


task = gp.Task(
    name="shifted-digits",
    model=model,
    loss=nn.functional.cross_entropy,
    metric=gp.Metric(
        "test accuracy", accuracy, higher_is_better=True, margin=0.005, percent=True
    ),
    baseline=0.1,
    data=lambda: gp.Data.from_dataset(Digits(train=True), Digits(train=False)),
    batch_size=32,
    epochs=10,
    about="1,400 randomly shifted digits, 397 official test digits; a small CNN.",
)


if __name__ == "__main__":
    print(gp.race(task, "adamw,nadam,nesterov,lion", out="runs/shifted-digits"))
