"""Command `gradprix compare`: two finished races or more, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from gradprix.utils.streams import echo

from ._errors import report_errors
from ._export import bundle_name


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders or bundles of the races.", metavar="RUN RUN...")],
    out: Annotated[
        Path | None, typer.Option(help="HTML page to write. Default: NAME-and-NAME.html beside the first race.")
    ] = None,
) -> None:
    """Compare finished races: what leads in all of them, how ranks change, and which settings differ."""
    from gradprix.race import JournalError, load
    from gradprix.race.race_comparison import compare as compare_records
    from gradprix.show import terminal
    from gradprix.show.race_comparison import comparison_answer, write_comparison

    with report_errors(JournalError, ValueError, OSError):
        names = [bundle_name(folder) for folder in folders]
        comparison = compare_records([load(folder).record for folder in folders], names)
        terminal.console().print(comparison_answer(comparison))
        path = out or folders[0].parent / f"{'-and-'.join(names)[:120]}.html"
        echo(f"Page: {write_comparison(comparison, path)}")
