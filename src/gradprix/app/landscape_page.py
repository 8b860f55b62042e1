"""Landscape page: several optimizers on one surface."""

from collections.abc import Iterator
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, ctx, dcc, html, no_update
from dash import State as Held
from dash.exceptions import PreventUpdate
from plotly import graph_objects as go

from gradprix.explain import number

from . import figures, presets
from .controls import BORDERS, GLYPHS, aria, player
from .figure_elements import CONFIG, HEIGHT, look
from .state import Racer, State, read
from .trajectories import Run, ends, run


def graph(name: str, label: str) -> html.Figure:
    """Return a figure with export options: PNG in its toolbar, CSV and HTML as buttons."""
    config: Any = {**CONFIG, "toImageButtonOptions": {"format": "png", "scale": 2, "filename": f"gradprix-{name}"}}
    save = [
        html.Button(form, id={"type": "save", "what": name, "form": form.lower()}, title=f"{label} as {form}")
        for form in ("CSV", "HTML")
    ]
    drawn = dcc.Graph(id=name, figure=NOTHING, config=config, responsive=True, style={"height": f"{HEIGHT}px"})
    return html.Figure([drawn, html.Figcaption([html.Span(id=f"{name}-says"), html.Span(save, className="save")])])


NOTHING = {"layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}, "paper_bgcolor": "rgba(0,0,0,0)"}}
"""Placeholder of an empty figure."""


def layout() -> html.Section:
    """Return the page."""
    return html.Section(
        [
            html.Div([graph("stage", "The surface"), graph("losses", "Loss against steps")], className="pair"),
            player(),
            html.Div(id="table", className="wide"),
        ],
        className="for-landscape",
    )


def preset_links() -> html.Nav:
    """Return links to the presets."""
    links = []
    for preset in presets.PRESETS:
        sign, word = ("✓", "good") if preset.good else ("✗", "bad")
        label: list[Any] = [html.Span(sign, title=word, className="sign"), preset.title]
        links.append(dcc.Link(label, href=f"/{preset.address}", className=f"preset {word}"))
    return html.Nav(links, className="presets for-landscape", **aria(label="Presets, good and bad"))


def stage(state: State) -> go.Figure:
    """Return the figure of the surface for a state."""
    if state.view == "starts":
        racer = next((racer for racer in state.setting.racers if racer.name == state.of), Racer(state.of))
        return figures.starts(ends(state.setting, racer))
    result = run(state.setting)
    t = state.setting.steps if state.t is None else state.t
    return figures.relief(result, t) if state.view == "relief" else figures.contour(result, t)


def table(result: Run) -> html.Table:
    """Return the table of results, one row per optimizer."""
    head = [
        "",
        "Rate η",
        "Loss above the lowest, at the end",
        "At worst",
        "Below 1 % of the start from step",
        "Ends at",
    ]
    return html.Table(
        [html.Thead(html.Tr([html.Th(text, scope="col") for text in head])), html.Tbody(list(_rows(result)))],
        className="numbers",
    )


def _rows(result: Run) -> Iterator[html.Tr]:
    for name, summary in result.summaries().items():
        style = look(name)
        mark = html.Span(GLYPHS[style["symbol"]], className="glyph", style={"color": style["color"]})
        line = html.Span(className="dash", style={"borderTop": f"3px {BORDERS[style['dash']]} {style['color']}"})
        place = (
            "left the picture" if summary.lost else f"{format_coordinate(summary.x)}, {format_coordinate(summary.y)}"
        )
        cells = [
            html.Td(["", number(summary.rate), html.Span(" yours" if summary.chosen else " tuned", className="soft")]),
            html.Td(three(summary.end)),
            html.Td(three(summary.highest)),
            html.Td("never" if summary.hundredth is None else summary.hundredth),
            html.Td(place),
        ]
        yield html.Tr([html.Th([mark, line, name], scope="row"), *cells])


def format_coordinate(value: float) -> str:
    """Format a coordinate to four decimals."""
    return number(round(value, 4) + 0.0)  # adding 0.0 turns −0 into 0


def three(value: float) -> str:
    """Format a number to three significant digits."""
    return number(float(f"{value:.3g}"))


def caption(state: State) -> str:
    """Return the caption of the surface figure."""
    if state.view == "starts":
        several_minima = len(run(state.setting).landscape.minima) > 1
        return f"Each mark is a start of {state.of}: " + (
            "colour and shape say in which minimum it ends." if several_minima else "its colour says how low it ends."
        )
    return "Click anywhere to start there." + " Grey grows with the loss." * (state.view == "contour")


def comment(state: State, result: Run) -> Any:
    """Return the explanation of the preset that matches the state, if any."""
    preset = presets.matching_preset(state.setting)
    if preset is None:
        return None
    sign = "✓ " if preset.good else "✗ "
    return html.Div([html.B(sign + preset.title), html.P(preset.explain(result))], className="answer", role="note")


def connect(app: Dash) -> None:
    """Register the callbacks: one draws figures on the server, one animates them in the browser."""

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
        state={"shown": Held({"type": "own", "of": ALL, "name": "lr"}, "placeholder")},
    )
    def draw(address: str | None, shown: list[str]) -> dict[str, Any]:
        if address is None or read(address).tab not in ("landscape", "step"):
            raise PreventUpdate
        state = read(address)
        result = run(state.setting)
        rates = dict(zip(result.names, result.rates, strict=True))
        places = [item["id"]["of"] for item in ctx.outputs_grouping["tuned"]]
        tuned = [f"tuned: {number(rates[of])}" if of in rates else "tuned" for of in places]
        return {
            "stage": stage(state),
            "says": caption(state),
            "losses": figures.losses(result, state.setting.steps if state.t is None else state.t),
            "comment": comment(state, result),
            "table": table(result),
            "tuned": [no_update if old == new else new for old, new in zip(shown, tuned, strict=True)],
        }

    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("gradprix", "show"),
        Output("readout", "children"),
        Input("frame", "value"),
        Input("frame", "max"),
        Input("speed", "value"),
    )
