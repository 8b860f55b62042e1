"""The step page: one optimizer, one step at a time, with its formula, its numbers and its arrows."""

from typing import Any

import numpy as np
from dash import Dash, Input, Output, dcc, html
from dash.exceptions import PreventUpdate
from plotly import graph_objects as go

from gradprix.explain import Trace, kinds, number

from ._arrows import arrows
from ._controls import aria
from ._landscape import graph, three
from ._run import run
from ._state import Racer, State, read
from ._terms import Step, step, traced


def layout() -> html.Section:
    """The page."""
    bar = [
        html.Button("◀ previous", id="previous", title="Previous step (←)"),
        html.Button("next ▶", id="following", title="Next step (→)"),
        html.Div(
            dcc.Slider(id="step", min=1, max=1, step=1, marks=None, updatemode="mouseup", allow_direct_input=False),
            className="scrub",
        ),
        html.Output(id="step-readout"),
    ]
    return html.Section(
        [
            html.Div(bar, className="bar", role="group", **aria(label="Steps")),
            html.Div([graph("arrows", "The step"), html.Div(id="equations")], className="pair uneven"),
        ],
        className="for-step",
    )


def opened(state: State) -> tuple[Trace, Step]:
    """The descent that a state lays open, and the step of it."""
    racer = next((racer for racer in state.setting.racers if racer.name == state.of), Racer(state.of))
    found = traced(state.setting, racer)
    return found, step(found, state.step)


def figure(state: State) -> go.Figure:
    """The picture of the step."""
    found, now = opened(state)
    landscape = run(state.setting).landscape
    memories = kinds(found.rule, tuple(found.values.items()))
    path = np.asarray(found.x.points.numpy())
    return arrows(landscape, state.of, path, now, memories, state.zoom == "near")


def worked(found: Trace, now: Step) -> list[Any]:
    """The equations with the step's numbers in them, and a sentence on each."""
    g, update = now.g, now.after - now.x
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.abs(update / g)
    rows = [
        ("the point", now.x),
        ("the gradient g", g),
        ("the update", update),
        ("effective rate |update| / |g|", rate),
    ]
    first = html.Table(
        [
            html.Thead(html.Tr([html.Th(""), html.Th("x", scope="col"), html.Th("y", scope="col")])),
            html.Tbody(
                [html.Tr([html.Th(said, scope="row"), *(html.Td(three(v)) for v in pair)]) for said, pair in rows]
            ),
        ],
        className="numbers",
    )
    parts = []
    for equation in now.equations:
        lines = [html.Div(equation.formula, className="formula")]
        both = zip(("x: ", "y: ") if len(equation.numbers) == 2 else ("",), equation.numbers, strict=True)
        lines += [html.Div([html.Span(axis, className="soft"), text], className="worked") for axis, text in both]
        parts.append(html.Li([html.P(equation.sentence), *lines]))
    return [
        first,
        html.Ol(parts, className="equations"),
        html.P([html.B("Its source: "), found.rule.source], className="note"),
    ]


def connect(app: Dash) -> None:
    """Add the callbacks."""

    @app.callback(
        output={
            "figure": Output("arrows", "figure"),
            "says": Output("arrows-says", "children"),
            "equations": Output("equations", "children"),
            "readout": Output("step-readout", "children"),
        },
        inputs={"address": Input("state", "data")},
    )
    def lay_open(address: str | None) -> dict[str, Any]:
        state = read(address or "")
        if address is None or state.tab != "step":
            raise PreventUpdate
        found, now = opened(state)
        rate = number(found.values["lr"])
        return {
            "figure": figure(state),
            "says": "The update is to scale; gradient, mean and squares share a scale of their own.",
            "equations": worked(found, now),
            "readout": f"step {now.t} of {state.setting.steps}, η = {rate}",
        }
