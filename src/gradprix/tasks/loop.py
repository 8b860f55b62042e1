"""Custom training loops that optimizers can race on, and a cache of problems for worker processes."""

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from .fingerprint import fingerprint
from .task import Metric, Task
from .user_modules import title

Train = Callable[[Callable[..., Any], int], Iterable[Mapping[str, float]] | Mapping[str, float]]
"""Function `train(make_optimizer, seed)` that trains a network; see `Loop`."""
MARGIN_OF_A_SCORE, MARGIN_OF_A_LOSS = 0.005, 0.1


@dataclass(frozen=True)
class Loop:
    """A custom training loop.

    Args:
        name: short identifier; also the default folder of a race.
        train: function `train(make_optimizer, seed)` that builds a network and trains it. `make_optimizer(params)`
            returns the racing optimizer with the trial's learning rate. After each epoch, `train` yields a mapping:
            `"valid"`, a score for tuning; `"test"`, if it has held-out examples that are not used for tuning;
            optionally `"train"`, a loss. A function that returns a single mapping is a loop of one epoch.
        metric: name and direction of the scores.
        baseline: score of a diverged run; if None, the worst score of the final runs.
        about: description in one sentence.
        noise: as in `Task`.
        hashed_name: name in the fingerprint; None for `name`.
    """

    name: str
    train: Train
    metric: Metric
    baseline: float | None = None
    about: str = "A training loop of your own."
    noise: float | None = None
    hashed_name: str | None = None

    batch_size: ClassVar[int] = 0
    epochs: ClassVar[float] = 0
    schedule: ClassVar[str] = "its own"
    entries: ClassVar[tuple[str, ...]] = ()
    trials: ClassVar[int | None] = None
    seeds: ClassVar[int | None] = None
    needs: ClassVar[Mapping[str, float]] = {}

    def __post_init__(self) -> None:
        if not is_training_loop(self.train):
            raise ValueError(f"{self.name} must take two arguments, as in train(make_optimizer, seed).")
        if self.baseline is not None and not math.isfinite(self.baseline):
            raise ValueError(f"baseline = {self.baseline}: it must be a finite number, or left out.")

    def change(self, **given: Any) -> "Loop":
        """Return a copy with other values for the given arguments; arguments that are None keep their values.

        Raises:
            ValueError: if `epochs`, `batch_size` or `schedule` is given, since a training loop sets these itself.
        """
        given = {name: value for name, value in given.items() if value is not None}
        if unsupported := [name for name in ("epochs", "batch_size", "schedule") if name in given]:
            raise ValueError(f"{unsupported[0]} is for tasks: a training loop of your own sets it itself.")
        return replace(self, **given)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the loop: its name, metric and baseline, its code, and the code that it uses."""
        name = self.name if self.hashed_name is None else self.hashed_name
        return fingerprint(name, self.train, self.metric.name, self.metric.higher_is_better, self.baseline)


def is_training_loop(function: Callable[..., Any]) -> bool:
    """Return True if a function is a training loop: it has two required arguments, `make_optimizer` and `seed`."""
    parameters = inspect.signature(function).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.default is inspect.Parameter.empty and p.kind in positional for p in parameters) == 2


def make_loop(train: Train, direction: str, margin: float | None = None) -> Loop:
    """Create a `Loop` from a training function.

    Args:
        train: the function, as in `Loop`.
        direction: `"max"` if higher scores are better, `"min"` if lower scores are better.
        margin: smallest difference of scores that matters. The default is 0.005 for `"max"`, and a tenth of the better
            mean for `"min"`.

    Raises:
        ValueError: if `direction` is neither `"max"` nor `"min"`.
    """
    if direction not in ("max", "min"):
        raise ValueError(
            f'direction = {direction!r}: say "max" if higher values of `valid` are better, or "min" if lower ones are.'
        )
    higher = direction == "max"
    default_margin = MARGIN_OF_A_SCORE if higher else MARGIN_OF_A_LOSS
    relative = margin is None and not higher
    metric = Metric("score", _unused, higher, default_margin if margin is None else margin, relative)
    # The file of a script does not count in the fingerprint: a copy of it, or a notebook, finds the same training runs.
    hashed_name = _function_name(train) if _module(train) == "__main__" else None
    return Loop(loop_name(train), train, metric, hashed_name=hashed_name)


def loop_name(train: Any) -> str:
    """Return the name of a training loop: the function's name, or the file's name if the function is called `train`."""
    name, module = _function_name(train), _module(train)
    if name != "train":
        return name
    if module != "__main__":
        return title(module)
    script = getattr(sys.modules[module], "__file__", None)  # None in notebooks
    return Path(script).stem if script else name


def _function_name(train: Any) -> str:
    while isinstance(train, partial):
        train = train.func
    return str(getattr(train, "__name__", type(train).__name__))


def _module(train: Any) -> str:
    while isinstance(train, partial):
        train = train.func
    return str(train.__module__)


def _unused(outputs: Any, targets: Any) -> float:
    raise NotImplementedError("a training loop scores itself")


Problem = Task | Loop
"""Anything that optimizers can race on."""


CACHE_SIZE = 4
"""Maximum number of problems that a process caches: more than one, since stacks of several races may alternate, but not
many, since examples may be large."""
_CACHE: dict[str, Any] = {}


def cache_key(problem: Problem) -> str:
    """Return the key of a problem in the caches of worker processes."""
    return f"{problem.fingerprint} {problem.batch_size} {problem.epochs} {problem.schedule}"


def get_cached_problem(key: str) -> Any:
    """Return the problem that this process has cached under a key. Returns None if there is no such problem."""
    return _CACHE.get(key)


def cache_problem(problem: Any) -> Any:
    """Return this process's cached copy of a problem, which keeps its loaded examples; cache the problem if needed."""
    key = cache_key(problem)
    if key not in _CACHE:
        while len(_CACHE) >= CACHE_SIZE:
            _CACHE.pop(next(iter(_CACHE)))
        _CACHE[key] = problem
        # Share the loaded examples of a problem that differs only in settings such as the number of epochs.
        for other in _CACHE.values():
            if other.fingerprint == problem.fingerprint and "loaded" in vars(other):
                vars(problem).setdefault("loaded", other.loaded)
    return _CACHE[key]
