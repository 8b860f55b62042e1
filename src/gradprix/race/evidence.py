"""Evidence of the package: the summary of the published suite, which `studies/suite.py` writes from its records."""

import json
from pathlib import Path

import msgspec

from .suite_record import SuiteSummary

EVIDENCE = Path(__file__).with_name("evidence.json")
"""Path of the published summary."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Machine that ran the races: number of cores, the CPU's model name and the operating system."""

    cores: int
    cpu: str
    system: str


class Evidence(SuiteSummary, frozen=True, kw_only=True):
    """Summary of the published suite, with what it took to make it.

    Args:
        command: command that repeats the races.
        machine: machine that ran them.
        versions: versions of the packages on which the numbers depend.
        seconds: total training time.
    """

    command: str
    machine: Machine
    versions: dict[str, str]
    seconds: float


def load_evidence(file: Path = EVIDENCE) -> Evidence:
    """Load the summary of a suite.

    Args:
        file: file that `write_evidence` wrote.

    Raises:
        ValueError: if the file does not exist, or is not such a summary.

    Example:
        >>> len(load_evidence().tasks)
        10
    """
    if not file.exists():
        raise ValueError(f"there are no results of races on many tasks in {file}: python studies/suite.py makes them.")
    try:
        return msgspec.convert(json.loads(file.read_text("utf-8")), Evidence)
    except (msgspec.ValidationError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is no summary of a suite by this version of gradprix: {error}.") from error


def write_evidence(evidence: Evidence, file: Path = EVIDENCE) -> None:
    """Write the summary of a suite as JSON, with a line for each field."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in msgspec.to_builtins(evidence).items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
