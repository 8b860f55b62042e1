"""What a race saves about its plan besides the plan's description, so that others can rebuild the plan.

Code of other people is described by its interface: a race can then be replayed from its runs without running that code.
"""

import inspect
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from gradprix import optim, rules
from gradprix.executors.worker_processes import environment
from gradprix.rules import Rule
from gradprix.spaces import Axis, Choice, Log
from gradprix.tasks.user_modules import sources_of
from gradprix.training.optimizer_factories import takes_model
from gradprix.training.torch_optimizer_adapter import TorchOptimizerAdapter

from .entry import Entry
from .modified_entries import is_expression
from .plan import Plan
from .plan_description import Omission

TUPLE, REPR = "tuple", "repr"
"""Keys of the JSON form of tuples, and of values that JSON cannot represent."""


class SavedAxis(msgspec.Struct, frozen=True):
    """Search range: `log`, `one_minus` (with its two limits) or `choice` (with its values)."""

    kind: str
    values: list[Any]


class OptimizerInterface(msgspec.Struct, frozen=True, kw_only=True):
    """Interface of an optimizer class or function that is not part of gradprix.

    Args:
        name: name of the class or function.
        full_name: name that is qualified by its module.
        summary: first line of the docstring.
        takes_model: True if it is called with a model, False if with parameters.
        required: arguments without a default.
        defaults: defaults of the other arguments.
        takes_any: True if it accepts any keyword argument.
        closure: True if its step gets a closure.
        identity: name, hash of the code and version of the package, as in the identity of a trial.
        memory: number of state elements per weight; None if unknown.
    """

    name: str
    full_name: str
    summary: str
    takes_model: bool
    required: list[str]
    defaults: dict[str, Any]
    takes_any: bool
    closure: bool
    identity: dict[str, Any]
    memory: int | None


class EntrySetup(msgspec.Struct, frozen=True, kw_only=True):
    """Entry of a race, with its optimizer by location.

    Args:
        location: name of the optimizer in gradprix, location in the saved code or in a package; None if it was given as
            an object of the user's program.
        interface: interface of an optimizer that is not part of gradprix; None for a rule.
    """

    name: str
    location: str | None
    interface: OptimizerInterface | None
    fixed: dict[str, Any]
    space: dict[str, SavedAxis]
    batch_size: int | None
    offset: float
    about: str
    replicate: int
    schedule: str | None
    closure: bool
    sam_rho: float | None


class TaskSetup(msgspec.Struct, frozen=True, kw_only=True):
    """Task of a race.

    Args:
        location: name of a built-in task, location in the saved code or in a package; None if it was given as an object
            of the user's program.
        preset: size of a built-in task; None for the default.
        about: description in one sentence.
        examples: number of training examples; None for a training loop.
    """

    location: str | None
    preset: str | None
    about: str
    examples: int | None

    @property
    def is_built_in(self) -> bool:
        """True if the task is part of gradprix."""
        return self.location is not None and is_built_in_task(self.location)


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to rebuild the plan of a race, besides its description.

    Args:
        left_out: reductions of the requested plan to fit a time budget.
        code: source files of the user, by their path in a common folder.
        environment: versions and processor on which results depend; see `gradprix.training.provenance`.
        machine: Python version, operating system, processor, and MKL's mode of rounding.
    """

    task: TaskSetup
    entries: list[EntrySetup]
    left_out: list[Omission]
    code: dict[str, str]
    environment: str
    machine: dict[str, str]


def describe_setup(plan: Plan, provenance: str) -> Setup:
    """Describe what is needed to rebuild a plan, besides its description.

    Args:
        plan: the plan.
        provenance: versions and processor of its runs; see `gradprix.training.provenance`.
    """
    code = SavedCode()
    task, locations = plan.task, plan.locations
    where = locations.task
    place = where if where is None or is_built_in_task(where) else code.add(where)
    return Setup(
        task=TaskSetup(
            location=place,
            preset=locations.preset,
            about=task.about,
            examples=None if plan.examples is None else len(task.loaded.split(0).train),  # type: ignore[union-attr]
        ),
        entries=[_describe_entry(plan, entry, code) for entry in plan.entries],
        left_out=list(plan.left_out),
        code=code.files,
        environment=provenance,
        machine=describe_machine(),
    )


def is_built_in_task(location: str) -> bool:
    """Return True if a location is the name of a built-in task, possibly with a preset."""
    return ":" not in location and not location.endswith(".py")


class SavedCode:
    """Source files of the user, in one folder for each folder that they come from.

    Attributes:
        files: source code by path, such as `1/mine.py`.
    """

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.folders: list[str] = []

    def add(self, location: str) -> str:
        """Save the code of a location, `mine.py:name` or `package.module:name`, and return its location here.

        A module of an installed package is not saved, and its location stays the same.
        """
        location = f"{location}:task" if location.endswith(".py") else location
        where, _, name = location.rpartition(":")
        sources = sources_of(where)
        if not sources:
            return location
        is_file = where.endswith(".py")
        origin = str(Path(where).resolve().parent) if is_file else "."
        if origin not in self.folders:
            self.folders.append(origin)
        folder = f"{self.folders.index(origin) + 1}"
        for source in sources:
            path = source.name.replace(".", "/") + ("/__init__.py" if source.is_package else ".py")
            if is_file and source is sources[0]:
                path = Path(where).name
            self.files[f"{folder}/{path}"] = source.text.decode(errors="surrogateescape")
        return f"{folder}/{Path(where).name if is_file else where}:{name}"


def _describe_entry(plan: Plan, entry: Entry, code: SavedCode) -> EntrySetup:
    location = find_own_location(entry)
    is_own = location is not None
    if not is_own and entry.name in plan.locations.optimizers and not is_expression(entry.name):
        location = code.add(plan.locations.optimizers[entry.name])
    elif not is_own and isinstance(entry.rule, TorchOptimizerAdapter):
        location = _importable_name(entry.rule.make)
    is_foreign = not is_own and isinstance(entry.rule, TorchOptimizerAdapter)
    return EntrySetup(
        name=entry.name,
        location=location,
        interface=_describe_interface(plan, entry) if is_foreign else None,
        fixed={name: encode(value) for name, value in entry.fixed.items()},
        space={name: encode_axis(axis) for name, axis in entry.space.items()},
        batch_size=entry.batch_size,
        offset=entry.offset,
        about=entry.about,
        replicate=entry.replicate,
        schedule=entry.schedule,
        closure=entry.closure,
        sam_rho=entry.sam_rho,
    )


def find_own_location(entry: Entry) -> str | None:
    """Return the location of an optimizer in gradprix, or the expression that makes it; None for other code."""
    rule = entry.rule
    if isinstance(rule, Rule) and getattr(rules, rule.name, None) is rule:
        return f"gradprix.rules:{rule.name}"
    if isinstance(rule, TorchOptimizerAdapter) and getattr(optim, rule.name, None) is rule.make:
        return f"gradprix.optim:{rule.name}"
    return entry.name if is_expression(entry.name) and ":" not in entry.name else None


def _importable_name(make: Any) -> str | None:
    """Return the location of a class or function of an installed package; None if it cannot be imported by its name."""
    module, name = getattr(make, "__module__", None), getattr(make, "__qualname__", None)
    with suppress(ImportError, AttributeError, TypeError):
        if module != "__main__" and name and getattr(import_module(str(module)), name) is make:
            return f"{module}:{name}"
    return None


def _describe_interface(plan: Plan, entry: Entry) -> OptimizerInterface:
    rule = entry.rule
    assert isinstance(rule, TorchOptimizerAdapter)
    parameters = list(inspect.signature(rule.make).parameters.values())[1:]
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    values = plan.careful_trial(entry, 0).values
    return OptimizerInterface(
        name=rule.name,
        full_name=rule.full_name,
        summary=rule.summary,
        takes_model=takes_model(rule.make),
        required=[p.name for p in named if p.default is p.empty],
        defaults={p.name: encode(p.default) for p in named if p.default is not p.empty},
        takes_any=any(p.kind is p.VAR_KEYWORD for p in parameters),
        closure=rule.closure,
        identity=rule.describe(values),
        memory=rule.memory(values),
    )


def describe_machine() -> dict[str, str]:
    """Return the Python version, operating system and processor of this machine, and MKL's mode of rounding."""
    model = platform.processor()
    with suppress(OSError):  # the name of the model is there on Linux alone
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    system = f"{platform.system()} {platform.machine()}"
    return {
        "python": platform.python_version(),
        "system": system,
        "processor": model or platform.machine(),
        "mkl": environment()["MKL_CBWR"],
    }


def encode(value: Any) -> Any:
    """Return a value as JSON; tuples keep their type, and other objects become their text."""
    if isinstance(value, tuple):
        return {TUPLE: [encode(each) for each in value]}
    if isinstance(value, list):
        return [encode(each) for each in value]
    return value if isinstance(value, int | float | str | None) else {REPR: repr(value)}


def decode(value: Any) -> Any:
    """Return the value that `encode` returned as JSON."""
    if isinstance(value, Mapping):
        return tuple(decode(each) for each in value[TUPLE]) if TUPLE in value else str(value[REPR])
    return [decode(each) for each in value] if isinstance(value, list) else value


def encode_axis(axis: Axis) -> SavedAxis:
    """Return a search range as data."""
    if isinstance(axis, Choice):
        return SavedAxis("choice", [encode(value) for value in axis.values])
    return SavedAxis("log" if isinstance(axis, Log) else "one_minus", [axis.low, axis.high])  # type: ignore[attr-defined]


def decode_axis(axis: SavedAxis) -> Axis:
    """Return the search range that `encode_axis` returned as data.

    Raises:
        ValueError: if it is not a search range.
    """
    makers: dict[str, Any] = {"choice": rules.choice, "log": rules.log, "one_minus": rules.one_minus}
    if axis.kind not in makers:
        raise ValueError(f"{axis.kind!r} is no kind of search range.")
    return makers[axis.kind](*(decode(value) for value in axis.values))  # type: ignore[no-any-return]
