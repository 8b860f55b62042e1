"""Command `gradprix race`: race optimizers on a task."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ._errors import report_errors
from ._options import WHERE, Address, Cpus, EngineName, Gpus, Memory, Processes
from ._workers import prepare_workers

OPTIMIZERS, BUDGET, EVALUATION = "Optimizers and tuning", "Budget", "Evaluation"


def race(
    task: Annotated[
        str,
        typer.Argument(
            help="A built-in task (see `gradprix list tasks`), or your own as `mine.py:task` or `package.module:task`: "
            "a task, a function that returns one, or a training loop. `gradprix new task.py` writes a template."
        ),
    ],
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Names separated by commas, or `all`: see `gradprix list optimizers`. "
            "`mine.py:MyOpt` or `package:Class` is any subclass of torch.optim.Optimizer.",
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
    tune: Annotated[
        str | None,
        typer.Option(
            help="Hyperparameters to tune besides the learning rate, such as "
            "`beta1,momentum,weight_decay,batch_size,schedule`. Each optimizer tunes those that it has.",
            metavar="A,B",
            rich_help_panel=OPTIMIZERS,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Tuning trials per optimizer. Default: the task's number, or 26.", rich_help_panel=BUDGET),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of held-out final seeds, at least 6. Fewer are run if they suffice for an answer. "
            "Default: the task's number, or 32.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs per training run. Default: the task's.", rich_help_panel=BUDGET),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Batch size. Default: the task's.", rich_help_panel=BUDGET)
    ] = None,
    schedule: Annotated[
        Literal["cosine", "linear", "warmup", "constant"] | None,
        typer.Option(help="Learning-rate schedule. Default: the task's.", rich_help_panel=BUDGET),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="Smallest difference of the metric that matters. Default: the task's.", rich_help_panel=EVALUATION
        ),
    ] = None,
    direction: Annotated[
        Literal["max", "min"] | None,
        typer.Option(help="Direction of the metric of a custom training loop.", rich_help_panel=EVALUATION),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Compare all others with this optimizer, instead of all pairs: with fewer comparisons, each can "
            "detect smaller differences. Choose it before you see any result.",
            metavar="NAME",
            rich_help_panel=EVALUATION,
        ),
    ] = None,
    preset: Annotated[
        Literal["small", "default", "large"] | None,
        typer.Option(
            help="Size of a built-in task: seconds, minutes, or for a larger machine.", rich_help_panel=BUDGET
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Local copy of a built-in task's data: see `gradprix data --help`.", rich_help_panel=WHERE),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time budget in minutes: optimizers, trials, seeds and epochs are reduced to fit.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the plan and its time, and stop.", rich_help_panel=BUDGET)
    ] = False,
    seed: Annotated[
        int,
        typer.Option(help="Base random seed; races with different base seeds share no seed.", rich_help_panel=WHERE),
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the race. Default: `runs/TASK`.", rich_help_panel=WHERE)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="`cpu`, `cuda`, `cuda:1` or another torch device. Default: a GPU, if there is one and it is faster.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    engine: EngineName = "local",
    address: Address = None,
    processes: Processes = None,
    memory: Memory = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the models with torch.compile instead of gradprix's own compiler, for long races of models "
            "that the latter does not cover. Takes half a minute or more.",
            rich_help_panel=WHERE,
        ),
    ] = False,
    explain_: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Retrain five final runs of each optimizer and diagnose the causes of the ranking; about a minute.",
            rich_help_panel=WHERE,
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print only the result, as JSON.", rich_help_panel=WHERE)
    ] = False,
) -> None:
    """Tune optimizers fairly, race them on held-out seeds, and report a verdict with its uncertainty.

    Every optimizer gets the same number of trials, every run the same number of training examples.

    Run the same command to resume an interrupted race; finished runs are not repeated.
    """
    prepare_workers()
    from gradprix.engines import make_engine
    from gradprix.race import RaceConfig, make_plan

    from ._race_workflow import run_race, show_plan

    with report_errors(ValueError, TypeError):
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
        show_plan(planned, minutes, executor, as_json)
    else:
        run_race(planned, minutes, executor, out, explain_, as_json)
