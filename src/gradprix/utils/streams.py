"""Output streams of the command line: stdout carries the result only, in characters that the terminal can encode."""

import codecs
import contextlib
import io
import json
import math
import os
import sys
import traceback
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import typer
from typer.core import TyperCommand

from .wording import printable

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
"""ASCII replacements for characters that the terminal's encoding does not have."""
ERRORS = "gradprix.transliterate"
"""Name of the codec error handler that uses these replacements."""
_RESULTS: list[TextIO] = []


def _transliterated(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handle an encoding error: return the replacement of the characters, and the position after them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    """Return an ASCII replacement: a similar character, base letter, name of a Greek letter or escape sequence."""
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
    """Prepare stdout and stderr: characters that they cannot encode are replaced, and tracebacks are printable."""
    sys.excepthook = lambda *error: warn("".join(traceback.format_exception(*error)).rstrip())
    codecs.register_error(ERRORS, _transliterated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


class Command(TyperCommand):
    """A command that writes only its result to stdout; whatever is printed while it runs goes to stderr."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with results_apart():
            return super().invoke(ctx)


class _Results(io.TextIOWrapper):
    """A text stream on its own file descriptor; if writing fails, the command exits without a traceback."""

    def write(self, text: str) -> int:
        """Write a string to the stream."""
        with self._exit_on_error():
            return super().write(text)
        return 0

    def flush(self) -> None:
        """Flush the buffer."""
        with self._exit_on_error():
            super().flush()

    @contextlib.contextmanager
    def _exit_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _discard(self)
            if not isinstance(error, BrokenPipeError):
                warn(f"gradprix: the result cannot be written: {error.strerror}.")
            raise typer.Exit(1) from None


def _discard(stream: TextIO) -> None:
    """Redirect a stream to the null device, so that flushing its buffer cannot fail again."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def results_apart() -> Iterator[None]:
    """Reserve stdout for `echo` and `results`, and redirect all other output to stderr.

    This includes the output of tasks, compiled code and other processes that write to file descriptor 1. If file
    descriptor 1 was redirected, it remains so until the process ends.
    """
    stdout = sys.stdout
    duplicate = _duplicate_stdout(stdout)
    _RESULTS.append(stdout if duplicate is None else duplicate)
    sys.stdout = sys.stderr
    try:
        yield
        _RESULTS[-1].flush()
    finally:
        _RESULTS.pop()
        if duplicate is None:
            sys.stdout = stdout


def _duplicate_stdout(stdout: TextIO) -> TextIO | None:
    """Duplicate the process's stdout and redirect file descriptor 1 to stderr.

    Returns:
        A stream on the duplicate. None if nothing was redirected, since `stdout` is not a stream on file descriptor 1
        or is closed.
    """
    if stdout is not sys.__stdout__ or not isinstance(stdout, io.TextIOWrapper):
        return None
    try:
        stdout.flush()
        if stdout.fileno() != 1:
            return None
        descriptor = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # stdout or stderr is closed
        return None
    raw = os.fdopen(descriptor, "wb")
    return _Results(raw, stdout.encoding, stdout.errors, line_buffering=stdout.line_buffering)


def results() -> TextIO:
    """Return the stream to which a command writes its result."""
    return _RESULTS[-1] if _RESULTS else sys.stdout


def echo(text: Any = "") -> None:
    """Write a line of a command's result, without control characters."""
    typer.echo(printable(str(text)), file=results())


def warn(text: str) -> None:
    """Write a message to stderr, without control characters."""
    typer.echo(printable(text), err=True)


def echo_json(value: Any) -> None:
    """Write a command's result as JSON, with null for numbers that are not finite."""
    echo(json.dumps(_replace_non_finite(value), indent=1, allow_nan=False))


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _replace_non_finite(each) for key, each in value.items()}
    return [_replace_non_finite(each) for each in value] if isinstance(value, list | tuple) else value


def close() -> int:
    """Flush stdout and stderr.

    Returns:
        The exit code: 1 if a stream can no longer be written, 0 otherwise.
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
