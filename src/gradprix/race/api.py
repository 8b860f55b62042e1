"""Python entry points: `race`, and `tune` for a single optimizer."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gradprix.executors.executor import Executor
from gradprix.executors.local import Local
from gradprix.integrations.loggers import Logger, make_loggers

from .budget import fit_to_budget
from .config import RaceConfig, make_plan
from .entry import Entry
from .live_files import Watch
from .progress_display import progress
from .protocol import run
from .result import Result
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
    epochs: float | None = None,
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
    log: str | Logger | Iterable[str | Logger] | None = None,
    engine: Executor | None = None,
    processes: int | None = None,
    memory: float | None = None,
) -> Result:
    """Tune optimizers fairly on a task, race them on held-out seeds, and return a verdict with its uncertainty.

    Args:
        task: task to race on. One of: a `Task`, or a function that returns one; the name of a built-in task; the
            location of your own task, such as `"mine.py:task"`; or a training loop `train(make_optimizer, seed)`, which
            yields a mapping after each epoch, with the key `"valid"` and, if there is a test set, `"test"`.
        optimizers: entries or their names, as a list or separated by commas. `"all"` selects all classic optimizers and
            their variants. None selects the default entries of the task, or else those of the bracket.
        bracket: `"rules"` races optimizers at one batch size, `"data"` one optimizer at three batch sizes.
        tune: hyperparameters to tune besides the learning rate, as a list or separated by commas. They may include
            `batch_size` and `schedule`. Each optimizer tunes only the hyperparameters that it has. `"recommended"`
            selects what the users of each optimizer tune with this number of trials, such as weight decay.
        trials: number of tuning trials per entry. Default: the task's number, or 26.
        seeds: maximum number of final runs per entry, on held-out seeds that all entries share. Default: the task's
            number, or 32. The race is analysed after 8, 16, 32 and 64 seeds, and ends when the recommended entry is at
            most a margin behind the best, with 95 % confidence.
        epochs: number of epochs per run. Default: the task's number.
        batch_size: batch size of all entries that do not fix their own. Default: the task's batch size.
        schedule: learning-rate schedule, `"cosine"`, `"linear"`, `"warmup"` or `"constant"`. Default: the task's
            schedule.
        margin: the smallest difference that matters, in the metric's units. Default: the task's margin.
        direction: `"max"` if higher scores of a training loop are better, `"min"` if lower scores are better.
        baseline: optimizer with which all others are compared, instead of all pairs. With fewer comparisons, smaller
            differences can be detected. The baseline takes part in the race, and must be chosen before any result is
            seen.
        preset: size of a built-in task: `"small"` takes seconds, `"default"` minutes, `"large"` needs a larger machine.
        data: local copy of a built-in task's data, to be used instead of downloading it.
        seed: base random seed. Races with different base seeds share no seed.
        minutes: time budget in minutes. The numbers of optimizers, trials, seeds and epochs are reduced to fit the
            budget, and the result lists the reductions.
        compile: compile the stacked models with `torch.compile` instead of gradprix's own compiler. This is useful for
            long races of models that gradprix's compiler does not cover. It needs a C++ compiler and takes half a
            minute or more.
        device: device of the models, as a torch device string such as `"cuda"`. Default: a GPU, if there is one and it
            is faster than the CPU.
        out: folder to save the race in, so that it can be resumed. By default, nothing is saved.
        log: `"tensorboard"`, `"wandb"`, `"mlflow"`, `"csv"`, a list of them, or logger objects; see
            `gradprix.integrations.loggers`. Their files are in the folder of the race.
        engine: executor of the training runs, such as `gradprix.engines.Ray()`. Default: this machine. A race can be
            resumed with another executor.
        processes: number of worker processes. Default: the number of cores.
        memory: total memory limit in GB. Default: half of the free memory.

    Returns:
        The result of the race: the answer, the verdict, and the record of all runs.

    Raises:
        ValueError: if a name is unknown, or a value out of range.
        TaskError: if the task's model, loss or metric fails.
        WorkerError: if worker processes are killed repeatedly.
        JournalError: if `out` holds a race on another task, or a race that is running, or is not writable.
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
    engine, loggers = _choose_engine(engine, processes, memory), make_loggers(log)
    with progress() as watch:
        return run_config(config, None if out is None else Path(out), engine, watch, loggers)


def run_config(
    config: RaceConfig,
    out: Path | None,
    engine: Executor,
    watch: Watch = lambda *_: None,
    loggers: Sequence[Logger] = (),
) -> Result:
    """Run the race that a configuration describes, or resume it.

    The plan is first reduced to the time budget, if the configuration has one. See `run` for the arguments.
    """
    plan = make_plan(config)
    if config.minutes is not None:
        plan, _ = fit_to_budget(plan, config.minutes, engine, out, watch)
    return run(plan, out, engine, watch, loggers)


def tune(
    task: Any,
    optimizer: str | Entry,
    *,
    out: str | Path | None = None,
    log: str | Logger | Iterable[str | Logger] | None = None,
    engine: Executor | None = None,
    processes: int | None = None,
    memory: float | None = None,
    **settings: Any,
) -> TuneResult:
    """Tune the learning rate of one optimizer as in a race, and compare it with the default learning rate.

    The result contains the tuned values, the range of learning rates that perform almost as well, the response curve,
    and the difference from the default settings on held-out seeds, with its 95 % confidence interval. There are as many
    tuning runs as for one optimizer of a race, and by default 8 final runs at the tuned and 8 at the default settings.

    Args:
        task: task to tune on, as in `race`.
        optimizer: an entry or its name.
        out: folder to save the runs in, so that an interrupted call can be resumed. By default, nothing is saved.
        log: loggers of the runs, as in `race`.
        engine: executor of the training runs. Default: this machine.
        processes: number of worker processes. Default: the number of cores.
        memory: total memory limit in GB. Default: half of the free memory.
        **settings: arguments of `race`: `tune`, `trials`, `epochs`, `batch_size`, `schedule`, `margin`, `direction`,
            `preset`, `data`, `seed`, `compile`, `device`; and `seeds`, the number of final runs at the tuned and at
            the default settings (default: 8).

    Raises:
        TypeError: if an argument is unknown, or the task or the optimizer has an unsupported type.
        ValueError: if a name is unknown, a value is out of range, or there are several optimizers.
        TaskError: if the task's model, loss or metric fails.
        WorkerError: if worker processes are killed repeatedly.
        JournalError: if `out` holds a race, or runs on another task, or is not writable.
    """
    if unknown := settings.keys() - set(TUNE_FIELDS):
        raise TypeError(f"tune() takes no {', '.join(sorted(unknown))}. It takes {', '.join(TUNE_FIELDS)}.")
    chosen = [optimizer] if isinstance(optimizer, Entry) else optimizer
    plan = make_tune_plan(RaceConfig(task, chosen, **settings))
    engine, loggers = _choose_engine(engine, processes, memory), make_loggers(log)
    with progress() as watch:
        return run_tuning(plan, None if out is None else Path(out), engine, watch, loggers)


def _choose_engine(engine: Executor | None, processes: int | None, memory: float | None) -> Executor:
    if engine is None:
        return Local(processes, memory)
    if processes is not None or memory is not None:
        raise ValueError("processes and memory are limits of an executor: give them to `engine`.")
    return engine
