"""Location of the user's own code in a traceback."""

import traceback
from pathlib import Path

import torch

from .module_finders import is_in, is_users_path

TORCH, GRADPRIX = Path(torch.__file__).parent, Path(__file__).parents[1]


def find_users_frame(error: BaseException, *, or_package: bool = False) -> traceback.FrameSummary | None:
    """Return the innermost frame of the user's own code in a traceback.

    Frames without source, such as generated and compiled code, are skipped.

    Args:
        error: a raised exception.
        or_package: if there is no such frame, fall back to the innermost frame outside torch and gradprix, in an
            installed package or the standard library.
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.line and not f.filename.startswith("<")]
    users = [frame for frame in frames if is_users_path(frame.filename)]
    if or_package and not users:
        users = [frame for frame in frames if not is_in(frame.filename, (TORCH, GRADPRIX))]
    return users[-1] if users else None


def users_line(error: BaseException) -> str:
    """Return file and line number of the innermost frame of the user's own code; empty if there is none.

    Args:
        error: a raised exception.
    """
    frame = find_users_frame(error)
    return "" if frame is None else f"{Path(frame.filename).name}, line {frame.lineno}"
