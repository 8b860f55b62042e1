"""Command `gradprix explain`: equations, source and behaviour of one optimizer."""

from pathlib import Path
from typing import Annotated

import typer

from gradprix.utils.streams import echo

from ._errors import report_errors


def explain(
    name: Annotated[
        str,
        typer.Argument(
            help="An optimizer, see `gradprix list optimizers`, or your own, `mine.py:rule`, or `cautious(lion)`."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A hyperparameter: --set beta1=0.5. Can be repeated.", metavar="NAME=VALUE"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained HTML page.", metavar="FILE")] = None,
) -> None:
    """Explain an optimizer: its equations in words, its source, and measured properties of its rule."""
    from gradprix.explain import resolve_optimizer
    from gradprix.show import explanation, terminal
    from gradprix.utils.files import write_atomically

    with report_errors(ValueError, TypeError, OSError):
        explained = explanation.explained(resolve_optimizer(name), dict(map(_setting, settings or ())))
        if html is not None:
            write_atomically(html, explanation.page(explained).encode(errors="replace"), 0o644)
    terminal.console().print(explanation.terminal(explained))
    if html is not None:
        echo(f"\nPage: {html}")


def _setting(text: str) -> tuple[str, float | bool]:
    """Parse the value of the option `--set`, `NAME=VALUE`.

    Raises:
        ValueError: if the value is neither a number nor `true` or `false`.
    """
    name, _, value = text.partition("=")
    if value in ("True", "False", "true", "false"):
        return name, value.lower() == "true"
    try:
        return name.strip(), float(value)
    except ValueError:
        raise ValueError(f"--set {text}: give a name and a number, such as --set beta1=0.5.") from None
