"""Views of the races: form and list, a live or finished race, and comparisons."""

import atexit
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import flask

from gradprix import show, tasks
from gradprix.race import ENTRIES, REPORT, JournalError, load
from gradprix.race.entry_registry import BRACKETS
from gradprix.race.race_comparison import compare as compare_races
from gradprix.race.record_json import RecordError
from gradprix.race.result import PICTURES
from gradprix.show.palette import FAMILIES, styles
from gradprix.show.race_comparison import comparison_page
from gradprix.tasks.registry import PRESETS

from .race_estimate import Estimator
from .race_list import all_rows, race_row, rows
from .race_processes import MAX_NOTE, Races
from .race_progress import progress as read_progress
from .race_progress import race_state
from .race_request import RaceRequest, RequestError, read_request
from .race_runs import RunReader
from .templating import layout_variables, render

SIZES = {
    "small": "small: seconds, for a first look",
    "default": "default: minutes",
    "large": "large: for larger machines",
}
READERS: dict[Path, RunReader] = {}
"""Reader of the training runs of each race that is shown live, by folder."""
ESTIMATOR = Estimator()
atexit.register(ESTIMATOR.close)

assert tuple(SIZES) == PRESETS


def _races() -> Races:
    races: Races = flask.current_app.extensions["races"]
    return races


def race_url(name: str, *rest: str) -> str:
    """Return the path of a race's page, or of a page below it."""
    return "/".join(["/races", quote(name), *rest])


def _comparable() -> list[str]:
    """Return the names of the finished races."""
    return [row.name for row in rows(_races()) if row.state == "finished"]


def page() -> Any:
    """Return the page with the form and the list of saved races."""
    args = flask.request.args
    fields = {name: args.get(name, "") for name in ("task", "size", "trials", "seeds")}
    names = [name for part in args.getlist("names") for name in part.split(",") if name]
    return _page(fields, names or list(BRACKETS["rules"]))


def _page(fields: dict[str, str], names: list[str], messages: dict[str, str] | None = None) -> str:
    known = {name for members in FAMILIES.values() for name in members}
    families = {family: [name for name in members if name in ENTRIES] for family, members in FAMILIES.items()}
    families["others"] = [name for name in ENTRIES if name not in known]
    saved = all_rows(_races())
    return render(
        "races.html.jinja",
        page="races",
        rows=[row for row in saved if row.is_race],
        tuned=[row.name for row in saved if not row.is_race],
        race_url=race_url,
        tasks={name: task.about for name, task in tasks.ALL.items()},
        sizes=SIZES,
        families={family: members for family, members in families.items() if members},
        about={name: entry.about for name, entry in ENTRIES.items()},
        styles=styles(ENTRIES),
        fields={"task": RaceRequest.task, "size": RaceRequest.size, **{k: v for k, v in fields.items() if v}},
        names=names,
        usual=BRACKETS["rules"],
        messages=messages or {},
    )


def start() -> Any:
    """Start the race that the form describes, and redirect to its page; with invalid fields, return the form."""
    form = flask.request.form
    names = form.getlist("names")
    ESTIMATOR.close()  # would slow down the race
    try:
        name = _races().start(read_request(form, names))
    except RequestError as error:
        return _page(dict(form), names, error.messages), 400
    except ValueError as error:
        return _page(dict(form), names, {"start": str(error)}), 409
    return flask.redirect(race_url(name), 303)


def estimate() -> Any:
    """Return the number of training runs and the duration of a race as JSON."""
    args = flask.request.args
    try:
        request = read_request(args, args.getlist("names"))
    except RequestError as error:
        return {"text": str(error), "is_complete": True, "messages": error.messages}
    is_idle = not any(map(_races().is_running, _races().started))
    return ESTIMATOR.describe(request, may_measure=is_idle)


def race(name: str) -> Any:
    """Return the page of a race: its report if it is finished, otherwise its live view."""
    folder = _races().folder(name)
    if folder is None:
        return render("no_race.html.jinja", page="races", name=name), 404
    row = race_row(_races(), name, folder)
    variables = {
        "name": name,
        "row": row,
        "url": race_url(name),
        "note": row.note,
        "max_note": MAX_NOTE,
        "others": [other for other in _comparable() if other != name],
        "can_resume": row.state in ("stopped", "failed") and _races().request(name) is not None,
    }
    if row.state == "finished":
        with suppress(JournalError, RecordError):
            record = load(folder).record
            variables["file_figures"] = {figure.name: figure.title for figure in show.figures(record).values()}
            layout = layout_variables("report_layout.html.jinja", "races", formats=PICTURES, **variables)
            return show.report(record, str(folder), **layout)
    return render("race_live.html.jinja", page="races", **variables)


def compare() -> Any:
    """Return the page that compares finished races.

    The parameters `a` and `b` put the races in this order. Those of the parameter `race` are ordered by date, so that
    changes are from the older race to the newer one.
    """
    args = flask.request.args
    dates = {row.name: row.changed for row in rows(_races())}
    chosen = sorted(args.getlist("race"), key=lambda name: dates.get(name, 0))
    names = [*chosen, *args.getlist("a"), *args.getlist("b")]
    try:
        folders = [_races().folder(name) for name in names]
        if None in folders:
            raise ValueError(f"There is no race {names[folders.index(None)]!r}.")
        comparison = compare_races([load(folder).record for folder in folders if folder is not None], names)
    except (JournalError, RecordError, ValueError) as error:
        return render("no_comparison.html.jinja", page="races", message=str(error)), 404
    layout = layout_variables("comparison_layout.html.jinja", "races")
    return comparison_page(comparison, **layout)


def progress(name: str) -> Any:
    """Return the progress of a race as JSON."""
    folder = _races().folder(name)
    if folder is None:
        flask.abort(404)
    reader = READERS.setdefault(folder, RunReader(folder))
    return read_progress(_races(), name, folder, reader)


def stop(name: str) -> Any:
    """Stop a race that this app has started."""
    if _races().folder(name) is None:
        flask.abort(404)
    _races().stop(name)
    return flask.redirect(race_url(name), 303)


def resume(name: str) -> Any:
    """Resume a race that this app has started, now or earlier."""
    request = _races().request(name)
    if request is None:
        flask.abort(404)
    try:
        _races().resume(name, request)
    except ValueError as error:
        return flask.Response(f"{error}\n", 409, mimetype="text/plain")
    return flask.redirect(race_url(name), 303)


def write_note(name: str) -> Any:
    """Save the note about a race."""
    if _races().folder(name) is None:
        flask.abort(404)
    _races().write_note(name, flask.request.form.get("note", ""))
    return flask.redirect(race_url(name), 303)


def report(name: str) -> Any:
    """Return the report of a finished race as a file to save; it is written if it is missing."""
    folder = _races().folder(name)
    if folder is None or race_state(_races(), name, folder) != "finished":
        flask.abort(404)
    path = folder / REPORT
    try:
        if not path.exists():
            show.write_report(load(folder))
    except (JournalError, RecordError, OSError):
        flask.abort(404)
    response = flask.send_file(path.resolve(), download_name=f"{name.replace('/', '-')}.html")
    # The report is one file with its own script and style, and forbids everything else by itself.
    response.headers["Content-Security-Policy"] = "default-src 'self' data: blob: 'unsafe-inline'"
    return response


def figure(name: str, figure: str, form: str) -> Any:
    """Return a figure of a finished race as a file to save, with its title and the settings of the race."""
    folder = _races().folder(name)
    if folder is None or form not in PICTURES or race_state(_races(), name, folder) != "finished":
        flask.abort(404)
    try:
        record = load(folder).record
    except (JournalError, RecordError):
        flask.abort(404)
    figures = show.figures(record)
    if figure not in figures:
        flask.abort(404)
    file = f"{name.replace('/', '-')}-{figure}.{form}"
    return flask.send_file(BytesIO(show.render(record, figures[figure], form)), download_name=file, as_attachment=True)
