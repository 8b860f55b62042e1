"""Step page: one step of one optimizer, with equations, numbers and arrows."""

from typing import Any

import numpy as np
from dash import Dash, Input, Output, dcc, html
from dash.exceptions import PreventUpdate
from plotly import graph_objects as go

from gradprix.explain import Trace, classify_state, number

from .controls import aria
from .landscape_page import format_three_digits, graph
from .state import State
from .step_arrows import arrows
from .step_trace import Step, cached_trace, read_step
from .trajectories import run
from .url_query import read


def layout() -> html.Section:
    """Return the page with its controls, an empty figure, and an empty element for the equations."""
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
            html.Div([graph("arrows", "Step"), html.Div(id="equations")], className="pair uneven"),
        ],
        className="for-step",
    )


def selected_step(state: State) -> tuple[Trace, Step]:
    """Return the descent and the step of it that the user has selected in the app."""
    descent = cached_trace(state.setting, state.selected_racer)
    return descent, read_step(descent, state.step)


def figure(state: State) -> go.Figure:
    """Return the figure of the step that a state selects."""
    descent, now = selected_step(state)
    landscape = run(state.setting).landscape
    memories = classify_state(descent.rule, tuple(descent.values.items()))
    path = np.asarray(descent.x.points.numpy())
    return arrows(landscape, state.of, path, now, memories, state.zoom == "near")


def equations_with_numbers(descent: Trace, now: Step) -> list[Any]:
    """Return the equations of a step as page content, each with its numbers and an explanation.

    Args:
        descent: trace that contains the step.
        now: the step.
    """
    g, update = now.g, now.after - now.x
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.abs(update / g)
    rows = [
        ("point", now.x),
        ("gradient g", g),
        ("update", update),
        ("effective learning rate |update| / |g|", rate),
    ]
    head = html.Thead(html.Tr([html.Th(""), html.Th("x", scope="col"), html.Th("y", scope="col")]))
    body = [html.Tr([html.Th(label, scope="row"), *map(html.Td, map(format_three_digits, xy))]) for label, xy in rows]
    table = html.Table([head, html.Tbody(body)], className="numbers")
    parts = []
    for equation in now.equations:
        lines = [html.Div(equation.formula, className="formula")]
        both = zip(("x: ", "y: ") if len(equation.numbers) == 2 else ("",), equation.numbers, strict=True)
        lines += [html.Div([html.Span(axis, className="soft"), text], className="worked") for axis, text in both]
        parts.append(html.Li([html.P(equation.sentence), *lines]))
    return [
        table,
        html.Ol(parts, className="equations"),
        html.P([html.B("Source: "), descent.rule.source], className="note"),
    ]


def connect(app: Dash) -> None:
    """Register the callback that draws the step and its equations."""

    @app.callback(
        output={
            "figure": Output("arrows", "figure"),
            "says": Output("arrows-says", "children"),
            "equations": Output("equations", "children"),
            "readout": Output("step-readout", "children"),
        },
        inputs={"address": Input("state", "data")},
    )
    def show_step(address: str | None) -> dict[str, Any]:
        state = read(address or "")
        if address is None or state.tab != "step":
            raise PreventUpdate
        descent, now = selected_step(state)
        rate = number(descent.values["lr"])
        return {
            "figure": figure(state),
            "says": "The update is to scale. Gradient, mean and squares share another scale.",
            "equations": equations_with_numbers(descent, now),
            "readout": f"step {now.t} of {state.setting.steps}, η = {rate}",
        }
