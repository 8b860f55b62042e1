"""Resumption of a saved race: check that a plan can resume it, and choice of the execution mode."""

from gradprix.executors.executor import Executor
from gradprix.stats.alpha_spending import InterimAnalysis, NoAnalysisLeftError, next_level
from gradprix.training.execution_mode import ExecutionMode
from gradprix.utils.wording import format_list

from .journal import Comparisons, Journal, OtherRaceError
from .live_files import Watch
from .plan import Plan
from .preflight import preflight


def check_resume(plan: Plan, journal: Journal) -> list[InterimAnalysis]:
    """Check that a plan can resume the race in a journal.

    Returns:
        The interim analyses that were already performed.

    Raises:
        OtherRaceError: if the journal holds a race on another task, in another execution mode, or with other
            comparisons.
        NoAnalysisLeftError: if earlier interim analyses have spent the error rate of 5 %.
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
            # Comparisons that are chosen after an interim analysis could depend on its result.
            raise OtherRaceError(
                f"the race in {folder} was analysed with another {' and '.join(was)} ({_format_comparisons(seen)}): "
                "comparisons must not depend on results, so they are fixed before the first analysis; only optimizers "
                f"may be added. {elsewhere}, with other seeds (--seed)."
            )
    next_level(analyses, plan.seeds)
    return analyses


def available_level(past: list[InterimAnalysis], seeds: int, most: int) -> float | None:
    """Return the level of an interim analysis.

    Args:
        past: interim analyses that were already performed.
        seeds: number of seeds of this analysis.
        most: number of seeds of the last planned analysis.

    Returns:
        The level, or None if no error is left for this analysis and it is not the last one.

    Raises:
        NoAnalysisLeftError: if this is the last analysis and no error is left for it.
    """
    try:
        return next_level(past, seeds)
    except NoAnalysisLeftError:
        if seeds == most:
            raise
        return None


def make_comparisons(plan: Plan) -> Comparisons:
    """Return a description of the comparisons that the interim analyses of a race make."""
    metric = plan.task.metric
    return Comparisons([entry.name for entry in plan.entries], metric.margin, metric.relative, plan.baseline)


def _format_comparisons(seen: Comparisons) -> str:
    """Format the entries, the margin, and the baseline of comparisons."""
    versus = f"baseline {seen.baseline}" if seen.baseline else "all pairs"
    return f"{format_list(seen.entries)}, margin {seen.margin:g}, {versus}"


def choose_execution_mode(plan: Plan, journal: Journal, engine: Executor, watch: Watch) -> ExecutionMode:
    """Return the execution mode of a race.

    A saved race keeps its mode, because the preflight decides by timings, which vary between calls. A new race gets the
    mode that the preflight selects. The preflight also runs if a saved race gets new entries, to check them.

    Args:
        plan: plan of the race.
        journal: journal of the race.
        engine: executor of the race.
        watch: progress callback.

    Raises:
        OtherRaceError: if the saved race runs on another device than the plan requests.
        TaskError: if the task fails, or an optimizer fails on it.
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
