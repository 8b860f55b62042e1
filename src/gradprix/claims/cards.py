"""Claims as cards: a short title, the verdict, tags to filter by, and the rows of a small figure."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .decisions import VERDICTS, Verdict

CARDS: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("cards.toml").read_text("utf-8"))
"""Short form of each claim by its id."""
SIGNS: Mapping[Verdict, str] = {"holds": "✓", "holds only if": "~", "does not hold": "✗", "inconclusive": "?"}
"""Sign of each verdict, as in the terminal and on cards."""
KINDS = {"landscapes": "deterministic", "networks": "network", "suite": "network"}
"""Kind of the problems on which a claim is tested, by its test bed."""


@dataclass(frozen=True)
class Row:
    """A quantity in the figure of a card.

    Args:
        label: short name of the quantity.
        effect: its value.
        ci95: its 95 % confidence interval; the ends equal the value if it is exact.
    """

    label: str
    effect: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Card:
    """A claim with its result in short form.

    Args:
        record: full record of the result; see `Result.to_dict`.
        title: the claim in a few words.
        topic: heading under which similar claims are grouped.
        optimizers: names of the optimizers that it is about; empty if it is about all.
        axis: what the figure shows.
        rows: quantities in the figure, the first one on top.
        reference: value that stands for no effect; None if there is none.
        is_log: True if the axis of the figure is logarithmic.
    """

    record: Mapping[str, Any]
    title: str
    topic: str
    optimizers: tuple[str, ...]
    axis: str
    rows: tuple[Row, ...]
    reference: float | None
    is_log: bool

    @property
    def id(self) -> str:
        """Identifier of the claim."""
        return str(self.record["id"])

    @property
    def verdict(self) -> Verdict:
        """The verdict without its condition."""
        return bare_verdict(self.record["verdict"])

    @property
    def condition(self) -> str:
        """Condition of the verdict "holds only if"; empty for other verdicts."""
        return str(self.record["verdict"]).removeprefix(self.verdict).strip()

    @property
    def sign(self) -> str:
        """Sign of the verdict."""
        return SIGNS[self.verdict]

    @property
    def kind(self) -> str:
        """Kind of the problems on which it was tested: `deterministic` or `network`."""
        return KINDS[self.record["on"]]


def bare_verdict(text: str) -> Verdict:
    """Return a verdict without its condition, such as "holds only if"."""
    return next(verdict for verdict in sorted(VERDICTS, key=len, reverse=True) if text.startswith(verdict))


def make_cards(records: Sequence[Mapping[str, Any]]) -> list[Card]:
    """Return the card of each result, in the order of topics.

    Args:
        records: records of results; see `Result.to_dict`.
    """
    cards = [_make_card(record) for record in records]
    topics = list(dict.fromkeys(card.topic for card in cards))
    return sorted(cards, key=lambda card: topics.index(card.topic))


def _make_card(record: Mapping[str, Any]) -> Card:
    texts, measured = CARDS[record["id"]], record["measured"]
    rows = [
        Row(label, measured[index]["effect"], tuple(measured[index]["ci95"]))
        for index, label in texts["rows"]
        if index < len(measured) and None not in (measured[index]["effect"], *measured[index]["ci95"])
    ]
    return Card(
        record,
        texts["title"],
        texts["topic"],
        tuple(texts["optimizers"]),
        texts["axis"],
        tuple(rows),
        texts.get("at"),
        texts.get("log", False),
    )
