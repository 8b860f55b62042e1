"""Resumption of a saved race: checks that a plan belongs to it, and its execution mode."""

from collections.abc import Mapping
from typing import Any

from gradprix.executors.executor import Executor
from gradprix.stats.alpha_spending import InterimAnalysis, next_level
from gradprix.training.execution_mode import ExecutionMode
from gradprix.utils.wording import format_list

from .journal import Journal, OtherRaceError
from .plan import Plan
from .preflight import preflight
from .progress_display import Watch
from .record_json import read_mode


def check_resume(plan: Plan, description: Mapping[str, Any], journal: Journal) -> tuple[list[InterimAnalysis], float]:
    """Check that a plan may resume the race in a folder; return the past interim analyses and the level of this one.

    Raises:
        OtherRaceError: if the folder holds another race.
        NoAnalysisLeftError: if the error rate of 5 % is used up by earlier interim analyses.
    """
    folder, before, seen = journal.folder, journal.read("plan"), journal.read("compared")
    analyses: list[InterimAnalysis] = [(seeds, level) for seeds, level in journal.read("looks") or ()]
    elsewhere = f"Save this race in another folder, such as {folder}-2 (--out)"
    for key, what in (("fingerprint", "on another task"), ("compiled", "in another execution mode")):
        if before is not None and before.get(key) != description[key]:
            raise OtherRaceError(f"{folder} holds a race {what} ({before['task']}). {elsewhere}, or delete that one.")
    if analyses and seen is not None:
        mine = describe_comparisons(plan)
        was = [key for key in ("baseline", "margin", "relative") if seen[key] != mine[key]]
        was += ["optimizers"] * (not set(seen["entries"]) <= set(mine["entries"]))
        if was:
            # Comparisons chosen after an interim analysis would depend on its result.
            raise OtherRaceError(
                f"the race in {folder} was analysed with another {' and '.join(was)} ({_format_comparisons(seen)}): "
                "comparisons must not depend on results, so they are fixed before the first analysis; only optimizers "
                f"may be added. {elsewhere}, with other seeds (--seed)."
            )
    return analyses, next_level(analyses, plan.seeds)


def describe_comparisons(plan: Plan) -> dict[str, Any]:
    """Return the comparisons that an interim analysis makes."""
    metric = plan.task.metric
    names = [entry.name for entry in plan.entries]
    return {"entries": names, "margin": metric.margin, "relative": metric.relative, "baseline": plan.baseline}


def _format_comparisons(seen: dict[str, Any]) -> str:
    who = format_list(seen["entries"])
    return f"{who}, margin {seen['margin']:g}, " + (f"baseline {seen['baseline']}" if seen["baseline"] else "all pairs")


def choose_execution_mode(
    plan: Plan, description: Mapping[str, Any], journal: Journal, engine: Executor, watch: Watch
) -> ExecutionMode:
    """Return the execution mode of a saved race, or else of the preflight, which also checks entries that are new.

    A race keeps its mode, because the preflight chooses by timings, which vary between calls.

    Raises:
        OtherRaceError: if the saved race runs on another device than the requested one.
        TaskError: if the task, or an optimizer on it, fails.
    """
    before, saved = journal.read("plan"), journal.read("form")
    mode = None if saved is None else read_mode(saved)
    if mode is None or before is None or before["entries"] != description["entries"]:
        selected = preflight(plan, engine, watch)
        mode = mode or selected
    if plan.device not in ("auto", mode.device):
        raise OtherRaceError(
            f"{journal.folder} holds a race whose models are trained on {mode.device}. Save this race in another "
            "folder (--out), or delete that one."
        )
    return mode
