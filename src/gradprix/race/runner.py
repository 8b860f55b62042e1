"""Execution of a plan: outcomes in the journal are reused, the remaining trials are run."""

import math
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from msgspec import convert
from msgspec.structs import replace

from gradprix.executors.executor import Engine
from gradprix.stats.alpha_spending import InterimAnalysis, next_level
from gradprix.tasks import Task
from gradprix.text.answer import format_list
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.tuner import Request, Score, TuningResult

from .efficiency import seconds_of_steps
from .journal import Journal, OtherRaceError
from .plan import Plan
from .preflight import preflight
from .progress_display import Watch
from .record_builder import Finals, make_record
from .record_json import read_diagnosis, read_mode, to_json
from .rerun import PATIENCE, SHARE, prepare, repeat
from .result import Result
from .run_records import Rerun, TuningRun


def run(plan: Plan, out: Path | None, engine: Engine, watch: Watch = lambda *_: None) -> Result:
    """Run a plan, or resume it. Identical trials of a race with another plan in the same folder are reused.

    Args:
        plan: the race.
        out: folder to save the race in; nothing is saved when None.
        engine: the executor.
        watch: progress callback.

    Raises:
        OtherRaceError: if the folder holds a race on another task or in another execution mode.
        NoAnalysisLeftError: if the error rate of 5 % is used up by earlier interim analyses.
        JournalError: if the folder is not writable.
        TaskError: if the task, or an optimizer on it, fails.
        WorkerError: if worker processes are killed repeatedly.
        EngineError: if a machine of a cluster cannot take part.
    """
    with Journal(out) as journal:
        described = plan.describe()
        looks, given = check_resume(plan, described, journal, out)
        before, saved = journal.read("plan"), journal.read("form")
        # A race keeps its execution mode: it depends on timings, which vary between calls.
        form = None if saved is None else read_mode(saved)
        if form is None or before is None or before["entries"] != described["entries"]:
            selected = preflight(plan, engine, watch)
            form = form or selected
        if plan.device not in ("auto", form.device):
            raise OtherRaceError(
                f"{out} holds a race whose models are trained on {form.device}. Save this race in another folder "
                "(--out), or delete that one."
            )
        journal.made = engine.describe_provenance(plan, form.device)
        journal.write("plan", described)
        journal.write("form", to_json(form))
        runner = Runner(plan, form, journal, engine, watch)
        finished = set(runner.finished)
        tuned = runner.tune()
        finals = runner.finish(tuned)
        looks = [*dict.fromkeys([*looks, (plan.seeds, given)])]
        journal.write("looks", looks)
        journal.write("compared", describe_comparisons(plan))
        record = make_record(
            plan,
            form,
            runner.tuning_runs,
            tuned,
            finals,
            seconds=round(runner.seconds, 2),
            step_seconds=runner.time_steps(finals),
            interim_analyses=looks,
            reruns=list(runner.reruns.values()),
        )
        explained = journal.read("why")
        if explained is not None and explained["of"][0] == plan.key:
            record = replace(record, diagnosis=read_diagnosis(explained))
        journal.write("record", to_json(record))
    return Result(record, out, len(finished & runner.used))


def check_resume(
    plan: Plan, described: dict[str, Any], journal: Journal, out: Path | None
) -> tuple[list[InterimAnalysis], float]:
    """Check that a plan may resume the race in a folder; return the past interim analyses and the level of this one.

    Raises:
        OtherRaceError: if the folder holds another race.
        NoAnalysisLeftError: if the error rate of 5 % is used up by earlier interim analyses.
    """
    before, seen = journal.read("plan"), journal.read("compared")
    looks: list[InterimAnalysis] = [(seeds, given) for seeds, given in journal.read("looks") or ()]
    elsewhere = f"Save this race in another folder, such as {out}-2 (--out)"
    for key, what in (("fingerprint", "on another task"), ("compiled", "in another execution mode")):
        if before is not None and before.get(key) != described[key]:
            raise OtherRaceError(f"{out} holds a race {what} ({before['task']}). {elsewhere}, or delete that one.")
    if looks and seen is not None:
        mine = describe_comparisons(plan)
        was = [key for key in ("baseline", "margin", "relative") if seen[key] != mine[key]]
        was += ["optimizers"] * (not set(seen["entries"]) <= set(mine["entries"]))
        if was:
            # Comparisons chosen after an interim analysis would depend on its result.
            raise OtherRaceError(
                f"the race in {out} was analysed with another {' and '.join(was)} ({_format_comparisons(seen)}): "
                "comparisons must not depend on results, so they are fixed before the first analysis; only optimizers "
                f"may be added. {elsewhere}, with other seeds (--seed)."
            )
    return looks, next_level(looks, plan.seeds)


def describe_comparisons(plan: Plan) -> dict[str, Any]:
    """Return the comparisons that an interim analysis makes."""
    metric = plan.task.metric
    names = [entry.name for entry in plan.entries]
    return {"entries": names, "margin": metric.margin, "relative": metric.relative, "baseline": plan.baseline}


def _format_comparisons(seen: dict[str, Any]) -> str:
    who = format_list(seen["entries"])
    return f"{who}, margin {seen['margin']:g}, " + (f"baseline {seen['baseline']}" if seen["baseline"] else "all pairs")


def _tuning_run(request: Request, trial: Trial, outcome: Outcome, phase: int) -> TuningRun:
    return TuningRun(
        point=dict(request.point),
        seed=trial.seed,
        first=request.seed == 0,
        spread=phase == 0,  # chosen before any score was known
        start=outcome.start,
        loss=outcome.valid_loss,
        metric=outcome.valid_metric,
        diverged=outcome.diverged,
        error=outcome.error,
        failure=outcome.failure,
    )


@dataclass
class Runner:
    """A race in progress: finished trials, and the execution of the others."""

    plan: Plan
    form: ExecutionMode
    journal: Journal
    engine: Engine
    watch: Watch
    finished: dict[str, Outcome] = field(default_factory=dict)
    tuning_runs: dict[str, list[TuningRun]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    reruns: dict[str, Rerun] = field(default_factory=dict)
    later: int = 0

    def __post_init__(self) -> None:
        self.later = len(self.plan.phases)
        self.finished = self.journal.finished()
        self.seconds = self.journal.read("seconds") or 0.0
        self.tuning_runs = {entry.name: [] for entry in self.plan.entries}

    def outcomes(self, phase: str, trials: list[Trial]) -> list[Outcome]:
        """Return the outcomes of trials: from the journal if finished, else by running them."""
        self.used |= {trial.key for trial in trials}
        missing = {trial.key: trial for trial in trials if trial.key not in self.finished}
        before, self.later = self.done, self.later - 1

        def watch(share: float) -> None:
            self.watch(f"{phase}{self.engine.state}", before + share, self.plan.runs)

        watch(0.0)
        started = time.perf_counter()
        todo = list(missing.values())
        good = bool(self.finished)
        runs = self.engine.run(self.plan.task, todo, watch, self.form, self.later, good) if todo else ()
        for stack, outcomes in runs:
            if outcomes[0].error is None:  # failed trials run again when the race is resumed
                self.journal.finish(stack, outcomes)
            self.seconds, started = self.seconds + time.perf_counter() - started, time.perf_counter()
            self.journal.write("seconds", self.seconds)
            self.finished |= {trial.key: outcome for trial, outcome in zip(stack, outcomes, strict=True)}
        return [self.finished[trial.key] for trial in trials]

    def score(self, outcome: Outcome) -> Score:
        """Return the score of a tuning run; smaller is better, and infinity if it diverged."""
        if outcome.diverged is not None:
            return Score(math.inf, math.inf)
        sign = -1 if self.plan.task.metric.higher_is_better else 1
        return Score(outcome.valid_loss, sign * outcome.valid_metric)

    @property
    def done(self) -> int:
        """Number of finished training runs."""
        return sum(map(len, self.tuning_runs.values()))

    def tune(self) -> dict[str, TuningResult]:
        """Tune all entries concurrently: each phase runs the requests of all tuners together."""
        entries = {entry.name: entry for entry in self.plan.entries}
        tuners = {name: self.plan.tuner(entry) for name, entry in entries.items()}
        for phase, names in enumerate(self.plan.phases[:-1]):
            requests = {name: tuners[name].ask() for name in names}
            trials = {
                name: [self.plan.tuning_trial(entries[name], dict(point), seed) for point, seed in requested]
                for name, requested in requests.items()
            }
            self.outcomes("tuning", list(chain(*trials.values())))
            for name in names:
                outcomes = [self.finished[trial.key] for trial in trials[name]]
                runs = zip(requests[name], trials[name], outcomes, strict=True)
                self.tuning_runs[name] += [_tuning_run(*run, phase) for run in runs]
                tuners[name].tell([self.score(outcome) for outcome in outcomes])
        return {name: tuner.result for name, tuner in tuners.items()}

    def finish(self, tuned: dict[str, TuningResult]) -> Finals:
        """Run every entry at its tuned point on the held-out final seeds."""
        trials = [
            self.plan.final_trial(entry, dict(tuned[entry.name].point), seed)
            for entry in self.plan.entries
            for seed in range(self.plan.seeds)
        ]
        prepare(self.plan, self.form, self.engine)
        new, before = sum(trial.key not in self.finished for trial in trials), self.seconds
        pairs = list(zip(trials, self.outcomes("final", trials), strict=True))
        n = self.plan.seeds
        finals = {entry.name: pairs[i * n : (i + 1) * n] for i, entry in enumerate(self.plan.entries)}
        seconds = (self.seconds - before) / new if new else self.seconds / max(1, self.done)
        saved, each = self.journal.read("reruns") or {}, seconds * self.engine.workers
        known = {key: convert(rerun, Rerun) for key, rerun in saved.items()}
        patience = max(PATIENCE, SHARE * self.seconds)
        self.reruns = repeat(self.plan, self.form, self.engine, finals, each, patience, known)
        self.journal.write("reruns", to_json(self.reruns))
        return finals

    def time_steps(self, finals: Finals) -> dict[str, float | None]:
        """Return the seconds of a step of each tuned optimizer without stacking; None where it cannot be measured.

        Steps of training loops and of failed runs are not timed.
        """
        if not isinstance(self.plan.task, Task):
            return dict.fromkeys(finals)
        whole = {name: runs for name, runs in finals.items() if all(outcome.error is None for _, outcome in runs)}
        trials = {name: runs[0][0] for name, runs in whole.items()}
        known = self.journal.read("step_seconds") or {}
        missing = [trial for trial in trials.values() if trial.key not in known]
        if missing:
            try:
                measured = self.engine.ask(seconds_of_steps, self.plan.task, missing, self.form.device)
            except Exception:  # the race is finished: a failed timing must not discard its result
                return dict.fromkeys(finals)
            known |= {trial.key: seconds for trial, seconds in zip(missing, measured, strict=True)}
            self.journal.write("step_seconds", known)
        return {name: known[trials[name].key] if name in trials else None for name in finals}
