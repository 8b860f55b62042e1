"""Resumption of a saved race: checks that a plan belongs to it, and its execution mode."""

from gradprix.executors.executor import Executor
from gradprix.stats.alpha_spending import InterimAnalysis, NoAnalysisLeftError, next_level
from gradprix.training.execution_mode import ExecutionMode
from gradprix.utils.wording import format_list

from .journal import Comparisons, Journal, OtherRaceError
from .plan import Plan
from .preflight import preflight
from .progress_display import Watch


def check_resume(plan: Plan, journal: Journal) -> list[InterimAnalysis]:
    """Check that a plan may resume the race in a folder; return the past interim analyses.

    Raises:
        OtherRaceError: if the folder holds another race.
        NoAnalysisLeftError: if the error rate of 5 % is used up by earlier interim analyses.
    """
    folder, saved, seen, analyses = journal.folder, journal.plan, journal.comparisons, journal.interim_analyses
    elsewhere = f"Save this race in another folder, such as {folder}-2 (--out)"
    if saved is not None and (saved.fingerprint, saved.compiled) != (plan.task.fingerprint, plan.compiled):
        what = "on another task" if saved.fingerprint != plan.task.fingerprint else "in another execution mode"
        raise OtherRaceError(f"{folder} holds a race {what} ({saved.task}). {elsewhere}, or delete that one.")
    if analyses and seen is not None:
        mine = make_comparisons(plan)
        was = [name for name in ("baseline", "margin", "relative") if getattr(seen, name) != getattr(mine, name)]
        was += ["optimizers"] * (not set(seen.entries) <= set(mine.entries))
        if was:
            # Comparisons chosen after an interim analysis would depend on its result.
            raise OtherRaceError(
                f"the race in {folder} was analysed with another {' and '.join(was)} ({_format_comparisons(seen)}): "
                "comparisons must not depend on results, so they are fixed before the first analysis; only optimizers "
                f"may be added. {elsewhere}, with other seeds (--seed)."
            )
    next_level(analyses, plan.seeds)
    return analyses


def available_level(past: list[InterimAnalysis], seeds: int, most: int) -> float | None:
    """Return the level of an interim analysis before the last one, or of the last; None if no error is left for it.

    Args:
        past: past interim analyses.
        seeds: number of seeds of this analysis.
        most: number of seeds of the last analysis.

    Raises:
        NoAnalysisLeftError: if no error is left for the last one.
    """
    try:
        return next_level(past, seeds)
    except NoAnalysisLeftError:
        if seeds == most:
            raise
        return None


def make_comparisons(plan: Plan) -> Comparisons:
    """Return the comparisons that an interim analysis makes."""
    metric = plan.task.metric
    return Comparisons([entry.name for entry in plan.entries], metric.margin, metric.relative, plan.baseline)


def _format_comparisons(seen: Comparisons) -> str:
    versus = f"baseline {seen.baseline}" if seen.baseline else "all pairs"
    return f"{format_list(seen.entries)}, margin {seen.margin:g}, {versus}"


def choose_execution_mode(plan: Plan, journal: Journal, engine: Executor, watch: Watch) -> ExecutionMode:
    """Return the execution mode of a saved race, or else of the preflight, which also checks entries that are new.

    A race keeps its mode, because the preflight chooses by timings, which vary between calls.

    Raises:
        OtherRaceError: if the saved race runs on another device than the requested one.
        TaskError: if the task, or an optimizer on it, fails.
    """
    saved, mode = journal.plan, journal.mode
    if mode is None or saved is None or saved.entries != plan.description["entries"]:
        selected = preflight(plan, engine, watch)
        mode = mode or selected
    if plan.device not in ("auto", mode.device):
        raise OtherRaceError(
            f"{journal.folder} holds a race whose models are trained on {mode.device}. Save this race in another "
            "folder (--out), or delete that one."
        )
    return mode
