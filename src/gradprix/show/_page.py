"""Formatting of records as HTML: numbers, captions of figures, and the page template."""

from collections.abc import Mapping, Sequence
from html import escape

from gradprix.race import RaceRecord
from gradprix.race.plan_description import MetricDescription, Value
from gradprix.race.record import EntryResult
from gradprix.stats.verdict import PairVerdict

from .style import CSS, MARKS

OPPOSITE = {"wins": "loses", "slightly ahead": "slightly behind"}
"""Verdicts from the point of view of the second entry, where they differ."""


def reference(record: RaceRecord) -> str:
    """Return the name of the reference entry: the baseline, or the entry with the best mean."""
    return record.plan.baseline or record.ranking[0].name


def verdict_on(record: RaceRecord, one: str, other: str) -> str:
    """Return the verdict on one entry against another."""
    pair = record.pair(one, other)
    if pair.verdict is PairVerdict.INCONCLUSIVE:
        return "inconclusive"
    return pair.words if pair.a == one else OPPOSITE.get(pair.words, pair.words)


def diverged(entry: EntryResult) -> list[bool]:
    """Return a flag per final run, in the order of the seeds: true if it diverged."""
    return [step is not None for step in entry.final.divergence_steps]


def scale(record: RaceRecord) -> float:
    """Return the factor for displayed values of the metric: 100 for percentages."""
    return 100.0 if record.plan.metric.percent else 1.0


def value(record: RaceRecord, number: float) -> str:
    """Format a value of the metric: `97.2 %`, or four significant digits."""
    return f"{100 * number:.1f}\u00a0%" if record.plan.metric.percent else f"{number:.4g}"


def signed(record: RaceRecord, difference: float) -> str:
    """Format a difference of displayed values, with its sign and no unit."""
    written = f"{scale(record) * difference:{'+.2f' if record.plan.metric.percent else '+.3g'}}"
    return written.replace("-", "−") if float(written) else written[1:]


def margin(metric: MetricDescription) -> str:
    """Format the margin, the smallest difference that matters."""
    if metric.relative:
        return f"{100 * metric.margin:g} % of the better mean"
    return f"{100 * metric.margin:g} percentage points" if metric.percent else f"{metric.margin:g}"


def factor(decades: float) -> str:
    """Format a width in decades as the factor between its ends."""
    wide = 10**decades
    return f"×{wide:,.0f}" if wide >= 100 else f"×{wide:.2g}" if decades else "none"


def read_ranking(record: RaceRecord) -> str:
    """Return the caption of the ranking."""
    home = escape(reference(record))
    lost = any(entry.final.diverged for entry in record.entries)
    better = "right" if record.plan.metric.higher_is_better else "left"
    return (
        f"Further {better} is better. Left: a dot for every final run, a bar for their mean. "
        f"Right: each mean minus that of {home}, the {'baseline' if record.plan.baseline else 'best'}. "
        f"The lines are simultaneous 95&nbsp;% intervals{_sampling(record)}: all of them, for all comparisons, hold "
        f"together in 95&nbsp;% of races. The grey band is the margin, {margin(record.plan.metric)}: an interval "
        "wholly inside it is a tie, one that touches zero and leaves the band is "
        f"inconclusive. On the far right, the verdict on each entry against {home}. Bold: the leaders."
        + (" × marks diverged runs, at the edge." if lost else "")
    )


def _sampling(record: RaceRecord) -> str:
    """Describe the sources of variation, besides seeds, that the intervals of differences cover."""
    return ", over seeds and test examples" if record.plan.crossed else ""


def read_pairs(record: RaceRecord) -> str:
    """Return the caption of the matrix of comparisons."""
    signs = ", ".join(f"{sign} {said}" for said, (sign, _) in MARKS.items())
    unit = " in percentage points" if record.plan.metric.percent else ""
    return (
        f"Row against column: {signs}. The number is the row's mean lead over the column{unit}; positive is better, "
        "whichever way the metric runs. Point at a cell for its interval and for the number of seeds that "
        "would make it conclusive."
    )


def table(head: Sequence[str], body: str, numeric: bool = True) -> str:
    """Return an HTML table that scrolls horizontally on narrow pages; `body` holds its rows."""
    cells = "".join(f'<th scope="col">{name}</th>' for name in head)
    kind = ' class="numbers"' if numeric else ""
    return f'<div class="wide"><table{kind}><thead><tr>{cells}</tr></thead>{body}</table></div>'


def code(text: str) -> str:
    """Return a code block with a copy button."""
    return f'<div class="code"><pre>{escape(text)}</pre><button type="button">Copy</button></div>'


def section(name: str, title: str, *parts: str) -> str:
    """Return a section with a linkable heading."""
    body = "\n".join(parts)
    return f'<section id="{name}"><h2>{title}</h2>\n{body}\n</section>'


def page(title: str, sections: Mapping[str, str], scripts: str, body: str) -> str:
    """Return the complete HTML document.

    Args:
        title: title, already escaped.
        sections: labels of the navigation links by section name.
        scripts: JavaScript for the figures.
        body: content below the navigation.
    """
    links = "".join(f'<a href="#{name}">{text}</a>' for name, text in sections.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{CSS}</style>
<script>{scripts}</script>
</head>
<body>
<main>
<nav><b>gradprix</b>{links}</nav>
{body}
</main>
<script>{COPY}</script>
</body>
</html>
"""


# The page loads no external resources; the browser blocks any script that tries.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; form-action 'none'; base-uri 'none'"
)

COPY = """
for (const button of document.querySelectorAll(".code button")) button.onclick = () => {
  navigator.clipboard.writeText(button.previousElementSibling.textContent).then(() => button.textContent = "Copied");
};
"""


def setting(tuned: Mapping[str, Value]) -> str:
    """Format a tuned point: the learning rate, then the other tuned values."""
    written = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in tuned.items()}
    return ", ".join([written.pop("lr"), *(f"{name} {value}" for name, value in written.items())])


def epochs(number: float) -> str:
    """Return a number of epochs, or a part of one, with its unit."""
    return f"{number:,} epochs" if number >= 1 else f"{number:.2g} of an epoch"


def count(number: int | None) -> str:
    """Format a number of updates or examples; "-" if it is unknown."""
    return "-" if number is None else f"{number:,}"
