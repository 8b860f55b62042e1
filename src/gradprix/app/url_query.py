"""Conversion of the app's state to and from a URL query string, such as `?surface=ravine&condition=30`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from gradprix import tasks
from gradprix.race import ENTRIES

from .state import (
    NOISE,
    PARAMETERS,
    RACERS,
    SEEDS,
    SIZES,
    STEPS,
    SURFACES,
    TABS,
    VIEWS,
    ZOOMS,
    Racer,
    Setting,
    State,
    clip_to_box,
    default_setting,
    format_number,
    make_landscape,
    parse_hyperparameters,
    parse_number,
    select_optimizer,
)


def read(query: str) -> State:
    """Parse a query string and return the state of the app.

    Missing and invalid values get their defaults.

    Args:
        query: query string of a URL, such as `?surface=bowl&steps=50`.
    """
    try:
        fields = {name: values[-1] for name, values in parse_qs(query.lstrip("?"), keep_blank_values=True).items()}
    except ValueError:  # more fields than the parser allows
        fields = {}
    default, setting = State(), _parse_setting(fields)
    t = _parse_integer(fields.get("t"), (0, setting.steps), setting.steps)
    return State(
        tab=_parse_choice(fields.get("tab"), TABS, default.tab),
        setting=setting,
        view=_parse_choice(fields.get("view"), VIEWS, default.view),
        of=select_optimizer(setting, fields.get("of", default.of)),
        t=None if t == setting.steps else t,
        step=_parse_integer(fields.get("step"), (1, setting.steps), default.step),
        zoom=_parse_choice(fields.get("zoom"), ZOOMS, default.zoom),
        race=fields.get("race", "")[:200],
        task=_parse_choice(fields.get("task"), tasks.ALL, default.task),
        names=tuple(name for name in ENTRIES if name in fields.get("names", ",".join(default.names)).split(",")),
        size=_parse_choice(fields.get("size"), SIZES, default.size),
        trials=_parse_integer(fields.get("trials"), (2, 500), None),
        seeds=_parse_integer(fields.get("seeds"), (6, 500), None),
    )


def write(state: State) -> str:
    """Format a state as a query string such as `?surface=bowl&steps=50`, the inverse of `read`.

    Default values are left out.
    """
    setting, defaults = state.setting, State()
    base = default_setting(setting.surface)
    fields: dict[str, tuple[Any, Any]] = {
        "tab": (state.tab, defaults.tab),
        "surface": (setting.surface, defaults.setting.surface),
        **{name: (value, dict(base.parameters)[name]) for name, value in setting.parameters},
        "noise": (setting.noise, base.noise),
        "seed": (setting.seed, base.seed),
        "steps": (setting.steps, base.steps),
        "start": (",".join(map(format_number, setting.start)), ",".join(map(format_number, base.start))),
        "who": (",".join(map(_format_racer, setting.racers)), ",".join(map(_format_racer, base.racers))),
        "view": (state.view, defaults.view),
        "of": (state.of, select_optimizer(setting, defaults.of)),
        "t": (state.t, None),
        "step": (state.step, defaults.step),
        "zoom": (state.zoom, defaults.zoom),
        "race": (state.race, ""),
        "task": (state.task, defaults.task),
        "names": (",".join(state.names), ",".join(defaults.names)),
        "size": (state.size, defaults.size),
        "trials": (state.trials, None),
        "seeds": (state.seeds, None),
    }
    changed = {
        name: format_number(value) if isinstance(value, float) else value
        for name, (value, default) in fields.items()
        if value != default
    }
    return f"?{urlencode(changed, safe=',:=')}" if changed else ""


def _parse_setting(fields: Mapping[str, str]) -> Setting:
    base = default_setting(_parse_choice(fields.get("surface"), SURFACES, Setting().surface))
    own = tuple((name, parse_number(fields.get(name), PARAMETERS[name][1:], usual)) for name, usual in base.parameters)
    start = [*fields.get("start", "").split(","), ""][:2]
    return replace(
        base,
        parameters=own,
        noise=parse_number(fields.get("noise"), NOISE, base.noise),
        seed=_parse_integer(fields.get("seed"), SEEDS, base.seed),
        steps=_parse_integer(fields.get("steps"), STEPS, base.steps),
        start=clip_to_box(make_landscape(base.surface, own), start),
        racers=_parse_racers(fields["who"]) if "who" in fields else base.racers,
    )


def _parse_racers(text: str) -> tuple[Racer, ...]:
    """Parse a list of optimizers, such as `adam:lr=0.1:beta1=0.5,gd`.

    Unknown optimizers and duplicates are left out, and the order is that of `RACERS`.
    """
    racers: dict[str, Racer] = {}
    for part in text.split(","):
        name, *rest = part.split(":")
        if name in RACERS:
            given = dict(each.split("=", 1) for each in rest if "=" in each)
            racers.setdefault(name, Racer(name, parse_hyperparameters(RACERS[name], given)))
    return tuple(racers[name] for name in RACERS if name in racers)


def _format_racer(racer: Racer) -> str:
    return ":".join([racer.name, *(f"{name}={format_number(value)}" for name, value in racer.own)])


def _parse_choice(given: str | None, choices: Any, default: str) -> str:
    return given if given in choices and given is not None else default


def _parse_integer(given: Any, between: tuple[int, int], default: Any) -> Any:
    value = parse_number(given, between, math.nan)
    return default if math.isnan(value) else int(value)
