"""Sphinx extension: findings of the literature, from the results of `studies/run_findings.py`.

The directive `{findings} table` inserts the table of verdicts, and `{findings} details` a section for each finding.
"""

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from markdown_docs import linked
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from suite_docs import plain, table

from gradprix.claims import Verdict, load_results
from gradprix.claims.cards import bare_verdict
from gradprix.show.claim_cards import format_effect

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
from findings import ALL, Finding, format_verdict, records

CLAIMS = records.FOLDER / "claims.toml"
MISSING = "not measured yet"


def verdict_table(folder: Path = records.RESULTS) -> str:
    """Return a table of all findings with their verdicts, and of the findings that textbook claims test."""
    rows = []
    for name, finding in ALL.items():
        record = records.load(name, folder)
        verdict = record["verdict"] if record else MISSING
        number = format_quantity(measured(record)[0]) if record else "–"
        rows.append((f"[{plain(finding.title)}](#{name}), {linked(finding.source)}", f"**{plain(verdict)}**", number))
    return table(("finding", "verdict", "number (95\u00a0%)"), [*rows, *claim_rows()])


def claim_rows() -> list[tuple[str, ...]]:
    """Return a row for each textbook claim that tests a finding."""
    results = {record["id"]: record for record in load_results()["claims"]}
    rows = []
    for name, texts in tomllib.loads(CLAIMS.read_text("utf-8")).items():
        link = f'claim <a href="claims.html#claim-{name}">{name}</a>'
        source = f"{plain(texts['title'])}, {linked(texts['source'])} ({link})"
        verdict = claim_verdict(results[name]["verdict"], texts.get("confirmed_by", "holds"))
        rows.append((source, f"**{plain(verdict)}**", format_quantity(results[name])))
    return rows


def claim_verdict(verdict: str, confirmed_by: Verdict) -> str:
    """Return the verdict on a finding from that of the claim that tests it.

    Args:
        verdict: verdict of the claim, with its condition.
        confirmed_by: verdict of the claim that confirms the finding.
    """
    bare = bare_verdict(verdict)
    return format_verdict("holds") if bare == confirmed_by else format_verdict(bare, verdict.removeprefix(bare).strip())


def prose(text: str) -> str:
    """Escape the characters that are special in Markdown, except in code between backticks."""
    parts = text.strip().split("`")
    return "`".join(part if i % 2 else plain(part) for i, part in enumerate(parts))


def details(folder: Path = records.RESULTS) -> str:
    """Return a section for each finding."""
    return "\n\n".join(section(finding, records.load(name, folder)) for name, finding in ALL.items())


def section(finding: Finding, record: dict[str, Any] | None) -> str:
    """Return the section of a finding: statement, settings, decision rule, result, numbers, figure and limits."""
    parts = [
        f"({finding.id})=",
        f"### {plain(finding.title)}",
        f"{prose(finding.statement)} *{linked(finding.source)}*",
    ]
    if record is None:
        parts.append(f"**{MISSING.capitalize()}.**")
    else:
        parts += [f"**{plain(record['verdict'].capitalize())}.** {prose(record['sentence'])}", *figure(finding, record)]
    texts = {
        "In the paper": finding.original,
        "Here": finding.here,
        "Prediction": finding.prediction,
        "Decision rule": finding.decides,
        "Revised": finding.revised,
        "Limits": finding.limits,
    }
    parts.append("\n".join(f"* *{name}:* {prose(text)}" for name, text in texts.items() if text))
    if record is not None:
        rows = [(format_quantity(each), str(each["n"]), plain(each["what"])) for each in measured(record)]
        numbers = table(("measured (95 %)", "n", "quantity"), rows)
        parts.append(f":::{{dropdown}} All numbers\n{numbers}\n\n{made_by(record)}\n:::")
    return "\n\n".join(parts)


def measured(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the measured quantities of a record, the deciding one first."""
    return [value for value in record["quantities"].values() if isinstance(value, dict) and "ci95" in value]


def format_quantity(quantity: Mapping[str, Any]) -> str:
    """Format a quantity with its interval: `0.5 (0.4 to 0.6)`."""
    low, high = quantity["ci95"]
    interval = "" if low == high else f" ({format_effect(low)} to {format_effect(high)})"
    return f"{format_effect(quantity['effect'])}{interval}"


def figure(finding: Finding, record: dict[str, Any]) -> list[str]:
    """Return the figure of a finding as a list of at most one block."""
    if finding.draw is None:
        return []
    chart = finding.draw(records.read_quantities(record))
    svgs = "".join(chart.svgs())
    return [
        f'```{{raw}} html\n<figure class="claim-page path">{svgs}<figcaption>{chart.title}</figcaption></figure>\n```'
    ]


def made_by(record: dict[str, Any]) -> str:
    """Return the command, the duration, the machine and the versions."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"`{record['command']}`: {record['cpu_seconds']:.0f} seconds of processor time, "
        f"{record['machine']['cores']} cores ({record['machine']['cpu']}), {versions}."
    )


class Findings(SphinxDirective):
    """Insert the table or the sections of the findings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the nodes."""
        self.env.note_reread()
        text = {"table": verdict_table, "details": details}[self.arguments[0]]()
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("findings", Findings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
