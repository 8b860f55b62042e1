"""Tables of the studies, each with the command that made it."""

import json
from pathlib import Path

import numpy as np
from markdown_docs import plain, table

from gradprix.claims import RESULTS, format_counts, load_results

ROOT = Path(__file__).resolve().parents[2]


AA_TESTS = ROOT / "studies" / "aa_tests.json"
REPETITIONS = ROOT / "studies" / "repetitions.json"
TUNED_HYPERPARAMETERS = ROOT / "studies" / "tuned_hyperparameters.json"
MUON_GAIN = ROOT / "studies" / "muon_gain.json"
OTHER_OPTIMIZERS = ROOT / "studies" / "other_optimizers.json"


def aa_tests_table(file: Path = AA_TESTS) -> str:
    """Return the results of the A/A tests as a table, with their command."""
    record = json.loads(file.read_text())
    rows = [
        (f"races on `{name}`", str(len(races)), str(sum(bool(row["false"]) for row in races)))
        for name, races in record["tasks"].items()
    ]
    usual = [row["significant"] for row in record["usual"]]
    rows.append(("ten comparisons on `digits` in the usual way", str(len(usual)), str(sum(map(bool, usual)))))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{table(('', 'number', 'with a false claim'), rows)}\n\n`{record['command']}`, {versions}."


def repetitions(file: Path = REPETITIONS) -> str:
    """Return the results of repeated races as a table, with their command."""
    record = json.loads(file.read_text())
    head = ("task", "races", "mean regret, margins", "largest", "false bounds", "claims", "wrong", "median seeds")
    rows = [
        (
            f"`{name}`",
            str(len(task["races"])),
            f"{task['mean regret in margins']:.2f}",
            f"{max(row['regret'] for row in task['races']) / task['margin']:.2f}",
            *(f"{task[key]:g}" for key in ("false bounds", "claims", "wrong claims", "median seeds")),
        )
        for name, task in record["tasks"].items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{table(head, rows)}\n\n`{record['command']}`, {versions}."


def tuned_hyperparameters(file: Path = TUNED_HYPERPARAMETERS) -> str:
    """Return a table of what tuning more than the learning rate gains, with the command."""
    record = json.loads(file.read_text())
    head = ("task", "trials", "mean gain", "gain of the best entry", "deviation: learning rate alone", "more")
    keys = ("mean gain", "gain of the best", "deviation", "deviation of more")
    rows = [
        (f"`{name}`", trials, *(f"{result[key]:.2f}".replace("-", "−") for key in keys))
        for name, results in record["tasks"].items()
        for trials, result in results.items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{table(head, rows)}\n\n`{record['command']}`, {versions}."


def muon_gain(file: Path = MUON_GAIN) -> str:
    """Return a table of what the division of models between Muon and AdamW gains in races, with the command."""
    record = json.loads(file.read_text())
    rows = []
    for name, result in record["tasks"].items():
        former = np.array(result["entries"]["former"]["runs"])
        better = 1 if result["higher is better"] else -1
        cells = []
        for entry in ("muon", "muon-original", "adamw"):
            gains = better * (np.array(result["entries"][entry]["runs"]) - former)
            error = gains.std(ddof=1) / len(gains) ** 0.5
            cells.append(f"{gains.mean():+.3f} ± {error:.3f}".replace("-", "−"))
        rows.append((f"`{name}`", result["metric"], f"{former.mean():.3f}", *cells))
    head = ("task", "metric", "former", "gain of `muon`", "of `muon-original`", "of `adamw`")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{table(head, rows)}\n\n`{record['command']}`, {versions}."


def other_optimizers(file: Path = OTHER_OPTIMIZERS) -> str:
    """Return which classes of other packages race, and a table of those that do not."""
    record = json.loads(file.read_text())
    entered = record["entered"]
    raced, unchanged = sum(map(len, entered.values())), len(entered["as it is"])
    rows = [(f"`{name}`", plain(reason).replace("|", "\\|")) for name, reason in record["refused"].items()]
    others = {name: version for name, version in record["versions"].items() if name not in ("gradprix", "numpy")}
    versions = ", ".join(f"{name} {version}" for name, version in others.items())
    return (
        f"Of the {raced + len(rows)} classes of {versions}, {raced} race: {unchanged} as they are, and "
        f"{raced - unchanged} with a function or an option from the table above. The others:\n\n"
        f"{table(('class', 'reason'), rows)}\n\n`{record['command']}`."
    )


def claims_made_by(file: Path = RESULTS) -> str:
    """Return the number of claims by verdict, and the command that tests them, with its time and the versions."""
    record = load_results(file)
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"{len(record['claims'])} claims: {format_counts(record['claims'])}.\n\n"
        f"`{record['command']}`, {record['seconds'] / 60:.1f} minutes on {record['machine']['cores']} cores, "
        f"{record['machine']['cpu']}, {versions}."
    )
