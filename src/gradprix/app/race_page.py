"""Race page: starts races, monitors them, and opens saved ones."""

import math
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from dash import Dash, Input, Output, ctx, dcc, html, no_update
from dash import State as Held
from dash.exceptions import PreventUpdate
from plotly import graph_objects as go

from gradprix import tasks
from gradprix.race import ENTRIES
from gradprix.show.style import apply_layout, escape_label, padded, powers, series_style

from .controls import aria, field, number_input, radio_buttons
from .landscape_page import graph
from .race_processes import Progress, Races
from .state import SIZES, State
from .url_query import read, write

EVERY = 700
"""Polling interval in milliseconds."""


def layout() -> html.Section:
    """Return the page: form for a new race, links to saved races, and the monitored race."""
    sizes = {"small": "small: seconds", "default": "default: minutes", "large": "large"}
    assert tuple(sizes) == SIZES
    form = html.Form(
        [
            html.H2("New race"),
            field("Task", dcc.Dropdown(id="task", options=list(tasks.ALL), clearable=False, searchable=False)),
            _group("Size", radio_buttons("size", sizes)),
            _group("Optimizers", dcc.Checklist(id="names", options=list(ENTRIES), inline=True, className="names")),
            html.Div(
                [
                    field("Tuning trials", number_input("trials", placeholder="task default"), "Per optimizer"),
                    field("Final seeds", number_input("seeds", placeholder="task default"), "Per optimizer"),
                ],
                className="fields",
            ),
            html.Div(
                [
                    html.Button("Start the race", id="start", type="button", className="main"),
                    html.Span(id="refused", className="flag"),
                ]
            ),
            html.P(["Runs ", html.Code("gradprix race"), " in a separate process and saves it."], className="note"),
        ],
    )
    aside = html.Aside([form, html.H2("Saved races"), html.Div(id="kept")], className="controls")
    watched = html.Div(
        [
            html.Div(id="watched"),
            html.Div(html.Button("Stop", id="stop", type="button"), id="stop-box"),
            html.Div(graph("tried", "Finished training runs"), id="tried-box"),
            html.Div(id="report"),
        ],
    )
    return html.Section(
        [
            aside,
            watched,
            dcc.Interval(id="clock", interval=EVERY, disabled=True),
            dcc.Store(id="started"),
            dcc.Store(id="seen-last"),
        ],
        className="for-race columns",
    )


def _group(label: str, control: Any) -> html.Div:
    return html.Div([html.Span(label), control], role="group", className="field", **aria(label=label))


def training_runs_figure(progress: Progress) -> go.Figure:
    """Plot validation loss against learning rate for all finished training runs of a race."""
    fig = go.Figure()
    losses = [loss for _, _, loss, _ in progress.trials if loss is not None and math.isfinite(loss) and loss > 0]
    top = max(losses, default=1.0) * 1.5
    for i, entry in enumerate(progress.entries):
        name, label = entry["name"], escape_label(entry["name"])
        style = series_style(i)
        for final in (False, True):
            points = [
                (lr, loss) for entry_name, lr, loss, last in progress.trials if entry_name == name and last is final
            ]
            if points or not final:
                fig.add_scatter(
                    x=[lr for lr, _ in points],
                    y=[top if loss is None else loss for _, loss in points],
                    mode="markers",
                    marker={
                        "color": style["color"],
                        "symbol": style["symbol"] + "-open" * (not final),
                        "size": 9 if final else 8,
                        "line": {"width": 2},
                    },
                    name=label + ", final" * final,
                    legendgroup=name,
                    hovertemplate=f"{label} at %{{x:~g}}: %{{y:.3~g}}<extra></extra>",
                )
    logs = padded([math.log10(loss) for loss in losses] or [-1.0, 0.0])
    fig.update_yaxes(type="log", title="validation loss", range=[logs[0], max(logs[1], math.log10(top * 1.1))])
    rates = [math.log10(lr) for _, lr, _, _ in progress.trials] or [-4.0, 0.0]
    fig.update_xaxes(
        type="log",
        title="learning rate",
        range=[min(rates) - 0.3, max(rates) + 0.3],
        **powers(min(rates) - 0.3, max(rates) + 0.3),
    )
    apply_layout(fig, 420, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}, uirevision=progress.name)
    return fig.update_layout(margin={"l": 10, "r": 10, "t": 60, "b": 10})


def progress_view(progress: Progress) -> list[Any]:
    """Return the progress of a race as text and a progress bar, or its result if it is finished."""
    if not progress.name:
        return [html.P("Start a race or open a saved one.", className="note")]
    head = html.H2(
        [progress.name, html.Span(f" on {progress.task}" if progress.task and progress.task != progress.name else "")]
    )
    if progress.finished:
        return [head, html.Div(html.P(progress.text, className="first"), className="answer")]
    if not progress.running:
        return [head, html.P(progress.text, className="warn")]
    if progress.total_runs is None:
        return [head, html.P("Starting: preparing data, models and kernels.", role="status"), html.Progress()]
    finals = sum(final for *_, final in progress.trials)
    stage = f"{finals} final runs finished" if finals else "tuning"
    done, total = progress.finished_runs, progress.total_runs
    status = html.P(f"{done} of {total} training runs, {stage}", role="status")
    return [head, status, html.Progress(value=str(done), max=str(total))]


def report(progress: Progress) -> Any:
    """Return the report of a race, embedded in the page, or None if the race is not finished."""
    if not progress.finished:
        return None
    address = f"/runs/{quote(progress.name)}/report.html"
    return [
        html.P(html.A("Open the report in a new tab", href=address, target="_blank")),
        html.Iframe(src=address, title=f"Report of {progress.name}", className="report"),
    ]


def race_links(races: Races, state: State) -> Any:
    """Return links that open the saved races."""
    names = races.names()
    if not names:
        return html.P(f"No saved races in {races.home}.", className="note")
    links = [dcc.Link(name, href=f"/{write(replace(state, tab='race', race=name))}") for name in names]
    return html.Ul([html.Li(link) for link in links])


def connect(app: Dash, races: Races) -> None:
    """Register the callbacks that start, stop and monitor a race."""

    @app.callback(
        Output("started", "data"),
        Output("refused", "children"),
        Input("start", "n_clicks"),
        Held("state", "data"),
        prevent_initial_call=True,
    )
    def begin(clicks: int | None, address: str | None) -> tuple[Any, str]:
        if not clicks:
            raise PreventUpdate
        try:
            return races.start(read(address or "")), ""
        except (ValueError, OSError) as error:
            return no_update, str(error)

    @app.callback(
        Output("stop", "disabled"), Input("stop", "n_clicks"), Held("state", "data"), prevent_initial_call=True
    )
    def halt(clicks: int | None, address: str | None) -> bool:
        if clicks:
            races.stop(read(address or "").race)
        return False

    @app.callback(
        output={
            "watched": Output("watched", "children"),
            "tried": Output("tried", "figure"),
            "tried-box": Output("tried-box", "hidden"),
            "stop-box": Output("stop-box", "hidden"),
            "report": Output("report", "children"),
            "kept": Output("kept", "children"),
            "clock": Output("clock", "disabled"),
            "last": Output("seen-last", "data"),
        },
        inputs={"address": Input("state", "data"), "tick": Input("clock", "n_intervals")},
        state={"last": Held("seen-last", "data")},
    )
    def watch(address: str | None, tick: int | None, last: Any) -> dict[str, Any]:
        state = read(address or "")
        if address is None or state.tab != "race":
            raise PreventUpdate
        progress = races.progress(state.race) if state.race else Progress("")
        runs = progress.finished_runs, progress.total_runs
        now = [state.race, *runs, progress.running, progress.finished, progress.text]
        if ctx.triggered_id == "clock" and now == last:
            raise PreventUpdate
        same_report = bool(last) and last[0] == state.race and last[4] == progress.finished
        return {
            "watched": progress_view(progress),
            "tried": training_runs_figure(progress),
            "tried-box": not progress.trials or progress.finished,
            "stop-box": not progress.running,
            "report": no_update if same_report else report(progress),
            "kept": race_links(races, state),
            "clock": not progress.running,
            "last": now,
        }
