"""Textbook claims about optimizers, each tested by an experiment."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gradprix.tasks import UnknownNameError

from .claim import CLAIMS, Claim, Result
from .decisions import VERDICTS, Verdict
from .estimates import Measured
from .registry import Conclusion

RESULTS = Path(__file__).with_name("results.json")
"""File written by `studies/claims.py`: the results of all claims, with machine and versions."""
FORMER_VERDICTS = {"not settled": "inconclusive"}
"""Verdicts in files of earlier versions, with their present names."""

ALL: dict[str, Claim] = CLAIMS.collect(__name__, __path__)
"""Claims by id, in the textbook's order."""


def run(
    ids: Iterable[str] | None = None, quick: bool = False, watch: Callable[[str, int, int], None] | None = None
) -> list[Result]:
    """Run the experiments for the given claims.

    Args:
        ids: ids of the claims; all if None.
        quick: use fewer seeds and optimization steps.
        watch: callback before each claim, called with its id, the number of completed claims and the total number.

    Returns:
        One result per claim, in the given order.

    Raises:
        UnknownNameError: if an id is unknown; this is checked before any experiment is run.
    """
    chosen = [get_claim(name) for name in (ALL if ids is None else ids)]
    results = []
    for i, claim in enumerate(chosen):
        if watch is not None:
            watch(claim.id, i, len(chosen))
        start_time = time.perf_counter()
        try:
            conclusion = claim.run(quick)
        except ValueError as error:
            if claim.on != "suite":
                raise
            conclusion = Conclusion("inconclusive", f"Not tested: {error}", ())
        results.append(Result(claim, conclusion, time.perf_counter() - start_time))
    return results


def get_claim(name: str) -> Claim:
    """Return a claim by its id.

    Raises:
        UnknownNameError: if the id is unknown; the message lists the closest known ids.
    """
    if name not in ALL:
        raise UnknownNameError("claim", name, ALL)
    return ALL[name]


def format_counts(records: Iterable[Mapping[str, Any]]) -> str:
    """Format the number of claims by verdict: `12 hold, 1 holds only on a condition, 11 do not hold`.

    Args:
        records: records as returned by `Result.to_dict`.
    """
    counts = Counter("holds only if" if " only if" in r["verdict"] else r["verdict"] for r in records)
    phrases = (
        ("holds", "hold"),
        ("holds only on a condition", "hold only on a condition"),
        ("does not hold", "do not hold"),
        ("is inconclusive", "are inconclusive"),
    )
    return ", ".join(
        f"{counts[verdict]} {singular if counts[verdict] == 1 else plural}"
        for verdict, (singular, plural) in zip(VERDICTS, phrases, strict=True)
        if counts[verdict]
    )


def load_results(file: Path = RESULTS) -> dict[str, Any]:
    """Return the committed results of all claims.

    Args:
        file: output of `studies/claims.py`.

    Returns:
        Dictionary with the keys `command`, `machine`, `versions`, `seconds` and `claims`. The last is a list of records
        as returned by `Result.to_dict`.

    Raises:
        ValueError: if the file does not exist.
    """
    if not file.exists():
        raise ValueError(f"there are no committed results, {file}: run python studies/claims.py")
    results: dict[str, Any] = json.loads(file.read_text("utf-8"))
    for record in results["claims"]:
        record["verdict"] = FORMER_VERDICTS.get(record["verdict"], record["verdict"])
    return results


named, counted, committed = get_claim, format_counts, load_results
"""Former names."""

__all__ = [
    "ALL",
    "RESULTS",
    "VERDICTS",
    "Claim",
    "Conclusion",
    "Measured",
    "Result",
    "Verdict",
    "committed",
    "counted",
    "format_counts",
    "get_claim",
    "load_results",
    "named",
    "run",
]
