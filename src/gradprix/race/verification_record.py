"""Result of verifying a bundle, as data."""

from enum import StrEnum

import msgspec

from .value_comparison import Difference


class Status(StrEnum):
    """Status of a check."""

    AGREES = "agrees"
    WITHIN_NOISE = "within_noise"
    DIFFERS = "differs"
    NOT_CHECKED = "not_checked"


class CheckKind(StrEnum):
    """Subject of a check, in the order in which they are made."""

    FILES = "files"
    ANSWER = "answer"
    RUNS = "runs"


class Cause(StrEnum):
    """Reason why something differs or was not checked."""

    HASHES = "hashes"
    PLAN = "plan"
    INTERIM_ANALYSES = "interim_analyses"
    MISSING_RUNS = "missing_runs"
    UNUSED_RUNS = "unused_runs"
    MISLABELLED_RUNS = "mislabelled_runs"
    RECORD = "record"
    IMPOSSIBLE = "impossible"
    VALUES = "values"
    OTHER_TASK = "other_task"
    OTHER_OPTIMIZER = "other_optimizer"
    CODE_NOT_RUN = "code_not_run"
    CODE_UNKNOWN = "code_unknown"
    CODE_FAILS = "code_fails"
    NO_DEVICE = "no_device"
    NO_REPLAY = "no_replay"
    NOT_REQUESTED = "not_requested"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that differs or was not checked.

    Args:
        cause: reason.
        status: status of what it concerns.
        names: names of the files, runs or entries that it concerns.
        differences: values that differ.
        message: message of an error.
    """

    cause: Cause
    status: Status = Status.DIFFERS
    names: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    message: str = ""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Training runs that were repeated.

    Args:
        total: number of training runs of the race.
        available: number of those whose code could be run.
        drawn: number of runs that were drawn at random.
        repeated: number of runs that were repeated, including those that are in every sample.
        seed: seed of the draw.
        share: share of the available runs whose change is considered.
        probability: probability with which such a change would be in the sample.
        is_bitwise: True if numbers were compared to the bit.
        identical: number of runs whose numbers are equal to the bit.
        largest_deviation: largest difference of a final metric, in standard deviations of a difference between two
            seeds; None if the numbers were compared to the bit.
        is_loop: True if the task is a training loop, whose numbers are compared to a relative difference of 0.001.
        is_same_task: True if the task has the fingerprint of the race here, which other versions may change.
    """

    total: int
    available: int
    drawn: int
    repeated: int
    seed: int
    share: float
    probability: float
    is_bitwise: bool
    identical: int
    largest_deviation: float | None = None
    is_loop: bool = False
    is_same_task: bool = True


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Check of a bundle.

    Args:
        kind: what was checked.
        status: the worst status of its findings, or that of the comparison if there are none.
        findings: what differs or was not checked.
    """

    kind: CheckKind
    status: Status
    findings: tuple[Finding, ...] = ()


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Result of verifying a bundle.

    Args:
        task: name of the task.
        sha256: hash of the bundle's file.
        environment: versions and processor with which the race ran.
        environment_here: those of the verification.
        machine: Python version, operating system and processor of the race.
        checks: checks in order.
        sample: training runs that were repeated; None if there are none.
        runs: number of training runs in the bundle.
        files: number of files in the bundle.
    """

    task: str
    sha256: str
    environment: str
    environment_here: str
    machine: dict[str, str]
    checks: tuple[Check, ...]
    sample: Sample | None
    runs: int
    files: int

    @property
    def status(self) -> Status:
        """The worst status of all checks."""
        return worst([check.status for check in self.checks])


ORDER = (Status.AGREES, Status.WITHIN_NOISE, Status.NOT_CHECKED, Status.DIFFERS)
"""All statuses, the best first."""


def worst(statuses: list[Status]) -> Status:
    """Return the worst of some statuses."""
    return max(statuses, key=ORDER.index, default=Status.AGREES)


def make_check(kind: CheckKind, findings: list[Finding], otherwise: Status = Status.AGREES) -> Check:
    """Return a check with the worst status of its findings, or another status if there are none."""
    status = worst([otherwise, *(finding.status for finding in findings)])
    return Check(kind=kind, status=status, findings=tuple(findings))
