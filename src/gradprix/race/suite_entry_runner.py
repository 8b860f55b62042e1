"""Comparison of one optimizer with the published suite: its tuning and final runs, and the result."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradprix.executors.executor import Executor
from gradprix.executors.local import Local
from gradprix.integrations.loggers import Logger, Loggers, make_loggers
from gradprix.stats.tuning_variance import include_search, tuning_deviation
from gradprix.stats.verdict import judge
from gradprix.text.suite_entry import format_comparison, format_suite_entry
from gradprix.tuning.response_curve import ResponseCurve, learning_rate_tolerance
from gradprix.tuning.tuner import TuningResult
from gradprix.utils.margins import absolute_margin
from gradprix.utils.wording import printable

from .analysis import bound_regrets, final_score, test_parts
from .control import Control, compare_control
from .entry import Entry
from .journal import Journal, OtherRaceError
from .live_files import LiveFiles, TaskProgress, Watch
from .progress_display import progress
from .published_task import PublishedTask
from .record_builder import describe_plan, make_best, summarize_finals
from .record_json import to_json
from .response_curves import tuned_scores
from .resume import check_resume
from .run_records import Finals, Rerun, TuningRun, failed_runs, outcomes_by_entry
from .runner import Runner
from .saved_result import SavedResult
from .suite_entry_plan import SuiteEntryPlan, suite_entry_plans
from .suite_entry_record import SuiteComparison, TaskComparison

if TYPE_CHECKING:
    from pandas import DataFrame


class TaskComparisonResult(SavedResult[TaskComparison]):
    """Comparison of one optimizer with the published suite on a task."""

    @property
    def text(self) -> str:
        """Result in sentences."""
        return "\n".join(format_comparison(self.record))

    @property
    def entries(self) -> "DataFrame":
        """Data frame of the optimizer's final runs: tuned values, mean and confidence interval."""
        import pandas as pd  # slow to import

        record, (low, high) = self.record, self.record.final.ci95
        row = {"entry": record.name, **record.tuned, "mean": record.final.mean, "low": low, "high": high}
        return pd.DataFrame([{**row, "diverged": record.final.diverged, "code": record.best.code}])


@dataclass(frozen=True)
class SuiteEntryResult:
    """Comparison of one optimizer with the published suite.

    Args:
        record: complete record.
        folder: parent folder of the folders of the tasks; None if the runs were not saved.
    """

    record: SuiteComparison
    folder: Path | None = None

    @property
    def text(self) -> str:
        """Result in sentences."""
        return "\n".join(format_suite_entry(self.record))

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary, as `--json` prints it. Later versions only add keys."""
        record, data = self.record, to_json(self.record, finite=True)
        for name, task in record.tasks.items():
            rest = {"rank": task.rank, "bound": task.bound, "regrets": task.regrets, "text": format_comparison(task)}
            data["tasks"][name] |= rest
        regrets = {name: to_json(regret) for name, regret in record.regrets.items()}
        out = None if self.folder is None else str(self.folder)
        return {"text": format_suite_entry(record), "out": out, "regrets": regrets, **data}

    def __repr__(self) -> str:
        return printable(self.text)


def enter_suite(
    entry: str | Entry,
    tasks: str | Iterable[str] | None = None,
    *,
    published: Iterable[PublishedTask] | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    log: "str | Logger | Iterable[str | Logger] | None" = None,
    engine: Executor | None = None,
    watch: Watch | None = None,
) -> SuiteEntryResult:
    """Compare one optimizer with the tuned optimizers of the published suite, at the cost of its own runs.

    The optimizer is tuned and run on each task by the protocol of the suite: the same number of tuning trials, the same
    final seeds. Its final runs are compared with the published ones, which are distributed with the package.

    Args:
        entry: the optimizer, as in `race`: an entry, a name, or a location such as `"mine.py:MyOpt"`.
        tasks: names of tasks, as a list or separated by commas. Default: all published tasks.
        published: published tasks, from `publish`. Default: those of the package.
        device: device of the models, as in `race`.
        out: parent folder of the folders of the tasks, so that the runs can be resumed. By default, nothing is saved.
        log: loggers of the runs, as in `race`.
        engine: executor of the training runs. Default: this machine.
        watch: progress callback. By default, progress is displayed.

    Raises:
        ValueError: if a name is unknown, or there are several optimizers.
        PublishedError: if a task differs from the published one.
        ControlError: if repeated published runs differ by more than rounding explains.
        TaskError: if the optimizer fails on a task.
        WorkerError: if worker processes are killed repeatedly.
        JournalError: if a folder holds a race, or is not writable.
    """
    plans = suite_entry_plans(entry, tasks, published, device)
    folder = None if out is None else Path(out)
    if watch is not None:
        return run_suite_entry(plans, folder, engine or Local(), watch, log)
    with progress() as shown:
        return run_suite_entry(plans, folder, engine or Local(), shown, log)


def run_suite_entry(
    plans: Sequence[SuiteEntryPlan],
    out: Path | None,
    engine: Executor,
    watch: Watch = lambda *_: None,
    log: "str | Logger | Iterable[str | Logger] | None" = None,
) -> SuiteEntryResult:
    """Run the plans of `suite_entry_plans`, one after the other, and summarize the comparisons. See `enter_suite`."""
    progress = TaskProgress(sum(plan.runs for plan in plans), watch)
    records: dict[str, TaskComparison] = {}
    for plan in plans:
        name, folder = plan.task.name, None if out is None else out / plan.task.name
        records[name] = run_task(plan, folder, engine, progress.watch_task(name), make_loggers(log)).record
    return SuiteEntryResult(SuiteComparison(entry=plans[0].entry.name, tasks=records), out)


def run_task(
    plan: SuiteEntryPlan,
    out: Path | None,
    engine: Executor,
    watch: Watch = lambda *_: None,
    loggers: Sequence[Logger] = (),
) -> TaskComparisonResult:
    """Tune and run one optimizer on a task and compare it with the published ones, or resume an interrupted call.

    The control comes first, so that a comparison that is impossible costs nothing else. See `enter_suite` for errors.

    Args:
        plan: plan of the comparison.
        out: folder to save the runs in; None does not save them.
        engine: executor of the training runs.
        watch: progress callback.
        loggers: loggers of the training runs and of the result.
    """
    name = plan.entry.name
    with Journal(out) as journal, LiveFiles(out) as live, Loggers(loggers, plan, out) as logs:
        if journal.comparisons is not None or (journal.plan is not None and len(journal.plan.entries) > 1):
            raise OtherRaceError(f"{out} holds a race. Choose another folder (--out) for the runs of {name}.")
        check_resume(plan, journal)
        runner = Runner.start(plan, journal, engine, watch, logs, live)
        logs.start()
        trials = [trial for each in plan.control.values() for trial in each]
        runner.run_trials("control", trials, 0, phases_left=len(plan.phases))
        repeated = {each: [runner.finished[trial.key] for trial in runs] for each, runs in plan.control.items()}
        control = compare_control(plan.published, repeated)
        runner.runs_before_tuning = len(trials)
        tuned, tuning_runs = runner.tune()
        point = dict(tuned[name].point)
        own = {name: [plan.final_trial(plan.entry, point, seed) for seed in range(plan.seeds)]}
        (finals,), seconds_per_run = runner.run_final_trials(own)
        reruns = list(runner.repeat_finals(finals, seconds_per_run).values())
        record = compare_with_published(plan, runner, control, tuned[name], tuning_runs[name], finals, reruns)
        result = TaskComparisonResult(record, out, len(runner.reused))
        logs.log_result(result)
    return result


def compare_with_published(
    plan: SuiteEntryPlan,
    runner: Runner,
    control: Control,
    tuned: TuningResult,
    runs: Sequence[TuningRun],
    finals: Finals,
    reruns: Sequence[Rerun],
) -> TaskComparison:
    """Compare the final runs of an optimizer with the published ones.

    The comparisons are those of an interim analysis of the published race with the optimizer as its baseline. The
    variance of the optimizer's mean contains that from tuning, and that of a shift between machines; see `control`. A
    regret bound contains only the variance of the other entry, to which the shift is added there.

    Args:
        plan: plan that was run.
        runner: runner of the plan.
        control: comparison of repeated runs with the published ones.
        tuned: result of tuning.
        runs: tuning runs of the optimizer.
        finals: its final runs, by its name.
        reruns: final runs that were repeated in a new process.
    """
    published, metric, label, name = plan.published, plan.published.metric, plan.label, plan.entry.name
    outcomes = outcomes_by_entry(finals)
    own = tuple(final_score(outcome, published.chance_level) for outcome in outcomes[name])
    own_parts, parts = test_parts(outcomes, published.chance_level), published.parts
    values = {**published.values, label: own}
    crossed = None if parts is None or own_parts is None else {**parts, label: own_parts[name]}
    means = {entry: sum(each) / len(each) for entry, each in values.items()}
    best = (max if metric.higher_is_better else min)(means.values())
    margin = absolute_margin(metric.margin, metric.relative, best)
    tolerance, from_tuning = _evaluate_tuning(published, tuned, runs, margin)
    deviations = {**dict.fromkeys(values, published.tuning_deviation), label: from_tuning}
    shifted = {entry: math.hypot(deviation, control.deviation) for entry, deviation in deviations.items()}
    level, spent = published.interim_analyses[-1][1], sum(level for _, level in published.interim_analyses)
    settings: dict[str, Any] = {"higher_is_better": metric.higher_is_better, "level": level, "parts": crossed}
    margins: dict[str, Any] = {"margin": metric.margin, "relative": metric.relative}
    tuning = {**deviations, label: shifted[label]}
    verdict = judge(values, **margins, baseline=label, spent=spent, tuning=tuning, **settings)
    diverged = {entry.name for entry in published.entries if entry.diverged}
    if any(outcome.diverged is not None for outcome in outcomes[name]):
        diverged.add(label)
    stable = [entry for entry in values if entry not in diverged]
    bounds = bound_regrets(values, stable, {**settings, "tuning": shifted})
    return TaskComparison(
        task=published.task,
        about=plan.task.about,
        name=label,
        best=make_best(plan, plan.entry, dict(tuned.point)),
        tuned=dict(tuned.point),
        edges=tuple(tuned.edges),
        tolerance=tolerance,
        final=summarize_finals(plan, values[label], outcomes[name]),
        margin=margin,
        means=means,
        bounds=bounds,
        pairs=verdict.pairs,
        leaders=published.leaders,
        recommended=published.recommended,
        tuning_deviation=from_tuning,
        control=control,
        runs=plan.runs,
        seconds=round(runner.seconds, 2),
        published_runs=published.runs,
        published_seconds=published.seconds,
        failed=failed_runs({name: runs}, finals),
        reruns=tuple(reruns),
        plan=describe_plan(plan, runner.mode, outcomes, published.chance_level, crossed),
        versions=plan.description["versions"],
    )


def _evaluate_tuning(
    published: PublishedTask, tuned: TuningResult, runs: Sequence[TuningRun], margin: float
) -> tuple[tuple[float, float] | None, float]:
    """Return the learning-rate tolerance of an optimizer, and the standard deviation of its mean due to tuning."""
    is_higher_better, from_tuning = published.metric.higher_is_better, published.tuning_deviation
    if tuned.point and len(tuned.choices) == 1:
        from_tuning = max(from_tuning, tuning_deviation([], margin))
    scores = tuned_scores(runs, is_higher_better)
    curve = ResponseCurve.fit(scores, published.noise or margin, margin) if scores else None
    if curve is None:
        return None, from_tuning
    if len(tuned.choices) == 2:
        first, second = (curve(dict(choice)["lr"]) for choice in tuned.choices)
        from_tuning = include_search(from_tuning, published.searches, first - second, margin)
    return learning_rate_tolerance(curve, scores, margin, dict(tuned.point)["lr"]), from_tuning
