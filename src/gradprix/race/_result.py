"""What a race left: a record, and what one wants of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from gradprix import optim

from ._journal import FILE, Journal, JournalError

REPORT = "report.html"


@dataclass(frozen=True)
class Best:
    """The optimizer to take, tuned.

    Args:
        name: its name in the race.
        optimizer: its class in `gradprix.optim`, or the full name of another one.
        arguments: what the class was called with.
        code: the same as a line to paste.
        schedule: how the learning rate went.
    """

    name: str
    optimizer: str
    arguments: dict[str, Any]
    code: str
    schedule: str

    def make(self, params: Iterable[Any]) -> torch.optim.Optimizer:
        """The optimizer on these parameters; give it the schedule it was tuned with, `gradprix.schedule`.

        Raises:
            ValueError: when a rule or class of your own won that is not found: a record holds names, not code.
        """
        home, _, name = self.optimizer.rpartition(".")
        try:
            make = getattr(import_module(home) if home else optim, name)
        except (ImportError, AttributeError):
            raise ValueError(f"{self.name} steps with code of your own. Make it yourself: {self.code}") from None
        made: torch.optim.Optimizer = make(params, **self.arguments)
        return made


@dataclass(frozen=True)
class Result:
    """A finished race.

    Args:
        record: all of it, as plain data.
        folder: where it is kept, if it is.
    """

    record: dict[str, Any]
    folder: Path | None = None

    @property
    def text(self) -> str:
        """The answer in words."""
        return str(self.record["verdict"]["text"])

    @property
    def best(self) -> Best:
        """The optimizer to take."""
        return Best(**self.record["best"])

    def to_dict(self) -> dict[str, Any]:
        """The result in the form that `--json` prints and later versions only add to."""
        out = None if self.folder is None else str(self.folder)
        report = None if self.folder is None else str(self.folder / REPORT)
        rest = {key: self.record[key] for key in ("budget", "entries", "verdict", "cost")}
        return {"task": self.record["task"], "out": out, "report": report, **rest}

    def __repr__(self) -> str:
        return self.text


def load(folder: str | Path) -> Result:
    """The result of a finished race.

    Args:
        folder: where it was kept (`out`).

    Raises:
        FileNotFoundError: when there is no race in the folder.
        JournalError: when the race there is not finished, or cannot be read.
    """
    if not (Path(folder) / FILE).exists():
        raise FileNotFoundError(f"{folder} holds no race: there is no {FILE} in it. `gradprix race` makes one.")
    with Journal(Path(folder), to_read=True) as journal:
        record = journal.read("record")
    if record is None:
        raise JournalError(f"the race in {folder} is not finished. The command that began it will finish it.")
    return Result(record, Path(folder))
