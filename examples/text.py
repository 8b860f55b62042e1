"""Text classification with a GRU: the library that a sentence describes.

gradprix race examples/text.py

The texts are the first sentences of the docstrings of torch and NumPy, which are
available on every machine.
"""

import inspect
import re
import zlib

import numpy as np
import torch
from torch import nn

import gradprix as gp

VOCABULARY, LENGTH = 2_000, 24


def sentences(module: object) -> list[str]:
    texts = {
        inspect.getdoc(getattr(module, name)) or ""
        for name in dir(module)
        if not name.startswith("_")
    }
    matches = (
        re.search(r"^[A-Z][^\n]{20,}?\.$", text, re.MULTILINE)
        for text in sorted(texts)
    )
    return [match[0] for match in matches if match]


def tokenize(sentence: str) -> list[int]:
    words = re.findall(r"[a-z]+", sentence.lower())[:LENGTH]
    numbers = [1 + zlib.crc32(word.encode()) % (VOCABULARY - 1) for word in words]
    return numbers + [0] * (LENGTH - len(numbers))


def data() -> gp.Data:
    libraries = [
        sentences(torch) + sentences(nn),
        sentences(np) + sentences(np.linalg) + sentences(np.fft),
    ]
    inputs = [tokenize(sentence) for library in libraries for sentence in library]
    targets = [i for i, library in enumerate(libraries) for _ in library]
    return gp.Data(inputs, targets, stratify=True)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16, padding_idx=0)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.out = nn.Linear(16, 2)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.out(self.gru(self.embedding(words))[0].amax(1))


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(-1) == targets).double().mean()


task = gp.Task(
    name="docstrings",
    model=Classifier,
    loss=nn.functional.cross_entropy,
    metric=gp.Metric(
        "accuracy", accuracy, higher_is_better=True, margin=0.01, percent=True
    ),
    baseline=0.5,
    data=data,
    batch_size=16,
    epochs=8,
    about="Sentences of two libraries' documentation, a GRU.",
)


if __name__ == "__main__":
    print(gp.race(task, "adamw,nadam,adagrad,nesterov", out="runs/docstrings"))
