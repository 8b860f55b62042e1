"""Command `gradprix explain`: equations, source and behaviour of one optimizer."""

from pathlib import Path
from typing import Annotated

import typer

from gradprix.utils.streams import echo


def explain(
    name: Annotated[
        str, typer.Argument(help="An optimizer, as in `gradprix list optimizers`; or yours, `mine.py:rule`.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A hyperparameter: --set beta1=0.5. May be given again.", metavar="NAME=VALUE"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that stands alone, too.", metavar="FILE")] = None,
) -> None:
    """Say what an optimizer does: its equations in words, its source, and what to watch, measured on its rule."""
    from gradprix.explain import subject
    from gradprix.show import explanation, terminal
    from gradprix.utils.files import write_atomically

    from . import usage

    with usage(ValueError, TypeError, OSError):
        explained = explanation.explained(subject(name), dict(map(_setting, settings or ())))
        if html is not None:
            write_atomically(html, explanation.page(explained).encode(errors="replace"), 0o644)
    terminal.console().print(explanation.terminal(explained))
    if html is not None:
        echo(f"\nThe page: {html}")


def _setting(text: str) -> tuple[str, float | bool]:
    name, _, value = text.partition("=")
    if value in ("True", "False", "true", "false"):
        return name, value.lower() == "true"
    try:
        return name.strip(), float(value)
    except ValueError:
        raise ValueError(f"--set {text}: give a name and a number, as in --set beta1=0.5.") from None
