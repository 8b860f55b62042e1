"""Compiles generated kernels, and keeps them on disk for the next process."""

import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
import types
import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ._source import kernel_source
from ._split import Split

Kernel = Callable[..., None]


@cache
def kernel(split: Split, stored: str) -> Kernel | None:
    """The compiled kernel of a split rule, or None, with one warning, where Numba does not work."""
    text = kernel_source(split, stored)
    try:
        return _load(split.rule, text)
    except Exception as error:  # whatever is wrong with a compiler, the eager rule is right
        _warn(f"{type(error).__name__}: {error}")
        return None


@cache
def _warn(problem: str) -> None:
    warnings.warn(
        f"gradprix: optimizers run eagerly, which is slower, because Numba failed ({problem.splitlines()[0]}).",
        RuntimeWarning,
        stacklevel=2,
    )


def _load(rule: str, text: str) -> Kernel:
    made_by = f"{version('gradprix')} {version('numba')} {sys.version_info[:2]}"
    digest = hashlib.sha256("\n".join([made_by, text]).encode()).hexdigest()
    name = f"{rule}_{digest[:24]}"
    folder = cache_folder()
    if folder is not None:
        try:
            return _from_file(folder / f"{name}.py", f"CACHED = True\n{text}")
        except OSError:
            pass  # a full or read-only disk: compile for this process alone
    module = types.ModuleType(name)
    exec(compile(f"CACHED = False\n{text}", f"<{name}>", "exec"), vars(module))
    made: Kernel = module.kernel
    return made


def _from_file(file: Path, text: str) -> Kernel:
    if not file.exists() or file.read_text() != text:
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        os.replace(temporary, file)
    spec = importlib.util.spec_from_file_location(f"gradprix_kernel_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Numba looks a cached function's module up
    spec.loader.exec_module(module)
    made: Kernel = module.kernel
    return made


def cache_folder() -> Path | None:
    """Where kernels are kept: a folder that is this user's alone, or None. `GRADPRIX_CACHE` sets the place."""
    root = os.environ.get("GRADPRIX_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(root).expanduser() / "gradprix" / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    mine = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700)
    return folder if stat.S_ISDIR(found.st_mode) and mine and os.access(folder, os.W_OK) else None
