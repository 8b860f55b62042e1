"""Export of a race's figures as image files."""

from pathlib import Path

from gradprix.race import PICTURE, RaceRecord, Result
from gradprix.race.result import PICTURES
from gradprix.text.answer import format_protocol
from gradprix.utils.files import write_atomically

from ._race_figures import ranking
from ._report import draw_charts, write_beside
from .figure import Chart, export


def write_picture(result: Result) -> Path:
    """Write the ranking of a race as a PNG image into the folder of the race, atomically.

    Args:
        result: race that was saved in a folder.

    Returns:
        Path of the PNG.

    Raises:
        ValueError: if the race was not saved in a folder.
    """
    return write_beside(result, PICTURE, render(result.record, ranking(result.record), "png"))


def write_figures(record: RaceRecord, folder: str | Path, form: str = "png") -> list[Path]:
    """Write each figure of a race to a file of its own, with its title and the settings of the race.

    Args:
        record: record of a race.
        folder: folder of the files, which is created if it does not exist.
        form: file format: `"png"`, `"svg"` or `"pdf"`.

    Returns:
        Paths of the files, such as `ranking.png`, `sensitivity.png` and `curves.png`.

    Raises:
        ValueError: if the format is unknown.
    """
    if form not in PICTURES:
        raise ValueError(f"{form!r} is no format of figures. Use one of {', '.join(PICTURES)}.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [
        write_atomically(Path(folder) / f"{chart.name}.{form}", render(record, chart, form), 0o644)
        for chart in figures(record).values()
    ]


def figures(record: RaceRecord) -> dict[str, Chart]:
    """Return the figures of a race by the names of their files, in the order of the report."""
    return {chart.name: chart for chart in draw_charts(record).values() if chart is not None}


def render(record: RaceRecord, chart: Chart, form: str) -> bytes:
    """Return a figure of a race as the contents of a file, with the settings of the race as the footnote.

    Args:
        record: record of a race.
        chart: one of its figures.
        form: file format, one of `PICTURES`.
    """
    version = record.versions.get("gradprix", "")
    settings = f"{record.task}: {record.about} {format_protocol(record)}. gradprix {version}"
    return export(chart, form, " ".join(settings.split()))
