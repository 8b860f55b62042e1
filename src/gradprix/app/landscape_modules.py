"""JavaScript modules of the landscape and step pages that are generated: optimizers from their rules, and surfaces.

They are files of the package, so that the app shows its first page without importing torch. `write_modules` makes them
anew: python -m gradprix.app.landscape_modules
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from gradprix.explain import LANDSCAPES, learning_rate_grid, loss_planes
from gradprix.explain.surfaces import Surface
from gradprix.race import Entry
from gradprix.rules import Rule
from gradprix.rules.javascript import HELPERS, state_layout, step_functions, used_hyperparameters
from gradprix.rules.notation import format_symbol

from .racers import PARAMETERS, RACERS, adjustable
from .templating import FOLDER

HYPERPARAMETER_RANGE = (1e-6, 0.999999)
"""Range of a hyperparameter other than the learning rate. Zero would remove a term from the rule."""


@cache
def rules_module() -> str:
    """Return a module that exports the optimizers, by name, as `RULES`.

    Each has the fields:

    * `label`, `about`, `source`: its name, a one-line description and its reference;
    * `defaults`: all hyperparameters that its steps read, including the default learning rate;
    * `hyperparameters`: those that can be changed, `{lr: {label, default, low, high}, …}`;
    * `rates`: the learning rates among which one is chosen by tuning;
    * `state`: state variables and their places in the state's array, `[{name, label, offset, size}, …]`;
    * `init`, `step`: functions; see `gradprix.rules.javascript.step_functions`.
    """
    return _module("RULES", {name: _rule(entry) for name, entry in RACERS.items()})


@cache
def surfaces_module() -> str:
    """Return a module that exports the surfaces, by name, as `SURFACES`.

    Each has the fields:

    * `label`: its name;
    * `about`: function of its parameters that returns a description;
    * `parameters`: `{condition: {label, default, low, high}, …}`;
    * `box`, `start`, `minima`, `noise`: see `gradprix.explain.Landscape`;
    * `value`: function `(parameters, x, y)` that returns the loss;
    * `gradient`: function `(parameters, x, y)` that returns the pair of its partial derivatives.
    """
    formulas = {name: _surface(surface) for name, surface in LANDSCAPES.items()}
    planes = {name: _plane(name, plane) for name, plane in loss_planes().items()}
    return _module("SURFACES", {**formulas, **planes}, 'import { lossGrid } from "./loss_grid.js";')


MODULES = {"rules.js": rules_module, "surfaces.js": surfaces_module}
"""Functions that return the modules, by the name of the file."""


def _rule(entry: Entry) -> str:
    rule, values = entry.rule, entry.values(entry.default_rate)
    assert isinstance(rule, Rule)
    rates = learning_rate_grid(rule)
    own = {name: (default, *HYPERPARAMETER_RANGE) for name, default in adjustable(entry).items()}
    ranges = {"lr": (entry.default_rate, rates[0], rates[-1]), **own}
    slots = [
        {"name": s.name, "label": format_symbol(s.name), "offset": s.offset, "size": s.size}
        for s in state_layout(rule, values)
    ]
    data = {
        "label": entry.name,
        "about": entry.about,
        "source": rule.source,
        "defaults": {name: values[name] for name in used_hyperparameters(rule, values)},
        "hyperparameters": {name: _range(format_symbol(name), *each) for name, each in ranges.items()},
        "rates": rates,
        "state": slots,
    }
    return _object({**_sources(data), **step_functions(rule, values)})


def _surface(surface: Surface) -> str:
    ranges = {
        name: (label, surface.parameters[name], low, high)
        for name, (label, low, high) in PARAMETERS.items()
        if name in surface.parameters
    }
    data = {
        "label": surface.name.capitalize(),
        "parameters": {name: _range(*each) for name, each in ranges.items()},
        "box": surface.box,
        "start": surface.start,
        "minima": surface.minima,
        "noise": surface.noise or 0.0,
    }
    about = re.sub(r"\{(\w+):g\}", r"${h.\1}", _json(surface.about)[1:-1])
    return _object({**_sources(data), "about": f"(h) => `{about}`", **surface.javascript()})


def _plane(name: str, plane: Mapping[str, Any]) -> str:
    data = {
        "label": name.replace("-", " ").capitalize(),
        "parameters": {},
        "box": plane["box"],
        "start": plane["start"],
        "minima": [],
        "noise": 0.0,
    }
    grid = f"...lossGrid({_json(plane['box'])}, {_json(plane['values'])})"
    return _object({**_sources(data), "about": f"() => {_json(plane['about'])}"}, grid)


def _range(label: str, default: float, low: float, high: float) -> dict[str, Any]:
    return {"label": label, "default": default, "low": low, "high": high}


def _module(export: str, objects: Mapping[str, str], imports: str = "") -> str:
    """Return a module that exports an object, given the source of its fields."""
    head = f"/* Generated by gradprix/app/landscape_modules.py. */\n{imports}\n{HELPERS}"
    return f"{head}\nexport const {export} = {_object({_json(name): source for name, source in objects.items()})};\n"


def _object(fields: Mapping[str, str], *more: str) -> str:
    """Return the source of an object, given the source of its fields."""
    return "\n".join(["{", *(f"{name}: {source}," for name, source in fields.items()), *more, "}"])


def _sources(data: Mapping[str, Any]) -> dict[str, str]:
    return {name: _json(value) for name, value in data.items()}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write_modules() -> None:
    """Write the modules to the folder of the landscape's scripts."""
    for name, source in MODULES.items():
        (FOLDER / "static" / "landscape" / name).write_text(source(), "utf-8")


if __name__ == "__main__":
    write_modules()
