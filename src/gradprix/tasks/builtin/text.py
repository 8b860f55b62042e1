"""Tokenization of text, and the chrF score of translations."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

PAD, UNK, BOS, EOS = range(4)
SPECIAL = ("", "⁇", "", "")
"""Text of the special tokens: padding, unknown word, beginning and end of a text."""
TOKEN = re.compile(r"[%$]\w+|\{\w*\}|\w+'?|[^\w\s]")
"""A placeholder, a word with a following apostrophe (`l'`), or a punctuation mark."""


def tokenize(text: str) -> list[str]:
    """Split a text into lower-case words and punctuation marks."""
    return TOKEN.findall(text.lower().replace("’", "'"))


class Vocabulary:
    """Mapping between the most frequent words and token ids.

    Args:
        texts: tokenized texts.
        size: maximum number of tokens, including the special ones.
        min_count: minimum number of occurrences of a word.
    """

    def __init__(self, texts: Iterable[Sequence[str]], size: int, min_count: int = 2) -> None:
        counts = Counter(word for text in texts for word in text)
        frequent = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        self.words = (*SPECIAL, *frequent[: size - len(SPECIAL)])
        self.ids = {word: i for i, word in enumerate(self.words) if word not in SPECIAL}

    def encode(self, texts: Sequence[Sequence[str]], length: int, add_bos_eos: bool = False) -> Tensor:
        """Return the token ids of texts, truncated or padded to one length.

        Args:
            texts: tokenized texts.
            length: maximum number of words.
            add_bos_eos: enclose each text in the tokens for its beginning and end.

        Returns:
            `[texts, length]`, or `[texts, length + 2]` with `add_bos_eos`.
        """
        encoded = torch.full((len(texts), length + 2 * add_bos_eos), PAD)
        for row, text in zip(encoded, texts, strict=True):
            ids = [self.ids.get(word, UNK) for word in text[:length]]
            ids = [BOS, *ids, EOS] if add_bos_eos else ids
            row[: len(ids)] = torch.tensor(ids, dtype=torch.long)
        return encoded

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids, up to the first end token."""
        words = []
        for i in ids:
            if i == EOS:
                break
            words.append(self.words[i if i < len(self.words) else UNK])
        return re.sub(r"(?<=') | (?=[.,)…\]])|(?<=[(\[]) ", "", " ".join(word for word in words if word))


def first_occurrences(tokens: Tensor) -> list[int]:
    """Return the indices of the rows of `[texts, length]` that differ from all earlier rows."""
    return sorted(np.unique(tokens.numpy(), axis=0, return_index=True)[1].tolist())


def chrf(hypotheses: Sequence[str], references: Sequence[str], max_order: int = 6, beta: float = 2.0) -> float:
    """Return the corpus-level chrF score of translations, from 0 to 1.

    (1 + β²) P R / (β² P + R), with P and R the precision and recall of character n-grams, each counted over all texts
    and averaged over n. White space is ignored.

    Args:
        hypotheses: translations.
        references: one reference per translation.
        max_order: maximum n.
        beta: weight of recall relative to precision.

    References:
        Popović 2015, doi:10.18653/v1/W15-3049.
    """
    precision, recall = [], []
    for n in range(1, max_order + 1):
        texts = zip(hypotheses, references, strict=True)
        pairs = [(_count_ngrams(ours, n), _count_ngrams(theirs, n)) for ours, theirs in texts]
        pairs = [pair for pair in pairs if pair[1]]  # as in sacrebleu, a reference shorter than n is left out
        if total := sum(ours.total() for ours, _ in pairs):
            matches = sum((ours & theirs).total() for ours, theirs in pairs)
            precision.append(matches / total)
            recall.append(matches / sum(theirs.total() for _, theirs in pairs))
    if not sum(precision):
        return 0.0
    p, r = (sum(values) / len(values) for values in (precision, recall))
    return (1 + beta**2) * p * r / (beta**2 * p + r)


def _count_ngrams(text: str, n: int) -> Counter[str]:
    text = "".join(text.split())
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))
