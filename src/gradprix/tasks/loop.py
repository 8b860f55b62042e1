"""A training loop of one's own, as a problem that optimizers race on."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

from .fingerprint import fingerprint
from .task import Metric, Task
from .user_modules import title

Train = Callable[[Callable[..., Any], int], Iterable[Mapping[str, float]] | Mapping[str, float]]
MARGIN_OF_A_SCORE, MARGIN_OF_A_LOSS = 0.005, 0.1


@dataclass(frozen=True)
class Loop:
    """Somebody's own training loop.

    Args:
        name: a short word; the default folder of a race is named after it.
        train: `train(make_optimizer, seed)` makes a network and trains it. `make_optimizer(params)` makes the optimizer
            that races, with the learning rate of the trial. After each epoch it yields a mapping: `"valid"`, a number
            to tune by; if it has held-out examples that nothing is tuned by, `"test"`; if it likes, `"train"`, a loss.
            A function that returns one such mapping is a loop of one epoch.
        metric: what the numbers are, and which are better.
        baseline: what a run that diverged scores; as much as the worst of the final runs when None.
        about: one sentence.
        noise: as in `Task`.
    """

    name: str
    train: Train
    metric: Metric
    baseline: float | None = None
    about: str = "A training loop of your own."
    noise: float | None = None

    batch_size: ClassVar[int] = 0
    epochs: ClassVar[float] = 0
    schedule: ClassVar[str] = "its own"
    entries: ClassVar[tuple[str, ...]] = ()
    trials: ClassVar[int | None] = None
    seeds: ClassVar[int | None] = None
    needs: ClassVar[Mapping[str, float]] = {}

    def __post_init__(self) -> None:
        if not trains(self.train):
            raise ValueError(f"{self.name} must take two arguments, as in train(make_optimizer, seed).")
        if self.baseline is not None and not math.isfinite(self.baseline):
            raise ValueError(f"baseline = {self.baseline}: it must be a finite number, or left out.")

    def change(self, **given: Any) -> "Loop":
        """The same loop with other values where `given` is not None."""
        given = {name: value for name, value in given.items() if value is not None}
        if mine := [name for name in ("epochs", "batch_size", "schedule") if name in given]:
            raise ValueError(f"{mine[0]} is for tasks: a training loop of your own decides it by itself.")
        return replace(self, **given)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what the loop is: its code, and that of what it calls by closure."""
        return fingerprint(self.name, self.train, self.metric.name, self.metric.higher_is_better, self.baseline)


def trains(function: Callable[..., Any]) -> bool:
    """Whether a function is a training loop: it must be given two things, `make_optimizer` and `seed`."""
    every = inspect.signature(function).parameters.values()
    fixed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.default is inspect.Parameter.empty and one.kind in fixed for one in every) == 2


def loop(train: Train, direction: str, margin: float | None = None) -> Loop:
    """A race's problem of a training loop.

    Args:
        train: as in `Loop`.
        direction: `"max"` when more is better, `"min"` when less is.
        margin: the smallest difference that matters; half a hundredth of what is to be more, a tenth of the better
            mean of what is to be less, when None.

    Raises:
        ValueError: for another direction.
    """
    if direction not in ("max", "min"):
        raise ValueError(f'direction = {direction!r}: say "max" when more is better in `valid`, or "min" when less is.')
    higher = direction == "max"
    usual = MARGIN_OF_A_SCORE if higher else MARGIN_OF_A_LOSS
    relative = margin is None and not higher
    metric = Metric("score", _unused, higher, usual if margin is None else margin, relative)
    return Loop(name_of(train), train, metric)


def name_of(train: Any) -> str:
    """What a training loop is called: as its function, or as its file where that is just `train`."""
    while isinstance(train, partial):
        train = train.func
    name = str(getattr(train, "__name__", type(train).__name__))
    home = title(str(train.__module__))
    return home if name == "train" and home != "__main__" else name


def _unused(outputs: Any, targets: Any) -> float:
    raise NotImplementedError("a training loop scores itself")


Problem = Task | Loop


KEPT = 4
"""Problems that a process keeps: lanes of several races may come to it in turn, and examples may be large."""
_HOME: dict[str, Any] = {}


def key_of(problem: Problem) -> str:
    """What a problem is known by where it was sent to."""
    return f"{problem.fingerprint} {problem.batch_size} {problem.epochs} {problem.schedule}"


def at_home(key: str) -> Any:
    """This process's own copy of a problem; None if there is none."""
    return _HOME.get(key)


def home(problem: Any) -> Any:
    """This process's own copy of a problem that was sent to it, which keeps its examples from one call to the next."""
    key = key_of(problem)
    if key not in _HOME:
        while len(_HOME) >= KEPT:
            _HOME.pop(next(iter(_HOME)))
        _HOME[key] = problem
        for other in _HOME.values():  # with another number of epochs, say: its examples are loaded already
            if other.fingerprint == problem.fingerprint and "loaded" in vars(other):
                vars(problem).setdefault("loaded", other.loaded)
    return _HOME[key]
