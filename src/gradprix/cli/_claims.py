"""Command `gradprix claims`: experiments on common claims about optimizers."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradprix.utils.streams import echo_json

from ._errors import report_errors

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

WORDS = {
    "holds": ("✓", "green"),
    "holds only if": ("~", "yellow"),
    "does not hold": ("✗", "red"),
    "not settled": ("?", "dim"),
}
"""Sign and colour of each verdict. They carry no further information."""


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
        echo_json(listed) if as_json else console().print(statement_table(listed))
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
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    err = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        job = bar.add_task("", total=None)
        yield lambda name, done, total: bar.update(job, description=name, completed=done, total=total)


def statement_table(records: Sequence[Mapping[str, Any]]) -> "Table":
    """Return a table of claims with their statements.

    Args:
        records: dictionaries with `id` and `statement` of each claim.
    """
    table = _table("claim", "statement")
    for record in records:
        table.add_row(record["id"], record["statement"])
    return table


def summary(records: Sequence[Mapping[str, Any]]) -> "RenderableType":
    """Return a table of results, with a row for each claim: verdict, result as a sentence, and decisive effect."""
    from rich.console import Group
    from rich.text import Text

    from gradprix.claims import format_counts

    table = _table("verdict", "claim", "effect (95 %)", "n")
    for record in records:
        description = Text.assemble((record["id"], "bold"), f"\n{record['statement']}\n", (record["says"], "dim"))
        table.add_row(verdict(record), description, effect(record), str(record["n"]))
    hint = "Prediction, decision rule and all numbers of a claim: gradprix claims ID"
    return Group(table, Text(f"{len(records)} claims: {format_counts(records)}.  {hint}"))


def claim_details(record: Mapping[str, Any], quick: bool = False) -> "RenderableType":
    """Return all details of the result of one claim.

    Args:
        record: result of the claim.
        quick: the claim was tested with fewer seeds, so that the command to repeat the test contains `--quick`.
    """
    from rich.console import Group
    from rich.text import Text

    parts = {
        "Claim": record["statement"],
        "Prediction": record["prediction"],
        "Decision rule": record["decides"],
        "Revised": record["revised"],
        "Source": record["source"],
    }
    lines = [Text.assemble((f"{name}: ", "bold"), text) for name, text in parts.items() if text]
    numbers = _table("measured", "effect", "95 %", "n")
    for each in record["measured"]:
        low, high = each["ci95"]
        interval = "exact" if low == each["effect"] == high else f"{number(low)} to {number(high)}"
        numbers.add_row(Text(each["what"]), number(each["effect"]), interval, str(each["n"]))
    command = f"gradprix claims {record['id']}{' --quick' if quick else ''}"
    conclusion = Text.assemble(verdict(record), f". {record['says']}")
    return Group(Text(record["id"], "bold underline"), *lines, conclusion, numbers, Text(f"Repeat: {command}"), Text())


def verdict(record: Mapping[str, Any]) -> "Text":
    """Format the verdict of a claim with its sign and colour."""
    from rich.text import Text

    sign, style = WORDS[_bare_verdict(record)]
    return Text(f"{sign} {record['verdict']}", style)


def effect(record: Mapping[str, Any]) -> str:
    """Format the decisive effect with its confidence interval."""
    low, high = record["ci95"]
    alone = number(record["effect"])
    return alone if low == record["effect"] == high else f"{alone} ({number(low)} to {number(high)})"


def number(value: float | None) -> str:
    """Format a number with three significant digits; None becomes a dash."""
    if value is None:
        return "–"
    return f"{'−' * (value < 0)}{abs(value):.3g}"


def _bare_verdict(record: Mapping[str, Any]) -> str:
    """Return the verdict without its condition, such as “holds only if”."""
    return next(word for word in sorted(WORDS, key=len, reverse=True) if record["verdict"].startswith(word))


def _table(*columns: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name, justify="right" if name == "n" else "left", no_wrap=name in ("effect", "n"))
    return table
