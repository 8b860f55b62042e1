"""Result of a race: its record, recommended optimizer, data frames and exports."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradprix.text.answer import format_answer, format_protocol
from gradprix.text.diagnosis import format_finding

from .best import Best
from .journal import DATABASE, Journal, JournalError
from .record import RaceRecord
from .record_json import PHRASES, RecordError, to_json

if TYPE_CHECKING:
    from pandas import DataFrame

REPORT, PICTURE = "report.html", "report.png"


@dataclass(frozen=True)
class Result:
    """A finished race.

    Args:
        record: the complete record.
        folder: folder of the race, if it was saved.
        reused: number of training runs that were reused from the journal.
    """

    record: RaceRecord
    folder: Path | None = None
    reused: int = 0

    @property
    def text(self) -> str:
        """Answer in words."""
        return format_answer(self.record)

    @property
    def best(self) -> Best:
        """Recommended optimizer."""
        return self.record.best

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
            raise ValueError("this race was not saved: pass the output folder.")
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
        from gradprix.show import notebook_cell  # the only import of the display package: needed in notebooks alone

        return notebook_cell(self.record, None if self.folder is None else str(self.folder))

    def to_dict(self) -> dict[str, Any]:
        """Return the result as `--json` prints it; later versions only add keys."""
        out = None if self.folder is None else str(self.folder)
        report = None if self.folder is None else str(self.folder / REPORT)
        record, data = self.record, to_json(self.record)
        sentences = {"text": self.text, "protocol": format_protocol(record), "why": PHRASES[record.verdict.reason]}
        optional = ["reruns"] * bool(record.reruns) + ["why"] * (record.diagnosis is not None)
        rest = {key: data[key] for key in ("budget", "entries", "verdict", "cost", "failed", *optional)}
        rest["verdict"] |= sentences
        for name, entry in (record.diagnosis.entries if record.diagnosis else {}).items():
            steps = record.entry(name).final.divergence_steps
            for measurement, shown in zip(entry.measurements, rest["why"]["entries"][name]["reasons"], strict=True):
                shown["words"] = format_finding(measurement, steps)
        return {"task": record.task, "out": out, "report": report, **rest}

    def __repr__(self) -> str:
        return self.text


def load(folder: str | Path) -> Result:
    """Load the result of a finished race.

    Args:
        folder: folder of the race (`out`).

    Raises:
        FileNotFoundError: if there is no race in the folder.
        JournalError: if the race is not finished, or cannot be read by this version of gradprix.
    """
    if not (Path(folder) / DATABASE).exists():
        raise FileNotFoundError(f"{folder} holds no race: there is no {DATABASE} in it. `gradprix race` makes one.")
    try:
        with Journal(Path(folder), to_read=True) as journal:
            record, plan = journal.record, journal.plan
    except RecordError as error:
        raise JournalError(f"the race in {folder} cannot be opened: {error}") from error
    if record is None and plan is not None and len(plan.entries) == 1:
        raise JournalError(
            f"{folder} holds runs of `gradprix tune`, not a race. The command that began them shows the result."
        )
    if record is None:
        raise JournalError(f"the race in {folder} is not finished. The command that began it will finish it.")
    return Result(record, Path(folder))
