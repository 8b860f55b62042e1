"""Views of the page "Step": one step of one optimizer, drawn in the browser, and its equations."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import flask
import torch

from gradprix.explain import classify_state, equations
from gradprix.race import Entry
from gradprix.rules import Rule
from gradprix.rules.javascript import state_layout
from gradprix.show import palette

from .racers import RACERS
from .templating import ENVIRONMENT, render


def page() -> str:
    """Return the page."""
    styles = {name: palette.style(name)._asdict() for name in RACERS}
    kinds = {name: state_kinds(name) for name in RACERS}
    return render("step.html.jinja", page="step", data={"styles": styles, "kinds": kinds})


@cache
def state_kinds(name: str) -> dict[str, tuple[str, int]]:
    """Return the kind and the power of each state variable of an optimizer that can be drawn; see `classify_state`."""
    entry = RACERS[name]
    return classify_state(_rule(entry), tuple(entry.values(entry.default_rate).items()))


def equations_fragment() -> str | tuple[str, int]:
    """Return the equations of a step, with its numbers, as a piece of HTML.

    The query has the name of the optimizer (`of`), its hyperparameters (`h=lr:0.1,beta1:0.9`), the number of the step
    (`t`), the point before it (`x=1,2`), the gradient there (`g`), and the numbers of the state (`state`), in the order
    of `state_layout`. A query that is not understood gets the status 400, and the reason.
    """
    query = flask.request.args.to_dict()
    try:
        entry, point, gradient, numbers = RACERS[query["of"]], *(_numbers(query[key]) for key in ("x", "g", "state"))
        own = dict(_assignment(part) for part in query["h"].split(",") if part)
        values = entry.values(**{"lr": entry.default_rate, **own})
        x, g = (torch.tensor(each, dtype=torch.float64) for each in (point, gradient))
        if len(x) != 2 or len(g) != 2:
            raise ValueError("x and g have two coordinates")
        derived = equations(_rule(entry), values, int(query["t"]), x, g, _state(entry, values, numbers))
    except ArithmeticError:
        return "The numbers of this step are too large for its equations.", 400
    except (LookupError, TypeError, ValueError) as error:
        return f"This step is not understood: {error}.", 400
    return ENVIRONMENT.get_template("equations.html.jinja").render(equations=derived, source=_rule(entry).source)


def _rule(entry: Entry) -> Rule:
    assert isinstance(entry.rule, Rule)
    return entry.rule


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part]


def _assignment(text: str) -> tuple[str, float]:
    name, _, value = text.partition(":")
    return name, float(value)


def _state(entry: Entry, values: Mapping[str, Any], numbers: list[float]) -> dict[str, Any]:
    """Return the state of an optimizer from its numbers, by the names of the rule."""
    slots, specs = state_layout(_rule(entry), values), _rule(entry).active_state(values)
    if len(numbers) != sum(slot.size for slot in slots):
        raise ValueError(
            f"the state of {entry.name} has {sum(slot.size for slot in slots)} numbers, not {len(numbers)}"
        )
    parts = {slot.name: numbers[slot.offset : slot.offset + slot.size] for slot in slots}
    return {
        name: part[0] if specs[name].kind == "scalar" else torch.tensor(part, dtype=torch.float64)
        for name, part in parts.items()
    }
