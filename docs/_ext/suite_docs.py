"""Results of the published suite as Markdown."""

import re
from collections.abc import Iterable, Sequence

from gradprix.race.evidence import load_evidence
from gradprix.text import suite_tables
from gradprix.text.suite import format_recommendation, format_reversals, format_suite
from gradprix.utils.wording import format_list

SUITE = load_evidence()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def plain(text: str) -> str:
    """Escape the characters that are special in Markdown."""
    return re.sub(r"([*_<>`\[\]])", r"\\\1", text)


def named_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with a name in the first cell of each row, and plain text in the others."""
    return table(head, ([f"`{name}`", *map(plain, cells)] for name, *cells in rows))


def scope() -> str:
    """Return a sentence with the number of optimizers and problems, and the optimizers that are not on all of them."""
    partial = [f"{name} ({SUITE.regrets[name].tasks} problems)" for name in SUITE.entries if name not in SUITE.complete]
    exceptions = f", except {format_list(partial)}, whose steps are slow" if partial else ""
    return plain(
        f"It is limited to what the project's own suite supports: {len(SUITE.entries)} optimizers raced on "
        f"{len(SUITE.tasks)} problems{exceptions}."
    )


def sentences() -> str:
    """Return the results of the suite as a list of sentences, but for the one that `recommendation` returns."""
    others = [each for each in format_suite(SUITE) if each != format_recommendation(SUITE)]
    return "\n".join(f"* {plain(sentence)}" for sentence in others)


def reversals() -> str:
    """Return the confirmed rank reversals as a list of sentences."""
    lines = [f"* {plain(sentence)}" for sentence in format_reversals(SUITE)]
    return "\n".join(lines) or "There are none."


def made_by() -> str:
    """Return the command, the machine and the duration."""
    versions = ", ".join(f"{name} {version}" for name, version in SUITE.versions.items())
    runs = sum((task.trials + task.seeds) * len(task.means) for task in SUITE.tasks.values())
    return (
        f"`{SUITE.command}`: {len(SUITE.entries)} optimizers on {len(SUITE.tasks)} problems, {runs:,} tuning and final "
        f"runs, {SUITE.seconds / 60:.0f} minutes on {SUITE.machine.cores} cores ({SUITE.machine.cpu}; {versions}). "
        "Summary as data: `src/gradprix/race/evidence.json`; the record of each race: `studies/suite`."
    )


def by_problem() -> str:
    """Return a table with a row per problem: the candidates, the tie-break with its regret, and the leaders."""
    return named_table(["problem", *suite_tables.CHOICES[1:]], suite_tables.choice_rows(SUITE))


def recommendation() -> str:
    """Return the regret of the recommendations in a sentence."""
    return plain(format_recommendation(SUITE))


def regrets() -> str:
    """Return a table of the regret of each optimizer on each problem."""
    return named_table(["optimizer", *SUITE.tasks], suite_tables.regret_rows(SUITE))


def races() -> str:
    """Return a table with the numbers of each race."""
    return named_table(["problem", *suite_tables.RACES[1:]], suite_tables.race_rows(SUITE))


def choices() -> str:
    """Return a table with a row per optimizer: tasks that it leads, and its regret as the only choice for all tasks."""
    return named_table(suite_tables.ENTRIES, suite_tables.entry_rows(SUITE))


def left_out() -> str:
    """Return a table with the single choice without each of the problems."""
    return named_table(suite_tables.left_out_head(SUITE), suite_tables.left_out_rows(SUITE))


MEASURED = {
    "suite-choices": choices,
    "suite-left-out": left_out,
    "suite-made": made_by,
    "suite-problems": by_problem,
    "suite-races": races,
    "suite-recommendation": recommendation,
    "suite-regrets": regrets,
    "suite-reversals": reversals,
    "suite-scope": scope,
    "suite-sentences": sentences,
}
"""Function for each text, by its name in the directive `measured`."""
