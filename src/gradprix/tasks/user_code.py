"""Search for the user's own code in tracebacks."""

import traceback
from pathlib import Path

import torch

from .module_finders import is_in, is_users_path

TORCH, GRADPRIX = Path(torch.__file__).parent, Path(__file__).parents[1]


def find_users_frame(error: BaseException, *, or_package: bool = False) -> traceback.FrameSummary | None:
    """Return the innermost frame of the user's own code in the traceback of an exception.

    Frames without source, such as generated and compiled code, are skipped. Returns None if there is no such frame.

    Args:
        error: a raised exception.
        or_package: if the traceback contains no code of the user, fall back to the innermost frame outside torch and
            gradprix, in another package or the standard library.
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.line and not f.filename.startswith("<")]
    users = [frame for frame in frames if is_users_path(frame.filename)]
    if or_package and not users:
        users = [frame for frame in frames if not is_in(frame.filename, (TORCH, GRADPRIX))]
    return users[-1] if users else None


def users_line(error: BaseException) -> str:
    """Return the position of an error in the user's own code, such as `mine.py, line 3`.

    The position is that of the innermost frame; an empty string is returned if no frame is of the user's own code.

    Args:
        error: a raised exception.
    """
    frame = find_users_frame(error)
    return "" if frame is None else f"{Path(frame.filename).name}, line {frame.lineno}"
