"""Command `gradprix tune`: the learning rate of one optimizer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradprix.utils.streams import echo_json, warn

from ._errors import report_errors
from ._options import (
    BUDGET,
    OPTIMIZERS,
    WHERE,
    Address,
    AsJson,
    BatchSize,
    Compile,
    Cpus,
    DataFolder,
    Device,
    Direction,
    EngineName,
    Epochs,
    Gpus,
    Log,
    Margin,
    Memory,
    Preset,
    Processes,
    Schedule,
    Seed,
    ShowPlan,
    TaskName,
    Trials,
    Tune,
)
from ._workers import prepare_workers

if TYPE_CHECKING:
    from gradprix.integrations.loggers import Logger
    from gradprix.race import Executor, TunePlan


def tune(
    task: TaskName,
    optimizer: Annotated[
        str,
        typer.Option(
            help="One name, such as `adamw`: see `gradprix list optimizers`. "
            "`mine.py:MyOpt` or `package:Class` is any subclass of torch.optim.Optimizer; "
            "`cautious(lion)`, `clipped(adam, norm=1)` are modified optimizers.",
            metavar="NAME",
            rich_help_panel=OPTIMIZERS,
        ),
    ],
    tune: Tune = None,
    trials: Trials = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Held-out seeds at the tuned and at the default settings. Default: 8.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    schedule: Schedule = None,
    margin: Margin = None,
    direction: Direction = None,
    preset: Preset = None,
    data: DataFolder = None,
    plan: ShowPlan = False,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs. Default: `runs/tune/TASK/OPTIMIZER`.", rich_help_panel=WHERE),
    ] = None,
    device: Device = None,
    engine: EngineName = "local",
    address: Address = None,
    processes: Processes = None,
    memory: Memory = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    compile_: Compile = False,
    log: Log = None,
    as_json: AsJson = False,
) -> None:
    """Tune the learning rate of one optimizer, and measure what it gains over the default.

    Every trial trains to the end of its schedule, because a short learning-rate range test finds another optimum.

    The answer is the tuned rate, the range of rates that perform almost as well, and the difference from the default.

    The best rate depends on the schedule and the length of training: set --schedule and --epochs as you plan to train.

    Run the same command to resume; finished runs are not repeated.
    """
    prepare_workers()
    from gradprix.engines import make_engine
    from gradprix.integrations.loggers import make_loggers
    from gradprix.race import RaceConfig, make_tune_plan

    with report_errors(ValueError, TypeError, ImportError):
        loggers = make_loggers(log)
        config = RaceConfig(
            task,
            optimizer,
            tune=tune,
            trials=trials,
            seeds=seeds,
            epochs=epochs,
            batch_size=batch_size,
            schedule=schedule,
            margin=margin,
            direction=direction,
            preset=preset,
            data=data,
            seed=seed,
            compile=compile_,
            device=device,
        )
        planned = make_tune_plan(config)
        executor = make_engine(engine, address=address, processes=processes, memory=memory, cpus=cpus, gpus=gpus)
    if plan:
        from gradprix.show import tune_plan

        from ._race_workflow import show_plan

        show_plan(planned, task, None, executor, as_json, tune_plan)
    else:
        _run(planned, executor, out, as_json, loggers)


def _run(plan: "TunePlan", engine: "Executor", out: Path | None, as_json: bool, loggers: "Sequence[Logger]") -> None:
    """Tune the optimizer of a plan, write the HTML page, and print the answer."""
    from gradprix.race import (
        EngineError,
        JournalError,
        MemoryTooSmallError,
        TaskError,
        WorkerError,
        progress,
        run_tuning,
    )
    from gradprix.show import terminal, tune_answer, write_tune_page

    # The file system's encoding may not represent all characters of the names.
    folder = out or Path("runs", "tune", *(os.fsdecode(name.encode()) for name in (plan.task.name, plan.entry.name)))
    errors = (EngineError, JournalError, TaskError, WorkerError, MemoryTooSmallError, OSError)
    with report_errors(*errors), progress() as watch:
        result = run_tuning(plan, folder, engine, watch, loggers)
    with report_errors(OSError):
        write_tune_page(result)
    if result.reused and not as_json:
        warn(f"{result.reused:,} of {plan.runs:,} training runs were already finished.")
    if as_json:
        echo_json(result.to_dict())
    else:
        terminal.console().print(tune_answer(result))
