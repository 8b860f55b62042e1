"""Verification of a bundle: its files, the answer, and a sample of its training runs.

Each check assumes less than the one before. Hashes find damage. A replay of the race from the saved runs finds every
answer that does not follow from them. Repeated runs find values that training does not give.
"""

import platform
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradprix.executors.executor import Executor
from gradprix.executors.local import Local
from gradprix.tasks import find
from gradprix.tasks.task import first_line
from gradprix.training.provenance import provenance
from gradprix.training.trial import Trial

from .bundle import FIXED_FILES, Bundle, describe_run, read_bundle
from .entry_registry import resolve_entries
from .live_files import LiveProgress, Watch
from .plan import Plan
from .rebuilt_plan import CodeFolder, CodeNotLoadedError, rebuild_plan
from .record import RaceRecord
from .repeated_runs import Reruns, check_runs, missing_code_cause
from .replay import (
    ROUNDING,
    MissingRunsError,
    RecordedRuns,
    compare_records,
    follows_schedule,
    format_trial,
    replay,
)
from .run_sample import sample_size
from .value_comparison import compare_values
from .verification_record import Cause, Check, CheckKind, Finding, Status, Verification, make_check


@dataclass(frozen=True)
class Replayed:
    """Race that was replayed from a bundle.

    Args:
        bundle: the bundle.
        record: record of the bundle.
        plan: rebuilt plan, with stand-ins for code that is not run.
        trials: all trials of the race, by key.
    """

    bundle: Bundle
    record: RaceRecord
    plan: Plan
    trials: dict[str, Trial]


def verify(
    file: str | Path,
    *,
    runs: int | None = None,
    every: bool = False,
    seed: int | None = None,
    run_code: bool = False,
    task: Any = None,
    optimizers: Sequence[str] = (),
    data: str | Path | None = None,
    engine: Executor | None = None,
    watch: Watch = lambda *_: None,
) -> Verification:
    """Check a bundle: its files, that the answer follows from the training runs, and that training gives these runs.

    Args:
        file: path of the bundle.
        runs: number of training runs to draw at random and repeat; 0 repeats none. Default: enough to find a change of
            5 % of the runs with a probability of 95 %. A run of each entry in each phase, and three final runs of the
            recommended one, are repeated as well.
        every: repeat all training runs.
        seed: seed of the draw. Default: a random one, so that nobody can know the sample in advance.
        run_code: run the code in the bundle. It is the code of whoever made the bundle, and can do anything that you
            can do: read it first.
        task: your own copy of the task, an object or a location such as `"mine.py:task"`.
        optimizers: locations of your own copies of the optimizers, such as `"mine.py:MyOpt"`.
        data: local copy of a built-in task's data.
        engine: executor of the training runs. Default: this machine.
        watch: progress callback.

    Returns:
        The checks, and what differs.

    Raises:
        FileNotFoundError: if there is no such file.
        BundleError: if it is no bundle that this version can read.
        ValueError: if your own task or optimizer cannot be loaded or is another one, or `runs` is negative or given
            together with `every`.
    """
    if runs is not None and runs < 0:
        raise ValueError(f"runs = {runs}: it must be 0 or more.")
    if runs is not None and every:
        raise ValueError(f"runs = {runs} (--runs) and every (--all) exclude each other: give one of them.")
    bundle = read_bundle(Path(file))
    own = {entry.name: entry.rule for name in optimizers for entry in resolve_entries(name)}
    own_task = find(task) if isinstance(task, str) else task
    with CodeFolder(bundle.setup.code if run_code else {}) as folder:
        code = folder if run_code else None
        watch(LiveProgress("Replaying the race from its runs"))
        answer, replayed = check_answer(bundle, code)
        checks, sample = [_check_files(bundle), answer], None
        if replayed is None or runs == 0:
            cause = Cause.NO_REPLAY if replayed is None else Cause.NOT_REQUESTED
            checks.append(make_check(CheckKind.RUNS, [Finding(cause=cause, status=Status.NOT_CHECKED)]))
        else:
            total = len(replayed.trials)
            count = total if every else min(total, sample_size(total) if runs is None else runs)
            reruns = Reruns(
                drawn=count,
                seed=secrets.randbits(32) if seed is None else seed,
                code=code,
                task=own_task,
                optimizers=own,
                data=None if data is None else Path(data),
            )
            executor = Local() if engine is None else engine
            check, sample = check_runs(bundle, replayed.record, replayed.plan, replayed.trials, reruns, executor, watch)
            checks.append(check)
    return Verification(
        task=str(bundle.description["task"]),
        sha256=bundle.sha256,
        environment=bundle.setup.environment,
        environment_here=provenance(),
        machine=bundle.setup.machine,
        checks=tuple(checks),
        sample=sample,
        runs=len(bundle.runs),
        files=len(FIXED_FILES) + len(bundle.setup.code),
    )


def _check_files(bundle: Bundle) -> Check:
    findings = [Finding(cause=Cause.HASHES, names=bundle.damaged)] if bundle.damaged else []
    return make_check(CheckKind.FILES, findings)


def check_answer(bundle: Bundle, code: CodeFolder | None) -> tuple[Check, Replayed | None]:
    """Check that the answer of a bundle follows from its runs, by replaying the race.

    Args:
        bundle: the bundle.
        code: the user's code; None does not run it.

    Returns:
        The check, and the replayed race; None if it could not be replayed.

    Raises:
        BundleError: if this version cannot read the record.
    """
    record = bundle.read_record()
    try:
        plan = rebuild_plan(bundle.description, bundle.setup, code)
        findings = _check_plan(bundle, record, plan)
        runs = RecordedRuns(bundle.outcomes(), record.cost.step_seconds, bundle.setup.environment)
        replayed = replay(plan, runs, record.plan.mode, list(record.verdict.interim_analyses))
    except CodeNotLoadedError as error:
        finding = Finding(cause=missing_code_cause(error), status=Status.NOT_CHECKED, message=str(error))
        return make_check(CheckKind.ANSWER, [finding]), None
    except MissingRunsError as error:
        names = tuple(map(format_trial, error.trials))
        return make_check(CheckKind.ANSWER, [Finding(cause=Cause.MISSING_RUNS, names=names)]), None
    except Exception as error:  # values that no race has can fail anywhere
        finding = Finding(cause=Cause.IMPOSSIBLE, message=f"{type(error).__name__}: {first_line(error)}")
        return make_check(CheckKind.ANSWER, [finding]), None
    findings += _check_labels(bundle, runs.used)
    if differences := compare_records(bundle.record, replayed, _tolerance(bundle)):
        findings.append(Finding(cause=Cause.RECORD, differences=tuple(differences)))
    findings += _check_replications(record)
    return make_check(CheckKind.ANSWER, findings), Replayed(bundle, record, plan, runs.used)


def _tolerance(bundle: Bundle) -> float:
    """Return the relative tolerance of numbers that are computed again here."""
    same = bundle.setup.environment == provenance() and bundle.setup.machine.get("python") == platform.python_version()
    return 0.0 if same else ROUNDING


def _check_plan(bundle: Bundle, record: RaceRecord, plan: Plan) -> list[Finding]:
    """Check that the description agrees with the plan, and that the interim analyses follow the schedule."""
    findings = []
    if differences := compare_values(bundle.description, plan.description, _tolerance(bundle)):
        findings.append(Finding(cause=Cause.PLAN, differences=tuple(differences)))
    if not follows_schedule(list(record.verdict.interim_analyses)):
        findings.append(Finding(cause=Cause.INTERIM_ANALYSES))
    return findings


def _check_labels(bundle: Bundle, used: dict[str, Trial]) -> list[Finding]:
    """Check that each run of a bundle is part of the race, once, and has the hyperparameters and seed of its trial."""
    counts = Counter(run.key for run in bundle.runs)
    unused = {run.key: f"{run.entry} ({run.key})" for run in bundle.runs if run.key not in used or counts[run.key] > 1}
    mislabelled = [
        format_trial(used[run.key])
        for run in bundle.runs
        if run.key in used and (run.entry, run.trial) != (used[run.key].entry_name, describe_run(used[run.key]))
    ]
    findings = [(Cause.UNUSED_RUNS, [*unused.values()]), (Cause.MISLABELLED_RUNS, mislabelled)]
    return [Finding(cause=cause, names=tuple(names)) for cause, names in findings if names]


def _check_replications(record: RaceRecord) -> list[Finding]:
    """Check that the final runs which a race repeated itself have the metric that it states for them."""
    wrong = []
    for rerun in record.reruns:
        entries = [entry for entry in record.entries if entry.name == rerun.entry]
        values = [value for entry in entries for value in entry.final.values]
        if rerun.metric is not None and rerun.metric not in values:
            wrong.append(f"{rerun.entry}, seed {rerun.seed}")
    return [Finding(cause=Cause.RECORD, names=tuple(wrong))] if wrong else []
