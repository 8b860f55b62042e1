"""Synchronization of URL and controls: a change of one updates the other, and then the figures."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from dash import ALL, Dash, Input, Output, State, ctx, no_update

from . import state as app_state
from .controls import SETTINGS
from .state import PARAMETERS, RACERS, Racer, format_number
from .trajectories import surface
from .url_query import read, write

AppState = app_state.State  # dash has a class of this name
SINGLE_CONTROLS = ("tab", "surface", "noise", "seed", "steps", "start-x", "start-y", "view", "of", "step", "zoom")
RACE_FORM = ("task", "names", "size", "trials", "seeds")


def values(state: AppState) -> dict[str, Any]:
    """Return the values of all controls by id, for a state.

    For the repeated controls of surface parameters and optimizers, the value is a list with one element per control.
    """
    setting = state.setting
    chosen = {racer.name: dict(racer.own) for racer in setting.racers}
    parameters = dict(setting.parameters)
    return {
        "tab": state.tab,
        "surface": setting.surface,
        "noise": format_number(setting.noise),
        "seed": str(setting.seed),
        "steps": str(setting.steps),
        "start-x": format_number(setting.start[0]),
        "start-y": format_number(setting.start[1]),
        "view": state.view,
        "of": state.of,
        "step": state.step,
        "zoom": state.zoom,
        "task": state.task,
        "names": list(state.names),
        "size": state.size,
        "trials": "" if state.trials is None else str(state.trials),
        "seeds": "" if state.seeds is None else str(state.seeds),
        "parameter": [format_number(parameters[name]) if name in parameters else "" for name in PARAMETERS],
        "entered": [[name] if name in chosen else [] for name in RACERS],
        "own": [format_number(chosen[of][name]) if name in chosen.get(of, {}) else "" for of, name in SETTINGS],
    }


def state_from_controls(given: dict[str, Any], before: AppState, changed: str) -> AppState:
    """Return the state that the controls describe.

    Invalid values get their defaults, as in URLs.

    Args:
        given: values of the controls, as returned by `values`.
        before: previous state.
        changed: id of the control that changed.
    """
    if changed == "surface":
        setting = app_state.default_setting(given["surface"], before.setting.racers)
        return replace(before, setting=setting, t=None, step=1)
    settings: dict[str, dict[str, str]] = {}
    for (of, name), value in zip(SETTINGS, given["own"], strict=True):
        if value not in (None, ""):
            settings.setdefault(of, {})[name] = str(value).replace(",", ".")
    entered = [name for name, on in zip(RACERS, given["entered"], strict=True) if on]
    own = {name: app_state.parse_hyperparameters(RACERS[name], settings.get(name, {})) for name in entered}
    racers = tuple(Racer(name, own[name]) for name in entered)
    plain = {name: given[name] for name in (*SINGLE_CONTROLS, *RACE_FORM) if not name.startswith("start")}
    plain |= dict(zip(PARAMETERS, given["parameter"], strict=True))
    plain |= {
        "start": f"{given['start-x']},{given['start-y']}",
        "names": ",".join(given["names"] or ()),
        "race": before.race,
    }
    parsed = read(urlencode({name: value for name, value in plain.items() if value not in (None, "")} | {"who": ""}))
    setting = replace(parsed.setting, racers=racers)
    t = before.t if setting == before.setting else None
    return replace(parsed, setting=setting, of=app_state.select_optimizer(setting, given["of"]), t=t)


def state_after_click(state: AppState, click: dict[str, Any] | None) -> AppState:
    """Return the state after a click on the surface, which sets the starting point.

    Args:
        state: state before the click.
        click: click event of plotly. If it has no coordinates, the state is returned unchanged.
    """
    position = _click_position(click)
    setting = state.setting
    if position is None:
        return state
    landscape = surface(setting.surface, setting.parameters, setting.noise)
    x, y = (round(float(value), 2) for value in app_state.clip_to_box(landscape, position))
    return replace(state, setting=replace(setting, start=(x, y)), t=None)


def _click_position(click: dict[str, Any] | None) -> Sequence[Any] | None:
    """Return the coordinates of a click, or None if it has none.

    Plotly reports them differently for 2-D and 3-D figures.
    """
    if not click:
        return None
    if click.get("xvals") and click.get("yvals"):
        return click["xvals"][0], click["yvals"][0]
    point = (click.get("points") or [{}])[0]
    return (point["x"], point["y"]) if "x" in point and "y" in point else None


def callback_outputs(state: AppState) -> dict[str, Any]:
    """Return the values of all outputs of the callback for a state."""
    setting = state.setting
    landscape = surface(setting.surface, setting.parameters, setting.noise)
    own_parameters = dict(setting.parameters)
    return {
        **values(state),
        "address": write(state),
        "state": write(state),
        "frame": setting.steps if state.t is None else state.t,
        "frame-max": setting.steps,
        "step-max": setting.steps,
        "of-options": [racer.name for racer in setting.racers] or [state.of],
        "about": landscape.about,
        "boxes": [{} if name in own_parameters else {"display": "none"} for name in PARAMETERS],
        "seen": f"app tab-{state.tab} view-{state.view}",
    }


def changed_outputs(new: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """Replace outputs that the page already shows by `no_update`.

    This saves time: the browser takes half a second to update a hundred controls.

    Args:
        new: values of all outputs of the callback.
        seen: values that the page shows, as far as they are known.
    """

    def skip_unchanged(name: str, value: Any) -> Any:
        if name in REPEATED_CONTROLS or name == "boxes":
            shown = seen.get(name, [None] * len(value))
            return [no_update if _is_same(one, same) else one for one, same in zip(value, shown, strict=True)]
        return no_update if value == seen.get(name) else value

    return {name: skip_unchanged(name, value) for name, value in new.items()}


def _is_same(value: Any, shown: Any) -> bool:
    """Return True if a control already shows a value.

    Args:
        value: the value.
        shown: value that the control has; None on a new page, where the control looks empty.
    """
    return value == shown or (shown is None and value in ("", []))


REPEATED_CONTROLS = {"parameter": ("type", "name"), "entered": ("type", "name"), "own": ("type", "of", "name")}
"""Controls that exist once per surface parameter or optimizer, with the keys of their ids."""


def connect(app: Dash) -> None:
    """Register the callback that synchronizes URL, controls and state."""
    pattern = {kind: {key: kind if key == "type" else ALL for key in keys} for kind, keys in REPEATED_CONTROLS.items()}
    controls = {name: (name, "value") for name in (*SINGLE_CONTROLS, *RACE_FORM)} | {
        kind: (pattern[kind], "value") for kind in REPEATED_CONTROLS
    }

    @app.callback(
        output={
            **{name: Output(*place) for name, place in controls.items()},
            "address": Output("address", "search"),
            "state": Output("state", "data"),
            "frame": Output("frame", "value"),
            "frame-max": Output("frame", "max"),
            "step-max": Output("step", "max"),
            "of-options": Output("of", "options"),
            "about": Output("about", "children"),
            "boxes": Output({"type": "parameter-box", "name": ALL}, "style"),
            "seen": Output("seen", "className"),
        },
        inputs={
            "address": Input("address", "search"),
            "click": Input("stage", "clickData"),
            "started": Input("started", "data"),
            "given": {name: Input(*place) for name, place in controls.items()},
            "frame": State("frame", "value"),
            "last": State("state", "data"),
        },
    )
    def sync(
        address: str | None,
        click: dict[str, Any] | None,
        started: str | None,
        given: dict[str, Any],
        frame: int | None,
        last: str | None,
    ) -> dict[str, Any]:
        changed = ctx.triggered_id
        changed = changed["type"] if isinstance(changed, dict) else changed
        if last is None or changed in (None, "address"):
            return {**changed_outputs(callback_outputs(read(address or "")), given), "address": no_update}
        before = read(last)
        before = replace(before, t=frame if frame is not None and frame < before.setting.steps else None)
        if changed == "stage":
            after = state_after_click(before, click)
        elif changed == "started":
            after = replace(before, tab="race", race=started or "")
        else:
            after = state_from_controls(given, before, str(changed))
        return changed_outputs(callback_outputs(after), {**callback_outputs(before), **given})
