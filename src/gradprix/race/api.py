"""A race from what a user says of it to its result."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gradprix.executors.executor import Engine
from gradprix.executors.local import Local

from .budget import fitted
from .config import make_plan
from .entry import Entry
from .progress_display import progress
from .result import Result
from .runner import run


def race(
    task: Any,
    optimizers: str | Iterable[str | Entry] | None = None,
    *,
    bracket: str = "rules",
    tune: str | Sequence[str] | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    schedule: str | None = None,
    margin: float | None = None,
    direction: str | None = None,
    baseline: str | None = None,
    preset: str | None = None,
    data: str | Path | None = None,
    seed: int = 0,
    minutes: float | None = None,
    compile: bool = False,  # noqa: A002
    device: str | None = None,
    out: str | Path | None = None,
    engine: Engine | None = None,
    processes: int | None = None,
    memory: float | None = None,
) -> Result:
    """Tune optimizers fairly on a task, race them on fresh seeds, and say what the result is worth.

    Args:
        task: a task, or a function that returns one; the name of a built-in one, or where yours is: `"mine.py:task"`;
            or a training loop of your own, `train(make_optimizer, seed)`, which yields after each epoch a mapping with
            `"valid"` and, if it has held-out examples that nothing is tuned by, `"test"`.
        optimizers: entries or their names, as a list or with commas between; `"all"` for every rule; the task's own
            choice, or the bracket's entries, when None.
        bracket: `"rules"` races optimizers at one batch size, `"data"` one rule at three batch sizes.
        tune: what is tuned besides the learning rate, as a list or with commas between, of hyperparameters and
            `batch_size` and `schedule`; each optimizer tunes those that it has.
        trials: tuning trials for each entry; the task's own number, or 19, when None.
        seeds: final runs of each entry, on seeds that are the same for all and that no tuning has seen; the task's own
            number, or 16, when None.
        epochs: passes over the training examples in each run; the task's when None.
        batch_size: examples a step for entries without one of their own; the task's when None.
        schedule: `"cosine"`, `"linear"` or `"constant"`; the task's when None.
        margin: the smallest difference that matters, in the metric's units; the task's when None.
        direction: `"max"` or `"min"`: which way is better, for a training loop.
        baseline: the optimizer that the others are compared with, and not with each other: fewer comparisons, of which
            each can tell smaller differences. It races, too, and is to be chosen before anything is seen.
        preset: of a built-in task: `"small"` takes seconds, `"default"` minutes, `"large"` wants a larger machine.
        data: a copy of a built-in task's examples of your own, instead of the archive that is fetched.
        seed: races with different numbers share no seed.
        minutes: about how long the race may take: optimizers, trials, seeds and epochs are chosen to fit, and what is
            left out is said.
        compile: compile the stacked networks with `torch.compile`, which needs a C++ compiler. It takes half a minute
            or more, and pays in races that take many.
        device: where networks are trained, as torch names it, such as `"cuda"`; a GPU if there is one and it pays,
            when None.
        out: a folder to keep the race in, so that it can be continued; nothing is kept when None.
        engine: where it runs, such as `gradprix.engines.Ray()`; on this machine when None. The same race can be begun
            on one and finished on another.
        processes: how many train at once; as many as the machine has cores when None.
        memory: how much the race may take, in GB; half of what is free when None.

    Returns:
        The result: its answer, its verdict, and the record of every run.

    Raises:
        ValueError: for unknown names and impossible numbers.
        TaskError: when the task's model, loss or metric does not work.
        WorkerError: when what trains is lost again and again.
        JournalError: when `out` holds a race on another task, or one that is running, or cannot be written.
    """
    plan = make_plan(
        task,
        optimizers,
        bracket=bracket,
        tune=tune,
        trials=trials,
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        margin=margin,
        direction=direction,
        baseline=baseline,
        preset=preset,
        data=data,
        seed=seed,
        compile=compile,
        device=device,
    )
    if engine is None:
        engine = Local(processes, memory)
    elif processes is not None or memory is not None:
        raise ValueError("processes and memory are an engine's own: give them to it.")
    folder = None if out is None else Path(out)
    with progress() as watch:
        if minutes is not None:
            plan, _ = fitted(plan, minutes, engine, folder, watch)
        return run(plan, folder, engine, watch)
