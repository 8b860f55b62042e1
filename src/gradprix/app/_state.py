"""Everything that can be seen in the app is a state, and every state has an address: `?surface=ravine&condition=30`."""

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

# Without data, batches are all alike: of the three that differ in nothing but the batch, one stays.
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
"""What a surface's parameters are called, and their ranges."""
NOISE, STEPS, SEEDS, RATES = (0.0, 20.0), (1, 2000), (0, 999_999), (1e-9, 1e5)


@dataclass(frozen=True)
class Racer:
    """An optimizer on a surface.

    Args:
        name: of an entry.
        own: settings that are not left to what is usual; a learning rate that is missing is tuned for the surface.
    """

    name: str
    own: tuple[tuple[str, float], ...] = ()

    @property
    def entry(self) -> Entry:
        """What it is in a race."""
        return RACERS[self.name]

    @property
    def rule(self) -> Rule:
        """What it does."""
        rule = self.entry.rule
        assert isinstance(rule, Rule)
        return rule


@dataclass(frozen=True)
class Setting:
    """What is descended, where, by whom: what the numbers on the landscape and step pages depend on."""

    surface: str = "ravine"
    parameters: tuple[tuple[str, float], ...] = (("condition", 30.0), ("angle", 0.0))
    noise: float = 0.0
    seed: int = 0
    steps: int = 200
    start: tuple[float, float] = (-4.2, 0.9)
    racers: tuple[Racer, ...] = tuple(Racer(name) for name in ("gd", "momentum", "nesterov", "adagrad", "adam"))


@dataclass(frozen=True)
class State:
    """What is seen.

    Args:
        tab: the page.
        setting: of the landscape and step pages.
        view: how the landscape is seen.
        of: the optimizer of the step page and of the map of starts.
        t: the step that the race on the landscape is shown at; None for the last.
        step: the one that is laid open, from 1.
        zoom: how much is seen of the surface around it.
        race: the folder of the race that is watched.
        task: of a race to be started, like the rest.
        names: its optimizers.
        size: its preset.
        trials: None for the task's own number.
        seeds: likewise.
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


def made(surface: str, parameters: Sequence[tuple[str, float]] = ()) -> Landscape:
    """A landscape by its name, with its own noise."""
    return SURFACES[surface](**dict(parameters))


def parameters(surface: str) -> dict[str, float]:
    """The parameters of a surface with their defaults; its noise is every surface's."""
    found = inspect.signature(SURFACES[surface]).parameters
    return {name: float(parameter.default) for name, parameter in found.items() if name != "noise"}


def adjustable(entry: Entry) -> dict[str, float]:
    """The settings of an optimizer that can be changed besides its learning rate, with what is usual."""
    values = entry.values(entry.default_rate)
    return {name: float(values[name]) for name in DOMAINS if 0 < values.get(name, 0) < 1}


def plain(surface: str, racers: tuple[Racer, ...] = Setting().racers) -> Setting:
    """A surface with everything as it is usual there."""
    own = tuple(parameters(surface).items())
    landscape = made(surface, own)
    return Setting(surface, own, landscape.noise, start=landscape.start, racers=racers)


def read(query: str) -> State:
    """The state of an address. What is missing or makes no sense is as usual.

    Args:
        query: what follows the path, `?surface=bowl&steps=50`.
    """
    try:
        found = {name: values[-1] for name, values in parse_qs(query.lstrip("?"), keep_blank_values=True).items()}
    except ValueError:  # more fields than anyone would write
        found = {}
    usual, setting = State(), _setting(found)
    t = _whole(found.get("t"), (0, setting.steps), setting.steps)
    return State(
        tab=_one(found.get("tab"), TABS, usual.tab),
        setting=setting,
        view=_one(found.get("view"), VIEWS, usual.view),
        of=one_of(setting, found.get("of", usual.of)),
        t=None if t == setting.steps else t,
        step=_whole(found.get("step"), (1, setting.steps), usual.step),
        zoom=_one(found.get("zoom"), ZOOMS, usual.zoom),
        race=found.get("race", "")[:200],
        task=_one(found.get("task"), tasks.ALL, usual.task),
        names=tuple(name for name in ENTRIES if name in found.get("names", ",".join(usual.names)).split(",")),
        size=_one(found.get("size"), SIZES, usual.size),
        trials=_whole(found.get("trials"), (2, 500), None),
        seeds=_whole(found.get("seeds"), (6, 500), None),
    )


def write(state: State) -> str:
    """The address of a state, `?surface=bowl&steps=50`: what is as usual is left out. `read` is the way back."""
    setting, usual = state.setting, State()
    base = plain(setting.surface)
    said: dict[str, tuple[Any, Any]] = {
        "tab": (state.tab, usual.tab),
        "surface": (setting.surface, usual.setting.surface),
        **{name: (value, dict(base.parameters)[name]) for name, value in setting.parameters},
        "noise": (setting.noise, base.noise),
        "seed": (setting.seed, base.seed),
        "steps": (setting.steps, base.steps),
        "start": (",".join(map(digits, setting.start)), ",".join(map(digits, base.start))),
        "who": (",".join(map(_racer, setting.racers)), ",".join(map(_racer, base.racers))),
        "view": (state.view, usual.view),
        "of": (state.of, one_of(setting, usual.of)),
        "t": (state.t, None),
        "step": (state.step, usual.step),
        "zoom": (state.zoom, usual.zoom),
        "race": (state.race, ""),
        "task": (state.task, usual.task),
        "names": (",".join(state.names), ",".join(usual.names)),
        "size": (state.size, usual.size),
        "trials": (state.trials, None),
        "seeds": (state.seeds, None),
    }
    changed = {
        name: digits(value) if isinstance(value, float) else value
        for name, (value, default) in said.items()
        if value != default
    }
    return f"?{urlencode(changed, safe=',:=')}" if changed else ""


def digits(value: float) -> str:
    """A number, as short as it can be written without loss."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def number(given: Any, between: tuple[float, float], usual: float) -> float:
    """A number within its range, or what is usual where it is none."""
    try:
        value = float(given)
    except (TypeError, ValueError):
        return usual
    return min(max(value, between[0]), between[1]) if math.isfinite(value) else usual


def one_of(setting: Setting, wanted: str) -> str:
    """An optimizer that races, this one if it does."""
    known = [racer.name for racer in setting.racers] or list(RACERS)
    return wanted if wanted in known else known[0]


def own_settings(entry: Entry, given: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Those of the given settings that an optimizer has, within their ranges, and that are not as usual anyway."""
    usual = {"lr": math.nan, **adjustable(entry)}
    asked = {
        name: number(given[name], RATES if name == "lr" else (0.0, 0.999999), usual[name])
        for name in usual
        if given.get(name) is not None
    }
    # The rule has another form without its momentum, and another line in the table.
    asked = {name: value if name == "lr" else max(value, 1e-6) for name, value in asked.items()}
    return tuple((name, value) for name, value in asked.items() if not math.isnan(value) and value != usual[name])


def inside(landscape: Landscape, start: Sequence[Any]) -> tuple[float, float]:
    """A start within the part of a landscape that is seen."""
    x, y = (
        number(value, between, usual)
        for value, between, usual in zip(start, landscape.box, landscape.start, strict=True)
    )
    return x, y


def _setting(found: Mapping[str, str]) -> Setting:
    base = plain(_one(found.get("surface"), SURFACES, Setting().surface))
    own = tuple((name, number(found.get(name), PARAMETERS[name][1:], usual)) for name, usual in base.parameters)
    start = [*found.get("start", "").split(","), ""][:2]
    return replace(
        base,
        parameters=own,
        noise=number(found.get("noise"), NOISE, base.noise),
        seed=_whole(found.get("seed"), SEEDS, base.seed),
        steps=_whole(found.get("steps"), STEPS, base.steps),
        start=inside(made(base.surface, own), start),
        racers=_racers(found["who"]) if "who" in found else base.racers,
    )


def _racers(text: str) -> tuple[Racer, ...]:
    """`adam:lr=0.1:beta1=0.5,gd` as racers, each once."""
    found: dict[str, Racer] = {}
    for part in text.split(","):
        name, *rest = part.split(":")
        if name in RACERS:
            given = dict(each.split("=", 1) for each in rest if "=" in each)
            found.setdefault(name, Racer(name, own_settings(RACERS[name], given)))
    return tuple(found[name] for name in RACERS if name in found)


def _racer(racer: Racer) -> str:
    return ":".join([racer.name, *(f"{name}={digits(value)}" for name, value in racer.own)])


def _one(given: str | None, of: Any, usual: str) -> str:
    return given if given in of and given is not None else usual


def _whole(given: Any, between: tuple[int, int], usual: Any) -> Any:
    value = number(given, between, math.nan)
    return usual if math.isnan(value) else int(value)
