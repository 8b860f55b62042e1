"""Rich console for texts of others."""

from collections.abc import Iterable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from .wording import printable


class SafeConsole(Console):
    """Rich console in which texts can neither control the terminal nor contain markup.

    Names of optimizers and tasks, and messages of errors, may come from a bundle or a folder of somebody else. The
    escape sequences of styles, and those that Rich makes itself, are not affected.

    Args:
        stderr: write to stderr instead of stdout.
        file: stream to write to. Default: stdout or stderr.
    """

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None) -> None:
        super().__init__(stderr=stderr, file=file, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of something to print, with printable texts."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
