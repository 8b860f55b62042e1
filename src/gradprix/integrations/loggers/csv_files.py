"""Logger that writes CSV files."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gradprix.utils.files import write_atomically

from .logger import Logger
from .summary import ranking

if TYPE_CHECKING:
    from gradprix.race.plan import Plan
    from gradprix.race.saved_result import SavedResult

    from .training_run import TrainingRun

RUNS, CURVES, RANKING, ANSWER = "runs.csv", "curves.csv", "ranking.csv", "answer.txt"
Row = dict[str, Any]


class CSV(Logger):
    """Logger that writes CSV files.

    `runs.csv` has a row for each run, `curves.csv` a row for each epoch of each run, and both have the column `id`. The
    final numbers in `runs.csv` are those of the last epoch, and on the test examples. When the race is finished,
    `ranking.csv` and `answer.txt` have its result.
    """

    name: ClassVar[str] = "csv"
    folder_per_task: ClassVar[bool] = True

    @property
    def instructions(self) -> str:
        """Paths of the files."""
        return f"{self.root / RUNS}, {self.root / CURVES}"

    def on_race_start(self, plan: "Plan") -> None:
        """Create the files, or remove what an interrupted race left incomplete or will train again."""
        from .training_run import metric_key

        metric = metric_key(plan.task.metric.name)
        curve = ["train/loss", "valid/loss", f"valid/{metric}"]
        final = [*curve, "test/loss", f"test/{metric}"]
        if getattr(plan.task, "ema", None) is not None:
            final.append(f"test/{metric_key(f'{plan.task.metric.name} (EMA)')}")
        own = ["lr", "batch_size", "schedule", "epochs", "seed", "hyperparameters"]
        self._columns = {
            RUNS: ["id", "phase", "entry", *own, *final, "diverged", "error"],
            CURVES: ["id", "phase", "entry", "epoch", "examples", *curve],
        }
        self.root.mkdir(parents=True, exist_ok=True)
        runs = {row["id"]: row for row in self._read(RUNS) if not row["error"]}
        curves = [row for row in self._read(CURVES) if row["id"] in runs]
        self._write(RUNS, runs.values())
        self._write(CURVES, curves)
        self._ids = set(runs)

    def on_run_end(self, run: "TrainingRun") -> None:
        """Append a run, unless the files have it."""
        if run.id in self._ids:
            return
        about = {"id": run.id, "phase": run.phase, "entry": run.entry}
        own = {name: value for name, value in run.hyperparameters.items() if name not in self._columns[RUNS]}
        more = {"hyperparameters": json.dumps(own, default=str), "diverged": run.diverged, "error": run.error}
        self._append(CURVES, [{**about, **point} for point in run.curve])
        # The run's row is last: without it, the rows of the curve are removed when the race is resumed.
        self._append(RUNS, [{**about, **run.hyperparameters, **run.last, **more}])
        self._ids.add(run.id)

    def on_race_end(self, result: "SavedResult[Any]") -> None:
        """Write the ranking and the answer."""
        rows = ranking(result)
        self._columns[RANKING] = list(rows[0])
        self._write(RANKING, rows)
        write_atomically(self.root / ANSWER, f"{result.text}\n".encode(), 0o644)

    def _read(self, name: str) -> list[Row]:
        """Return the complete rows of a file; none if its columns differ, as in a folder of another task."""
        file = self.root / name
        if not file.exists():
            return []
        complete = file.read_text("utf-8").rpartition("\n")[0]
        reader = csv.DictReader(io.StringIO(complete))
        if reader.fieldnames != self._columns[name]:
            raise ValueError(f"{file} has other columns, so that another race wrote it. Choose another folder.")
        return [row for row in reader if None not in row.values()]

    def _write(self, name: str, rows: Iterable[Row]) -> None:
        """Replace a file."""
        lines = self._lines(name, [dict(zip(self._columns[name], self._columns[name], strict=True)), *rows])
        write_atomically(self.root / name, lines.encode(), 0o644)

    def _append(self, name: str, rows: Iterable[Row]) -> None:
        """Append rows to a file."""
        with open(Path(self.root, name), "a", encoding="utf-8", newline="") as file:
            file.write(self._lines(name, rows))

    def _lines(self, name: str, rows: Iterable[Row]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns[name], extrasaction="ignore", lineterminator="\n").writerows(rows)
        return text.getvalue()
