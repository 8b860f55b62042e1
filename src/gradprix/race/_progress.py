"""How far a race is, live on stderr; nothing when that is not a terminal."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Watch = Callable[[str, float, int], None]
"""Hears, now and then, what is running, how many trials are done, and how many there are."""


@contextlib.contextmanager
def progress() -> Iterator[Watch]:
    """A bar for a race: give what it yields to `race.run` as `watch`."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("networks"),
        TimeRemainingColumn(),
    )
    seen = console.is_terminal or console.is_jupyter
    with Progress(*columns, console=console, transient=True, disable=not seen) as bar:
        job = bar.add_task("starting", total=None)

        def watch(stage: str, done: float, total: int) -> None:
            bar.update(job, description=stage, completed=int(done), total=total)

        yield watch
