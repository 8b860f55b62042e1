"""Things by their names: built-in tasks, and anybody's own in a file or a module."""

import difflib
import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from ._digits import digits
from ._task import Task, first_line

ALL: dict[str, Task] = {task.name: task for task in (digits,)}


class UnknownNameError(ValueError):
    """A name that is not on a list; the message has the nearest ones that are."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = list(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        listed = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known)}."
        super().__init__(f"no {kind} is called {name!r}. {listed}{hint}")


def find(name: str) -> Any:
    """A built-in task by its name, or what `mine.py:task` or `package.module:task` names; `mine.py` alone for `task`.

    Raises:
        UnknownNameError: when there is no such built-in task.
        ValueError: when there is no such file, module or name.
    """
    if name in ALL:
        return ALL[name]
    if name.endswith(".py"):
        name = f"{name}:task"
    if ":" not in name:
        raise UnknownNameError("task", name, ALL, " Your own is file.py:name; `gradprix new task.py` writes one.")
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
        sys.path.append(str(file.resolve().parent))  # so that it finds its neighbours, in other processes, too
        where = file.stem
    elif (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # as `python -m` would
    try:
        module = import_module(where)
    except ImportError as error:
        raise ValueError(f"{place}: {error}.") from error
    except SyntaxError as error:
        raise ValueError(f"{place}: line {error.lineno} is not Python: {error.msg}.") from error
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{place} fails as it is loaded: {what} ({last.filename}:{last.lineno}).") from error
    if file.is_file() and Path(str(module.__file__)).resolve() != file.resolve():
        raise ValueError(f"{place}: there is another module called {where}. Rename the file.")
    if not hasattr(module, name):
        raise ValueError(f"{place}: {where} has no {name}.")
    return getattr(module, name)
