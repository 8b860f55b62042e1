"""Numbers of the documentation, read from the committed results of measurements.

A number is a file with results, and a Jinja expression in which the keys of its object are names. `data` is the object
itself, for keys that are no names, or have a meaning in Jinja, such as `false`.

    studies/verdict_simulation.json: races
    studies/verdict_simulation.json: conditions | each("covered") | min | fmt(".1%")
    studies/tuned_hyperparameters.json: tasks.charlm["26"]["gain of the best"] | fmt(".2f")

In a page, this is the text of the role `{value}`. For a paragraph with many numbers, the directive `{numbers}` has the
file as its argument and a Jinja template as its content. An unknown key is an error, and a number that is no integer
needs a format.
"""

import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from docutils import nodes
from jinja2 import meta
from scipy.stats import binomtest
from sphinx.util.docutils import SphinxDirective, SphinxRole

from gradprix.utils.wording import format_number

ROOT = Path(__file__).resolve().parents[2]
CONFIDENCE = 0.95
"""Confidence of the intervals of rates."""
Rows = Mapping[str, Mapping[str, Any]] | Iterable[Mapping[str, Any]]
"""Objects with the same keys: a list of them, or an object that holds them by their names."""


@cache
def read_results(file: str) -> dict[str, Any]:
    """Return the results in a file, given by its path in the repository."""
    return json.loads((ROOT / file).read_text())


def value(reference: str) -> str:
    """Return a number as text.

    Args:
        reference: `FILE: EXPRESSION`.

    Raises:
        KeyError: the file has no such key.
        TypeError: the result is neither an integer nor formatted.
    """
    file, colon, expression = " ".join(reference.split()).partition(": ")
    if not colon:
        raise ValueError(f"{reference!r} is not of the form 'FILE: EXPRESSION'")
    result = evaluate(expression, read_results(file))
    if isinstance(result, int) and not isinstance(result, bool):
        return f"{result:,}"
    if not isinstance(result, str):
        raise TypeError(f"{reference!r} is of the type {type(result).__name__}: add a format such as | fmt('.2f')")
    return result


def evaluate(expression: str, names: Mapping[str, Any]) -> Any:
    """Return the value of a Jinja expression in the names, which are an object as a whole under the name `data`."""
    if not meta.find_undeclared_variables(ENVIRONMENT.parse(f"{{{{ {expression} }}}}")):
        raise ValueError(f"{expression!r} names no key. If it has a meaning in Jinja, write data.{expression}")
    try:
        result = ENVIRONMENT.compile_expression(expression, undefined_to_none=False)(names, data=names)
    except jinja2.UndefinedError as error:
        raise KeyError(f"{expression}: {error}") from None
    if isinstance(result, jinja2.Undefined):
        raise KeyError(f"no such key: {expression}")
    return result


def where(rows: Rows, condition: str) -> list[Mapping[str, Any]]:
    """Return the rows that meet a condition on their keys."""
    return [row for row in listed(rows) if evaluate(condition, row)]


def each(rows: Rows, expression: str) -> list[Any]:
    """Return the value of an expression for each row, of whose keys it consists."""
    return [evaluate(expression, row) for row in listed(rows)]


def listed(rows: Rows) -> list[Mapping[str, Any]]:
    """Return rows as a list."""
    return list(rows.values() if isinstance(rows, Mapping) else rows)


def flat(lists: Mapping[str, list[Any]] | Iterable[list[Any]]) -> list[Any]:
    """Return the elements of several lists as one."""
    return [element for part in listed(lists) for element in part]


def rate(rows: Rows, condition: str, noun: str) -> str:
    """Format how many rows meet a condition, with the confidence interval: `0 of 48 races (95 %: at most 6.1 %)`."""
    count, total = len(where(rows, condition)), len(listed(rows))
    return f"{count} of {total} {noun} ({interval(count, total)})"


def share(value: float, total: int) -> str:
    """Format a share of a number of trials, with its confidence interval: `2.6 % (95 %: 1.9 to 3.4 %)`."""
    return f"{fmt(value, '.1%')} ({interval(round(value * total), total)})"


def interval(count: int, total: int) -> str:
    """Format the confidence interval of a rate.

    It is exact (Clopper & Pearson 1934), and one-sided if nothing or everything was counted. Its bounds are rounded
    outwards.
    """
    side = "less" if count == 0 else "greater" if count == total else "two-sided"
    bounds = binomtest(count, total, alternative=side).proportion_ci(CONFIDENCE)
    low, high = math.floor(1e3 * bounds.low) / 10, math.ceil(1e3 * bounds.high) / 10
    text = {"less": f"at most {high:g} %", "greater": f"at least {low:g} %"}.get(side, f"{low:g} to {high:g} %")
    return f"{100 * CONFIDENCE:g} %: {text}"


def fmt(number: float, spec: str) -> str:
    """Format a number by Python's format specification, with a minus sign and a space before a percent sign."""
    return f"{number:{spec}}".replace("-", "−").replace("%", " %")


def words(number: int) -> str:
    """Format a small number as a word."""
    return "none" if number == 0 else format_number(number)


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"


def mean(values: Iterable[float]) -> float:
    """Return the arithmetic mean."""
    return float(np.mean(list(values)))


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return float(np.median(list(values)))


ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
FILTERS = (where, each, flat, rate, share, fmt, words, duration, mean, median)
ENVIRONMENT.filters |= {filter_.__name__: filter_ for filter_ in FILTERS}
ENVIRONMENT.globals["results"] = read_results


class Value(SphinxRole):
    """Insert a number of a measurement."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the number as a text node."""
        self.env.note_reread()  # it depends on a file that Sphinx does not watch
        return [nodes.Text(value(self.text))], []


class Numbers(SphinxDirective):
    """Insert Markdown with numbers of a measurement: a template, with the file of the numbers as its argument."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the filled template."""
        self.env.note_reread()
        template = ENVIRONMENT.from_string("\n".join(self.content))
        text = template.render(read_results(self.arguments[0]))
        return self.parse_text_to_nodes(text, allow_section_headings=True)
