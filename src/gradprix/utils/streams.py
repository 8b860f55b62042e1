"""The command line's streams: stdout has the result alone, and any terminal shows the text."""

import codecs
import contextlib
import io
import json
import math
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import typer
from typer.core import TyperCommand

PLAIN = {
    **dict.fromkeys("−–—‐‑─━╌┄╸╺╴╶╾╼═", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("“”„«»", '"'),
    **dict.fromkeys("‘’‚", "'"),
    **dict.fromkeys("•·∙⋅", "*"),
    **dict.fromkeys("×✗✘", "x"),
    "✓": "+",
    "ß": "ss",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "≈": "~",
    "±": "+-",
    "→": "->",
    "←": "<-",
    "√": "sqrt",
    "∞": "inf",
    "∂": "d",
    "\u0302": "^",
    "\u0304": "_",
}
"""What is written for a character that a terminal's encoding does not have."""
ERRORS = "gradprix.transliterate"
_RESULTS: list[TextIO] = []


def _transliterated(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    """A character in ASCII: its like, its parts, the name of a Greek letter, or else its number."""
    if character in PLAIN:
        return PLAIN[character]
    parts = [part for part in unicodedata.normalize("NFKD", character) if part.isascii()]
    name = unicodedata.name(character, "")
    if parts:
        return "".join(parts)
    if name.startswith("GREEK") and "LETTER" in name:
        word = name.rpartition("LETTER ")[2].split()[0]
        return word.lower() if "SMALL" in name else word.capitalize()
    if name.startswith("BOX DRAWINGS"):
        return "+"
    return character.encode("ascii", "backslashreplace").decode()


def prepare() -> None:
    """Let the streams write what their encoding has no characters for."""
    codecs.register_error(ERRORS, _transliterated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


class Command(TyperCommand):
    """A command whose result alone goes to stdout: what is printed while it runs goes to stderr."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with results_apart():
            return super().invoke(ctx)


class _Results(io.TextIOWrapper):
    """Text on a file descriptor of its own; where it cannot be written, the command ends without a traceback."""

    def write(self, text: str) -> int:
        """Write a text."""
        with self._trouble():
            return super().write(text)
        return 0

    def flush(self) -> None:
        """Write what is left."""
        with self._trouble():
            super().flush()

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _discard(self)
            if not isinstance(error, BrokenPipeError):
                typer.echo(f"gradprix: the result cannot be written: {error.strerror}.", err=True)
            raise typer.Exit(1) from None


def _discard(stream: TextIO) -> None:
    """Have nothing read what a stream still has to write."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def results_apart() -> Iterator[None]:
    """Keep stdout for `echo` and `results`; whatever else is written there goes to stderr.

    That is what a task prints, what compiled code and other processes write to the file descriptor included. Of a
    process's own stdout it remains so: what is printed as the process ends is no result, either.
    """
    before = sys.stdout
    kept = _kept_apart(before)
    _RESULTS.append(before if kept is None else kept)
    sys.stdout = sys.stderr
    try:
        yield
        _RESULTS[-1].flush()
    finally:
        _RESULTS.pop()
        if kept is None:
            sys.stdout = before


def _kept_apart(stdout: TextIO) -> TextIO | None:
    """This process's stdout under another descriptor, so that 1 can be stderr; None where it is no file."""
    if stdout is not sys.__stdout__ or not isinstance(stdout, io.TextIOWrapper):
        return None
    try:
        stdout.flush()
        if stdout.fileno() != 1:
            return None
        own = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        return None
    raw = os.fdopen(own, "wb")
    return _Results(raw, stdout.encoding, stdout.errors, line_buffering=stdout.line_buffering)


def results() -> TextIO:
    """Return the stream of a command's result."""
    return _RESULTS[-1] if _RESULTS else sys.stdout


def echo(text: Any = "") -> None:
    """Write a line of a command's result."""
    typer.echo(text, file=results())


def echo_json(value: Any) -> None:
    """Write a command's result as JSON, in which a number that is not finite is null."""
    echo(json.dumps(_finite(value), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def close() -> int:
    """Write what is left in stdout.

    Returns:
        The exit code: 1 where nobody reads it any more, 0 otherwise.
    """
    code = 0
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is None or stream.closed:
            continue
        try:
            stream.flush()
        except OSError:
            code = 1
            _discard(stream)
    return code
