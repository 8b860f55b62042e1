"""Tables of one race in LaTeX: its entries, and the comparisons of all pairs."""

from collections.abc import Sequence
from pathlib import Path

from gradprix.race import RaceRecord
from gradprix.race.plan_description import Value
from gradprix.text.recommendation import format_place
from gradprix.text.units import format_factor
from gradprix.utils.files import write_atomically

from ._formatting import format_difference, format_distance, format_mean
from .latex import escape_latex, format_line, format_math

P_DIGITS = 3
"""Digits after the point of a p-value; smaller ones are given as an upper bound."""


def write_latex(record: RaceRecord, folder: Path) -> list[Path]:
    """Write the tables of a race, `entries.tex` and `verdict.tex`, and return their paths.

    Values are rounded as in the terminal. The data frames have all digits and further columns.

    Args:
        record: record of a race.
        folder: folder of the files, which is created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"entries": entries_table(record), "verdict": verdict_table(record)}
    return [write_atomically(folder / f"{name}.tex", table.encode(), 0o644) for name, table in tables.items()]


def entries_table(record: RaceRecord) -> str:
    """Return the table of the entries, best mean first: mean, bound of the regret, tuned values and tolerance."""
    tuned = list(dict.fromkeys(name for entry in record.entries for name in entry.tuned))
    has_diverged = any(entry.final.diverged for entry in record.entries)
    head = [
        "optimizer",
        record.plan.metric.name + _unit(record),
        "at most behind" + _points(record),
        *("learning rate" if name == "lr" else name for name in tuned),
        "tolerance",
        *["diverged runs"] * has_diverged,
        "place",
    ]
    rows = [
        [
            escape_latex(entry.name),
            format_math(format_mean(record, entry)),
            _strip_points(format_distance(record, entry.bound)),
            *(_format_tuned(entry.tuned.get(name)) for name in tuned),
            format_math(format_factor(entry.tolerance_decades)) if "lr" in entry.tuned else "--",
            *[str(entry.final.diverged)] * has_diverged,
            escape_latex(format_place(record, entry)),
        ]
        for entry in record.ranking
    ]
    return _tabular(head, f"l{'r' * (len(head) - 2)}l", rows)


def verdict_table(record: RaceRecord) -> str:
    """Return the table of the comparisons: difference with its simultaneous interval, p-value and verdict of a pair."""
    needs_seeds = any(pair.more_seeds for pair in record.verdict.pairs)
    head = [
        "better mean",
        "worse mean",
        "difference" + _points(record),
        "simultaneous interval",
        "adjusted p",
        "verdict",
    ]
    head += ["further seeds needed"] * needs_seeds
    rows = [
        [
            escape_latex(pair.a),
            escape_latex(pair.b),
            format_math(format_difference(record, pair.difference)),
            " to ".join(format_math(format_difference(record, end)) for end in pair.ci95),
            _format_p(pair.p),
            escape_latex(pair.words),
            *[f"{pair.more_seeds:,}" if pair.more_seeds else "--"] * needs_seeds,
        ]
        for pair in record.verdict.pairs
    ]
    return _tabular(head, f"llrrrl{'r' * needs_seeds}", rows)


def _tabular(head: Sequence[str], columns: str, rows: Sequence[Sequence[str]]) -> str:
    titles = format_line([escape_latex(title) for title in head])
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            titles,
            r"\midrule",
            *map(format_line, rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _unit(record: RaceRecord) -> str:
    return ", %" if record.plan.metric.percent else ""


def _points(record: RaceRecord) -> str:
    return ", points" if record.plan.metric.percent else ""


def _strip_points(distance: str) -> str:
    """Return a formatted distance without its unit, which the title of its column has."""
    return "--" if distance == "-" else format_math(distance.removesuffix(" points"))


def _format_tuned(value: Value | None) -> str:
    if value is None:
        return "--"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return format_math(f"{value:.4g}") if is_number else escape_latex(str(value))


def _format_p(p: float) -> str:
    least = 10**-P_DIGITS
    return f"{p:.{P_DIGITS}f}" if p >= least else f"$<{least:.{P_DIGITS}f}$"
