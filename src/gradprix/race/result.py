"""What a race left: a record, and what one wants of it."""

import html
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gradprix import optim
from gradprix.training.param_groups import build_optimizer

from .journal import FILE, Journal, JournalError

if TYPE_CHECKING:
    from pandas import DataFrame

REPORT, PICTURE = "report.html", "report.png"


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

        Args:
            params: parameters or parameter groups, which may have an `lr_factor` and a `weight_decay_factor`.

        Raises:
            ValueError: when a rule or class of your own won that is not found: a record holds names, not code.
        """
        home, _, name = self.optimizer.rpartition(".")
        try:
            make = getattr(import_module(home) if home else optim, name)
        except (ImportError, AttributeError):
            raise ValueError(f"{self.name} steps with code of your own. Make it yourself: {self.code}") from None
        return build_optimizer(make, params, self.arguments)


@dataclass(frozen=True)
class Result:
    """A finished race.

    Args:
        record: all of it, as plain data.
        folder: where it is kept, if it is.
        reused: how many of its networks had been trained before.
    """

    record: dict[str, Any]
    folder: Path | None = None
    reused: int = 0

    @property
    def text(self) -> str:
        """The answer in words."""
        return str(self.record["verdict"]["text"])

    @property
    def best(self) -> Best:
        """The optimizer to take."""
        return Best(**self.record["best"])

    @property
    def entries(self) -> "DataFrame":
        """One row an entry, best mean first: what the terminal's table shows, and more."""
        return self._frame("entries")

    @property
    def verdict(self) -> "DataFrame":
        """One row a pair: who is ahead, by how much, within which interval, and the word for it."""
        return self._frame("verdict")

    @property
    def trials(self) -> "DataFrame":
        """One row a tuning run, in the order in which they were asked for."""
        return self._frame("trials")

    @property
    def finals(self) -> "DataFrame":
        """One row a final run: entry, seed, metric and loss."""
        return self._frame("finals")

    @property
    def curves(self) -> "DataFrame":
        """One row a final run and epoch: examples seen, training loss, validation loss and metric."""
        return self._frame("curves")

    def _frame(self, name: str) -> "DataFrame":
        from .dataframes import FRAMES  # pandas takes a while to import

        return FRAMES[name](self.record)

    def export(self, form: str, folder: str | Path | None = None) -> list[Path]:
        """Write the data frames into files.

        Args:
            form: `"csv"`, `"parquet"` (needs pyarrow) or `"latex"`.
            folder: where to; where the race is kept when None.

        Returns:
            The files.

        Raises:
            ValueError: for another form, or without a folder.
        """
        to = self.folder if folder is None else Path(folder)
        if to is None:
            raise ValueError("this race is kept in no folder: say which one to write to.")
        writers = {"csv": ("to_csv", "csv"), "parquet": ("to_parquet", "parquet"), "latex": ("to_latex", "tex")}
        if form not in writers:
            raise ValueError(f"form = {form!r}: it must be one of {', '.join(writers)}.")
        method, suffix = writers[form]
        to.mkdir(parents=True, exist_ok=True)
        names = ("entries", "verdict") if form == "latex" else ("entries", "verdict", "trials", "finals", "curves")
        files = [to / f"{name}.{suffix}" for name in names]
        for name, file in zip(names, files, strict=True):
            try:
                text = {"escape": True, "na_rep": "-"} if form == "latex" else {}
                getattr(self._frame(name), method)(file, index=False, **text)
            except ImportError as error:
                needs = "pyarrow" if form == "parquet" else "jinja2"
                raise ValueError(f"{form} needs {needs}: pip install {needs}.") from error
        return files

    def _repr_html_(self) -> str:
        """In a notebook: the whole report, in a frame of its own."""
        from gradprix.show import report  # the one thing that is seen from here: only a notebook asks for it

        page = html.escape(report(self.record, None if self.folder is None else str(self.folder)))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 48em; border: 0"></iframe>'

    def to_dict(self) -> dict[str, Any]:
        """The result in the form that `--json` prints and later versions only add to."""
        out = None if self.folder is None else str(self.folder)
        report = None if self.folder is None else str(self.folder / REPORT)
        told = ("budget", "entries", "verdict", "cost", "failed", "reruns", "why")
        rest: dict[str, Any] = {key: self.record[key] for key in told if key in self.record}
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
