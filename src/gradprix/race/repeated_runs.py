"""Repetition of training runs of a bundle, and comparison with the runs in it."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from gradprix.executors.executor import Executor, WorkerError
from gradprix.tasks.loop import Loop, Problem
from gradprix.tasks.task import TaskError, first_line
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.provenance import versions
from gradprix.training.trial import Outcome, Trial
from gradprix.utils.devices import require

from .bundle import Bundle
from .entry import Entry
from .live_files import LiveProgress, Watch
from .plan import Plan
from .rebuilt_plan import CodeFolder, CodeNotLoadedError, as_entry, find_optimizer, find_task, same_code, with_settings
from .record import RaceRecord
from .replay import format_trial
from .rerun import LOOP_TOLERANCE
from .run_comparison import SAME_WEIGHTS, NoiseScale, RunLength, compare_runs, compare_within_noise
from .run_sample import SHARE, detection_probability, draw_sample
from .setup import describe_machine
from .value_comparison import Difference
from .verification_record import Cause, Check, CheckKind, Finding, Sample, Status, make_check


@dataclass(frozen=True, kw_only=True)
class Reruns:
    """Which runs to repeat, and with whose code.

    Args:
        drawn: number of runs to draw at random.
        seed: seed of the draw.
        code: code of the bundle; None does not run it.
        task: the verifier's own copy of the task; None for that of the bundle.
        optimizers: the verifier's own optimizers, by name of the entry.
        data: local copy of a built-in task's data.
    """

    drawn: int
    seed: int
    code: CodeFolder | None
    task: Any
    optimizers: Mapping[str, Any]
    data: Path | None


def check_runs(
    bundle: Bundle,
    record: RaceRecord,
    plan: Plan,
    trials: Mapping[str, Trial],
    reruns: Reruns,
    engine: Executor,
    watch: Watch,
) -> tuple[Check, Sample | None]:
    """Repeat a sample of the training runs of a bundle, and compare them.

    Args:
        bundle: the bundle.
        record: its record.
        plan: its plan, with stand-ins for code that is not run.
        trials: its trials by key.
        reruns: which runs to repeat, and with whose code.
        engine: executor of the training runs.
        watch: progress callback.

    Returns:
        The check, and the sample; None if no run was repeated.

    Raises:
        ValueError: if the verifier's own task or optimizer is another one than that of the race.
    """
    mode, environment = record.plan.mode, bundle.setup.environment
    try:
        require(mode.device)
    except ValueError as error:
        return _not_checked(Cause.NO_DEVICE, str(error)), None
    try:
        task = _find_task(bundle, plan, reruns)
    except CodeNotLoadedError as error:
        return _not_checked(missing_code_cause(error), str(error)), None
    except OtherCodeError as error:
        return make_check(CheckKind.RUNS, [Finding(cause=Cause.OTHER_TASK, message=str(error))]), None
    except TaskError as error:
        return _not_checked(Cause.CODE_FAILS, str(error)), None
    except ValueError as error:
        if reruns.task is not None:
            raise
        return _not_checked(Cause.CODE_FAILS, str(error)), None
    entries, findings = _find_entries(bundle, plan, reruns)
    here = engine.describe_provenance(replace(plan, task=task), mode.device)
    available = {key: trial for key, trial in trials.items() if trial.entry_name in entries}
    if not available:
        return make_check(CheckKind.RUNS, findings), None
    drawn = min(reruns.drawn, len(available))
    same_rounding = bundle.setup.machine.get("mkl") == describe_machine()["mkl"]
    is_bitwise = here == environment and same_rounding and mode.device == "cpu"
    # A single run shows a change to the bit, but several are needed to find a shift within the noise of a seed.
    several = {record.verdict.recommended} if is_bitwise else {entry.name for entry in plan.entries}
    keys = draw_sample(available, drawn, reruns.seed, several)
    chosen = {key: replace(trials[key], rule=entries[trials[key].entry_name].rule) for key in keys}
    try:
        again = _train(task, chosen, mode, engine, watch)
    except (TaskError, WorkerError) as error:
        return make_check(CheckKind.RUNS, [*findings, _skipped(Cause.CODE_FAILS, str(error))]), None
    stated = bundle.outcomes()
    sample = Sample(
        total=len(trials),
        available=len(available),
        drawn=drawn,
        repeated=len(again),
        seed=reruns.seed,
        share=SHARE,
        probability=detection_probability(len(available), drawn),
        is_bitwise=is_bitwise,
        identical=sum(not compare_runs(stated[key], outcome) for key, outcome in again.items()),
        is_loop=isinstance(task, Loop),
        is_same_task=task.fingerprint == plan.task.fingerprint,
    )
    if is_bitwise:
        findings += _compare_to_the_bit(stated, trials, again, LOOP_TOLERANCE if sample.is_loop else 0.0)
        return make_check(CheckKind.RUNS, findings), sample
    outside, largest = _compare_within_noise(stated, record, trials, again)
    return make_check(CheckKind.RUNS, [*findings, *outside], Status.WITHIN_NOISE), structs.replace(
        sample, largest_deviation=largest
    )


class OtherCodeError(ValueError):
    """Raised if the code of a bundle is not that of its race."""


def _skipped(cause: Cause, message: str, names: tuple[str, ...] = ()) -> Finding:
    return Finding(cause=cause, status=Status.NOT_CHECKED, message=message, names=names)


def _not_checked(cause: Cause, message: str) -> Check:
    return make_check(CheckKind.RUNS, [_skipped(cause, message)])


def missing_code_cause(error: CodeNotLoadedError) -> Cause:
    """Return the reason why a check that needs code was not made."""
    return Cause.CODE_NOT_RUN if error.is_known else Cause.CODE_UNKNOWN


def _find_task(bundle: Bundle, plan: Plan, reruns: Reruns) -> Problem:
    """Return the task of a race, or the verifier's own copy of it.

    Raises:
        OtherCodeError: if the task of the bundle is not that of the race.
        CodeNotLoadedError: if it is not part of gradprix, and the code of the bundle is not to be run.
        ValueError: if it cannot be loaded, or if the own copy is another task.
    """
    is_own = reruns.task is not None
    task = with_settings(reruns.task, plan) if is_own else find_task(plan, bundle.setup, reruns.code, reruns.data)
    if task.fingerprint == plan.task.fingerprint or not is_same_python(bundle):
        return task
    prints = f"(fingerprint {task.fingerprint[:8]} instead of {plan.task.fingerprint[:8]})"
    if is_own:
        raise ValueError(f"your task {task.name!r} is not that of the race: its data, model or code differ {prints}.")
    raise OtherCodeError(
        f"the task {task.name!r} has other data, another model or other code than that of the race {prints}."
    )


def is_same_python(bundle: Bundle) -> bool:
    """Return True if a race ran with the versions that are installed here, so that its code has the same hashes."""
    python = str(bundle.setup.machine.get("python")).rpartition(".")[0]
    same_versions = bundle.setup.environment.startswith(f"{versions()}, ")
    return same_versions and python == platform.python_version().rpartition(".")[0]


def _find_entries(bundle: Bundle, plan: Plan, reruns: Reruns) -> tuple[dict[str, Entry], list[Finding]]:
    """Return the entries whose code is available, by name, and what was found about the others.

    Raises:
        ValueError: if the verifier's own optimizer is another one than that of the race.
    """
    available: dict[str, Entry] = {}
    findings = []
    for setup, stand_in in zip(bundle.setup.entries, plan.entries, strict=True):
        name, own = setup.name, reruns.optimizers.get(setup.name)
        try:
            entry = as_entry(find_optimizer(setup, reruns.code) if own is None else own, stand_in)
        except CodeNotLoadedError as error:
            findings.append(_skipped(missing_code_cause(error), str(error), (name,)))
            continue
        except (ValueError, TypeError) as error:
            if own is not None:
                raise
            findings.append(_skipped(Cause.CODE_FAILS, first_line(error), (name,)))
            continue
        if same_code(entry, stand_in, plan):
            available[name] = entry
        elif own is not None and is_same_python(bundle):
            raise ValueError(f"your optimizer {name} is not that of the race: its code differs.")
        else:
            status = Status.DIFFERS if is_same_python(bundle) else Status.NOT_CHECKED
            findings.append(Finding(cause=Cause.OTHER_OPTIMIZER, status=status, names=(name,)))
    return available, findings


def _train(
    task: Problem, trials: Mapping[str, Trial], mode: ExecutionMode, engine: Executor, watch: Watch
) -> dict[str, Outcome]:
    """Train some trials, and return their outcomes by key."""
    keys, total = {id(trial): key for key, trial in trials.items()}, len(trials)

    def report(done: float) -> None:
        watch(LiveProgress("Repeating training runs", done, total))

    stacks = engine.run(task, list(trials.values()), report, mode)
    return {
        keys[id(trial)]: outcome for stack, outcomes in stacks for trial, outcome in zip(stack, outcomes, strict=True)
    }


def _compare_to_the_bit(
    stated: Mapping[str, Outcome], trials: Mapping[str, Trial], again: Mapping[str, Outcome], tolerance: float
) -> list[Finding]:
    """Return the runs that are not the same to the bit, or within the tolerance of a training loop."""
    differences = {key: compare_runs(stated[key], outcome, tolerance) for key, outcome in again.items()}
    wrong = {key: each for key, each in differences.items() if each}
    if not wrong:
        return []
    values = tuple(_difference_of_run(trials[key], first) for key, (first, *_) in wrong.items())
    return [Finding(cause=Cause.VALUES, differences=values)]


def _difference_of_run(trial: Trial, difference: Difference) -> Difference:
    return structs.replace(difference, where=f"{format_trial(trial)}: {difference.where}")


def _compare_within_noise(
    stated: Mapping[str, Outcome], record: RaceRecord, trials: Mapping[str, Trial], again: Mapping[str, Outcome]
) -> tuple[list[Finding], float]:
    """Return the runs that differ by more than noise, and the largest deviation."""
    margin = record.verdict.margin or 0.0
    finals: dict[RunLength, list[Outcome]] = {}
    for key, trial in trials.items():
        if trial.evaluates_test:
            finals.setdefault((trial.entry_name, trial.epochs), []).append(stated[key])
    scales = {length: NoiseScale.from_finals(outcomes, margin) for length, outcomes in finals.items()}
    chosen = {key: trials[key] for key in again}
    result = compare_within_noise(chosen, stated, again, scales, record.plan.metric.higher_is_better)
    values = [
        Difference.from_values(format_trial(trials[key]), one, other)
        if one != other  # equal if other numbers contradict the losses, which are equal to the bit
        else _difference_of_run(trials[key], compare_runs(stated[key], again[key], SAME_WEIGHTS)[0])
        for key, (one, other) in result.different.items()
    ]
    values += [
        Difference(f"{name}, mean of its final runs", "0", f"{shift:+.4g}") for name, shift in result.shifted.items()
    ]
    return [Finding(cause=Cause.VALUES, differences=tuple(values))] if values else [], result.largest
