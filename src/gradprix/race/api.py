"""Python entry points: a race, and the tuning of one optimizer."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gradprix.executors.executor import Executor
from gradprix.executors.local import Local

from .budget import fit_to_budget
from .config import RaceConfig, make_plan
from .entry import Entry
from .progress_display import Watch, progress
from .result import Result
from .runner import run
from .tune_plan import TUNE_FIELDS, make_tune_plan
from .tune_runner import TuneResult, run_tuning


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
    engine: Executor | None = None,
    processes: int | None = None,
    memory: float | None = None,
) -> Result:
    """Tune optimizers fairly on a task, race them on held-out seeds, and return a verdict with its uncertainty.

    Args:
        task: a task, or a function that returns one; the name of a built-in task, or the location of yours, such as
            `"mine.py:task"`; or a training loop, `train(make_optimizer, seed)`, which yields after each epoch a mapping
            with `"valid"` and, if there is a test set, `"test"`.
        optimizers: entries or their names, as a list or separated by commas; `"all"` for every rule; the task's
            default entries, or the bracket's, when None.
        bracket: `"rules"` races optimizers at one batch size, `"data"` one optimizer at three batch sizes.
        tune: hyperparameters to tune besides the learning rate, including `batch_size` and `schedule`, as a list or
            separated by commas; each optimizer tunes those that it has.
        trials: tuning trials per entry; the task's number, or 26, when None.
        seeds: maximum number of final runs per entry, on held-out seeds that all entries share; the task's number, or
            32, when None. The race is analysed after 8, 16, 32 and 64 seeds, and ends when the recommended entry is at
            most a margin behind the best, with 95 % confidence.
        epochs: epochs of each run; the task's number when None.
        batch_size: batch size of entries without one of their own; the task's when None.
        schedule: learning-rate schedule, `"cosine"`, `"linear"`, `"warmup"` or `"constant"`; the task's when None.
        margin: the smallest difference that matters, in the metric's units; the task's when None.
        direction: `"max"` if higher scores of a training loop are better, else `"min"`.
        baseline: an optimizer to compare the others with, instead of all pairs: with fewer comparisons, each can detect
            smaller differences. It takes part in the race, and must be chosen before any result is seen.
        preset: size of a built-in task: `"small"` takes seconds, `"default"` minutes, `"large"` needs a larger machine.
        data: your own copy of a built-in task's data, instead of the archive that is fetched.
        seed: base random seed. Races with different base seeds share no seed.
        minutes: time budget: optimizers, trials, seeds and epochs are reduced to fit, and the result lists what is left
            out.
        compile: compile the stacked models with `torch.compile` instead of gradprix's own compiler, for long races of
            models that the latter does not cover. It needs a C++ compiler and takes half a minute or more.
        device: device of the models, as a torch device string such as `"cuda"`; a GPU if there is one and it is faster
            when None.
        out: folder to save the race in, so that it can be resumed; nothing is saved when None.
        engine: the executor, such as `gradprix.engines.Ray()`; this machine when None. A race can be resumed with
            another executor.
        processes: number of worker processes; the number of cores when None.
        memory: total memory limit in GB; half of the free memory when None.

    Returns:
        The result: its answer, its verdict, and the record of all runs.

    Raises:
        ValueError: for unknown names and values out of range.
        TaskError: if the task's model, loss or metric fails.
        WorkerError: if worker processes are lost repeatedly.
        JournalError: if `out` holds a race on another task, or one that is running, or is not writable.
    """
    config = RaceConfig(
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
        minutes=minutes,
        compile=compile,
        device=device,
    )
    engine = _choose_engine(engine, processes, memory)
    with progress() as watch:
        return run_config(config, None if out is None else Path(out), engine, watch)


def run_config(config: RaceConfig, out: Path | None, engine: Executor, watch: Watch = lambda *_: None) -> Result:
    """Run the race of a configuration, or resume it; see `run`."""
    plan = make_plan(config)
    if config.minutes is not None:
        plan, _ = fit_to_budget(plan, config.minutes, engine, out, watch)
    return run(plan, out, engine, watch)


def tune(
    task: Any,
    optimizer: str | Entry,
    *,
    out: str | Path | None = None,
    engine: Executor | None = None,
    processes: int | None = None,
    memory: float | None = None,
    **settings: Any,
) -> TuneResult:
    """Tune the learning rate of one optimizer as a race does, and measure what it gains over the default.

    The result has the tuned values, the range of learning rates that are as good, the difference from the default
    settings on held-out seeds with its 95 % confidence interval, and the response curve. It trains as many runs as a
    race does for one optimizer, and 8 at the default settings.

    Args:
        task: a task, as in `race`.
        optimizer: an entry or its name.
        out: folder to save the runs in, so that an interrupted call can be resumed; nothing is saved when None.
        engine: the executor; this machine when None.
        processes: number of worker processes; the number of cores when None.
        memory: total memory limit in GB; half of the free memory when None.
        **settings: arguments of `race`: `tune`, `trials`, `epochs`, `batch_size`, `schedule`, `margin`, `direction`,
            `preset`, `data`, `seed`, `compile`, `device`; and `seeds`, the number of final runs at the tuned and at
            the default settings, 8 when None.

    Raises:
        TypeError: for other arguments, and if the task or the optimizer is of no supported type.
        ValueError: for unknown names and values out of range, and for several optimizers.
        TaskError: if the task's model, loss or metric fails.
        WorkerError: if worker processes are lost repeatedly.
        JournalError: if `out` holds a race, or runs on another task, or is not writable.
    """
    if unknown := settings.keys() - set(TUNE_FIELDS):
        raise TypeError(f"tune() takes no {', '.join(sorted(unknown))}. It takes {', '.join(TUNE_FIELDS)}.")
    chosen = [optimizer] if isinstance(optimizer, Entry) else optimizer
    plan = make_tune_plan(RaceConfig(task, chosen, **settings))
    engine = _choose_engine(engine, processes, memory)
    with progress() as watch:
        return run_tuning(plan, None if out is None else Path(out), engine, watch)


def _choose_engine(engine: Executor | None, processes: int | None, memory: float | None) -> Executor:
    if engine is None:
        return Local(processes, memory)
    if processes is not None or memory is not None:
        raise ValueError("processes and memory are limits of an executor: give them to `engine`.")
    return engine
