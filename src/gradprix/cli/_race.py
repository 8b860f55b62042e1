"""Command `gradprix race`: race optimizers on a task."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ._errors import report_errors
from ._options import (
    BUDGET,
    EVALUATION,
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


def race(
    task: TaskName,
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Names separated by commas, or `all`: see `gradprix list optimizers`. "
            "`mine.py:MyOpt` or `package:Class` is any subclass of torch.optim.Optimizer; "
            "`cautious(lion)`, `clipped(adam, norm=1)` are modified optimizers.",
            metavar="A,B|all",
            rich_help_panel=OPTIMIZERS,
        ),
    ] = None,
    bracket: Annotated[
        Literal["rules", "data"],
        typer.Option(
            help="`rules`: optimizers; `data`: gradient descent at three batch sizes.",
            rich_help_panel=OPTIMIZERS,
        ),
    ] = "rules",
    tune: Tune = None,
    trials: Trials = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of held-out final seeds, at least 6. Fewer are run if they suffice for an answer: "
            "the race is analysed after 8, 16 and 32. Default: the task's number, or 32.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    schedule: Schedule = None,
    margin: Margin = None,
    direction: Direction = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Compare all others with this optimizer, instead of all pairs: with fewer comparisons, each can "
            "detect smaller differences. Choose it before you see any result.",
            metavar="NAME",
            rich_help_panel=EVALUATION,
        ),
    ] = None,
    preset: Preset = None,
    data: DataFolder = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time budget in minutes: optimizers, trials, seeds and epochs are reduced to fit.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    plan: ShowPlan = False,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the race. Default: `runs/TASK`.", rich_help_panel=WHERE)
    ] = None,
    device: Device = None,
    engine: EngineName = "local",
    address: Address = None,
    processes: Processes = None,
    memory: Memory = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    compile_: Compile = False,
    explain_: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Retrain eight final runs of each optimizer and diagnose the causes of the ranking; about a minute.",
            rich_help_panel=WHERE,
        ),
    ] = False,
    log: Log = None,
    as_json: AsJson = False,
) -> None:
    """Tune optimizers fairly, race them on held-out seeds, and report a verdict with its uncertainty.

    Every optimizer gets the same number of trials, every run the same number of training examples.

    Run the same command to resume an interrupted race; finished runs are not repeated.
    """
    prepare_workers()
    from gradprix.engines import make_engine
    from gradprix.integrations.loggers import make_loggers
    from gradprix.race import RaceConfig, make_plan

    from ._race_workflow import run_race, show_plan

    with report_errors(ValueError, TypeError, ImportError):
        loggers = make_loggers(log)
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
            compile=compile_,
            device=device,
        )
        planned = make_plan(config)
        executor = make_engine(engine, address=address, processes=processes, memory=memory, cpus=cpus, gpus=gpus)
        if explain_:
            from gradprix.explain import check_explainable

            check_explainable(planned)
    if plan:
        show_plan(planned, task, minutes, executor, as_json)
    else:
        run_race(planned, task, minutes, executor, out, explain_, as_json, loggers)
