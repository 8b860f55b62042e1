"""Sentiment classification of sentences from film reviews."""

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.archive_reader import ArchiveFiles, DataError, read_nested
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import open_source
from gradprix.tasks.task import Metric, Task

from .digits import accuracy
from .text import PAD, Vocabulary, first_occurrences, tokenize
from .transformer import Block, TokenEmbedding, padding_mask

ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
MIN_RATING, HARD_RATING = 0.5, 1.5
"""Absolute ratings: sentences up to the first are dropped as neutral; those up to the second count as hard."""
VOCABULARY_SIZE, MAX_LENGTH = 5_000, 40
SHOWN = 4
"""Number of sentences shown with their predictions."""


class TransformerClassifier(nn.Module):
    """Transformer encoder with mean pooling and two classes.

    Args:
        width: embedding dimension.
        heads: number of attention heads.
        layers: number of layers.
    """

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed = TokenEmbedding(VOCABULARY_SIZE, MAX_LENGTH, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of negative and positive, `[batch, 2]`, for sentences `[batch, length]`."""
        h, mask = self.embed(tokens), padding_mask(tokens)
        for block in self.blocks:
            h = block(h, mask)
        is_word = (tokens != PAD).to(h.dtype).unsqueeze(-1)
        logits: Tensor = self.out((self.norm(h) * is_word).sum(1) / is_word.sum(1))
        return logits


def cross_entropy(outputs: Tensor, ratings: Tensor) -> Tensor:
    """Return the mean binary cross-entropy for predicting the sign of the rating."""
    return functional.cross_entropy(outputs, (ratings > 0).long())


def sign_accuracy(outputs: Tensor, ratings: Tensor) -> Tensor:
    """Return the share of sentences whose rating has the predicted sign."""
    return accuracy(outputs, (ratings > 0).long())


@lru_cache(maxsize=4)
def load_sentences(path: Path | None, step: int) -> tuple[list[str], Tensor, Tensor]:
    """Load every `step`-th sentence with a clear rating: text, token ids, rating.

    The vocabulary covers all sentences; it contains words only, so it leaks no label of a test sentence. Sentences that
    differ only in words outside the vocabulary are used once.

    Args:
        path: a local copy of the archive, of the archive inside it, or of the text file in that; or None.
        step: distance between the sentences that are used.

    Raises:
        DataError: if the data cannot be obtained or read.
    """
    with open_source("reviews", path) as source:
        if isinstance(source, ArchiveFiles):
            content = source.read(FILE) if FILE in source.names else read_nested(source.read(ARCHIVE), FILE)
        else:
            content = source.read()
    try:
        lines = [line.split("\t") for line in content.decode("utf-8-sig").splitlines()]
        texts, ratings = zip(*((text, float(rating)) for _, rating, text in lines), strict=True)
    except ValueError as error:
        raise DataError(f"{path} has lines other than `id, rating, text`, separated by tabs: {error}.") from error
    tokenized = [tokenize(text) for text in texts]
    tokens = Vocabulary(tokenized, VOCABULARY_SIZE).encode(tokenized, MAX_LENGTH)
    used = [i for i in first_occurrences(tokens) if tokenized[i] and abs(ratings[i]) > MIN_RATING][::step]
    return [texts[i] for i in used], tokens[used], torch.tensor(ratings)[used]


def load_data(path: Path | None, step: int) -> Data:
    """Load sentences as token ids, and their ratings."""
    _, tokens, ratings = load_sentences(path, step)
    return Data(tokens, ratings)


def analyze_predictions(
    path: Path | None, step: int, network: nn.Module, inputs: Tensor, targets: Tensor
) -> Mapping[str, Any]:
    """Return the accuracy on hard and on easy sentences, and the predictions for the first sentences."""
    texts, tokens, _ = load_sentences(path, step)
    outputs = network(inputs)
    is_hard, is_correct = targets.abs() <= HARD_RATING, (outputs.argmax(-1) == (targets > 0)).double()
    probabilities, classes = functional.softmax(outputs[:SHOWN], -1).max(-1)
    predictions = {
        texts[int((tokens == row).all(1).nonzero()[0])]: f"{('negative', 'positive')[label]}, {probability:.0%}"
        for row, label, probability in zip(inputs[:SHOWN], classes.tolist(), probabilities.tolist(), strict=True)
    }
    return {
        f"accuracy, rated within ±{HARD_RATING}": is_correct[is_hard].mean(),
        f"accuracy, rated beyond ±{HARD_RATING}": is_correct[~is_hard].mean(),
        "sentences": predictions,
    }


def make_task(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task.

    Args:
        preset: `"small"` has a fifth of the sentences and a narrow network, `"large"` a wide network.
        path: a local copy of the archive, of the archive inside it, or of the text file in that; or None.
    """
    step, width, layers, changes = PRESETS[preset]
    return sentiment.change(
        model=partial(TransformerClassifier, width, width // 16, layers),
        data=partial(load_data, path, step),
        after=partial(analyze_predictions, path, step),
        **changes,
    )


PRESETS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "small": (5, 16, 1, {"epochs": 3, "trials": 4, "seeds": 6}),
    "default": (1, 32, 1, {}),
    "large": (1, 128, 2, {"epochs": 5, "trials": 26, "seeds": 32}),
}
"""For each preset: distance between the sentences used, width and layers of the network, changes of the task."""

sentiment = Task(
    name="sentiment",
    model=partial(TransformerClassifier, 32, 2, 1),
    loss=cross_entropy,
    metric=Metric("test accuracy", sign_accuracy, higher_is_better=True, margin=0.01, percent=True),
    baseline=0.504,  # predicting negative
    data=partial(load_data, None, 1),
    batch_size=64,
    epochs=3,
    noise=0.009,  # median over pairs in a race of four entries
    about="10,035 sentences of film reviews, for or against by people's ratings (Hutto, Gilbert 2014), a transformer.",
    entries=("adamw", "nadam", "rmsprop", "adagrad", "adamax", "nesterov"),
    trials=26,
    seeds=16,
    after=partial(analyze_predictions, None, 1),
)
