"""Landscape page: several optimizers on one surface."""

from collections.abc import Iterator
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, ctx, dcc, html, no_update
from dash import State as Held
from dash.exceptions import PreventUpdate
from plotly import graph_objects as go

from gradprix.explain import number

from . import figures, presets
from .controls import aria, legend_marks, player
from .figure_elements import CONFIG, HEIGHT
from .state import State
from .trajectories import Run, run, run_from_grid
from .url_query import read


def graph(name: str, label: str) -> html.Figure:
    """Return an empty figure with its caption and its export controls.

    PNG export is in the figure's toolbar; CSV and HTML export are buttons below.

    Args:
        name: id of the figure.
        label: name of the figure in the tooltips of the buttons.
    """
    config: Any = {**CONFIG, "toImageButtonOptions": {"format": "png", "scale": 2, "filename": f"gradprix-{name}"}}
    save = [
        html.Button(form, id={"type": "save", "what": name, "form": form.lower()}, title=f"{label} as {form}")
        for form in ("CSV", "HTML")
    ]
    drawn = dcc.Graph(id=name, figure=EMPTY_FIGURE, config=config, responsive=True, style={"height": f"{HEIGHT}px"})
    return html.Figure([drawn, html.Figcaption([html.Span(id=f"{name}-says"), html.Span(save, className="save")])])


EMPTY_FIGURE = {"layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}, "paper_bgcolor": "rgba(0,0,0,0)"}}
"""Figure without axes, shown until a callback draws the figure."""


def layout() -> html.Section:
    """Return the page with empty figures, the playback controls, and an empty element for the table of results."""
    return html.Section(
        [
            html.Div([graph("stage", "Surface"), graph("losses", "Loss against steps")], className="pair"),
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
    """Return the figure of the surface in the view that the state selects."""
    if state.view == "starts":
        return figures.basins(run_from_grid(state.setting, state.selected_racer))
    result = run(state.setting)
    t = state.setting.steps if state.t is None else state.t
    return figures.relief(result, t) if state.view == "relief" else figures.contour(result, t)


def table(result: Run) -> html.Table:
    """Return the table of results, one row per optimizer."""
    head = [
        "",
        "Learning rate η",
        "Final loss above minimum",
        "Maximum loss",
        "Steps to 1 % of initial loss",
        "Final point",
    ]
    return html.Table(
        [html.Thead(html.Tr([html.Th(text, scope="col") for text in head])), html.Tbody(list(_rows(result)))],
        className="numbers",
    )


def _rows(result: Run) -> Iterator[html.Tr]:
    for name, summary in result.summaries().items():
        point = f"{format_coordinate(summary.x)}, {format_coordinate(summary.y)}"
        origin = html.Span(" given" if summary.is_given else " tuned", className="soft")
        cells = [
            html.Td(["", number(summary.rate), origin]),
            html.Td(format_three_digits(summary.end)),
            html.Td(format_three_digits(summary.maximum)),
            html.Td("never" if summary.convergence_step is None else summary.convergence_step),
            html.Td("outside the plot" if summary.is_outside else point),
        ]
        yield html.Tr([html.Th([*legend_marks(name), name], scope="row"), *cells])


def format_coordinate(value: float) -> str:
    """Format a coordinate to four decimals."""
    return number(round(value, 4) + 0.0)  # adding 0.0 turns −0 into 0


def format_three_digits(value: float) -> str:
    """Format a number to three significant digits."""
    return number(float(f"{value:.3g}"))


def caption(state: State) -> str:
    """Return the caption of the surface figure."""
    if state.view == "starts":
        several_minima = len(run(state.setting).landscape.minima) > 1
        meaning = "colour and shape show the minimum it reaches" if several_minima else "colour shows the final loss"
        return f"Each mark is a starting point of {state.of}: {meaning}."
    return "Click to set the starting point." + " Grey shows the loss." * (state.view == "contour")


def comment(state: State, result: Run) -> Any:
    """Return the explanation of the preset whose setting the state has, or None if there is none."""
    preset = presets.matching_preset(state.setting)
    if preset is None:
        return None
    sign = "✓ " if preset.good else "✗ "
    return html.Div([html.B(sign + preset.title), html.P(preset.explain(result))], className="answer", role="note")


def connect(app: Dash) -> None:
    """Register the two callbacks: the server draws the figures, and the browser animates them."""

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
