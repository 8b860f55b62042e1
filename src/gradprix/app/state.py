"""State of the app, with defaults and ranges of its settings."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradprix.explain import LANDSCAPES, SLICES, Landscape
from gradprix.race import ENTRIES, Entry
from gradprix.rules import DOMAINS, Rule

TABS = {"landscape": "Landscape", "step": "Step", "race": "Race", "claims": "Claims"}
VIEWS = {"contour": "Contour", "relief": "3-D", "starts": "Basins of attraction"}
ZOOMS = {"near": "Around the point", "whole": "Whole surface"}
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
    "condition": ("Condition number κ", 1, 1e4),
    "angle": ("Rotation (°)", -90, 90),
}
"""Label and range of each surface parameter."""
NOISE, STEPS, SEEDS, RATES = (0.0, 20.0), (1, 2000), (0, 999_999), (1e-9, 1e5)
"""Ranges of noise, number of steps, seed and learning rate."""


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

    @property
    def selected_racer(self) -> Racer:
        """Optimizer of the step page and of the map of starting points, with its settings."""
        return next((racer for racer in self.setting.racers if racer.name == self.of), Racer(self.of))


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


def default_setting(surface: str, racers: tuple[Racer, ...] = Setting().racers) -> Setting:
    """Return the default setting of a surface."""
    own = tuple(parameters(surface).items())
    landscape = make_landscape(surface, own)
    return Setting(surface, own, landscape.noise, start=landscape.start, racers=racers)


def format_number(value: float) -> str:
    """Format a number as the shortest string that represents it exactly."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def parse_number(given: Any, between: tuple[float, float], usual: float) -> float:
    """Parse a number and clip it to its range; invalid numbers give the default."""
    try:
        value = float(given)
    except (TypeError, ValueError):
        return usual
    return min(max(value, between[0]), between[1]) if math.isfinite(value) else usual


def select_optimizer(setting: Setting, wanted: str) -> str:
    """Return the wanted optimizer if it is part of the setting, otherwise the first."""
    known = [racer.name for racer in setting.racers] or list(RACERS)
    return wanted if wanted in known else known[0]


def parse_hyperparameters(entry: Entry, given: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Return the given hyperparameters that the optimizer has and that differ from the defaults, clipped to range."""
    usual = {"lr": math.nan, **adjustable(entry)}
    asked = {
        name: parse_number(given[name], RATES if name == "lr" else (0.0, 0.999999), usual[name])
        for name in usual
        if given.get(name) is not None
    }
    # At zero a term is removed from the rule, which would change its equations.
    asked = {name: value if name == "lr" else max(value, 1e-6) for name, value in asked.items()}
    return tuple((name, value) for name, value in asked.items() if not math.isnan(value) and value != usual[name])


def clip_to_box(landscape: Landscape, start: Sequence[Any]) -> tuple[float, float]:
    """Clip a starting point to the box of a landscape."""
    x, y = (
        parse_number(value, between, usual)
        for value, between, usual in zip(start, landscape.box, landscape.start, strict=True)
    )
    return x, y
