"""Textbook claims about optimizers, each tested by an experiment."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from gradprix.tasks import UnknownNameError

from ._claim import VERDICTS, Claim, Finding, Measured, Result, Verdict

RESULTS = Path(__file__).with_name("results.json")
"""Output of `studies/claims.py`: the findings of all claims, with machine and versions."""

# The textbook's order. Claims that are not listed here come last, so that new ones need no change to this file.
ORDER = """
rules-lower-the-loss every-optimizer-learns-every-task
large-updates-overshoot large-updates-overshoot-on-a-network gd-gets-stuck
one-sample-steps-are-faster-but-noisy
noise-falls-as-one-over-batch gradient-noise-falls-as-one-over-batch mini-batch-sits-between mini-batches-balance
momentum-needs-root-kappa
momentum-neglects-atypical-samples
acceleration-cures-neglect look-ahead-brakes acceleration-slows-near-the-optimum
adaptive-steps-follow-gradients
adagrad-adapts-to-directions adagrad-learns-rare-features
adagrad-shrinks-as-root-t adagrad-stalls adagrad-stalls-on-a-network
adadelta-decays-weights adadelta-keeps-going adadelta-first-steps-are-tiny
adam-is-adadelta-plus-momentum adam-with-huge-eps-is-momentum adam-beats-its-halves-on-digits adam-beats-its-halves
adam-beats-adadelta-and-momentum bias-correction-matters-early bias-correction-matters-only-early-on-a-network
adam-needs-no-tuning-on-digits adam-needs-no-tuning
adamax-adds-acceleration adamax-and-nadam-improve-on-adam adamw-decay-is-not-l2
best-optimizer-depends-on-the-problem
several-at-defaults-equal-one-tuned
""".split()


def _load_claims() -> dict[str, Claim]:
    """Import the claims of all modules of this package."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    claims = [claim for module in modules for claim in getattr(module, "CLAIMS", ())]
    position = {name: i for i, name in enumerate(ORDER)}
    return {claim.id: claim for claim in sorted(claims, key=lambda claim: position.get(claim.id, len(ORDER)))}


ALL = _load_claims()
"""Claims by id, in the textbook's order."""


def run(
    ids: Iterable[str] | None = None, quick: bool = False, watch: Callable[[str, int, int], None] | None = None
) -> list[Result]:
    """Run the experiments of claims.

    Args:
        ids: ids of the claims; all if None.
        quick: use fewer seeds and shorter descents.
        watch: callback before each claim, with its id, the number done and the total.

    Returns:
        One result per claim, in the given order.

    Raises:
        UnknownNameError: for an unknown id, before any experiment is run.
    """
    chosen = [named(name) for name in (ALL if ids is None else ids)]
    results = []
    for i, claim in enumerate(chosen):
        if watch is not None:
            watch(claim.id, i, len(chosen))
        start_time = time.perf_counter()
        results.append(Result(claim, _run_claim(claim, quick), time.perf_counter() - start_time))
    return results


def _run_claim(claim: Claim, quick: bool) -> Finding:
    """Return the finding of a claim; a suite claim without a committed suite is not settled."""
    try:
        return claim.run(quick)
    except ValueError as error:
        if claim.on != "suite":
            raise
        return Finding("not settled", f"Not tested: {error}", ())


def named(name: str) -> Claim:
    """Return the claim with an id.

    Raises:
        UnknownNameError: for an unknown id, with the closest ones.
    """
    if name not in ALL:
        raise UnknownNameError("claim", name, ALL)
    return ALL[name]


def counted(records: Iterable[Mapping[str, Any]]) -> str:
    """Count claims by verdict, in words: `12 hold, 8 hold only on a condition, 11 do not hold`.

    Args:
        records: records as returned by `Result.to_dict`.
    """
    counts = Counter("holds only if" if " only if" in r["verdict"] else r["verdict"] for r in records)
    phrases = ("hold", "hold only on a condition", "do not hold", "are not settled")
    return ", ".join(
        f"{counts[verdict]} {phrase}" for verdict, phrase in zip(VERDICTS, phrases, strict=True) if counts[verdict]
    )


def committed(file: Path = RESULTS) -> dict[str, Any]:
    """Return the committed run of all claims.

    Args:
        file: output of `studies/claims.py`.

    Returns:
        `command`, `machine`, `versions`, `seconds`, and a list of records as `claims`, as returned by `Result.to_dict`.

    Raises:
        ValueError: if the file does not exist.
    """
    if not file.exists():
        raise ValueError("no run of the claims is kept: python studies/claims.py makes one.")
    record: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return record


__all__ = [
    "ALL",
    "RESULTS",
    "VERDICTS",
    "Claim",
    "Finding",
    "Measured",
    "Result",
    "Verdict",
    "committed",
    "counted",
    "named",
    "run",
]
