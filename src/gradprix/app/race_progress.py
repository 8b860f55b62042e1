"""Progress of a race as JSON, for the page that shows it live."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from scipy.special import stdtrit

from gradprix.race import JournalError
from gradprix.race.journal import Journal
from gradprix.race.live_files import FOLDER, read_progress
from gradprix.show.palette import styles
from gradprix.text import units
from gradprix.text.live_race import format_counts, format_leader, format_phase, format_stall, format_time_left

from .race_processes import Races
from .race_runs import Run, RunReader

MAX_FAINT, MAX_POINTS = 240, 40
"""Maximum number of faint curves, and of points of a curve."""
STARTING = "Starting: loading PyTorch and the data of the task"


@dataclass(frozen=True)
class Unit:
    """Unit of a metric; see `gradprix.text.units`."""

    percent: bool


def race_state(races: Races, name: str, folder: Path) -> str:
    """Return the state of a race: `running`, `running elsewhere`, `finished`, `failed` or `stopped`."""
    process = races.process(name)
    if process is not None and process.is_running:
        return "running"
    try:
        with Journal(folder, to_read=True) as journal:
            number, is_finished = journal.process, journal.read("record") is not None
    except JournalError:
        return "failed" if process is not None and process.error else "stopped"
    if number is not None and _is_running(number, folder / FOLDER):
        return "running elsewhere"
    if is_finished:
        return "finished"
    return "failed" if process is not None and process.error else "stopped"


def _is_running(number: int, live: Path) -> bool:
    """Return True if the process that writes live files is running.

    A race that was killed leaves its files, and its number may since belong to another process, which began later.
    """
    try:
        return bool(psutil.Process(number).create_time() <= live.stat().st_mtime)
    except (psutil.Error, OSError):
        return False


def progress(races: Races, name: str, folder: Path, reader: RunReader) -> dict[str, Any]:
    """Return the progress of a race as JSON.

    Args:
        races: saved and running races.
        name: name of the race.
        folder: its folder.
        reader: reader of its training runs.
    """
    state, process = race_state(races, name, folder), races.process(name)
    live = read_progress(folder) if state.startswith("running") else None
    result: dict[str, Any] = {
        "state": state,
        "phase": STARTING if state == "running" else "",
        "finished_runs": 0,
        "total_runs": 0,
        "counts": "",
        "time_left": "",
        "leader": "",
        "error": "" if process is None else process.error,
        "entries": [],
        "curves": [],
        "points": [],
    }
    try:
        with Journal(folder, to_read=True) as journal:
            is_finished = journal.read("record") is not None
            plan = None if journal.plan is None else journal.read("plan")  # the attribute checks what was saved
    except JournalError:
        return result
    if live is not None:
        stall = format_stall(live.seconds_stalled, live.running)
        phase = ": ".join(filter(None, (format_phase(live.phase), stall)))
        result |= {"phase": phase, "time_left": format_time_left(live.seconds_left)}
        result |= {"finished_runs": live.finished_runs, "total_runs": live.total_runs}
    elif state == "running" and is_finished:
        result["phase"] = "Writing the report"
    if plan is not None:
        try:
            result |= _runs_json(plan, reader.read(plan["entries"], plan["epochs"]))
        except JournalError as error:
            result["error"] = str(error)
    if result["total_runs"]:
        result["counts"] = format_counts(int(result["finished_runs"]), result["total_runs"])
    return result


def _runs_json(plan: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """Return what depends on the training runs: ranking, curves and points."""
    metric, names = plan["metric"], [entry["name"] for entry in plan["entries"]]
    style, sign = styles(names), 1 if metric["higher_is_better"] else -1
    by_entry = {name: [run for run in runs if run.entry == name] for name in names}
    best = {name: _best_tuning_run(each, sign) for name, each in by_entry.items()}
    finals = {name: [run.metric for run in each if run.is_final and run.is_finished] for name, each in by_entry.items()}
    ranks_finals = all(finals.values())
    unit = Unit(metric["percent"])

    def score(name: str) -> float:
        run = best[name]
        value = statistics.fmean(finals[name]) if ranks_finals else math.nan if run is None else run.metric
        return sign * value if math.isfinite(value) else -math.inf

    ranking = sorted(names, key=score, reverse=True)
    first = ranking[0]
    is_scored = math.isfinite(score(first))
    return {
        "metric": metric["name"],
        "ranked_by": f"mean {metric['name']} of the final runs so far"
        if ranks_finals
        else f"best {metric['name'].removeprefix('test ')} on validation examples so far",
        "leader": format_leader(first, units.format_value(unit, sign * score(first)), ranks_finals)
        if is_scored
        else "",
        "entries": [
            {
                "name": name,
                "colour": style[name].colour,
                "dash": style[name].dash,
                "marker": style[name].marker,
                "best": "" if (run := best[name]) is None else units.format_value(unit, run.metric),
                "rate": "" if run is None or math.isnan(run.learning_rate) else f"{run.learning_rate:.3g}",
                "final": _format_mean(unit, finals[name]),
                "tuning_runs": sum(run.is_finished and not run.is_final for run in by_entry[name]),
                "trials": plan["trials"] if entry["space"] else 1,
                "final_runs": len(finals[name]),
                "diverged": sum(run.is_diverged for run in by_entry[name]),
            }
            for name in ranking
            for entry in plan["entries"]
            if entry["name"] == name
        ],
        "curves": [curve for name in names for curve in _curves(name, by_entry[name], best[name])],
        "points": [
            {"entry": run.entry, "rate": run.learning_rate, "loss": run.curve[-1][2], "is_final": run.is_final}
            for run in runs
            if run.curve and math.isfinite(run.learning_rate) and math.isfinite(run.curve[-1][2])
        ],
    }


def _best_tuning_run(runs: Sequence[Run], sign: int) -> Run | None:
    """Return the tuning run with the best metric; among running ones only if none has finished."""
    tuning = [run for run in runs if not run.is_final and math.isfinite(run.metric) and not run.is_diverged]
    finished = [run for run in tuning if run.is_finished]
    return max(finished or tuning, key=lambda run: sign * run.metric, default=None)


def _format_mean(unit: Unit, values: Sequence[float]) -> str:
    """Format the mean of final runs with the half-width of its 95 % confidence interval; empty without runs."""
    if not values:
        return ""
    mean, scale = statistics.fmean(values), 100 if unit.percent else 1
    if len(values) < 3 or not math.isfinite(mean):
        return units.format_value(unit, mean)
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{100 * mean:.1f} ± {scale * half:.1f} %" if unit.percent else f"{mean:.4g} ± {half:.2g}"


def _curves(name: str, runs: Sequence[Run], best: Run | None) -> list[dict[str, Any]]:
    """Return the curves of an entry: its best tuning run, the mean of its final runs, and faintly its other runs."""
    finals = [run for run in runs if run.is_final and run.curve]
    faint = [run for run in runs if run is not best and not run.is_final][-MAX_FAINT // 10 :]
    curves = [{"entry": name, "kind": "faint", **_losses(run.curve)} for run in faint if run.curve]
    if best is not None and best.curve and not finals:
        curves.append({"entry": name, "kind": "best", **_losses(best.curve)})
    if finals:
        length = max(len(run.curve) for run in finals)
        whole = [run.curve for run in finals if len(run.curve) == length]
        mean = [(points[0][0], 0.0, statistics.fmean(p[2] for p in points)) for points in zip(*whole, strict=True)]
        curves.append({"entry": name, "kind": "mean", **_losses(mean)})
    return curves


def _losses(curve: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Return the validation loss of a curve by the number of examples, at `MAX_POINTS` points or fewer."""
    step = max(1, math.ceil(len(curve) / MAX_POINTS))
    kept = [*curve[::-step]][::-1]
    points = [(point[0], point[2]) for point in kept if math.isfinite(point[2])]
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}
