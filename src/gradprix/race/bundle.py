"""Bundle of a race: one file with all that others need to check its result.

A bundle is a zip archive whose bytes depend on the race alone. Its manifest has the SHA-256 of every other member, as
that of a Python wheel does; like a run of OpenML it holds all values, and not only their summary.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gradprix import __version__
from gradprix.stats.alpha_spending import InterimAnalysis
from gradprix.training.trial import Outcome, Trial
from gradprix.utils.files import write_atomically

from .bundle_archive import MAX_BYTES, ArchiveError, pack, unpack
from .journal import DATABASE, Journal, JournalError, SavedPlan
from .rebuilt_plan import CodeFolder, CodeNotLoadedError, rebuild_plan
from .record import RaceRecord
from .record_json import RecordError, read_record, to_json
from .replay import MissingRunsError, RecordedRuns, compare_records, replay
from .setup import Setup

SUFFIX = ".gradprix.zip"
"""End of the name of a bundle."""
FORMAT = 1
"""Version of the format of bundles."""
MANIFEST, PLAN, RECORD, RUNS, CODE, README = (
    "manifest.json",
    "plan.json",
    "record.json",
    "runs.jsonl",
    "code/",
    "README.txt",
)
FIXED_FILES = (PLAN, RECORD, RUNS, README)
"""Files of every bundle besides the manifest."""
TEXT = """Result of a race between optimizers on the task {task!r}, made by gradprix {version}.

    pip install gradprix=={version}
    gradprix verify {name}      repeats a sample of its training runs, and says what agrees
    gradprix report {name}      shows the result, and writes a page

manifest.json  versions, and the SHA-256 of each file
plan.json      configuration: task, optimizers with their search ranges, numbers of trials and seeds
runs.jsonl     every training run: optimizer, hyperparameters, seed, learning curve, scores
record.json    the result
code/          source code of the task and optimizers, if they are not part of gradprix
"""


class BundleError(JournalError):
    """Raised if a bundle cannot be written or read."""


class Manifest(msgspec.Struct, frozen=True):
    """Manifest of a bundle.

    Args:
        format: version of the format.
        gradprix: version of gradprix that wrote the bundle.
        files: SHA-256 of each other member, by its name.
    """

    format: int
    gradprix: str
    files: dict[str, str]


class SavedRun(msgspec.Struct, frozen=True):
    """Training run in a bundle.

    Args:
        key: key of the trial.
        entry: name of the entry.
        trial: hyperparameters, seed and length; see `describe_run`.
        outcome: result of the run; see `Outcome`.
    """

    key: str
    entry: str
    trial: dict[str, Any]
    outcome: dict[str, Any]


class PlanFile(msgspec.Struct, frozen=True):
    """Content of the file of the plan in a bundle.

    Args:
        description: description of the plan; see `Plan.description`.
        setup: what else is needed to rebuild the plan, without code.
    """

    description: dict[str, Any]
    setup: Setup

    def __post_init__(self) -> None:
        msgspec.convert(self.description, SavedPlan)  # checks the types; the replay checks the values


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Origin of a result that was loaded from a bundle.

    Args:
        file: name of the bundle.
        sha256: hash of the bundle.
        environment: versions and processor on which the results depend.
        machine: Python version, operating system and processor.
        code: names of the source files in the bundle.
        verify_command: command that verifies the bundle.
    """

    file: str
    sha256: str
    environment: str
    machine: dict[str, str]
    code: tuple[str, ...]
    verify_command: str


@dataclass(frozen=True)
class Bundle:
    """Content of a bundle.

    Args:
        description: description of the plan; see `Plan.description`.
        setup: what else is needed to rebuild the plan.
        record: JSON form of the record.
        runs: training runs of the race, in the order in which it asked for them.
        damaged: members whose hash is not that in the manifest, that are missing, or that are not in the manifest.
        sha256: hash of the whole file.
    """

    description: dict[str, Any]
    setup: Setup
    record: dict[str, Any]
    runs: tuple[SavedRun, ...]
    damaged: tuple[str, ...] = ()
    sha256: str = ""

    def outcomes(self) -> dict[str, Outcome]:
        """Return the outcome of each run, by the key of its trial.

        Raises:
            ValueError: if an outcome lacks a value, or has one of another type.
        """
        return {run.key: msgspec.convert(run.outcome, Outcome) for run in self.runs}

    def read_record(self) -> RaceRecord:
        """Return the record.

        Raises:
            BundleError: if this version of gradprix cannot read it.
        """
        try:
            return read_record(self.record)
        except RecordError as error:
            raise BundleError(f"the bundle cannot be opened: {error}") from error


def load_bundle(path: Path) -> tuple[RaceRecord, Provenance]:
    """Read the record of a bundle, and where it is from. The hashes of its files must be those of the manifest.

    Raises:
        BundleError: if it is no bundle that this version can read, or if it is damaged.
    """
    bundle = read_bundle(path)
    if bundle.damaged:
        raise BundleError(f"{path} is damaged or was changed: {', '.join(bundle.damaged)}. See gradprix verify {path}.")
    provenance = Provenance(
        file=path.name,
        sha256=bundle.sha256,
        environment=bundle.setup.environment,
        machine=bundle.setup.machine,
        code=tuple(bundle.setup.code),
        verify_command=shlex.join(["gradprix", "verify", str(path)]),
    )
    return bundle.read_record(), provenance


def describe_run(trial: Trial) -> dict[str, Any]:
    """Return what determines a training run besides task and optimizer, as JSON."""
    optimizer = {"rule", "equations", "state", "class", "code", "version", "closure"}
    return {name: value for name, value in trial.identity.items() if name not in optimizer}


def read_saved_race(folder: Path) -> Bundle:
    """Read a finished race from its folder, and check that its record follows from its runs.

    Raises:
        FileNotFoundError: if the folder does not contain a race.
        BundleError: if the race is not finished, was saved by an earlier version, or does not agree with its runs.
        JournalError: if the race cannot be read.
    """
    if not (folder / DATABASE).exists():
        raise FileNotFoundError(f"{folder} holds no race: there is no {DATABASE} in it. `gradprix race` makes one.")
    again = "Run the command that began it again: it reuses the finished runs"
    with Journal(folder, to_read=True) as journal:
        description, setup, data, mode = journal.read("plan"), journal.setup, journal.read("record"), journal.mode
    if data is None or mode is None:
        raise BundleError(f"the race in {folder} is not finished, so there is no result to bundle. {again}.")
    if setup is None:
        raise BundleError(f"the race in {folder} was saved without what a bundle needs to rebuild it. {again}.")
    with Journal(folder, to_read=True, made=setup.environment) as journal:
        outcomes = journal.finished()
    bundle = Bundle(description, setup, data, ())
    record = bundle.read_record()
    runs = RecordedRuns(outcomes, record.cost.step_seconds, setup.environment, _failed_outcome(record))
    try:
        with CodeFolder(setup.code) as code:
            plan = rebuild_plan(description, setup, code)
            replayed = replay(plan, runs, mode, _analyses(record))
    except CodeNotLoadedError as error:
        cure = "Give a rule of your own by its location, mine.py:name, and not as an object"
        raise BundleError(f"the race in {folder} cannot be bundled: {error} {cure}.") from error
    except MissingRunsError as error:
        raise BundleError(f"the race in {folder} was continued, and is not finished: {error} {again}.") from error
    if differences := compare_records(data, replayed):
        where = ", ".join(difference.where for difference in differences[:3])
        raise BundleError(f"the record of {folder} does not follow from its runs ({where}). {again}.")
    saved = tuple(
        SavedRun(key, trial.entry_name, describe_run(trial), json.loads(runs.outcomes[key].to_json()))
        for key, trial in runs.used.items()
    )
    return Bundle(description, setup, data, saved)


def _analyses(record: RaceRecord) -> list[InterimAnalysis]:
    return list(record.verdict.interim_analyses)


def _failed_outcome(record: RaceRecord) -> Callable[[Trial], Outcome | None]:
    """Return a function that returns the outcome of a trial that failed; a journal does not save them."""
    failures = {(run.entry, run.seed, run.learning_rate): run for run in record.failed}

    def find(trial: Trial) -> Outcome | None:
        name, seed = trial.entry_name, trial.seed
        run = failures.get((name, seed, trial.values.get("lr"))) or failures.get((name, seed, None))
        return None if run is None else Outcome.from_error(trial, record.plan.chance_level, run.error, run.kind)

    return find


def write_bundle(folder: Path, out: Path | None = None) -> Path:
    """Write the bundle of a finished race.

    Args:
        folder: folder of the race.
        out: folder of the bundle; None for that of the race.

    Returns:
        Path of the bundle: `digits.gradprix.zip`.

    Raises:
        FileNotFoundError: if the folder does not contain a race.
        BundleError: if the race is not finished, or was saved by an earlier version.
    """
    bundle, to = read_saved_race(folder), out or folder
    to.mkdir(parents=True, exist_ok=True)
    path = to / f"{folder.resolve().name}{SUFFIX}"
    return write_atomically(path, pack_bundle(bundle, path.name), 0o644)


def pack_bundle(bundle: Bundle, name: str) -> bytes:
    """Return the content of a bundle's file. Equal bundles give equal bytes.

    Args:
        bundle: the bundle.
        name: name of the file, for its README.
    """
    setup = msgspec.structs.replace(bundle.setup, code={})
    texts = {
        PLAN: _dump({"description": bundle.description, "setup": to_json(setup)}),
        RECORD: _dump(bundle.record),
        RUNS: "".join(f"{json.dumps(to_json(run), sort_keys=True)}\n" for run in bundle.runs),
        README: TEXT.format(
            task=bundle.description["task"], version=bundle.description["versions"]["gradprix"], name=name
        ),
        **{f"{CODE}{path}": text for path, text in bundle.setup.code.items()},
    }
    members = {path: text.encode(errors="surrogateescape") for path, text in texts.items()}
    manifest = Manifest(FORMAT, __version__, {path: _hash(data) for path, data in sorted(members.items())})
    return pack({MANIFEST: _dump(to_json(manifest)).encode(), **members})


def _dump(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_bundle(path: Path) -> Bundle:
    """Read a bundle. Its hashes are compared, and nothing in it is run.

    Raises:
        FileNotFoundError: if there is no such file.
        BundleError: if it is no bundle, has entries that no bundle has, or was written by a later version.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    if path.is_dir():
        raise BundleError(
            f"{path} is no bundle. `gradprix export {path} --to bundle` makes one of the folder of a race."
        )
    if path.stat().st_size > MAX_BYTES:
        raise BundleError(f"{path} is no bundle that gradprix can read: it is larger than {MAX_BYTES // 10**6} MB.")
    data = path.read_bytes()
    try:
        members = unpack(data, _is_expected)
        manifest = _parse(MANIFEST, members.pop(MANIFEST), Manifest)
        if manifest.format > FORMAT:
            raise BundleError(f"{path} was written by gradprix {manifest.gradprix}. Update gradprix to open it.")
        plan = _parse(PLAN, members[PLAN], PlanFile)
        code = {
            name.removeprefix(CODE): text.decode(errors="surrogateescape")
            for name, text in members.items()
            if name.startswith(CODE)
        }
        setup = msgspec.structs.replace(plan.setup, code=code)
        runs = [_parse(RUNS, line, SavedRun, i) for i, line in enumerate(members[RUNS].splitlines(), 1)]
        record = _parse(RECORD, members[RECORD], dict[str, Any])
    except (ArchiveError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, BundleError):
            raise
        what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"{path} is no bundle that gradprix can read: {what}.") from error
    return Bundle(plan.description, setup, record, tuple(runs), _find_damage(manifest, members), _hash(data))


def _parse(name: str, data: bytes, kind: Any, line: int | None = None) -> Any:
    """Parse a JSON file of a bundle, or a line of it.

    Args:
        name: name of the file.
        data: its content, or that of the line.
        kind: type of the value.
        line: number of the line, from 1; None for the whole file.

    Raises:
        ArchiveError: if it cannot be parsed, or has another type.
    """
    where = name if line is None else f"{name}, line {line}"
    try:
        return msgspec.convert(json.loads(data), kind)
    except json.JSONDecodeError as error:
        line_of_file = f", line {error.lineno}" * (line is None)
        raise ArchiveError(f"{where}{line_of_file}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{where}: {error}") from error


def _is_expected(name: str) -> bool:
    return name in (MANIFEST, *FIXED_FILES) or name.startswith(CODE)


def _find_damage(manifest: Manifest, members: Mapping[str, bytes]) -> tuple[str, ...]:
    hashes = {name: _hash(data) for name, data in members.items()}
    return tuple(sorted(name for name in {**hashes, **manifest.files} if hashes.get(name) != manifest.files.get(name)))
