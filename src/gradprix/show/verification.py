"""Result of verifying a bundle, for the terminal and on the page of the race."""

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from gradprix.race import Result, Status, Verification
from gradprix.text.verification import KINDS, STATUS, format_check, format_conclusion, format_not_covered
from gradprix.utils.files import write_atomically

from ._report import report
from .lettering import clean

STYLES = {Status.AGREES: "bold", Status.WITHIN_NOISE: "bold", Status.DIFFERS: "bold red", Status.NOT_CHECKED: "yellow"}
"""Style of each status in a terminal."""


def verification_answer(verification: Verification, name: str) -> RenderableType:
    """Return the result of a verification: its conclusion, each check, and what no verification can check.

    Line breaks in its texts become spaces: with them a bundle could add lines to its verification.

    Args:
        verification: the result.
        name: name of the bundle.
    """
    machine = verification.machine
    made = f"{verification.environment}; Python {machine.get('python')}, {machine.get('processor')}"
    here = f" Here: {verification.environment_here}." * (verification.environment != verification.environment_here)
    parts: list[RenderableType] = [
        Text(clean(f"{name}: {format_conclusion(verification)}"), "bold"),
        Text(clean(f"A race on {verification.task}, run with {made}.{here}")),
        Text(),
    ]
    width = max(map(len, KINDS.values()))
    for check in verification.checks:
        parts.append(Text.assemble(f"{KINDS[check.kind]:<{width}}  ", (STATUS[check.status], STYLES[check.status])))
        parts += [Padding(Text(clean(line)), (0, 0, 0, width + 2)) for line in format_check(verification, check)]
    return Group(*parts, Text(), Text(" ".join(format_not_covered())))


def verification_data(verification: Verification) -> dict[str, Any]:
    """Return the variables of the template of a verification."""
    return {
        "conclusion": format_conclusion(verification),
        "checks": [
            {"name": KINDS[check.kind], "status": STATUS[check.status], "lines": format_check(verification, check)}
            for check in verification.checks
        ],
        "not_covered": format_not_covered(),
        "environment": verification.environment_here,
    }


def write_verified_report(result: Result, verification: Verification, path: Path) -> Path:
    """Write the report of a race with the result of its verification.

    Args:
        result: the race, loaded from its bundle.
        verification: result of the verification.
        path: the HTML page to write.

    Raises:
        OSError: if the page cannot be written.
    """
    page = report(result.record, provenance=result.provenance, verification=verification_data(verification))
    return write_atomically(path, page.encode(errors="replace"), 0o644)
