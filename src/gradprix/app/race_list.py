"""Rows of the list of saved races."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from gradprix.race import JournalError
from gradprix.race.journal import DATABASE, Journal
from gradprix.race.live_files import read_progress
from gradprix.race.record_json import RecordError
from gradprix.show.palette import colour
from gradprix.text.answer import format_headline
from gradprix.text.live_race import format_counts, format_phase
from gradprix.text.units import format_duration

from .race_processes import Races
from .race_progress import race_state


@dataclass(frozen=True)
class RaceRow:
    """Row of the list of saved races.

    Args:
        name: name of the race.
        state: state of the race; see `race_state`.
        changed: time of its last change, in seconds since the epoch.
        task: name of the task; empty if it is unknown.
        entries: name and colour of each entry.
        summary: result in one line, or progress.
        seconds: training time; NaN if it is unknown.
        note: the user's note.
        is_race: False for runs of `gradprix tune`.
    """

    name: str
    state: str
    changed: float
    task: str = ""
    entries: tuple[tuple[str, str], ...] = ()
    summary: str = ""
    seconds: float = math.nan
    note: str = ""
    is_race: bool = True

    @property
    def date(self) -> str:
        """Date and time of the last change."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.changed))

    @property
    def duration(self) -> str:
        """Training time; empty if it is unknown."""
        return "" if math.isnan(self.seconds) else format_duration(self.seconds)


def rows(races: Races) -> list[RaceRow]:
    """Return a row for each saved or started race, most recent first. Runs of `gradprix tune` are left out."""
    return [row for row in all_rows(races) if row.is_race]


def all_rows(races: Races) -> list[RaceRow]:
    """Return a row for each saved or started race and each run of `gradprix tune`, most recent first."""
    names = [*(name for name in races.started if name not in races.names()), *races.names()]
    return [race_row(races, name, races.home / name) for name in names]


def race_row(races: Races, name: str, folder: Path) -> RaceRow:
    """Return the row of a race.

    Args:
        races: saved and running races.
        name: name of the race.
        folder: its folder.
    """
    state, note = race_state(races, name, folder), races.note(name)
    path = folder / DATABASE
    changed = path.stat().st_mtime if path.exists() else time.time()
    try:
        with Journal(folder, to_read=True) as journal:
            plan, seconds, count = journal.plan, journal.seconds, journal.count_runs()
            try:
                record, problem = journal.record, ""
            except RecordError as error:
                record, problem = None, f"The result cannot be read: {error}"
    except JournalError as error:
        summary = "" if state == "running" else str(error)
        process = races.process(name)
        return RaceRow(name, state, changed, summary=(process.error if process else "") or summary, note=note)
    if plan is None:
        return RaceRow(name, state, changed, note=note)
    total = len(plan.entries) * (plan.trials + plan.seeds)
    summary = problem or f"{format_counts(min(count, total), total)}"
    if record is not None:
        summary = format_headline(record)
        summary = summary[:1].upper() + summary[1:]
    elif state.startswith("running") and (live := read_progress(folder)) is not None:
        done = format_counts(int(live.finished_runs), live.total_runs) if live.total_runs else ""
        summary = ", ".join(filter(None, (format_phase(live.phase), done)))
    names = [str(entry["name"]) for entry in plan.entries]
    return RaceRow(
        name,
        state,
        changed,
        plan.task,
        tuple((each, colour(each)) for each in names),
        summary,
        seconds,
        note,
        is_race=len(names) > 1,
    )
