"""Result of a race as text and numbers, for loggers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradprix.race.saved_result import SavedResult

COLUMNS = {
    "entry": "entry",
    "mean": "mean",
    "low": "95 % low",
    "high": "95 % high",
    "diverged": "diverged",
    "code": "code",
}
"""Title of each column of the ranking, by its name in `Result.entries`."""


def ranking(result: "SavedResult[Any]") -> list[dict[str, Any]]:
    """Return the ranking of a result: a row for each entry, best mean first, with the columns of `COLUMNS`."""
    frame = result.entries[list(COLUMNS)].rename(columns=COLUMNS)
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def ranking_markdown(result: "SavedResult[Any]") -> str:
    """Return the ranking of a result as a table in Markdown."""
    rows = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    rows += [[_cell(value) for value in row.values()] for row in ranking(result)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def answer_markdown(result: "SavedResult[Any]") -> str:
    """Return the answer of a result in Markdown, with the ranking."""
    lines = [line.replace("*", r"\*") for line in result.text.splitlines()]
    return "\n\n".join([*lines, ranking_markdown(result)])


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", r"\|").replace("\n", " ")
