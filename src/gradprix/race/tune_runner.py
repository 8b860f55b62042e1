"""Execution of a plan of tuning one optimizer, and the result."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gradprix.executors.executor import Executor
from gradprix.integrations.loggers import Logger, Loggers
from gradprix.stats.verdict import judge
from gradprix.text.tuning import format_tuning
from gradprix.tuning.response_curve import ResponseCurve, learning_rate_tolerance
from gradprix.tuning.tuner import TuningResult
from gradprix.utils.margins import absolute_margin

from .analysis import score_finals
from .journal import Journal, OtherRaceError
from .live_files import LiveFiles, Watch
from .record_builder import describe_plan, make_best, summarize_finals
from .record_json import to_json
from .response_curves import response_curves, tuned_scores
from .resume import check_resume
from .run_records import Finals, Rerun, TuningRun, failed_runs, outcomes_by_entry
from .runner import Runner
from .saved_result import SavedResult
from .tune_plan import DEFAULT_LABEL, TunePlan
from .tune_record import DefaultComparison, SmoothedMetric, TuneRecord

if TYPE_CHECKING:
    from pandas import DataFrame

TUNE_PAGE = "tune.html"


class TuneResult(SavedResult[TuneRecord]):
    """Result of tuning one optimizer."""

    @property
    def text(self) -> str:
        """Answer as text: tuned settings, tolerance, difference from the default settings, and warnings."""
        return "\n".join(format_tuning(self.record))

    @property
    def tolerance(self) -> tuple[float, float] | None:
        """Learning-rate tolerance: smallest and largest learning rate within a margin of the best.

        None if every tuning run diverged.
        """
        return self.record.tolerance

    @property
    def entries(self) -> "DataFrame":
        """Data frame of the final runs: tuned values, mean and confidence interval at each setting, best mean first."""
        from .dataframes import settings_frame

        return settings_frame(self.record)

    @property
    def runs(self) -> "DataFrame":
        """Data frame of the tuning runs, in the order in which the tuner requested them."""
        from .dataframes import tuning_frame  # importing pandas is slow

        return tuning_frame({self.best.name: self.record.runs})

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary, as `--json` prints it. Later versions only add keys."""
        record = self.record
        own = {"disagreement": record.disagreement, "cliff": record.cliff, "text": self.text}
        out = None if self.folder is None else str(self.folder)
        page = None if self.folder is None else str(self.folder / TUNE_PAGE)
        return {"task": record.task, "out": out, "page": page, **own, **to_json(record, finite=True)}


def run_tuning(
    plan: TunePlan,
    out: Path | None,
    engine: Executor,
    watch: Watch = lambda *_: None,
    loggers: Sequence[Logger] = (),
) -> TuneResult:
    """Tune one optimizer, or resume an interrupted call.

    Args:
        plan: plan of tuning.
        out: folder to save the runs in; None does not save them.
        engine: executor of the training runs.
        watch: progress callback.
        loggers: loggers of the training runs and of the result.

    Raises:
        OtherRaceError: if the folder holds a race, or runs on another task or in another execution mode.
        JournalError: if the folder is not writable.
        TaskError: if the task fails, or the optimizer fails on it.
        WorkerError: if worker processes are killed repeatedly.
        EngineError: if a machine of a cluster cannot take part.
    """
    name = plan.entry.name
    with Journal(out) as journal, LiveFiles(out) as live, Loggers(loggers, plan, out) as logs:
        if journal.comparisons is not None or (journal.plan is not None and len(journal.plan.entries) > 1):
            raise OtherRaceError(f"{out} holds a race. Choose another folder (--out) to tune {name}.")
        check_resume(plan, journal)
        runner = Runner.start(plan, journal, engine, watch, logs, live)
        logs.start()
        tuned, tuning_runs = runner.tune()
        point = dict(tuned[name].point)
        seeds = range(plan.seeds)
        trials = {name: [plan.final_trial(plan.entry, point, seed) for seed in seeds]}
        if plan.default is not None:
            rate = {"lr": plan.default.default_rate}
            trials[DEFAULT_LABEL.format(name)] = [plan.final_trial(plan.default, rate, seed) for seed in seeds]
        (finals,), seconds_per_run = runner.run_final_trials(trials)
        reruns = list(runner.repeat_finals(finals, seconds_per_run).values())
        record = make_tune_record(plan, runner, tuned[name], tuning_runs[name], finals, reruns)
        result = TuneResult(record, out, len(runner.reused))
        if loggers:
            runner.describe("Writing logs")
        logs.log_result(result)
    return result


def make_tune_record(
    plan: TunePlan,
    runner: Runner,
    tuned: TuningResult,
    runs: Sequence[TuningRun],
    finals: Finals,
    reruns: Sequence[Rerun],
) -> TuneRecord:
    """Assemble the record of tuning one optimizer.

    Args:
        plan: plan that was run.
        runner: runner of the plan.
        tuned: result of tuning.
        runs: tuning runs, in the order in which the tuner requested them.
        finals: final runs at each setting, in the order of the seeds. The tuned setting is first.
        reruns: final runs that were repeated in a new process.
    """
    metric, name, point = plan.task.metric, plan.entry.name, dict(tuned.point)
    outcomes = outcomes_by_entry(finals)
    chance_level, values, parts = score_finals(plan, outcomes)
    summaries = {each: summarize_finals(plan, values[each], outcomes[each]) for each in finals}
    final, *at_default = summaries.values()
    margin = absolute_margin(metric.margin, metric.relative, final.mean)
    curve = response_curves({name: runs}, metric.higher_is_better, margin)[name]
    scores = tuned_scores(runs, metric.higher_is_better)
    default = None
    if at_default:
        (pair,) = judge(
            values, higher_is_better=metric.higher_is_better, margin=margin, parts=parts
        ).pairs  # compares settings, not optimizers, so tuning variance is ignored
        sign = 1 if pair.a == name else -1
        low, high = sorted(sign * end for end in pair.ci95)
        default = DefaultComparison(
            settings=plan.default_point, final=at_default[0], loss=sign * pair.difference, ci95=(low, high)
        )
    return TuneRecord(
        task=plan.task.name,
        about=plan.task.about,
        best=make_best(plan, plan.entry, point),
        tuned=point,
        choices=tuple(dict(choice) for choice in tuned.choices),
        edges=tuned.edges,
        tolerance=None if curve is None else learning_rate_tolerance(curve, scores, margin, point["lr"]),
        margin=margin,
        curve=None if curve is None else _smoothed_metric(curve, metric.higher_is_better),
        final=final,
        default=default,
        runs=tuple(runs),
        failed=failed_runs({name: runs}, finals),
        reruns=tuple(reruns),
        plan=describe_plan(plan, runner.mode, outcomes, chance_level, parts),
        seconds=round(runner.seconds, 2),
        versions=plan.description["versions"],
    )


def _smoothed_metric(curve: ResponseCurve, higher_is_better: bool) -> SmoothedMetric:
    """Convert a response curve to its form in the record, in which the metric has its own sign."""
    sign = -1 if higher_is_better else 1
    effects = curve.seed_effects
    average = fmean(effects.values())
    return SmoothedMetric(
        learning_rates=tuple((10**curve.positions).tolist()),
        metrics=tuple((sign * (curve.metrics + average)).tolist()),
        seed_effects={seed: sign * (effect - average) for seed, effect in effects.items()},
    )
