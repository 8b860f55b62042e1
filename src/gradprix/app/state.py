"""State of the app, and the defaults and ranges of its settings."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradprix.explain import LANDSCAPES, SLICES, Landscape
from gradprix.race import ENTRIES, Entry
from gradprix.rules import DOMAINS, Rule

TABS = {"landscape": "Landscape", "step": "Step", "race": "Race", "claims": "Claims"}
VIEWS = {"contour": "Contour", "relief": "3-D", "starts": "Basins of attraction"}
ZOOMS = {"near": "Around the point", "whole": "Whole surface"}
SIZES = ("small", "default", "large")

SURFACES: dict[str, Callable[..., Landscape]] = {**LANDSCAPES, **SLICES}

# Surfaces have no data, so `gd`, `sgd` and `minibatch`, which differ only in batch size, are equal: only `gd` is used.
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
        own: hyperparameters that differ from the defaults. If the learning rate is not among them, it is tuned for the
            surface.
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
    """Surface, starting point and optimizers.

    The results on the landscape and step pages depend on nothing else.

    Args:
        surface: name of the surface.
        parameters: parameters of the surface, as pairs of name and value.
        noise: standard deviation of the gradient noise per coordinate.
        seed: seed of the gradient noise.
        steps: number of steps.
        start: starting point.
        racers: optimizers.
    """

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
        of: name of the optimizer shown on the step page and in the map of starting points.
        t: step shown on the landscape page; None for the last one.
        step: step shown on the step page, from 1.
        zoom: region of the surface shown on the step page.
        race: name of the monitored race; empty if there is none.
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
        """Optimizer shown on the step page and in the map of starting points, with its hyperparameters."""
        return next((racer for racer in self.setting.racers if racer.name == self.of), Racer(self.of))


def make_landscape(surface: str, parameters: Sequence[tuple[str, float]] = ()) -> Landscape:
    """Create a landscape by name, with its default noise."""
    return SURFACES[surface](**dict(parameters))


def parameters(surface: str) -> dict[str, float]:
    """Return the parameters of a surface and their defaults.

    The noise is left out, because all surfaces have it.
    """
    signature = inspect.signature(SURFACES[surface]).parameters
    return {name: float(parameter.default) for name, parameter in signature.items() if name != "noise"}


def adjustable(entry: Entry) -> dict[str, float]:
    """Return the adjustable hyperparameters of an optimizer and their defaults, except the learning rate."""
    values = entry.values(entry.default_rate)
    return {name: float(values[name]) for name in DOMAINS if 0 < values.get(name, 0) < 1}


def default_setting(surface: str, racers: tuple[Racer, ...] = Setting().racers) -> Setting:
    """Return the default setting of a surface with the given optimizers."""
    own = tuple(parameters(surface).items())
    landscape = make_landscape(surface, own)
    return Setting(surface, own, landscape.noise, start=landscape.start, racers=racers)


def format_number(value: float) -> str:
    """Format a number as a short string that represents it exactly."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def parse_number(given: Any, between: tuple[float, float], usual: float) -> float:
    """Parse a number and clip it to a range.

    Args:
        given: number or text.
        between: lower and upper end of the range.
        usual: default, which is returned if `given` is not a finite number.
    """
    try:
        value = float(given)
    except (TypeError, ValueError):
        return usual
    return min(max(value, between[0]), between[1]) if math.isfinite(value) else usual


def select_optimizer(setting: Setting, wanted: str) -> str:
    """Return the name of the wanted optimizer if it is part of the setting, otherwise that of the first one."""
    known = [racer.name for racer in setting.racers] or list(RACERS)
    return wanted if wanted in known else known[0]


def parse_hyperparameters(entry: Entry, given: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Parse hyperparameters and return those that differ from the defaults, as pairs of name and value.

    Values are clipped to their ranges. Hyperparameters that the optimizer does not have are ignored.

    Args:
        entry: the optimizer.
        given: number or text by name of the hyperparameter.
    """
    usual = {"lr": math.nan, **adjustable(entry)}
    asked = {
        name: parse_number(given[name], RATES if name == "lr" else (0.0, 0.999999), usual[name])
        for name in usual
        if given.get(name) is not None
    }
    # A hyperparameter of zero removes a term from the rule, which would change the equations on the step page.
    asked = {name: value if name == "lr" else max(value, 1e-6) for name, value in asked.items()}
    return tuple((name, value) for name, value in asked.items() if not math.isnan(value) and value != usual[name])


def clip_to_box(landscape: Landscape, start: Sequence[Any]) -> tuple[float, float]:
    """Parse a starting point and clip it to the box of a landscape; invalid coordinates give the default ones."""
    x, y = (
        parse_number(value, between, usual)
        for value, between, usual in zip(start, landscape.box, landscape.start, strict=True)
    )
    return x, y
