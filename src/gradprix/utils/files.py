"""Cache folder and atomic file writes."""

import os
import stat
import tempfile
from pathlib import Path


def cache_folder(name: str = "kernels") -> Path | None:
    """Return a cache folder that only this user can access, or None if it cannot be created or written.

    The environment variable `GRADPRIX_CACHE` sets its parent; the default is `XDG_CACHE_HOME`, then `~/.cache`.
    """
    root = os.environ.get("GRADPRIX_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(root).expanduser() / "gradprix" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except (OSError, RuntimeError):  # RuntimeError: the user has no home folder
        return None
    is_private = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) == 0o700)
    return folder if stat.S_ISDIR(status.st_mode) and is_private and os.access(folder, os.W_OK) else None


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Write a file atomically: other processes read either the old content or all of the new content.

    Args:
        path: the file.
        data: its new content.
        mode: its permissions; only the user may read it by default.

    Raises:
        OSError: if the file cannot be written; the old content is unchanged.
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
