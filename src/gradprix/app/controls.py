"""Controls of the landscape and step pages."""

from typing import Any

from dash import dcc, html

from gradprix.rules.notation import format_symbol

from .figure_elements import optimizer_style
from .state import PARAMETERS, RACERS, SURFACES, VIEWS, ZOOMS, adjustable

GLYPHS = {"circle": "●", "diamond": "◆", "square": "■", "triangle-up": "▲"}
BORDERS = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "double"}
SPEEDS = {10: "slow", 30: "medium", 120: "fast"}
"""Playback speeds in steps per second."""


def aria(**attributes: str) -> dict[str, Any]:
    """Return ARIA attributes for screen readers: `aria(label="Pages")` is `{"aria-label": "Pages"}`."""
    return {f"aria-{name}": text for name, text in attributes.items()}


def parameter_id(name: str) -> dict[str, str]:
    """Return the component id of a surface parameter."""
    return {"type": "parameter", "name": name}


def included_id(name: str) -> dict[str, str]:
    """Return the component id of the checkbox that includes an optimizer."""
    return {"type": "entered", "name": name}


def hyperparameter_id(optimizer: str, name: str) -> dict[str, str]:
    """Return the component id of a hyperparameter of an optimizer."""
    return {"type": "own", "of": optimizer, "name": name}


SETTINGS = [(of, name) for of, entry in RACERS.items() for name in ("lr", *adjustable(entry))]
"""All pairs of optimizer and adjustable hyperparameter, in the order of their controls on the page."""


def field(label: str, control: Any, hint: str = "", **more: Any) -> html.Label:
    """Wrap a control in an HTML label, so that screen readers announce both.

    Args:
        label: text of the label.
        control: the control.
        hint: tooltip.
        **more: further arguments of `html.Label`.
    """
    return html.Label([html.Span(label), control], title=hint or None, className="field", **more)


def number_input(name: Any, **more: Any) -> dcc.Input:
    """Return a text input for a number.

    Unlike an input of type `number`, it accepts `1e-3` and has no spin buttons.

    Args:
        name: id of the component.
        **more: further arguments of `dcc.Input`.
    """
    return dcc.Input(id=name, type="text", debounce=True, autoComplete="off", **more)


def radio_buttons(name: str, options: dict[Any, str], **more: Any) -> dcc.RadioItems:
    """Return a row of radio buttons.

    Args:
        name: id of the component.
        options: label of each option, by its value.
        **more: further arguments of `dcc.RadioItems`.
    """
    items = [{"label": label, "value": value} for value, label in options.items()]
    return dcc.RadioItems(id=name, options=items, inline=True, **{"className": "choice", **more})


def controls() -> html.Aside:
    """Return the sidebar with the controls of the surface and of all optimizers."""
    boxes = [
        html.Div(field(label, number_input(parameter_id(name))), id={"type": "parameter-box", "name": name})
        for name, (label, _, _) in PARAMETERS.items()
    ]
    return html.Aside(
        [
            html.H2("Surface"),
            field("", dcc.Dropdown(id="surface", options=list(SURFACES), clearable=False, searchable=False)),
            html.P(id="about", className="note"),
            html.Div(
                [
                    *boxes,
                    field("Start x", number_input("start-x"), "Or click on the surface", style={"gridColumn": 1}),
                    field("Start y", number_input("start-y"), "Or click on the surface"),
                    field("Noise σ", number_input("noise"), "Standard deviation per gradient coordinate"),
                    field("Seed", number_input("seed"), "Seed of the gradient noise"),
                    field("Steps", number_input("steps")),
                ],
                className="fields",
            ),
            html.H2("Optimizers"),
            html.P(
                "An empty learning rate η is tuned for this surface, from its default starting point: one for all "
                "optimizers would be unfair.",
                className="note",
            ),
            html.Div([_racer_controls(name) for name in RACERS], className="racers"),
        ],
        className="controls for-surface",
    )


def _racer_controls(name: str) -> html.Div:
    """Return the controls of one optimizer: checkbox, legend symbol and hyperparameters."""
    entry = RACERS[name]
    settings = [
        html.Label(
            [html.Span(format_symbol(setting)), number_input(hyperparameter_id(name, setting), placeholder=default)]
        )
        for setting, default in {"lr": "", **{key: f"{value:g}" for key, value in adjustable(entry).items()}}.items()
    ]
    label = html.Span([*legend_marks(name), name])
    box = dcc.Checklist(id=included_id(name), options=[{"label": label, "value": name}])
    return html.Div(
        [box, html.Div(settings, className="settings")], id=f"racer-{name}", className="racer", title=entry.about
    )


def legend_marks(name: str) -> list[html.Span]:
    """Return the symbol and the line that an optimizer has in the figures, for use in text."""
    style = optimizer_style(name)
    border = {"borderTop": f"3px {BORDERS[style['dash']]} {style['color']}"}
    return [
        html.Span(GLYPHS[style["symbol"]], className="glyph", style={"color": style["color"]}, **aria(hidden="true")),
        html.Span(className="dash", style=border),
    ]


def player() -> html.Div:
    """Return the playback controls.

    Playback runs in the browser, without requests to the server.
    """
    buttons = {
        "first": ("◀◀", "To the start"),
        "back": ("❘◀", "One step back (←)"),
        "play": ("▶", "Play or pause (space)"),
        "next": ("▶❘", "One step forward (→)"),
    }
    return html.Div(
        [
            *(
                html.Button(sign, id=name, title=description, **aria(label=description))
                for name, (sign, description) in buttons.items()
            ),
            html.Div(
                dcc.Slider(id="frame", min=0, max=1, step=1, marks=None, updatemode="drag", allow_direct_input=False),
                className="scrub",
            ),
            html.Output(id="readout"),
            radio_buttons("speed", SPEEDS, value=30),
        ],
        className="bar for-landscape",
        role="group",
        **aria(label="Playback"),
    )


def view_controls() -> html.Div:
    """Return the controls that select view, optimizer and zoom."""
    return html.Div(
        [
            html.Div(radio_buttons("view", VIEWS), className="for-landscape"),
            html.Div(field("Optimizer", dcc.Dropdown(id="of", clearable=False, searchable=False)), className="for-one"),
            html.Div(radio_buttons("zoom", ZOOMS), className="for-step"),
        ],
        className="bar",
    )
