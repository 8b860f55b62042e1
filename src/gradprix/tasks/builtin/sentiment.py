"""Whether a sentence of a film review is for the film or against it."""

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.archive_reader import DataError, Files, inside
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import opened
from gradprix.tasks.task import Metric, Task

from .attention import Block, Embed, padding
from .digits import accuracy
from .text import PAD, Vocabulary, words

ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
CLEAR, HARD = 0.5, 1.5
"""A rating nearer to 0 than the first is neither for nor against; one nearer than the second is hard to tell."""
VOCABULARY, LENGTH = 5_000, 40
SHOWN = 4


class Reader(nn.Module):
    """Words as vectors, transformer layers in which they see one another, and the mean over words.

    Args:
        width: of the vectors.
        heads: of the attention.
        layers: how many.
    """

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed = Embed(VOCABULARY, LENGTH, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores against and for, `[batch, 2]`, of sentences `[batch, LENGTH]`."""
        h, mask = self.embed(tokens), padding(tokens)
        for block in self.blocks:
            h = block(h, mask)
        real = (tokens != PAD).to(h.dtype).unsqueeze(-1)
        found: Tensor = self.out((self.norm(h) * real).sum(1) / real.sum(1))
        return found


def loss(outputs: Tensor, ratings: Tensor) -> Tensor:
    """Cross-entropy of which side of zero the rating is on, the mean over sentences."""
    return functional.cross_entropy(outputs, (ratings > 0).long())


def score(outputs: Tensor, ratings: Tensor) -> Tensor:
    """The share of sentences whose side is told."""
    return accuracy(outputs, (ratings > 0).long())


@lru_cache(maxsize=4)
def sentences(path: Path | None, step: int) -> tuple[list[str], Tensor, Tensor]:
    """Every so manyth sentence with a clear rating: as it is, its words by number, and its rating.

    The vocabulary is that of all of them. It is made of words alone, so that it tells nothing of a test sentence but
    that its words exist. Of sentences that differ in rare words alone, one is left.

    Args:
        path: a copy of the archive, of the archive in it, or of the file in that; or None.
        step: of how many one is taken.

    Raises:
        DataError: when they cannot be had or read.
    """
    with opened("reviews", path) as found:
        if isinstance(found, Files):
            read = found.read(FILE) if FILE in found.names else inside(found.read(ARCHIVE), FILE)
        else:
            read = found.read()
    try:
        lines = [line.split("\t") for line in read.decode("utf-8-sig").splitlines()]
        texts, ratings = zip(*((text, float(rating)) for _, rating, text in lines), strict=True)
    except ValueError as error:
        raise DataError(f"{path} has not a sentence a line, `id, rating, text` with tabs between: {error}.") from error
    spelt = [words(text) for text in texts]
    tokens = Vocabulary(spelt, VOCABULARY).encode(spelt, LENGTH)
    first = {tuple(row): i for i, row in reversed(list(enumerate(tokens.tolist())))}
    kept = sorted(i for i in first.values() if spelt[i] and abs(ratings[i]) > CLEAR)[::step]
    return [texts[i] for i in kept], tokens[kept], torch.tensor(ratings)[kept]


def data(path: Path | None, step: int) -> Data:
    """Sentences as numbers of words, and their ratings."""
    _, tokens, ratings = sentences(path, step)
    return Data(tokens, ratings)


def after(path: Path | None, step: int, network: nn.Module, inputs: Tensor, targets: Tensor) -> Mapping[str, Any]:
    """Accuracy where people were sure and where they were not, and what is made of some sentences."""
    texts, tokens, _ = sentences(path, step)
    outputs = network(inputs)
    hard, right = targets.abs() <= HARD, (outputs.argmax(-1) == (targets > 0)).double()
    likely, sides = functional.softmax(outputs[:SHOWN], -1).max(-1)
    made = {
        texts[int((tokens == row).all(1).nonzero()[0])]: f"{('negative', 'positive')[side]}, {share:.0%}"
        for row, side, share in zip(inputs[:SHOWN], sides.tolist(), likely.tolist(), strict=True)
    }
    return {
        f"accuracy, rated within ±{HARD}": right[hard].mean(),
        f"accuracy, rated beyond ±{HARD}": right[~hard].mean(),
        "sentences": made,
    }


def make(preset: str = "default", path: Path | None = None) -> Task:
    """The task.

    Args:
        preset: `"small"` takes every fifth sentence and a narrow network; `"large"` a wide one.
        path: a copy of the archive, of the archive in it, or of the file in that.
    """
    step, width, layers, changes = PRESETS[preset]
    return sentiment.change(
        model=partial(Reader, width, width // 16, layers),
        data=partial(data, path, step),
        after=partial(after, path, step),
        **changes,
    )


PRESETS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "small": (5, 16, 1, {"epochs": 3, "trials": 4, "seeds": 6}),
    "default": (1, 32, 1, {}),
    "large": (1, 128, 2, {"epochs": 5, "trials": 19, "seeds": 16}),
}
"""Of each preset: of how many sentences one is taken, the network's width and layers, and what else is different."""

sentiment = Task(
    name="sentiment",
    model=partial(Reader, 32, 2, 1),
    loss=loss,
    metric=Metric("test accuracy", score, higher_is_better=True, margin=0.01, percent=True),
    baseline=0.504,  # always negative
    data=partial(data, None, 1),
    batch_size=64,
    epochs=3,
    noise=0.009,  # the median over pairs of a race of four
    about="10,035 sentences of film reviews, for or against by people's ratings (Hutto, Gilbert 2014), a transformer.",
    entries=("adamw", "nadam", "rmsprop", "adagrad", "adamax", "nesterov"),
    trials=13,
    seeds=16,
    after=partial(after, None, 1),
)
