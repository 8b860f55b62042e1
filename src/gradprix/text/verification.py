"""Result of verifying a bundle, in sentences."""

from typing import TYPE_CHECKING

from gradprix.utils.wording import format_count, format_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradprix.race.verification_record import Check, Finding, Sample, Verification

STATUS = {
    "agrees": "agrees",
    "within_noise": "agrees within the noise of a seed",
    "differs": "differs",
    "not_checked": "not checked",
}
"""Words for each status of a check."""
KINDS = {"files": "files", "answer": "answer", "runs": "training runs"}
"""Words for the subject of each check."""
CAUSES = {
    "hashes": "the hashes in the manifest do not agree with {names}",
    "plan": "the plan does not follow from its settings",
    "interim_analyses": "the interim analyses are not those of the protocol, so the error rate is not 5 %",
    "missing_runs": "the race needs {count} that the bundle does not have: {names}",
    "unused_runs": "the bundle has {count} that the race does not have, or has only once: {names}",
    "mislabelled_runs": "the bundle has {count} with another optimizer, seed or hyperparameter than the race: {names}",
    "record": "the result does not follow from the training runs",
    "impossible": "no race gives these values ({message})",
    "values": "training gives other numbers for {count}",
    "other_task": "{message}",
    "other_optimizer": "the code of {names} is not that of the race",
    "code_not_run": "{message} Code of others is run only if you allow it: read it, then give --run-code, or your own "
    "copy with --task and --optimizers",
    "code_unknown": "{message} Its code is not in the bundle: give your own copy with --task and --optimizers",
    "code_fails": "the code cannot be run here: {message}",
    "no_device": "{message}",
    "no_replay": "they were not repeated, because the race could not be replayed",
    "not_requested": "none was repeated, because the number of runs to repeat was set to 0 (--runs 0)",
}
"""Explanation of each cause."""
MOST_VALUES, MOST_NAMES = 6, 5
"""Largest number of values that differ, and of names, that are listed."""


def format_conclusion(verification: "Verification") -> str:
    """Return the conclusion in a sentence."""
    counts = {kind: [] for kind in STATUS}  # type: dict[str, list[str]]
    for check in verification.checks:
        counts[check.status].append(KINDS[check.kind])
    if counts["differs"]:
        return f"This bundle differs from what gradprix finds: {format_list(counts['differs'])}."
    if counts["not_checked"]:
        return f"Nothing differs, but not everything was checked: {format_list(counts['not_checked'])}."
    if counts["within_noise"]:
        return "Nothing differs by more than the noise of a seed."
    return "Nothing differs."


def format_check(verification: "Verification", check: "Check") -> list[str]:
    """Return the sentences about a check: what was compared, then what differs or was not checked."""
    lines = [_describe_runs(verification)] if check.kind == "runs" else [_describe(verification, check)]
    return [line for line in [*lines, *(format_finding(finding) for finding in check.findings)] if line]


def _describe(verification: "Verification", check: "Check") -> str:
    if check.status != "agrees":
        return ""
    if check.kind == "files":
        return f"{verification.files} files have the hashes that the manifest lists."
    return (
        f"The result follows from {format_count(verification.runs, 'training run')}: the race was replayed from them."
    )


def _describe_runs(verification: "Verification") -> str:
    """Describe what was repeated, how it was compared, and what the sample would have missed."""
    sample = verification.sample
    if sample is None:
        return ""
    what = (
        f"{sample.repeated} of {format_count(sample.total, 'training run')} {'were' if sample.repeated > 1 else 'was'}"
    )
    other = "" if sample.is_same_task else " The task has another fingerprint here, which can be due to the versions."
    if not sample.is_bitwise:
        return (
            f"{what} repeated here, but not with the versions, processor and rounding that the bundle states. "
            f"Equal to the bit: {sample.identical}; the others need not be. Scores were compared with the differences "
            f"between seeds{_format_deviation(sample)}. Smaller changes cannot be found.{other}"
        )
    how = "to a relative difference of 0.001" if sample.is_loop else "to the bit"
    return f"{what} repeated here, and compared {how}. {format_power(sample)}{other}"


def _format_deviation(sample: "Sample") -> str:
    size = sample.largest_deviation
    return "" if not size else f"; the largest was {size:.1f} standard deviations of a difference between two seeds"


def format_power(sample: "Sample") -> str:
    """Return which changes a sample would have found, and with which probability."""
    if sample.repeated >= sample.total:
        return "A change of any run would have been found."
    which = "" if sample.available == sample.total else f" whose code could be run ({sample.available})"
    changed = f"{100 * sample.share:g} % of the runs{which}"
    return (
        f"A change of {changed} would have been found with a probability of {100 * sample.probability:.0f} % "
        f"(runs drawn with --seed {sample.seed})."
    )


def format_finding(finding: "Finding") -> str:
    """Return a sentence about something that differs or was not checked, with the first values."""
    names = format_list(list(finding.names), MOST_NAMES) if finding.names else ""
    count = format_count(len(finding.names or finding.differences), "training run")
    text = CAUSES[finding.cause].format(names=names, count=count, message=finding.message)
    values = format_differences(finding)
    return f"{text[0].upper()}{text[1:].rstrip('.')}{': ' if values else '.'}{values}"


def format_differences(finding: "Finding") -> str:
    """Return the first values that differ, as the bundle states them and as they were found here."""
    each = [f"{d.where} is {d.stated}, found {d.actual}" for d in finding.differences[:MOST_VALUES]]
    more = len(finding.differences) - MOST_VALUES
    return "; ".join([*each, *[f"and {more} more"] * (more > 0)]) + "." * bool(each)


def format_not_covered() -> "Sequence[str]":
    """Return what no verification of a bundle can check."""
    return (
        "Times (also those of a step, which can break a tie), names, versions, machine, pictures, and the diagnosis "
        "are as stated.",
        "Whether other races or optimizers were run and not shown cannot be seen from a bundle.",
    )
