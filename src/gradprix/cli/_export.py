"""Command `gradprix export`: tables and figures of finished races."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gradprix.utils.streams import echo

from ._errors import report_errors

if TYPE_CHECKING:
    from gradprix.race import Result

TABLE = "races.tex"


def export(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders or bundles of races, such as runs/digits, or of a suite. With several, --to latex makes one "
            "table.",
            metavar="FOLDER...",
        ),
    ],
    to: Annotated[
        Literal["csv", "parquet", "latex", "png", "svg", "pdf", "bundle"],
        typer.Option(help="File format. `bundle` is one file with which others can verify the result."),
    ] = "csv",
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder. Default: the folder of each race; for one table, their common folder."),
    ] = None,
    error: Annotated[
        Literal["ci95", "se"],
        typer.Option(help="Error bars in the table of several races: 95 % confidence intervals or standard errors."),
    ] = "ci95",
) -> None:
    """Export finished races as tables: entries, verdict, tuning trials, final runs and learning curves.

    --to png, svg or pdf exports the figures of the report instead, with their titles and the settings of the race.

    --to bundle writes one file, digits.gradprix.zip, with all that others need to check the result: configuration, code
    of your own, versions, every training run, and the answer. `gradprix verify` repeats some or all of these runs.

    With several races and --to latex: one table of tasks and optimizers, with marks, wins, ties and losses, mean ranks.
    """
    from gradprix.race import JournalError, load
    from gradprix.race.race_comparison import check_distinct
    from gradprix.show.latex import latex_table
    from gradprix.utils.files import write_atomically

    with report_errors(JournalError, FileNotFoundError, ValueError, OSError):
        races = [race for folder in folders for race in _find_races(folder)]
        results = [load(race) for race in races]
        if len(results) == 1 or to != "latex":
            targets = [None if out is None else out if len(races) == 1 else out / bundle_name(race) for race in races]
            for result, target in zip(results, targets, strict=True):
                for file in result.export(to, target):
                    echo(file)
            return
        check_distinct([result.record for result in results], list(map(str, races)))
        table = latex_table(dict(zip(_names(results), (result.record for result in results), strict=True)), error)
        parent = out or _common_folder(races)
        parent.mkdir(parents=True, exist_ok=True)
        echo(write_atomically(parent / TABLE, table.encode(), 0o644))


def bundle_name(race: Path) -> str:
    """Return the name of a race, of which `race` is the folder or the bundle."""
    return race.name.removesuffix(".gradprix.zip")


def _find_races(folder: Path) -> list[Path]:
    """Return the folders of the races in a folder: the folder itself, or those in it if it is that of a suite."""
    from gradprix.race.journal import DATABASE

    inside = [] if (folder / DATABASE).exists() else sorted(file.parent for file in folder.glob(f"*/{DATABASE}"))
    return inside or [folder]


def _common_folder(paths: list[Path]) -> Path:
    """Return the folder that contains some paths; a relative one if all of them are relative."""
    is_mixed = len({path.is_absolute() for path in paths}) > 1
    return Path(os.path.commonpath([path.absolute() for path in paths] if is_mixed else paths))


def _names(results: "Sequence[Result]") -> list[str]:
    """Return a name for each race: that of its task, or its folder if there are several races on the task."""
    tasks = [result.record.task for result in results]
    return [task if tasks.count(task) == 1 else str(result.folder) for task, result in zip(tasks, results, strict=True)]
