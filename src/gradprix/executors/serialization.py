"""Serialization of calls for workers on other machines. Problems, with their examples, are sent only once."""

import contextlib
import importlib.util
import pickle
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, cast

from cloudpickle import CloudPickler

from gradprix.tasks import Task
from gradprix.tasks.loop import Loop, Problem, cache_key, cache_problem, get_cached_problem
from gradprix.tasks.module_finders import Source
from gradprix.tasks.user_modules import install, sources
from gradprix.training.provenance import versions

from .executor import call_with_picklable_errors
from .ray_init import EngineError

Places = dict[str, list[Any]]
"""Ray references of problems, by cache key. Each is inside a list, so that Ray fetches a problem only when needed."""
OURS = [Path(__file__).parents[1], Path(sysconfig.get_path("stdlib"))]
"""Folders of gradprix and the standard library, whose modules every worker has."""
INSTALLED = {"site-packages", "dist-packages"}
"""Names of folders with installed packages, which every worker has."""


class _Packer(CloudPickler):  # type: ignore[misc]  # untyped
    """Pickler that replaces problems by their keys, and records the problems and the modules of the pickled code."""

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file)
        self.problems: dict[str, Problem] = {}
        self.modules: set[str] = set()

    def persistent_id(self, value: Any) -> str | None:
        if isinstance(value, ModuleType):
            self.modules.add(value.__name__)
        elif isinstance(value, FunctionType | type):
            self.modules.add(str(value.__module__))
        elif isinstance(value, Task | Loop):
            self.problems[cache_key(value)] = value
            return cache_key(value)
        return None


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: BytesIO, places: Places) -> None:
        super().__init__(file)
        self.places = places

    def persistent_load(self, key: str) -> Problem:
        problem = get_cached_problem(key)
        if problem is None:
            import ray

            problem, data = ray.get(self.places[key][0])
            if data is not None:
                problem.__dict__["loaded"] = data
        return cast(Problem, cache_problem(problem))


def packed(function: Callable[..., Any], args: Sequence[Any]) -> tuple[bytes, dict[str, Problem]]:
    """Serialize a call of a function.

    Returns:
        The serialized call, in which problems are replaced by keys, and the problems by key.
    """
    packer = _Packer(file := BytesIO())
    packer.dump(sources())
    packer.dump((function, tuple(args)))
    return file.getvalue(), packer.problems


def unpacked(call: bytes, places: Places) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Deserialize a call of a function that was sent to a worker.

    Tasks and training loops among the arguments are sent by reference. A worker loads each of them once and passes its
    cached copy to all later calls.

    Args:
        call: the serialized call.
        places: references to the tasks and training loops that the worker has not cached yet.

    Returns:
        The function and its arguments.
    """
    unpacker = _Unpacker(BytesIO(call), places)
    sent: tuple[Source, ...] = unpacker.load()
    # Another machine loads modules from its copy of the folder if it can, and otherwise from the sources sent.
    install(each for each in sent if Path(each.path).exists() or not _is_findable(each.name.partition(".")[0]))
    function, args = unpacker.load()
    return function, args


def _is_findable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def with_examples(problem: Problem) -> tuple[Problem, Any]:
    """Return a problem and its loaded examples, since other machines may not have the data files.

    The examples are None for a training loop.
    """
    return problem, problem.loaded if isinstance(problem, Task) else None


def folders(*values: Any) -> list[Path]:
    """Return the folders from which the user's own code was imported that the given values use."""
    packer = _Packer(BytesIO())
    for value in values:
        if isinstance(value, Task | Loop):  # a problem itself would be replaced by its key
            value = {name: each for name, each in vars(value).items() if name != "loaded"}
        packer.dump(value)
    folders_of_code = set()
    for name in packer.modules - {"__main__"}:  # definitions in a script are pickled by value
        file = getattr(sys.modules.get(name), "__file__", None)
        path = Path(file or sysconfig.get_path("stdlib")).resolve()
        if not INSTALLED & set(path.parts) and not any(path.is_relative_to(place.resolve()) for place in OURS):
            folders_of_code.add(path.parents[name.count(".") + (path.name == "__init__.py")])
    return sorted(folders_of_code)


def project(code: Sequence[Path]) -> Path | None:
    """Return the folder to send to the cluster, which must contain all of the user's code.

    Returns None if there is no such code.

    Args:
        code: folders with the user's code.

    Raises:
        ValueError: if neither one of these folders nor the working directory contains all code. No other folder is
            sent, unless the user names it.
    """
    for place in (*code, Path.cwd()):
        if all(path.is_relative_to(place) for path in code) and place not in (Path.home(), Path(place.anchor)):
            return place if code else None
    folder_list = " and ".join(map(str, code))
    raise ValueError(
        f"your code is in {folder_list}: give the command in a folder of yours that holds all of it, or name one, "
        "Ray(folder=...)."
    )


def call(
    packed_call: bytes,
    places: Places,
    paths: Sequence[str],
    sender_versions: str,
    reports: Any = None,
    number: int = 0,
    interval: float = 1.0,
) -> Any:
    """Run a serialized call in a worker and return its result.

    Args:
        packed_call: the serialized call; see `packed`.
        places: references of the problems in it.
        paths: folders with the user's modules; relative paths start from the worker's working directory.
        sender_versions: library versions of the sender.
        reports: queue for progress reports; if given, the function gets a callback as its last argument.
        number: identifier of the call in its reports.
        interval: minimum number of seconds between reports.

    Raises:
        EngineError: if this machine has other library versions. Each call checks this, since machines join and leave.
    """
    if (versions_here := versions()) != sender_versions:
        raise EngineError(
            f"a machine of the cluster has {versions_here}, and this one {sender_versions}. Install the same."
        )
    due = time.monotonic()

    def report(share: float) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + interval
            with contextlib.suppress(Exception):  # the queue may be restarting on another machine
                reports.put_nowait((number, share))

    sys.path += [path for each in paths if (path := str(Path(each).resolve())) not in sys.path]
    function, args = unpacked(packed_call, places)
    return call_with_picklable_errors(function, args if reports is None else (*args, report))


def run_stack(*args: Any) -> Any:
    """Run a serialized call that trains a stack. This is a separate function because Ray displays its name."""
    return call(*args)
