"""What is sent to workers on other machines: functions and what they are given; a problem, with its examples, once."""

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
from gradprix.tasks.loop import Loop, Problem, at_home, home, key_of
from gradprix.tasks.user_modules import Source, install, sources
from gradprix.training.provenance import versions

from .executor import answered
from .ray_init import EngineError

Places = dict[str, list[Any]]
"""Where problems are kept for the whole cluster, by what they are known by: each in a list, so that Ray does not bring
it before it is asked for."""
OURS = [Path(__file__).parents[1], Path(sysconfig.get_path("stdlib"))]
INSTALLED = {"site-packages", "dist-packages"}
"""Where modules are that every worker has."""


class _Packer(CloudPickler):  # type: ignore[misc]  # it has no types
    """Notes the problems among what it packs, in whose place it leaves a name, and the modules that code is from."""

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
            self.problems[key_of(value)] = value
            return key_of(value)
        return None


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: BytesIO, places: Places) -> None:
        super().__init__(file)
        self.places = places

    def persistent_load(self, key: str) -> Problem:
        found = at_home(key)
        if found is None:
            import ray

            found, data = ray.get(self.places[key][0])
            if data is not None:
                found.__dict__["loaded"] = data
        return cast(Problem, home(found))


def packed(function: Callable[..., Any], args: Sequence[Any]) -> tuple[bytes, dict[str, Problem]]:
    """A call to be made elsewhere, and the problems in it."""
    packer = _Packer(file := BytesIO())
    packer.dump(sources())
    packer.dump((function, tuple(args)))
    return file.getvalue(), packer.problems


def unpacked(call: bytes, places: Places) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What was packed, with the worker's own copies of problems."""
    unpacker = _Unpacker(BytesIO(call), places)
    sent: tuple[Source, ...] = unpacker.load()
    # On another machine a user's modules are found in its copy of their folder, unless their names are no file's there.
    install(each for each in sent if Path(each.path).exists() or not _is_findable(each.name.partition(".")[0]))
    function, args = unpacker.load()
    return function, args


def _is_findable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def with_examples(problem: Problem) -> tuple[Problem, Any]:
    """A problem as a worker wants it: its examples are not to be loaded by each, who may not have them."""
    return problem, problem.loaded if isinstance(problem, Task) else None


def folders(*values: Any) -> list[Path]:
    """The folders from which the user's own code among some values was imported, and what that imports from there."""
    packer = _Packer(BytesIO())
    for value in values:
        if isinstance(value, Task | Loop):  # itself would be noted, not packed
            value = {name: each for name, each in vars(value).items() if name != "loaded"}
        packer.dump(value)
    found = set()
    for name in packer.modules - {"__main__"}:  # what a script defines is sent as it is
        file = getattr(sys.modules.get(name), "__file__", None)
        path = Path(file or sysconfig.get_path("stdlib")).resolve()
        if not INSTALLED & set(path.parts) and not any(path.is_relative_to(place.resolve()) for place in OURS):
            found.add(path.parents[name.count(".") + (path.name == "__init__.py")])
    return sorted(found)


def project(code: Sequence[Path]) -> Path | None:
    """The folder to send so that all code is found in it: one of them, or the working directory.

    Raises:
        ValueError: when neither holds all of it; more is not sent unasked.
    """
    for place in (*code, Path.cwd()):
        if all(path.is_relative_to(place) for path in code) and place not in (Path.home(), Path(place.anchor)):
            return place if code else None
    listed = " and ".join(map(str, code))
    raise ValueError(
        f"your code is in {listed}: give the command in a folder of yours that holds all of it, or name one, "
        "Ray(folder=...)."
    )


def call(
    packed_: bytes,
    places: Places,
    paths: Sequence[str],
    wanted: str,
    said: Any = None,
    number: int = 0,
    every: float = 1.0,
) -> Any:
    """What a packed call answers, in a worker.

    Args:
        packed_: the call.
        places: where the problems in it are.
        paths: where the user's modules are, in the worker's own directory.
        wanted: the versions of who sent it.
        said: a queue, when there is to be word of how far it is: what is called is then given what to report to.
        number: what to report it as.
        every: seconds between such words.

    Raises:
        EngineError: when there are other versions here. Each call asks anew, for machines come and go.
    """
    if (mine := versions()) != wanted:
        raise EngineError(f"a machine of the cluster has {mine}, and this one {wanted}. Install the same.")
    due = time.monotonic()

    def report(share: float) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + every
            with contextlib.suppress(Exception):  # who listens may be on its way to another machine
                said.put_nowait((number, share))

    sys.path += [path for each in paths if (path := str(Path(each).resolve())) not in sys.path]
    function, args = unpacked(packed_, places)
    return answered(function, args if said is None else (*args, report))


def lane(*args: Any) -> Any:
    """The same for a lane: Ray shows what it runs by its name."""
    return call(*args)
