"""Claims page: common claims about optimizers and the measured results of their experiments."""

from typing import Any

from dash import Dash, Input, Output, html
from dash.exceptions import PreventUpdate

from gradprix.claims import committed
from gradprix.explain import number

from .url_query import read

MARKS = {"holds only if": "◐", "holds": "✓", "does not hold": "✗", "not settled": "?"}


def layout() -> html.Section:
    """Return the page without its content.

    The content is added when the page is opened: the table has more components than all other pages together and would
    double the loading time of the app.
    """
    return html.Section(id="claims", className="for-claims")


def connect(app: Dash) -> None:
    """Register the callback that fills the page when it is opened."""

    @app.callback(Output("claims", "children"), Input("state", "data"))
    def fill(address: str | None) -> list[Any]:
        if address is None or read(address).tab != "claims":
            raise PreventUpdate
        return content(committed()["claims"])


def content(claims: list[dict[str, Any]]) -> list[Any]:
    """Return the content of the page.

    Args:
        claims: records of the claims, as printed by `gradprix claims --json`.
    """
    intro = html.P(
        [
            "Common claims about optimizers, each tested by an experiment whose decision rule was fixed before it was "
            "run. To repeat the experiments: ",
            html.Code("gradprix claims"),
            ".",
        ],
        className="note",
    )
    return [html.H2("Textbook claims, tested"), intro, _counts(claims), html.Div(_table(claims), className="wide")]


def _counts(claims: list[dict[str, Any]]) -> html.P:
    counts = {verdict: sum(claim["verdict"].startswith(verdict) for claim in claims) for verdict in MARKS}
    counts["holds"] -= counts["holds only if"]
    return html.P(", ".join(f"{MARKS[name]} {count} {name}" for name, count in counts.items() if count))


def _table(claims: list[dict[str, Any]]) -> html.Table:
    head = ("Claim", "Verdict", "Effect", "95 % interval", "n")
    return html.Table(
        [
            html.Thead(html.Tr([html.Th(text, scope="col") for text in head])),
            html.Tbody([_row(claim) for claim in claims]),
        ],
        className="claims",
    )


def _row(claim: dict[str, Any]) -> html.Tr:
    mark = next((MARKS[verdict] for verdict in MARKS if claim["verdict"].startswith(verdict)), "")
    method = [
        (title, claim[key])
        for key, title in (("prediction", "Prediction"), ("decides", "Decision rule"), ("source", "Source"))
        if claim.get(key)
    ]
    measured = [
        html.Li(f"{each['what']}: {_format_effect(each['effect'])} ({_format_interval(each['ci95'])}), n = {each['n']}")
        for each in claim.get("measured", ())
    ]
    details = html.Details(
        [
            html.Summary("Method and measurements"),
            *(html.P([html.B(f"{title}: "), text]) for title, text in method),
            html.Ul(measured),
        ]
    )
    says = [html.P(claim["says"], className="note")] if claim.get("says") else []
    return html.Tr(
        [
            html.Td([html.B(claim["statement"]), *says, details], id=f"claim-{claim['id']}"),
            html.Td(f"{mark} {claim['verdict']}"),
            html.Td(_format_effect(claim["effect"])),
            html.Td(_format_interval(claim["ci95"])),
            html.Td(claim["n"]),
        ]
    )


def _format_effect(effect: float | None) -> str:
    return "–" if effect is None else number(float(f"{effect:.3g}"))


def _format_interval(ends: Any) -> str:
    low, high = ends or (None, None)
    return _format_effect(low) if low == high else f"{_format_effect(low)} to {_format_effect(high)}"
