"""State of the app and its URL query string: `?surface=ravine&condition=30`."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from gradprix import tasks
from gradprix.explain import LANDSCAPES, SLICES, Landscape
from gradprix.race import ENTRIES, Entry
from gradprix.rules import DOMAINS, Rule

TABS = {"landscape": "Landscape", "step": "Step", "race": "Race", "claims": "Claims"}
VIEWS = {"contour": "Contour", "relief": "3-D", "starts": "Which start ends where"}
ZOOMS = {"near": "Near the point", "whole": "The whole surface"}
SIZES = ("small", "default", "large")

SURFACES = {**LANDSCAPES, **SLICES}

# Surfaces have no data, so entries that differ only in batch size are equal here: one of three remains.
RACERS: dict[str, Entry] = {
    name: ENTRIES[name]
    for name in ("gd", *ENTRIES)
    if name not in ("sgd", "minibatch") and isinstance(ENTRIES[name].rule, Rule)
}
PARAMETERS: dict[str, tuple[str, float, float]] = {
    "curvature": ("Curvature λ", 0.01, 100),
    "condition": ("Condition κ", 1, 1e4),
    "angle": ("Turned by, °", -90, 90),
}
"""Label and range of each surface parameter."""
NOISE, STEPS, SEEDS, RATES = (0.0, 20.0), (1, 2000), (0, 999_999), (1e-9, 1e5)


@dataclass(frozen=True)
class Racer:
    """Optimizer on a surface.

    Args:
        name: name of an entry.
        own: settings that differ from the defaults; without a learning rate, it is tuned for the surface.
    """

    name: str
    own: tuple[tuple[str, float], ...] = ()

    @property
    def entry(self) -> Entry:
        """Entry of the optimizer in races."""
        return RACERS[self.name]

    @property
    def rule(self) -> Rule:
        """Update rule of the optimizer."""
        rule = self.entry.rule
        assert isinstance(rule, Rule)
        return rule


@dataclass(frozen=True)
class Setting:
    """Surface, start and optimizers: everything that the results of the landscape and step pages depend on."""

    surface: str = "ravine"
    parameters: tuple[tuple[str, float], ...] = (("condition", 30.0), ("angle", 0.0))
    noise: float = 0.0
    seed: int = 0
    steps: int = 200
    start: tuple[float, float] = (-4.2, 0.9)
    racers: tuple[Racer, ...] = tuple(Racer(name) for name in ("gd", "momentum", "nesterov", "adagrad", "adam"))


@dataclass(frozen=True)
class State:
    """State of the app.

    Args:
        tab: active page.
        setting: setting of the landscape and step pages.
        view: view of the landscape.
        of: optimizer of the step page and of the map of starting points.
        t: step shown on the landscape page; None for the last.
        step: step shown on the step page, from 1.
        zoom: region of the surface shown on the step page.
        race: folder of the race that is monitored.
        task: task of the race form.
        names: optimizers of the race form.
        size: preset of the race form.
        trials: tuning trials of the race form; None for the default of the task.
        seeds: final seeds of the race form; None for the default of the task.
    """

    tab: str = "landscape"
    setting: Setting = field(default_factory=Setting)
    view: str = "contour"
    of: str = "momentum"
    t: int | None = None
    step: int = 1
    zoom: str = "near"
    race: str = ""
    task: str = "digits"
    names: tuple[str, ...] = ("momentum", "nesterov", "adam")
    size: str = "small"
    trials: int | None = None
    seeds: int | None = None


def make_landscape(surface: str, parameters: Sequence[tuple[str, float]] = ()) -> Landscape:
    """Create a landscape by name, with its default noise."""
    return SURFACES[surface](**dict(parameters))


def parameters(surface: str) -> dict[str, float]:
    """Return the parameters of a surface with their defaults, except the noise, which all surfaces have."""
    signature = inspect.signature(SURFACES[surface]).parameters
    return {name: float(parameter.default) for name, parameter in signature.items() if name != "noise"}


def adjustable(entry: Entry) -> dict[str, float]:
    """Return the adjustable hyperparameters of an optimizer, except the learning rate, with their defaults."""
    values = entry.values(entry.default_rate)
    return {name: float(values[name]) for name in DOMAINS if 0 < values.get(name, 0) < 1}


def plain(surface: str, racers: tuple[Racer, ...] = Setting().racers) -> Setting:
    """Return the default setting of a surface."""
    own = tuple(parameters(surface).items())
    landscape = make_landscape(surface, own)
    return Setting(surface, own, landscape.noise, start=landscape.start, racers=racers)


def read(query: str) -> State:
    """Parse a query string; missing and invalid values get their defaults.

    Args:
        query: query string of a URL, `?surface=bowl&steps=50`.
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
        of=one_of(setting, fields.get("of", default.of)),
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
    """Format a state as a query string without default values, `?surface=bowl&steps=50`: the inverse of `read`."""
    setting, defaults = state.setting, State()
    base = plain(setting.surface)
    fields: dict[str, tuple[Any, Any]] = {
        "tab": (state.tab, defaults.tab),
        "surface": (setting.surface, defaults.setting.surface),
        **{name: (value, dict(base.parameters)[name]) for name, value in setting.parameters},
        "noise": (setting.noise, base.noise),
        "seed": (setting.seed, base.seed),
        "steps": (setting.steps, base.steps),
        "start": (",".join(map(digits, setting.start)), ",".join(map(digits, base.start))),
        "who": (",".join(map(_format_racer, setting.racers)), ",".join(map(_format_racer, base.racers))),
        "view": (state.view, defaults.view),
        "of": (state.of, one_of(setting, defaults.of)),
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
        name: digits(value) if isinstance(value, float) else value
        for name, (value, default) in fields.items()
        if value != default
    }
    return f"?{urlencode(changed, safe=',:=')}" if changed else ""


def digits(value: float) -> str:
    """Format a number as briefly as possible without loss."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def number(given: Any, between: tuple[float, float], usual: float) -> float:
    """Parse a number and clip it to its range; invalid numbers give the default."""
    try:
        value = float(given)
    except (TypeError, ValueError):
        return usual
    return min(max(value, between[0]), between[1]) if math.isfinite(value) else usual


def one_of(setting: Setting, wanted: str) -> str:
    """Return the wanted optimizer if it is part of the setting, otherwise the first."""
    known = [racer.name for racer in setting.racers] or list(RACERS)
    return wanted if wanted in known else known[0]


def own_settings(entry: Entry, given: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Return the given hyperparameters that the optimizer has and that differ from the defaults, clipped to range."""
    usual = {"lr": math.nan, **adjustable(entry)}
    asked = {
        name: number(given[name], RATES if name == "lr" else (0.0, 0.999999), usual[name])
        for name in usual
        if given.get(name) is not None
    }
    # At zero a term is removed from the rule, which would change its equations.
    asked = {name: value if name == "lr" else max(value, 1e-6) for name, value in asked.items()}
    return tuple((name, value) for name, value in asked.items() if not math.isnan(value) and value != usual[name])


def inside(landscape: Landscape, start: Sequence[Any]) -> tuple[float, float]:
    """Clip a starting point to the box of a landscape."""
    x, y = (
        number(value, between, usual)
        for value, between, usual in zip(start, landscape.box, landscape.start, strict=True)
    )
    return x, y


def _parse_setting(fields: Mapping[str, str]) -> Setting:
    base = plain(_parse_choice(fields.get("surface"), SURFACES, Setting().surface))
    own = tuple((name, number(fields.get(name), PARAMETERS[name][1:], usual)) for name, usual in base.parameters)
    start = [*fields.get("start", "").split(","), ""][:2]
    return replace(
        base,
        parameters=own,
        noise=number(fields.get("noise"), NOISE, base.noise),
        seed=_parse_integer(fields.get("seed"), SEEDS, base.seed),
        steps=_parse_integer(fields.get("steps"), STEPS, base.steps),
        start=inside(make_landscape(base.surface, own), start),
        racers=_parse_racers(fields["who"]) if "who" in fields else base.racers,
    )


def _parse_racers(text: str) -> tuple[Racer, ...]:
    """Parse optimizers, `adam:lr=0.1:beta1=0.5,gd`, without duplicates."""
    racers: dict[str, Racer] = {}
    for part in text.split(","):
        name, *rest = part.split(":")
        if name in RACERS:
            given = dict(each.split("=", 1) for each in rest if "=" in each)
            racers.setdefault(name, Racer(name, own_settings(RACERS[name], given)))
    return tuple(racers[name] for name in RACERS if name in racers)


def _format_racer(racer: Racer) -> str:
    return ":".join([racer.name, *(f"{name}={digits(value)}" for name, value in racer.own)])


def _parse_choice(given: str | None, choices: Any, default: str) -> str:
    return given if given in choices and given is not None else default


def _parse_integer(given: Any, between: tuple[int, int], default: Any) -> Any:
    value = number(given, between, math.nan)
    return default if math.isnan(value) else int(value)
