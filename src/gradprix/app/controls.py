"""Controls of the landscape and step pages."""

from typing import Any

from dash import dcc, html

from gradprix.rules.notation import symbol

from .figure_elements import look
from .state import PARAMETERS, RACERS, SURFACES, VIEWS, ZOOMS, adjustable

GLYPHS = {"circle": "●", "diamond": "◆", "square": "■", "triangle-up": "▲"}
BORDERS = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "double"}
SPEEDS = {10: "slow", 30: "medium", 120: "fast"}
"""Playback speeds in steps per second."""


def aria(**attributes: str) -> dict[str, Any]:
    """Return ARIA attributes for screen readers."""
    return {f"aria-{name}": text for name, text in attributes.items()}


def parameter(name: str) -> dict[str, str]:
    """Return the component id of a surface parameter."""
    return {"type": "parameter", "name": name}


def entered(name: str) -> dict[str, str]:
    """Return the component id of the checkbox that includes an optimizer."""
    return {"type": "entered", "name": name}


def own(of: str, name: str) -> dict[str, str]:
    """Return the component id of a hyperparameter of an optimizer."""
    return {"type": "own", "of": of, "name": name}


SETTINGS = [(of, name) for of, entry in RACERS.items() for name in ("lr", *adjustable(entry))]
"""All pairs of optimizer and adjustable hyperparameter, in page order."""


def field(label: str, control: Any, hint: str = "", **more: Any) -> html.Label:
    """Wrap a control in its label, so that screen readers announce both."""
    return html.Label([html.Span(label), control], title=hint or None, className="field", **more)


def text(name: Any, **more: Any) -> dcc.Input:
    """Return a text input for a number: unlike a number input, it accepts `1e-3` and has no spin buttons."""
    return dcc.Input(id=name, type="text", debounce=True, autoComplete="off", **more)


def choice(name: str, of: dict[Any, str], **more: Any) -> dcc.RadioItems:
    """Return radio buttons."""
    options = [{"label": label, "value": value} for value, label in of.items()]
    return dcc.RadioItems(id=name, options=options, inline=True, **{"className": "choice", **more})


def controls() -> html.Aside:
    """Return the sidebar."""
    boxes = [
        html.Div(field(label, text(parameter(name))), id={"type": "parameter-box", "name": name})
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
                    field("Start x", text("start-x"), "Or click on the surface", style={"gridColumn": 1}),
                    field("Start y", text("start-y"), "Or click on the surface"),
                    field("Noise σ", text("noise"), "Of each coordinate of a gradient: its standard deviation"),
                    field("Seed", text("seed"), "Of the noise"),
                    field("Steps", text("steps")),
                ],
                className="fields",
            ),
            html.H2("Optimizers"),
            html.P(
                "A rate that is left empty is tuned for this surface, from its usual start: one rate for all would be "
                "unfair.",
                className="note",
            ),
            html.Div([_racer_controls(name) for name in RACERS], className="racers"),
        ],
        className="controls for-surface",
    )


def _racer_controls(name: str) -> html.Div:
    """Return the controls of one optimizer: checkbox, legend symbol and hyperparameters."""
    style, entry = look(name), RACERS[name]
    mark = html.Span(GLYPHS[style["symbol"]], className="glyph", style={"color": style["color"]}, **aria(hidden="true"))
    line = html.Span(className="dash", style={"borderTop": f"3px {BORDERS[style['dash']]} {style['color']}"})
    settings = [
        html.Label(
            [html.Span(symbol(setting)), text(own(name, setting), placeholder="" if setting == "lr" else f"{usual:g}")]
        )
        for setting, usual in {"lr": 0.0, **adjustable(entry)}.items()
    ]
    box = dcc.Checklist(id=entered(name), options=[{"label": html.Span([mark, line, name]), "value": name}])
    return html.Div(
        [box, html.Div(settings, className="settings")], id=f"racer-{name}", className="racer", title=entry.about
    )


def player() -> html.Div:
    """Return the playback controls, which run in the browser without the server."""
    buttons = {
        "first": ("◀◀", "To the start"),
        "back": ("❘◀", "One step back (←)"),
        "play": ("▶", "Play or pause (space)"),
        "next": ("▶❘", "One step on (→)"),
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
            choice("speed", SPEEDS, value=30),
        ],
        className="bar for-landscape",
        role="group",
        **aria(label="Playback"),
    )


def view_controls() -> html.Div:
    """Return the selectors of view, optimizer and zoom."""
    return html.Div(
        [
            html.Div(choice("view", VIEWS), className="for-landscape"),
            html.Div(field("Optimizer", dcc.Dropdown(id="of", clearable=False, searchable=False)), className="for-one"),
            html.Div(choice("zoom", ZOOMS), className="for-step"),
        ],
        className="bar",
    )
