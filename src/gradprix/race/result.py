"""Result of a race: record, recommended optimizer, data frames, and export to files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradprix.text.answer import format_answer, format_protocol
from gradprix.text.diagnosis import format_finding
from gradprix.text.recommendation import format_reason

from .journal import DATABASE, Journal, JournalError
from .record import RaceRecord
from .record_json import RecordError, to_json
from .saved_result import SavedResult

if TYPE_CHECKING:
    from pandas import DataFrame

    from .bundle import Provenance

REPORT, PICTURE = "report.html", "report.png"
FRAME_FORMATS = ("csv", "parquet")
"""File formats of data frames."""
PICTURES, BUNDLE = ("png", "svg", "pdf"), "bundle"
"""File formats of figures, and the format of a file that others can verify."""


@dataclass(frozen=True, repr=False)
class Result(SavedResult[RaceRecord]):
    """Result of a finished race.

    Args:
        provenance: bundle from which the result was loaded; None for a race in a folder.
    """

    provenance: "Provenance | None" = None

    @property
    def text(self) -> str:
        """Answer of the race as text: recommended optimizer, alternatives, and warnings."""
        return format_answer(self.record)

    @property
    def entries(self) -> "DataFrame":
        """Data frame of the entries, best mean first: tuned values, mean, confidence interval, and other properties."""
        return self._frame("entries")

    @property
    def verdict(self) -> "DataFrame":
        """Data frame of the pairwise comparisons: difference, confidence interval, p-value and verdict of each pair."""
        return self._frame("verdict")

    @property
    def trials(self) -> "DataFrame":
        """Data frame of the tuning runs, in the order in which the tuners requested them."""
        return self._frame("trials")

    @property
    def finals(self) -> "DataFrame":
        """Data frame of the final runs: entry, seed, metric and loss of each run."""
        return self._frame("finals")

    @property
    def curves(self) -> "DataFrame":
        """Data frame of the learning curves: losses and validation metric of each final run after each epoch."""
        return self._frame("curves")

    def _frame(self, name: str) -> "DataFrame":
        from .dataframes import FRAMES  # importing pandas is slow

        return FRAMES[name](self.record)

    def export(self, form: str, folder: str | Path | None = None) -> list[Path]:
        """Write the data frames, the figures of the report, or a bundle that others can verify, to files.

        Args:
            form: `"csv"` or `"parquet"` (needs pyarrow) for data frames; `"latex"` for tables of the entries and of the
                comparisons, with rounded values; `"png"`, `"svg"` or `"pdf"` for figures, with their titles and the
                settings of the race; `"bundle"` for one file with all that others need to check the result.
            folder: output folder. Default: the folder of the race.

        Returns:
            Paths of the files.

        Raises:
            ValueError: if the file format is unknown, a package that it needs is missing, or there is no folder.
            BundleError: if the race cannot be bundled, because an earlier version saved it.
        """
        to = self.folder if folder is None else Path(folder)
        if to is None:
            raise ValueError("this race was not saved: pass the output folder.")
        if form == "latex":
            from gradprix.show import write_latex  # `show` depends on this package

            return write_latex(self.record, to)
        if form in PICTURES:
            from gradprix.show import write_figures  # `show` depends on this package

            return write_figures(self.record, to, form)
        if form == BUNDLE:
            from .bundle import write_bundle  # which runs races

            if self.folder is None or self.provenance is not None:
                raise ValueError("a bundle is made from the folder of a race.")
            return [write_bundle(self.folder, to)]
        if form not in FRAME_FORMATS:
            known = ", ".join([*FRAME_FORMATS, "latex", *PICTURES, BUNDLE])
            raise ValueError(f"form = {form!r}: it must be one of {known}.")
        to.mkdir(parents=True, exist_ok=True)
        files = {name: to / f"{name}.{form}" for name in ("entries", "verdict", "trials", "finals", "curves")}
        for name, file in files.items():
            try:
                getattr(self._frame(name), f"to_{form}")(file, index=False)
            except ImportError as error:  # csv needs no other package
                raise ValueError(f"{form} needs pyarrow: pip install pyarrow.") from error
        return list(files.values())

    def _repr_html_(self) -> str:
        """Return the answer and the ranking as HTML, which notebooks display."""
        from gradprix.show import notebook_cell  # `show` depends on this package

        return notebook_cell(self.record, None if self.folder is None else str(self.folder))

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary, as `--json` prints it. Later versions only add keys."""
        out = None if self.folder is None else str(self.folder)
        report = None if self.folder is None else str(self.folder / REPORT)
        record, data = self.record, to_json(self.record, finite=True)
        sentences = {"text": self.text, "protocol": format_protocol(record), "why": format_reason(record)}
        optional = ["reruns"] * bool(record.reruns) + ["why"] * (record.diagnosis is not None)
        optional += [name for name in ("budget_sensitivity", "equal_time") if data.get(name) is not None]
        rest = {key: data[key] for key in ("budget", "entries", "verdict", "cost", "failed", *optional)}
        rest["verdict"] |= sentences
        for name, entry in (record.diagnosis.entries if record.diagnosis else {}).items():
            steps = record.entry(name).final.divergence_steps
            for measurement, shown in zip(entry.measurements, rest["why"]["entries"][name]["reasons"], strict=True):
                shown["words"] = format_finding(measurement, steps)
        return {"task": record.task, "out": out, "report": report, **rest}


def load(folder: str | Path) -> Result:
    """Load the result of a finished race, from its folder or from a bundle.

    Args:
        folder: folder of the race: the argument `out` of `race`; or a bundle, such as `digits.gradprix.zip`. What is
            made from a bundle goes to a folder beside it, `digits.gradprix`.

    Raises:
        FileNotFoundError: if the folder does not contain a race.
        JournalError: if the race is not finished, or cannot be read by this version of gradprix.
    """
    if Path(folder).is_file():
        from .bundle import load_bundle  # which runs races

        bundled, provenance = load_bundle(Path(folder))
        return Result(bundled, Path(folder).with_suffix(""), provenance=provenance)
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
