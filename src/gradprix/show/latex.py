"""Table of several races in LaTeX, and the formatting of cells."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.stats.verdict import PairVerdict

ErrorBar = Literal["ci95", "se"]
ERRORS: dict[ErrorBar, str] = {"ci95": r"half-width of the 95\,\% confidence interval", "se": "standard error"}
"""Description of each kind of error bar."""
WINS, SLIGHTLY_AHEAD, NOT_COMPARED = "*", r"\circ", "?"
"""Marks of an entry that the best one wins against, is slightly ahead of, or is not compared with."""
PLUS_MINUS, TIMES = r"\pm", r"\times "
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "²": r"\textsuperscript{2}",
}


def escape_latex(text: str) -> str:
    """Escape the characters that LaTeX interprets."""
    return "".join(SPECIAL.get(character, character) for character in " ".join(text.split()))


def latex_table(records: Mapping[str, RaceRecord], error: ErrorBar = "ci95") -> str:
    r"""Return a table of several races, with a row for each task and a column for each optimizer.

    The best mean of each row is bold, and marks show which entries are significantly behind it. The last rows are wins,
    ties and losses, and mean ranks, of the entries that are in all races. A comparison that is not significant is a
    tie, and tied entries share a rank. The table needs the packages `booktabs` and `amsmath`.

    Args:
        records: record of each race, by the name of its row.
        error: `"ci95"` for half-widths of the 95 % confidence intervals of the means, `"se"` for standard errors.

    Raises:
        ValueError: if there are no races.
    """
    if not records:
        raise ValueError("no races: give at least one folder of a finished race.")
    entries = list(dict.fromkeys(entry.name for record in records.values() for entry in record.entries))
    common = [name for name in entries if all(name in record.means for record in records.values())]
    rows = [
        [_row_title(name, record), *(_cells(record, error).get(entry, "--") for entry in entries)]
        for name, record in records.items()
    ]
    last = []
    if len(common) > 1:
        counts = {name: _count(records, name, common) for name in common}
        totals = {name: "/".join(map(str, count)) for name, count in counts.items()}
        ranks = {
            name: f"{1 + (losses + ties / 2) / len(records):.2f}" for name, (_, ties, losses) in counts.items()
        }  # in each race, one plus the number of losses, plus half of the number of ties
        last = [
            [title, *(cells.get(entry, "--") for entry in entries)]
            for title, cells in (("wins/ties/losses", totals), ("mean rank", ranks))
        ]
    head = ["", *map(escape_latex, entries)]
    body = [
        format_line(head),
        r"\midrule",
        *map(format_line, rows),
        *([r"\midrule"] if last else []),
        *map(format_line, last),
    ]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,amsmath}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_caption(records, error)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(entries)}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def format_line(cells: Sequence[str]) -> str:
    """Return a row of a table, whose cells are LaTeX."""
    return f"{' & '.join(cells)} \\\\"


def format_math(number: str) -> str:
    r"""Return a formatted number, mean with error, or factor in the mathematical mode, without its per cent sign.

    Example:
        >>> format_math("97.6 ± 0.2 %"), format_math("−0.12"), format_math("1.2e+06")
        ('$97.6 \\pm 0.2$', '$-0.12$', '$1.2 \\cdot 10^{6}$')
    """
    plain = number.replace("\N{NO-BREAK SPACE}", " ").removesuffix(" %").replace("−", "-")
    return f"${_format_powers(plain.replace('±', PLUS_MINUS).replace('×', TIMES))}$"


def _format_powers(number: str) -> str:
    return re.sub(r"e\+?(-?)0*(\d+)", r" \\cdot 10^{\1\2}", number)


def _row_title(name: str, record: RaceRecord) -> str:
    metric = record.plan.metric
    arrow = r"$\uparrow$" if metric.higher_is_better else r"$\downarrow$"
    unit = ", %" if metric.percent else ""
    return f"{escape_latex(name)} ({escape_latex(metric.name + unit)}) {arrow}"


def _caption(records: Mapping[str, RaceRecord], error: ErrorBar) -> str:
    seeds = sorted({record.budget.seeds for record in records.values()})
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    marks = [
        (WINS, "the best mean is significantly better"),
        (SLIGHTLY_AHEAD, "it is significantly better by less than the margin"),
    ]
    if any(record.plan.baseline is not None for record in records.values()):
        marks.append((NOT_COMPARED, "not compared with the best mean"))
    legend = "; ".join(f"${{}}^{{{mark}}}$: {text}" for mark, text in marks)
    return (
        rf"Mean $\pm$ {ERRORS[error]} over {count} held-out seeds. Bold: best mean. {legend} (simultaneous comparisons "
        r"of each race, 5\,\%). Wins, ties, losses and mean ranks count the optimizers that are in all races: a tie is "
        "a difference that is not significant. An optimizer's rank in a race is one, plus one for each loss, plus a "
        "half for each tie; the mean rank is the average over the races."
    )


def _cells(record: RaceRecord, error: ErrorBar) -> dict[str, str]:
    """Return the cell of each entry of a race."""
    best = record.ranking[0]
    scale = 100 if record.plan.metric.percent else 1
    reference = scale * _error(best, error)
    places = min(6, max(0, 1 - math.floor(math.log10(reference)))) if reference > 0 else 2
    cells = {}
    for entry in record.entries:
        numbers = (_number(scale * value, places) for value in (entry.final.mean, _error(entry, error)))
        text = r" \pm ".join(numbers)
        mark = "" if entry is best else _mark(record, best.name, entry.name)
        cells[entry.name] = rf"$\boldsymbol{{{text}}}$" if entry is best else f"${text}{mark}$"
    return cells


def _error(entry: EntryResult, error: ErrorBar) -> float:
    if error == "ci95":
        low, high = entry.final.ci95
        return (high - low) / 2
    return statistics.stdev(entry.final.values) / math.sqrt(len(entry.final.values))


def _number(value: float, places: int) -> str:
    """Format a number for the mathematical mode, with a power of ten if it is large."""
    if abs(value) < 1e5:
        return f"{value:.{places}f}"
    return _format_powers(f"{value:.1e}")


def _mark(record: RaceRecord, best: str, other: str) -> str:
    verdict = _verdict(record, best, other)
    marks = {PairVerdict.WINS: WINS, PairVerdict.SLIGHTLY_AHEAD: SLIGHTLY_AHEAD, None: NOT_COMPARED}
    return f"^{{{marks[verdict]}}}" if verdict in marks else ""


def _verdict(record: RaceRecord, better: str, other: str) -> PairVerdict | None:
    """Return the verdict on a pair, or a tie if `better` is its worse entry; None if they are not compared."""
    for pair in record.verdict.pairs:
        if {pair.a, pair.b} == {better, other}:
            return pair.verdict if pair.a == better else PairVerdict.TIES
    return None


def _count(records: Mapping[str, RaceRecord], name: str, entries: Sequence[str]) -> tuple[int, int, int]:
    """Return the numbers of wins, ties and losses of an entry against the other entries, over all races.

    Pairs that are not compared count as ties.
    """
    significant = (PairVerdict.WINS, PairVerdict.SLIGHTLY_AHEAD)
    others = [(record, other) for record in records.values() for other in entries if other != name]
    wins = sum(_verdict(record, name, other) in significant for record, other in others)
    losses = sum(_verdict(record, other, name) in significant for record, other in others)
    return wins, len(others) - wins - losses, losses
