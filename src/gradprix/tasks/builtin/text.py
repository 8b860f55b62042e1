"""Texts as numbers, and how near a text is to another."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

PAD, RARE, START, END = range(4)
SPECIAL = ("", "⁇", "", "")
"""How the tokens that are no words are written: padding, a word outside the vocabulary, a text's start and its end."""
WORD = re.compile(r"[%$]\w+|\{\w*\}|\w+'?|[^\w\s]")
"""A placeholder, a word with the apostrophe behind it (`l'`), or a sign."""


def words(text: str) -> list[str]:
    """The words and signs of a text, in lower case."""
    return WORD.findall(text.lower().replace("’", "'"))


class Vocabulary:
    """The most frequent words, by number.

    Args:
        texts: as words.
        size: how many tokens there are at most, with those that are no words.
        least: how often a word must occur.
    """

    def __init__(self, texts: Iterable[Sequence[str]], size: int, least: int = 2) -> None:
        counts = Counter(word for text in texts for word in text)
        often = sorted((word for word, count in counts.items() if count >= least), key=lambda w: (-counts[w], w))
        self.words = (*SPECIAL, *often[: size - len(SPECIAL)])
        self.numbers = {word: number for number, word in enumerate(self.words) if word not in SPECIAL}

    def encode(self, texts: Sequence[Sequence[str]], length: int, framed: bool = False) -> Tensor:
        """The texts as numbers, filled up with padding.

        Args:
            texts: as words.
            length: how many words there is room for; what is more is left out.
            framed: whether there is a start before each text and an end behind it.

        Returns:
            `[texts, length]`, or `[texts, length + 2]` when framed.
        """
        found = torch.full((len(texts), length + 2 * framed), PAD)
        for row, text in zip(found, texts, strict=True):
            known = [self.numbers.get(word, RARE) for word in text[:length]]
            known = [START, *known, END] if framed else known
            row[: len(known)] = torch.tensor(known, dtype=torch.long)
        return found

    def decode(self, numbers: Iterable[int]) -> str:
        """A text, up to its end."""
        found = []
        for number in numbers:
            if number == END:
                break
            found.append(self.words[number if number < len(self.words) else RARE])
        return re.sub(r"(?<=') | (?=[.,)…\]])|(?<=[(\[]) ", "", " ".join(word for word in found if word))


def chrf(made: Sequence[str], wanted: Sequence[str], longest: int = 6, beta: float = 2.0) -> float:
    """How alike translations are to references, from 0 to 1: chrF (Popović 2015, doi:10.18653/v1/W15-3049).

    (1 + β²) P R / (β² P + R), with P the share of the character n-grams made that are wanted and R the share of those
    wanted that are made, each counted over all texts and averaged over n. Spaces do not count.

    Args:
        made: translations.
        wanted: their references.
        longest: n-grams of 1 to so many characters count.
        beta: how much more recall counts than precision.
    """
    precision, recall = [], []
    for n in range(1, longest + 1):
        pairs = [(_grams(ours, n), _grams(theirs, n)) for ours, theirs in zip(made, wanted, strict=True)]
        pairs = [pair for pair in pairs if pair[1]]  # a text shorter than n asks for none: so has sacrebleu it
        if ours := sum(a.total() for a, _ in pairs):
            both = sum((a & b).total() for a, b in pairs)
            precision.append(both / ours)
            recall.append(both / sum(b.total() for _, b in pairs))
    if not sum(precision):
        return 0.0
    p, r = (sum(shares) / len(shares) for shares in (precision, recall))
    return (1 + beta**2) * p * r / (beta**2 * p + r)


def _grams(text: str, n: int) -> Counter[str]:
    text = "".join(text.split())
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))
