"""The published suite: final runs of tuned optimizers on the built-in tasks, which are distributed with the package.

They allow a comparison of a new optimizer with tuned ones at the cost of its own training runs; see `suite_entry`.
`python studies/publish_suite.py` writes the files anew from the records of the races.
"""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gradprix.stats.alpha_spending import InterimAnalysis
from gradprix.tasks import ALL
from gradprix.training.execution_mode import ExecutionMode
from gradprix.tuning import FEWEST_TWOFOLD
from gradprix.tuning.response_curve import noise_deviation

from .plan_description import MetricDescription, Value
from .record import RaceRecord
from .response_curves import tuned_scores

FOLDER = Path(__file__).with_name("published")
SUFFIX = ".json.gz"
VERSION = 1
"""Version of the files."""


class PublishedError(ValueError):
    """Raised if a published task cannot be read, or a task or its settings differ from the published ones."""


class PublishedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Tuned optimizer of the published suite.

    Args:
        name: name of the entry, which `gradprix list optimizers` explains.
        schedule: learning-rate schedule; None for that of the task.
        tuned: tuned values.
        values: metric of each final run, in the order of the seeds; diverged runs have the chance level.
        parts: metric of each final run on each part of an official test set; None if there is no such test set.
        diverged: number of diverged final runs.
    """

    name: str
    schedule: str | None
    tuned: dict[str, Value]
    values: tuple[float, ...]
    parts: tuple[tuple[float, ...], ...] | None
    diverged: int

    @property
    def mean(self) -> float:
        """Mean of the metric over seeds."""
        return sum(self.values) / len(self.values)


class PublishedTask(msgspec.Struct, frozen=True, kw_only=True):
    """Final runs of the published suite on one task, with everything that a comparison needs.

    Args:
        version: version of the file.
        task: name of the task, as in `gradprix list tasks`.
        key: hash of the race's plan, which contains the code of its optimizers.
        fingerprint: fingerprint of model, loss, metric and data; see `gradprix.Task.fingerprint`.
        chance_level: score of a diverged run.
        epochs: epochs per run.
        options: options of the training; see `gradprix.Task.options`.
        trials: number of tuning trials of each entry.
        seeds: number of final seeds.
        seed: base random seed.
        interim_analyses: interim analyses that were performed, as (number of seeds, level).
        leaders: entries that no entry wins against.
        recommended: recommended entry.
        margin: the smallest difference that matters, in the metric's units.
        tuning_deviation: standard deviation of an entry's mean due to tuning.
        searches: number of entries with two searches, from which `tuning_deviation` was estimated.
        noise: standard deviation of the validation metric between tuning runs, for the response curve; None if unknown.
        entries: the tuned optimizers.
        mode: execution mode of the training runs.
        versions: versions of the packages that were used.
        machine: cores, CPU and operating system of the machine.
        runs: number of training runs of the race.
        seconds: their training time.
    """

    version: int = VERSION
    task: str
    key: str
    fingerprint: str
    metric: MetricDescription
    chance_level: float
    epochs: int | float
    batch_size: int
    schedule: str
    options: dict[str, Value]
    trials: int
    seeds: int
    seed: int
    interim_analyses: tuple[InterimAnalysis, ...]
    leaders: tuple[str, ...]
    recommended: str
    margin: float
    tuning_deviation: float
    searches: int
    noise: float | None
    entries: tuple[PublishedEntry, ...]
    mode: ExecutionMode
    versions: dict[str, str]
    machine: dict[str, str | int | None]
    runs: int
    seconds: float

    @property
    def values(self) -> dict[str, tuple[float, ...]]:
        """Metric of each final run, by name of the entry."""
        return {entry.name: entry.values for entry in self.entries}

    @property
    def parts(self) -> dict[str, tuple[tuple[float, ...], ...]] | None:
        """Metric on each part of an official test set, by name of the entry; None if there is no such test set."""
        parts = {entry.name: entry.parts for entry in self.entries if entry.parts is not None}
        return parts if len(parts) == len(self.entries) else None


def publish(record: RaceRecord, machine: Mapping[str, Any] | None = None) -> PublishedTask:
    """Return the part of a race's record that a comparison with its final runs needs.

    Args:
        record: record of a race on a built-in task, in which all pairs were compared.
        machine: the machine on which it ran; see `gradprix.utils.run_info.describe_machine`.

    Raises:
        PublishedError: if the race had a baseline, or its record is of an earlier version.
    """
    plan, verdict = record.plan, record.verdict
    if plan.baseline is not None or verdict.margin is None or verdict.tuning_deviation is None:
        raise PublishedError(f"the race on {record.task} has a baseline or an earlier version: race all pairs anew.")
    scores = [tuned_scores(runs, plan.metric.higher_is_better) for runs in record.tuning_runs.values()]
    is_twofold = plan.trials >= FEWEST_TWOFOLD and plan.tunes_learning_rate_only
    schedules = {entry.name: entry.schedule for entry in plan.entries}
    return PublishedTask(
        task=record.task,
        key=record.key,
        fingerprint=plan.fingerprint,
        metric=plan.metric,
        chance_level=plan.chance_level,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        schedule=plan.schedule,
        options=plan.options,
        trials=plan.trials,
        seeds=record.budget.seeds,
        seed=plan.seed,
        interim_analyses=verdict.interim_analyses,
        leaders=verdict.leaders,
        recommended=verdict.recommended,
        margin=verdict.margin,
        tuning_deviation=verdict.tuning_deviation,
        searches=is_twofold * sum(any(run.is_scored for run in runs) for runs in record.tuning_runs.values()),
        noise=noise_deviation(scores),
        entries=tuple(
            PublishedEntry(
                name=entry.name,
                schedule=schedules[entry.name],
                tuned=entry.tuned,
                values=entry.final.values,
                parts=None if record.parts is None else record.parts[entry.name],
                diverged=entry.final.diverged,
            )
            for entry in record.entries
        ),
        mode=plan.mode,
        versions=record.versions,
        machine=dict(machine or {}),
        runs=record.cost.trials,
        seconds=record.cost.seconds,
    )


def write_published(task: PublishedTask, folder: Path = FOLDER) -> Path:
    """Write a published task to a folder and return the path of the file. The same task gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{task.task}{SUFFIX}"
    file.write_bytes(gzip.compress(msgspec.json.encode(task), 9, mtime=0))
    return file


def read_published(file: Path) -> PublishedTask:
    """Read a published task from a file.

    Raises:
        PublishedError: if the file is missing, damaged, or of another version.
    """
    try:
        task = msgspec.json.decode(gzip.decompress(file.read_bytes()), type=PublishedTask)
    except (OSError, EOFError, msgspec.MsgspecError) as error:
        raise PublishedError(f"{file} cannot be read: {error}.") from error
    if task.version != VERSION:
        raise PublishedError(f"{file} has version {task.version}, and this gradprix reads {VERSION}. Update gradprix.")
    return task


def load_published(folder: Path = FOLDER) -> dict[str, PublishedTask]:
    """Return the published tasks by name, in the order of the built-in tasks.

    Example:
        >>> digits = load_published()["digits"]
        >>> digits.recommended in digits.values
        True
    """
    tasks = {task.task: task for task in map(read_published, sorted(folder.glob(f"*{SUFFIX}")))}
    return {name: tasks[name] for name in sorted(tasks, key=lambda name: ([*ALL, name].index(name), name))}
