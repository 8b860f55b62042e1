"""What can be set on the landscape and step pages."""

from typing import Any

from dash import dcc, html

from gradprix.rules.notation import symbol

from ._marks import look
from ._state import PARAMETERS, RACERS, SURFACES, VIEWS, ZOOMS, adjustable

GLYPHS = {"circle": "●", "diamond": "◆", "square": "■", "triangle-up": "▲"}
BORDERS = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "double"}
SPEEDS = {10: "slow", 30: "medium", 120: "fast"}
"""Steps a second."""


def aria(**said: str) -> dict[str, Any]:
    """What is said to those who do not see the page."""
    return {f"aria-{name}": text for name, text in said.items()}


def parameter(name: str) -> dict[str, str]:
    """The id of a surface's parameter."""
    return {"type": "parameter", "name": name}


def entered(name: str) -> dict[str, str]:
    """The id of the box that says whether an optimizer races."""
    return {"type": "entered", "name": name}


def own(of: str, name: str) -> dict[str, str]:
    """The id of a setting of an optimizer."""
    return {"type": "own", "of": of, "name": name}


SETTINGS = [(of, name) for of, entry in RACERS.items() for name in ("lr", *adjustable(entry))]
"""Everything that can be set of an optimizer, in the order of the page."""


def field(label: str, control: Any, hint: str = "", **more: Any) -> html.Label:
    """A control inside its label, which is then read out with it."""
    return html.Label([html.Span(label), control], title=hint or None, className="field", **more)


def text(name: Any, **more: Any) -> dcc.Input:
    """A box for a number. As text: it takes `1e-3`, and a page is not wider for two arrows in each."""
    return dcc.Input(id=name, type="text", debounce=True, autoComplete="off", **more)


def choice(name: str, of: dict[Any, str], **more: Any) -> dcc.RadioItems:
    """One of a few."""
    options = [{"label": label, "value": value} for value, label in of.items()]
    return dcc.RadioItems(id=name, options=options, inline=True, **{"className": "choice", **more})


def controls() -> html.Aside:
    """The column on the left."""
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
            html.Div([_racer(name) for name in RACERS], className="racers"),
        ],
        className="controls for-surface",
    )


def _racer(name: str) -> html.Div:
    """One optimizer: whether it races, how it is drawn, what can be set."""
    style, entry = look(name), RACERS[name]
    mark = html.Span(GLYPHS[style["symbol"]], className="glyph", style={"color": style["color"]}, **aria(hidden="true"))
    line = html.Span(className="dash", style={"borderTop": f"3px {BORDERS[style['dash']]} {style['color']}"})
    settings = [
        html.Label([html.Span(symbol(what)), text(own(name, what), placeholder="" if what == "lr" else f"{usual:g}")])
        for what, usual in {"lr": 0.0, **adjustable(entry)}.items()
    ]
    box = dcc.Checklist(id=entered(name), options=[{"label": html.Span([mark, line, name]), "value": name}])
    return html.Div(
        [box, html.Div(settings, className="settings")], id=f"racer-{name}", className="racer", title=entry.about
    )


def player() -> html.Div:
    """Play, step and scrub: moved by the page's own script, without the server."""
    buttons = {
        "first": ("◀◀", "To the start"),
        "back": ("❘◀", "One step back (←)"),
        "play": ("▶", "Play or pause (space)"),
        "next": ("▶❘", "One step on (→)"),
    }
    return html.Div(
        [
            *(html.Button(sign, id=name, title=said, **aria(label=said)) for name, (sign, said) in buttons.items()),
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


def seen_how() -> html.Div:
    """What is shown of the surface."""
    return html.Div(
        [
            html.Div(choice("view", VIEWS), className="for-landscape"),
            html.Div(field("Optimizer", dcc.Dropdown(id="of", clearable=False, searchable=False)), className="for-one"),
            html.Div(choice("zoom", ZOOMS), className="for-step"),
        ],
        className="bar",
    )
