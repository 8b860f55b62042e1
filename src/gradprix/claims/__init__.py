"""What the popular account of optimizers claims, each claim put to the test."""

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
"""What `benchmarks/claims.py` wrote: every claim's finding, with the machine and the versions it was made by."""

# As the account goes. A claim that is not named here comes last: new ones need not touch this file.
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


def _found() -> dict[str, Claim]:
    """The claims of every module of this package that has some."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    claims = [claim for module in modules for claim in getattr(module, "CLAIMS", ())]
    place = {name: i for i, name in enumerate(ORDER)}
    return {claim.id: claim for claim in sorted(claims, key=lambda claim: place.get(claim.id, len(ORDER)))}


ALL = _found()
"""By their ids, in the account's order."""


def run(
    ids: Iterable[str] | None = None, quick: bool = False, watch: Callable[[str, int, int], None] | None = None
) -> list[Result]:
    """Put claims to the test.

    Args:
        ids: which; all when None.
        quick: with fewer seeds and shorter descents.
        watch: hears, before each, its id, how many are done, and how many there are.

    Returns:
        A result each, in the order asked for.

    Raises:
        UnknownNameError: for an id that no claim has, before anything is run.
    """
    chosen = [named(each) for each in (ALL if ids is None else ids)]
    results = []
    for i, claim in enumerate(chosen):
        if watch is not None:
            watch(claim.id, i, len(chosen))
        began = time.perf_counter()
        results.append(Result(claim, _tested(claim, quick), time.perf_counter() - began))
    return results


def _tested(claim: Claim, quick: bool) -> Finding:
    """What comes of a claim; one that is told from the races on all tasks waits for them."""
    try:
        return claim.run(quick)
    except ValueError as error:
        if claim.on != "suite":
            raise
        return Finding("not settled", f"Not tested: {error}", ())


def named(name: str) -> Claim:
    """The claim of an id.

    Raises:
        UnknownNameError: with the nearest ids.
    """
    if name not in ALL:
        raise UnknownNameError("claim", name, ALL)
    return ALL[name]


def counted(records: Iterable[Mapping[str, Any]]) -> str:
    """How many claims came out which way: `12 hold, 8 hold only on a condition, 11 do not hold`.

    Args:
        records: as `Result.to_dict` has them.
    """
    counts = Counter("holds only if" if " only if" in r["verdict"] else r["verdict"] for r in records)
    words = ("hold", "hold only on a condition", "do not hold", "are not settled")
    return ", ".join(
        f"{counts[verdict]} {said}" for verdict, said in zip(VERDICTS, words, strict=True) if counts[verdict]
    )


def committed(file: Path = RESULTS) -> dict[str, Any]:
    """The kept run of all claims.

    Args:
        file: what `benchmarks/claims.py` wrote.

    Returns:
        `command`, `machine`, `versions`, `seconds`, and under `claims` a record each, as `Result.to_dict` has it.

    Raises:
        ValueError: when there is none.
    """
    if not file.exists():
        raise ValueError("no run of the claims is kept: python benchmarks/claims.py makes one.")
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


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
