"""What is kept on disk from one process to the next."""

import os
import stat
import tempfile
from pathlib import Path


def cache_folder(name: str = "kernels") -> Path | None:
    """Where things are kept: a folder that is this user's alone, or None. `GRADPRIX_CACHE` sets the place."""
    root = os.environ.get("GRADPRIX_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(root).expanduser() / "gradprix" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    mine = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700)
    return folder if stat.S_ISDIR(found.st_mode) and mine and os.access(folder, os.W_OK) else None


def put(file: Path, data: bytes) -> None:
    """Write a file whole: other processes see what was there before, or this.

    Raises:
        OSError: when it cannot be written; nothing is left behind.
    """
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        os.replace(temporary, file)
    except OSError:
        os.unlink(temporary)
        raise
