"""The registry of findings, and their verdicts in words."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradprix.claims import Verdict
from gradprix.claims.registry import Hypothesis, Quantities, Registry
from gradprix.show.figure import Chart

FOLDER = Path(__file__).parent
WORDS: Mapping[Verdict, str] = {
    "holds": "reproduced",
    "holds only if": "reproduced only if",
    "does not hold": "not reproduced",
    "inconclusive": "cannot be told here",
}
"""Word for each verdict of a decision rule."""


@dataclass(frozen=True, kw_only=True)
class Finding(Hypothesis):
    """A finding of the literature and the experiment that tests it at small scale.

    Args:
        title: the finding in a few words.
        original: models, data, sizes and tuning of the original.
        here: models, data, sizes and tuning of the experiment.
        limits: differences from the original that could change the result.
        draw: function from the quantities to a figure; None for no figure.
    """

    title: str
    original: str
    here: str
    limits: str
    draw: Callable[[Quantities], Chart] | None = None


def format_verdict(verdict: Verdict, condition: str = "") -> str:
    """Return the word for a verdict, with its condition.

    Example:
        >>> format_verdict("holds only if", "the batch is large")
        'reproduced only if the batch is large'
    """
    return f"{WORDS[verdict]} {condition}".rstrip()


def read_texts() -> dict[str, Any]:
    """Return the texts of all findings, which are beside the modules with their experiments."""
    texts: dict[str, Any] = {}
    for file in sorted(FOLDER.glob("*.toml")):
        if file.with_suffix(".py").exists():
            texts |= tomllib.loads(file.read_text("utf-8"))
    return texts


FINDINGS = Registry(Finding, read_texts())
experiment = FINDINGS.experiment
