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


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Write a file as a whole: other processes see what was there before, or all of the new.

    Args:
        path: the file.
        data: its new content.
        mode: its permissions; the user's alone by default.

    Raises:
        OSError: when it cannot be written; what was there before is still there.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
