"""Command `gradprix claims`: experiments on common claims about optimizers."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradprix.utils.streams import echo_json

from ._errors import report_errors

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

COLOURS = {"holds": "green", "holds only if": "yellow", "does not hold": "red", "inconclusive": "dim"}
"""Colour of each verdict. It carries no further information."""


def claims(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Claims to test; all by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Use fewer seeds: less than a minute for all claims.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the results, as JSON.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the claims without testing them.")] = False,
) -> None:
    """Test common claims about optimizers.

    Each claim is an experiment whose decision rule was fixed before it was run. Some hold, some do not.
    """
    from gradprix.claims import ALL, get_claim, run
    from gradprix.show.terminal import console

    with report_errors(ValueError):
        chosen = [get_claim(name) for name in ids or ALL]
    if list_:
        listed = [{"id": claim.id, "statement": claim.statement} for claim in chosen]
        echo_json(listed) if as_json else console().print(statement_list(listed))
        return
    with report_errors(), watched() as watch:
        records = [result.to_dict() for result in run([claim.id for claim in chosen], quick, watch)]
    if as_json:
        echo_json(records)
    elif ids:
        for record in records:
            console().print(claim_details(record, quick))
    else:
        console().print(summary(records))


@contextlib.contextmanager
def watched() -> Iterator[Callable[[str, int, int], None]]:
    """Context manager that shows a progress bar on stderr, if stderr is a terminal.

    Yields:
        Function that updates the bar: it takes a description, the number of finished steps, and their total number.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from gradprix.utils.console import SafeConsole

    err = SafeConsole(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        job = bar.add_task("", total=None)
        yield lambda name, done, total: bar.update(job, description=name, completed=done, total=total)


def statement_list(records: Sequence[Mapping[str, Any]]) -> "RenderableType":
    """Return a list of claims with their statements.

    Args:
        records: dictionaries with `id` and `statement` of each claim.
    """
    from gradprix.show.tables import listing

    return listing(("claim",), [((record["id"],), record["statement"]) for record in records])


def summary(records: Sequence[Mapping[str, Any]]) -> "RenderableType":
    """Return a list of results: for each claim its statement, verdict, result as a sentence, and decisive effect."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    from gradprix.claims import format_counts
    from gradprix.utils.wording import format_count

    parts: list[RenderableType] = []
    for record in records:
        numbers = Text(f"effect {effect(record)}, n = {record['n']}", "dim")
        details = Text("\n").join(
            [Text(record["statement"]), Text.assemble(verdict(record), f". {record['says']}"), numbers]
        )
        parts += [Text(record["id"], "bold"), Padding(details, (0, 0, 0, 4))]
    hint = "Prediction, decision rule and all numbers of a claim: gradprix claims ID"
    return Group(*parts, Text(), Text(f"{format_count(len(records), 'claim')}: {format_counts(records)}."), Text(hint))


def claim_details(record: Mapping[str, Any], quick: bool = False) -> "RenderableType":
    """Return all details of the result of one claim.

    Args:
        record: result of the claim.
        quick: the claim was tested with fewer seeds, so that the command to repeat the test contains `--quick`.
    """
    from rich.console import Group
    from rich.text import Text

    from gradprix.show.tables import listing

    parts = {
        "Claim": record["statement"],
        "Prediction": record["prediction"],
        "Decision rule": record["decides"],
        "Revised": record["revised"],
        "Source": record["source"],
    }
    lines = [Text.assemble((f"{name}: ", "bold"), text) for name, text in parts.items() if text]
    rows = []
    for each in record["measured"]:
        low, high = each["ci95"]
        interval = "exact" if low == each["effect"] == high else f"{number(low)} to {number(high)}"
        rows.append(((number(each["effect"]), interval, str(each["n"])), each["what"]))
    command = f"gradprix claims {record['id']}{' --quick' if quick else ''}"
    conclusion = Text.assemble(verdict(record), f". {record['says']}")
    head = Text(record["id"], "bold underline")
    numbers = listing(("measured", "95 %", "n"), rows)
    return Group(head, *lines, conclusion, Text(), numbers, Text(), Text(f"Repeat: {command}"), Text())


def verdict(record: Mapping[str, Any]) -> "Text":
    """Format the verdict of a claim with its sign and colour."""
    from rich.text import Text

    from gradprix.claims.cards import SIGNS, bare_verdict

    word = bare_verdict(record["verdict"])
    return Text(f"{SIGNS[word]} {record['verdict']}", COLOURS[word])


def effect(record: Mapping[str, Any]) -> str:
    """Format the decisive effect with its confidence interval."""
    low, high = record["ci95"]
    alone = number(record["effect"])
    return alone if low == record["effect"] == high else f"{alone} (95 %: {number(low)} to {number(high)})"


def number(value: float | None) -> str:
    """Format a number with three significant digits; None becomes a dash."""
    if value is None:
        return "–"
    return f"{'−' * (value < 0)}{abs(value):.3g}"
