"""The commands of `gradprix` as Markdown, from the Typer application."""

from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from suite_docs import table

from gradprix.cli import app


def commands() -> str:
    """Return a section for each command: its usage, its description, its arguments and options, and examples."""
    root = typer.main.get_command(app)
    return "\n\n".join(section(name, command) for name, command in walk("gradprix", root))


def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield all visible commands below a command, which is one of Typer's Click, with their full names."""
    for child, below in getattr(command, "commands", {}).items():
        yield from walk(f"{name} {child}", below)
    if not hasattr(command, "commands") and not command.hidden:
        yield name, command


def section(name: str, command: Any) -> str:
    """Return the section of a command."""
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    about = " ".join((command.help or "").replace("\b", "").split())
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [(f"`{names}`", text) for names, text in filter(None, records)]
    text = f"## {name}\n\n```text\n{usage}\n```\n\n{about}\n\n{table(('argument', 'meaning'), rows)}"
    return f"{text}\n\n{examples(command.epilog)}" if command.epilog else text


def examples(epilog: str) -> str:
    """Return the examples of a command, which end its help, as a block of code."""
    lines = [line.removeprefix("  ") for line in epilog.replace("\b", "").strip().splitlines()[1:]]
    return "\n".join(["```{code-block} text", ":caption: Examples", "", *lines, "```"])


class Commands(SphinxDirective):
    """Insert the sections of all commands."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the sections."""
        self.env.note_reread()
        return self.parse_text_to_nodes(commands(), allow_section_headings=True)
