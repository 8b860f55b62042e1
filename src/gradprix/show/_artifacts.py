"""Artifacts of the trained models: additional measures, pictures, and texts."""

from html import escape

import numpy as np

from gradprix.race import RaceRecord
from gradprix.stats.verdict import own_interval

from . import _page

SEED = "Of each entry's model under the first final seed on which it did not diverge, best mean first."


def artifacts_section(record: RaceRecord) -> str:
    """Return all artifacts as HTML; empty if there are none."""
    artifacts = record.artifacts
    parts = [_numbers(record)] if artifacts.numbers else []
    parts += [_pictures(record, name) for name in artifacts.pictures]
    parts += [_texts(record, name) for name in artifacts.texts]
    return "\n".join(parts)


def _numbers(record: RaceRecord) -> str:
    """Return the table of measures: mean over the final seeds that did not diverge, and its own interval."""
    measures, rows = record.artifacts.numbers, ""
    for entry in record.ranking:
        each = [[x for x in measures[name].get(entry.name, []) if x is not None] for name in measures]
        cells = "".join(f"<td>{_mean(values)}</td>" for values in each)
        rows += f"<tr><td><b>{escape(entry.name)}</b></td>{cells}</tr>"
    text = (
        "Further measures of the final models: the mean over seeds, and its own 95&nbsp;% interval. "
        "They carry no verdict: that is of the metric alone."
    )
    table = _page.table(["entry", *map(escape, measures)], f"<tbody>{rows}</tbody>")
    return f'<p class="note">{text}</p>{table}'


def _mean(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4g}" if values else "-"
    low, high = own_interval(values)
    return f'{np.mean(values):.4g} <span class="soft">({low:.4g} to {high:.4g})</span>'


def _pictures(record: RaceRecord, name: str) -> str:
    """Return a gallery with a picture per entry, best mean first."""
    images, each = record.artifacts.pictures[name], ""
    for own in (entry.name for entry in record.ranking if entry.name in images):
        source = f'src="data:image/png;base64,{images[own]}" alt="{escape(name)} of {escape(own)}"'
        each += f'<figure class="made"><img {source}><figcaption>{escape(own)}</figcaption></figure>'
    return f'<h3>{escape(name.capitalize())}</h3><p class="note">{SEED}</p><div class="gallery">{each}</div>'


def _texts(record: RaceRecord, name: str) -> str:
    """Return a table of texts: one row per source, one column per entry, best mean first."""
    outputs, rows = record.artifacts.texts[name], ""
    names = [entry.name for entry in record.ranking if entry.name in outputs]
    for source in dict.fromkeys(source for own in names for source in outputs[own]):
        cells = "".join(f"<td>{escape(outputs[own].get(source, ''))}</td>" for own in names)
        rows += f"<tr><td>{escape(source)}</td>{cells}</tr>"
    table = _page.table(["", *map(escape, names)], f"<tbody>{rows}</tbody>", numeric=False)
    return f'<h3>{escape(name.capitalize())}</h3><p class="note">{SEED}</p>{table}'
