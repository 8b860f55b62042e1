"""The landscape page: all optimizers at once on a surface."""

from collections.abc import Iterator
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, ctx, dcc, html, no_update
from dash import State as Held
from dash.exceptions import PreventUpdate
from plotly import graph_objects as go

from gradprix.explain import number

from . import _figures, _presets
from ._controls import BORDERS, GLYPHS, aria, player
from ._marks import CONFIG, HEIGHT, look
from ._run import Run, ends, run
from ._state import Racer, State, read


def graph(name: str, label: str) -> html.Figure:
    """A place for a figure, with what it can be kept as: a PNG by its own bar, CSV and a page of its own by buttons."""
    config: Any = {**CONFIG, "toImageButtonOptions": {"format": "png", "scale": 2, "filename": f"gradprix-{name}"}}
    save = [
        html.Button(form, id={"type": "save", "what": name, "form": form.lower()}, title=f"{label} as {form}")
        for form in ("CSV", "HTML")
    ]
    drawn = dcc.Graph(id=name, figure=NOTHING, config=config, responsive=True, style={"height": f"{HEIGHT}px"})
    return html.Figure([drawn, html.Figcaption([html.Span(id=f"{name}-says"), html.Span(save, className="save")])])


NOTHING = {"layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}, "paper_bgcolor": "rgba(0,0,0,0)"}}
"""What a figure shows until it has something to show."""


def layout() -> html.Section:
    """The page."""
    return html.Section(
        [
            html.Div([graph("stage", "The surface"), graph("losses", "Loss against steps")], className="pair"),
            player(),
            html.Div(id="table", className="wide"),
        ],
        className="for-landscape",
    )


def presets() -> html.Nav:
    """Links to settings that are worth seeing."""
    links = []
    for preset in _presets.PRESETS:
        sign, word = ("✓", "good") if preset.good else ("✗", "bad")
        said: list[Any] = [html.Span(sign, title=word, className="sign"), preset.title]
        links.append(dcc.Link(said, href=f"/{preset.address}", className=f"preset {word}"))
    return html.Nav(links, className="presets for-landscape", **aria(label="Presets, good and bad"))


def stage(state: State) -> go.Figure:
    """What is seen of the surface in a state."""
    if state.view == "starts":
        racer = next((racer for racer in state.setting.racers if racer.name == state.of), Racer(state.of))
        return _figures.starts(ends(state.setting, racer))
    found = run(state.setting)
    t = state.setting.steps if state.t is None else state.t
    return _figures.relief(found, t) if state.view == "relief" else _figures.contour(found, t)


def table(found: Run) -> html.Table:
    """How everyone did, in numbers."""
    head = [
        "",
        "Rate η",
        "Loss above the lowest, at the end",
        "At worst",
        "Below 1 % of the start from step",
        "Ends at",
    ]
    return html.Table(
        [html.Thead(html.Tr([html.Th(text, scope="col") for text in head])), html.Tbody(list(_rows(found)))],
        className="numbers",
    )


def _rows(found: Run) -> Iterator[html.Tr]:
    for name, it in found.summaries().items():
        style = look(name)
        mark = html.Span(GLYPHS[style["symbol"]], className="glyph", style={"color": style["color"]})
        line = html.Span(className="dash", style={"borderTop": f"3px {BORDERS[style['dash']]} {style['color']}"})
        place = "left the picture" if it.lost else f"{near(it.x)}, {near(it.y)}"
        cells = [
            html.Td(["", number(it.rate), html.Span(" yours" if it.chosen else " tuned", className="soft")]),
            html.Td(three(it.end)),
            html.Td(three(it.highest)),
            html.Td("never" if it.hundredth is None else it.hundredth),
            html.Td(place),
        ]
        yield html.Tr([html.Th([mark, line, name], scope="row"), *cells])


def near(value: float) -> str:
    """A coordinate, as exactly as one sees it."""
    return number(round(value, 4) + 0.0)  # and no zero with a sign


def three(value: float) -> str:
    """Three digits."""
    return number(float(f"{value:.3g}"))


def says(state: State) -> str:
    """What the picture of the surface shows, in words."""
    if state.view == "starts":
        many = len(run(state.setting).landscape.minima) > 1
        return f"Each mark is a start of {state.of}: " + (
            "colour and shape say in which minimum it ends." if many else "its colour says how low it ends."
        )
    return "Click anywhere to start there." + " Grey grows with the loss." * (state.view == "contour")


def comment(state: State, found: Run) -> Any:
    """A word on a preset, when the setting is one."""
    preset = _presets.of(state.setting)
    if preset is None:
        return None
    sign = "✓ " if preset.good else "✗ "
    return html.Div([html.B(sign + preset.title), html.P(preset.told(found))], className="answer", role="note")


def connect(app: Dash) -> None:
    """Add the callbacks: one draws, one in the browser moves."""

    @app.callback(
        output={
            "stage": Output("stage", "figure"),
            "says": Output("stage-says", "children"),
            "losses": Output("losses", "figure"),
            "comment": Output("comment", "children"),
            "table": Output("table", "children"),
            "tuned": Output({"type": "own", "of": ALL, "name": "lr"}, "placeholder"),
        },
        inputs={"address": Input("state", "data")},
        state={"told": Held({"type": "own", "of": ALL, "name": "lr"}, "placeholder")},
    )
    def draw(address: str | None, told: list[str]) -> dict[str, Any]:
        if address is None or read(address).tab not in ("landscape", "step"):
            raise PreventUpdate
        state = read(address)
        found = run(state.setting)
        rates = dict(zip(found.names, found.rates, strict=True))
        places = [item["id"]["of"] for item in ctx.outputs_grouping["tuned"]]
        tuned = [f"tuned: {number(rates[of])}" if of in rates else "tuned" for of in places]
        return {
            "stage": stage(state),
            "says": says(state),
            "losses": _figures.losses(found, state.setting.steps if state.t is None else state.t),
            "comment": comment(state, found),
            "table": table(found),
            "tuned": [no_update if old == new else new for old, new in zip(told, tuned, strict=True)],
        }

    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("gradprix", "show"),
        Output("readout", "children"),
        Input("frame", "value"),
        Input("frame", "max"),
        Input("speed", "value"),
    )
