"""Things by their names: built-in tasks, and anybody's own in a file or a module."""

import difflib
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .builtin import charlm, diamonds, digits, generate, long_tail, mnist, segment, sentiment, translate
from .task import Task, first_line
from .user_code import find_users_frame
from .user_modules import load_file, load_module

Make = Callable[[str, Path | None], Task]
"""What makes a built-in task: given a preset, and where a copy of the examples of one's own is, or None."""
FETCHED: dict[str, Make] = {
    "digits": digits.make,
    "mnist": mnist.make,
    "tailed": long_tail.make,
    "diamonds": diamonds.make,
    "sentiment": sentiment.make,
    "translate": translate.make,
    "charlm": charlm.make,
    "segment": segment.make,
    "generate": generate.make,
    "generate-vae": generate.make_vae,
}
"""Tasks whose examples ship inside packages."""
MAKERS: dict[str, Make] = {**FETCHED, "fashion": mnist.make_fashion, "cifar10": mnist.make_cifar10}
"""Those and tasks whose examples the user has to have."""
PRESETS = ("small", "default", "large")
"""For tests and first tries, in seconds; for an answer, in minutes; for a larger machine."""
ALL: dict[str, Task] = {name: make("default", None) for name, make in FETCHED.items()}
"""Every task that can be raced as it is."""


class UnknownNameError(ValueError):
    """A name that is not on a list; the message has the nearest ones that are."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = list(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        listed = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known)}."
        super().__init__(f"no {kind} is called {name!r}. {listed}{hint}")


def built_in(name: str, preset: str = "default", path: str | Path | None = None) -> Task:
    """A built-in task.

    Args:
        name: as `gradprix list tasks` has it, with the preset behind it if it likes: `mnist-small`.
        preset: `"small"` takes seconds, `"default"` minutes, `"large"` wants a larger machine.
        path: a copy of its examples of your own, instead of the archive that is fetched.

    Raises:
        UnknownNameError: when there is no such task or preset.
    """
    if preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    stem, _, last = name.rpartition("-")
    if preset == "default" and stem in MAKERS and last in PRESETS:
        name, preset = stem, last
    if name not in MAKERS:
        raise UnknownNameError("task", name, MAKERS, " Your own is file.py:name; `gradprix new task.py` writes one.")
    task = MAKERS[name](preset, None if path is None else Path(path))
    return task if preset == "default" else task.change(name=f"{name}-{preset}")


def find(name: str, preset: str | None = None, path: str | Path | None = None) -> Any:
    """A built-in task by its name, or what `mine.py:task` or `package.module:task` names; `mine.py` alone for `task`.

    Args:
        name: which.
        preset: of a built-in task: `"small"`, `"default"` or `"large"`.
        path: a copy of a built-in task's examples of your own.

    Raises:
        UnknownNameError: when there is no such built-in task.
        ValueError: when there is no such file, module or name.
    """
    if ":" not in name and not name.endswith(".py"):
        return built_in(name, preset or "default", path)
    if preset is not None or path is not None:
        raise ValueError("a preset and a copy of the data are for built-in tasks; yours has what its file says.")
    if name.endswith(".py"):
        name = f"{name}:task"
    return imported(name)


def imported(place: str) -> Any:
    """What `mine.py:name` or `package.module:name` names.

    Raises:
        ValueError: when there is no such file, module or name, or it cannot be loaded.
    """
    where, _, name = place.rpartition(":")
    file = Path(where)
    if where.endswith(".py"):
        if not file.is_file():
            raise ValueError(f"{place}: there is no file {where}.")
    elif (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # as `python -m` would
    try:
        module = load_file(file) if where.endswith(".py") else load_module(where)
    except ImportError as error:
        raise ValueError(f"{place}: {error}.") from error
    except SyntaxError as error:
        raise ValueError(f"{place}: line {error.lineno} is not Python: {error.msg}.") from error
    except Exception as error:
        last = find_users_frame(error) or traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{place} fails as it is loaded: {what} ({last.filename}:{last.lineno}).") from error
    if not hasattr(module, name):
        raise ValueError(f"{place}: {where} has no {name}.")
    return getattr(module, name)
