"""Result of a race: its record, recommended optimizer, data frames and exports."""

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
    """Recommended optimizer with its tuned hyperparameters.

    Args:
        name: name of the entry.
        optimizer: name of its class in `gradprix.optim`, or the full name of another class.
        arguments: arguments of the class.
        code: the constructor call as source code.
        schedule: learning-rate schedule that it was tuned with.
    """

    name: str
    optimizer: str
    arguments: dict[str, Any]
    code: str
    schedule: str

    def make(self, params: Iterable[Any]) -> torch.optim.Optimizer:
        """Construct the optimizer for some parameters; use it with its learning-rate schedule, see `gradprix.schedule`.

        Args:
            params: parameters or parameter groups, which may have an `lr_factor` and a `weight_decay_factor`.

        Raises:
            ValueError: if a user-supplied rule or class cannot be imported: a record holds names, not code.
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
        record: the complete record, as plain data.
        folder: folder of the race, if it was saved.
        reused: number of training runs that were reused from the journal.
    """

    record: dict[str, Any]
    folder: Path | None = None
    reused: int = 0

    @property
    def text(self) -> str:
        """Answer in words."""
        return str(self.record["verdict"]["text"])

    @property
    def best(self) -> Best:
        """Recommended optimizer."""
        return Best(**self.record["best"])

    @property
    def entries(self) -> "DataFrame":
        """Data frame with one row per entry, best mean first: the columns of the terminal's table, and more."""
        return self._frame("entries")

    @property
    def verdict(self) -> "DataFrame":
        """Data frame with one row per pair: the better entry, difference, confidence interval and verdict."""
        return self._frame("verdict")

    @property
    def trials(self) -> "DataFrame":
        """Data frame with one row per tuning run, in the order of the tuners' requests."""
        return self._frame("trials")

    @property
    def finals(self) -> "DataFrame":
        """Data frame with one row per final run: entry, seed, metric and loss."""
        return self._frame("finals")

    @property
    def curves(self) -> "DataFrame":
        """Data frame with one row per final run and epoch: examples seen, training loss, validation loss and metric."""
        return self._frame("curves")

    def _frame(self, name: str) -> "DataFrame":
        from .dataframes import FRAMES  # importing pandas is slow

        return FRAMES[name](self.record)

    def export(self, form: str, folder: str | Path | None = None) -> list[Path]:
        """Write the data frames to files.

        Args:
            form: `"csv"`, `"parquet"` (needs pyarrow) or `"latex"`.
            folder: output folder; the folder of the race when None.

        Returns:
            The paths of the files.

        Raises:
            ValueError: for an unknown form, or without a folder.
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
        """Return the full report in an iframe, for notebooks."""
        from gradprix.show import report  # the only import of the display package: needed in notebooks alone

        page = html.escape(report(self.record, None if self.folder is None else str(self.folder)))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 48em; border: 0"></iframe>'

    def to_dict(self) -> dict[str, Any]:
        """Return the result as `--json` prints it; later versions only add keys."""
        out = None if self.folder is None else str(self.folder)
        report = None if self.folder is None else str(self.folder / REPORT)
        keys = ("budget", "entries", "verdict", "cost", "failed", "reruns", "why")
        rest: dict[str, Any] = {key: self.record[key] for key in keys if key in self.record}
        return {"task": self.record["task"], "out": out, "report": report, **rest}

    def __repr__(self) -> str:
        return self.text


def load(folder: str | Path) -> Result:
    """Load the result of a finished race.

    Args:
        folder: folder of the race (`out`).

    Raises:
        FileNotFoundError: if there is no race in the folder.
        JournalError: if the race is not finished, or cannot be read.
    """
    if not (Path(folder) / FILE).exists():
        raise FileNotFoundError(f"{folder} holds no race: there is no {FILE} in it. `gradprix race` makes one.")
    with Journal(Path(folder), to_read=True) as journal:
        record = journal.read("record")
    if record is None:
        raise JournalError(f"the race in {folder} is not finished. The command that began it will finish it.")
    return Result(record, Path(folder))
