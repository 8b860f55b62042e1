"""Lookup of tasks by name: built-in tasks, and tasks in users' files or modules."""

import difflib
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from .builtin import charlm, diamonds, digits, generate, long_tail, mnist, segment, sentiment, translate
from .task import Task, first_line
from .user_code import find_users_frame
from .user_modules import load_file, load_module

TaskFactory = Callable[[str, Path | None], Task]
"""Function that returns a built-in task, given a preset and the path of a local copy of the examples (or None)."""
PACKAGED: dict[str, TaskFactory] = {
    "digits": digits.make_task,
    "mnist": mnist.make_task,
    "tailed": long_tail.make_task,
    "diamonds": diamonds.make_task,
    "sentiment": sentiment.make_task,
    "translate": translate.make_task,
    "charlm": charlm.make_task,
    "segment": segment.make_task,
    "generate": generate.make_flow,
    "generate-vae": generate.make_vae,
}
"""Built-in tasks whose examples are distributed inside Python packages."""
MAKERS: dict[str, TaskFactory] = {**PACKAGED, "fashion": mnist.make_fashion, "cifar10": mnist.make_cifar10}
"""All built-in tasks, including those whose examples the user has to provide."""
MAX_LISTED = 16
"""Maximum number of known names that the message about an unknown one lists."""
PRESETS = ("small", "default", "large")
"""Sizes of built-in tasks: a run of `small` takes seconds, of `default` minutes; `large` needs a larger machine."""
ALL: dict[str, Task] = {name: make("default", None) for name, make in PACKAGED.items()}
"""Built-in tasks that can be raced without further files."""


class UnknownNameError(ValueError):
    """Error raised for an unknown name; the message lists similar known names.

    Args:
        kind: description of the name, such as `"task"`.
        name: the unknown name.
        known: all known names.
        hint: text to append to the message.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = list(known)
        closest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        suggestion = f"Did you mean {' or '.join(closest)}?" if closest else f"There are: {_list_nearest(name, known)}."
        super().__init__(f"no {kind} is called {name!r}. {suggestion}{hint}")


def _list_nearest(name: str, known: Sequence[str]) -> str:
    """List known names; if there are many, those that are most similar to a name, and the number of the others."""
    if len(known) <= MAX_LISTED:
        return ", ".join(known)
    nearest = difflib.get_close_matches(name, known, n=MAX_LISTED, cutoff=0.0)
    return f"{', '.join(nearest)} and {len(known) - len(nearest)} more"


def built_in(name: str, preset: str = "default", path: str | Path | None = None) -> Task:
    """Return a built-in task.

    Args:
        name: name of the task as in `gradprix list tasks`, optionally followed by the preset: `mnist-small`.
        preset: size of the task: `"small"` takes seconds, `"default"` minutes, `"large"` needs a larger machine.
        path: a local copy of the examples, instead of the downloaded archive.

    Raises:
        UnknownNameError: for an unknown task or preset.
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
    """Return a built-in task, or a task or training loop of the user.

    Args:
        name: name of a built-in task, or location of a user's object: `mine.py:task`, `package.module:task`, or
            `mine.py`, which stands for `mine.py:task`.
        preset: size of a built-in task: `"small"`, `"default"` or `"large"`.
        path: a local copy of a built-in task's examples.

    Raises:
        UnknownNameError: for an unknown built-in task.
        ValueError: if the file, module or object does not exist or cannot be loaded, or if `preset` or `path` is given
            for a user's object.
    """
    if ":" not in name and not name.endswith(".py"):
        return built_in(name, preset or "default", path)
    if preset is not None or path is not None:
        raise ValueError("a preset and a copy of the data are for built-in tasks; yours is defined by its file.")
    if name.endswith(".py"):
        name = f"{name}:task"
    return import_object(name)


def import_object(place: str) -> Any:
    """Import an object from a user's file or from a module.

    Args:
        place: location of the object: `mine.py:name` or `package.module:name`.

    Raises:
        ValueError: if the file, module or object does not exist, or loading fails.
    """
    where, _, name = place.rpartition(":")
    module = import_source(where, place)
    if not hasattr(module, name):
        public = [each for each in vars(module) if not each.startswith("_")]
        closest = difflib.get_close_matches(name, public, n=1)
        raise ValueError(f"{place}: {where} has no {name}.{''.join(f' Did you mean {each}?' for each in closest)}")
    return getattr(module, name)


def import_source(where: str, place: str) -> ModuleType:
    """Import a user's file or a module.

    Args:
        where: path of the file, or name of the module.
        place: location of the object that is looked for, for error messages.

    Raises:
        ValueError: if the file or module does not exist, or loading fails.
    """
    file, name = Path(where), place.rpartition(":")[2]
    if where.endswith(".py"):
        if not file.is_file():
            raise ValueError(f"{place}: there is no file {where}.")
    elif (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # as `python -m` would
    try:
        return load_file(file) if where.endswith(".py") else load_module(where)
    except ImportError as error:
        cure = ""
        if "relative import" in str(error) and where.endswith(".py"):
            cure = f" Name it as a module, from the folder of the package: {file.parent.name}.{file.stem}:{name}."
        raise ValueError(f"{place}: {error}.{cure}") from error
    except SyntaxError as error:
        raise ValueError(f"{place}: line {error.lineno} is not valid Python: {error.msg}.") from error
    except Exception as error:
        last = find_users_frame(error) or traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{place} fails while loading: {what} ({last.filename}:{last.lineno}).") from error
