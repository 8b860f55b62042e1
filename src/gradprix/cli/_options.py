"""Options shared by several commands: task, tuning budget, evaluation, and execution."""

from pathlib import Path
from typing import Annotated, Literal

import typer

OPTIMIZERS, BUDGET, EVALUATION = "Optimizers and tuning", "Budget", "Evaluation"
WHERE = "Execution and output"
"""Titles of the panels that group the options in the output of `--help`."""


def _parse_epochs(text: str) -> float:
    """Convert a number of epochs; a whole number stays an integer, as in a task."""
    number = float(text)
    return int(number) if number.is_integer() else number


TaskName = Annotated[
    str,
    typer.Argument(
        help="A built-in task (see `gradprix list tasks`), or your own as `mine.py:task` or `package.module:task`: "
        "a task, a function that returns one, or a training loop. `gradprix new task.py` writes a template.",
    ),
]
Tune = Annotated[
    str | None,
    typer.Option(
        help="Hyperparameters to tune besides the learning rate, such as "
        "`weight_decay,beta1` or `batch_size,schedule`. Each optimizer tunes those that it has. "
        "`recommended`: what each optimizer's users tune with so many trials, such as weight decay.",
        metavar="A,B",
        rich_help_panel=OPTIMIZERS,
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        help="Tuning trials per optimizer. Default: the task's number, or 26: two independent searches of 13, whose "
        "difference tells how much the choice of the learning rate varies.",
        rich_help_panel=BUDGET,
    ),
]
Epochs = Annotated[
    float | None,
    typer.Option(
        help="Epochs per training run; below 1, the part of an epoch. Default: the task's.",
        parser=_parse_epochs,
        metavar="NUMBER",
        rich_help_panel=BUDGET,
    ),
]
BatchSize = Annotated[int | None, typer.Option(help="Batch size. Default: the task's.", rich_help_panel=BUDGET)]
Schedule = Annotated[
    Literal["cosine", "linear", "warmup", "constant"] | None,
    typer.Option(
        help="Learning-rate schedule: cosine, linear, warmup or constant. Default: the task's. The best learning rate "
        "depends on it, so race with the one that you use.",
        metavar="NAME",
        rich_help_panel=BUDGET,
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        help="Smallest difference of the metric that matters to you, such as 0.005 for half a point of accuracy. Seeds "
        "are added until the answer is as exact as this. Default: the task's.",
        rich_help_panel=EVALUATION,
    ),
]
Direction = Annotated[
    Literal["max", "min"] | None,
    typer.Option(help="Direction of the metric of a custom training loop.", rich_help_panel=EVALUATION),
]
Preset = Annotated[
    Literal["small", "default", "large"] | None,
    typer.Option(
        help="Size of a built-in task: small (seconds), default (minutes) or large (for a larger machine).",
        metavar="SIZE",
        rich_help_panel=BUDGET,
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(help="Local copy of a built-in task's data: see `gradprix data --help`.", rich_help_panel=WHERE),
]
Seed = Annotated[
    int, typer.Option(help="Base random seed; races with different base seeds share no seed.", rich_help_panel=WHERE)
]
Device = Annotated[
    str | None,
    typer.Option(
        help="`cpu`, `cuda`, `cuda:1` or another torch device. Default: a GPU, if there is one and it is faster.",
        rich_help_panel=WHERE,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the models with torch.compile instead of gradprix's own compiler, for long races of models "
        "that the latter does not cover. Takes half a minute or more.",
        rich_help_panel=WHERE,
    ),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        help="Log all runs with `tensorboard`, `wandb` (offline, unless WANDB_MODE is set), `mlflow` or `csv`, in the "
        "folder of the race. Can be repeated.",
        metavar="LOGGER",
        rich_help_panel=WHERE,
    ),
]
ShowPlan = Annotated[bool, typer.Option("--plan", help="Show the plan and its time, and stop.", rich_help_panel=BUDGET)]
AsJson = Annotated[bool, typer.Option("--json", help="Print only the result, as JSON.", rich_help_panel=WHERE)]

EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option(help="`local` is this machine; `ray` is a Ray cluster, see --address.", rich_help_panel=WHERE),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster. Default: $RAY_ADDRESS, else a cluster that runs on this machine, else a new "
        "one on this machine alone.",
        metavar="HOST:PORT",
        rich_help_panel=WHERE,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        help="Number of worker processes. Default: the number of cores, or as many as fit on the cluster.",
        rich_help_panel=WHERE,
    ),
]
LocalProcesses = Annotated[
    int | None,
    typer.Option(help="Number of worker processes. Default: the number of cores.", rich_help_panel=WHERE),
]
Memory = Annotated[
    float | None,
    typer.Option(
        help="Memory limit in GB: in total on this machine (default: half of the free memory), per stack of models on "
        "a cluster (default: an equal share of half of the machine's memory).",
        rich_help_panel=WHERE,
    ),
]
LocalMemory = Annotated[
    float | None,
    typer.Option(help="Memory limit in GB. Default: half of the free memory.", rich_help_panel=WHERE),
]
Cpus = Annotated[
    float | None, typer.Option(help="Cores per stack of models on a cluster. Default: 1.", rich_help_panel=WHERE)
]
Gpus = Annotated[
    float | None,
    typer.Option(help="GPUs per stack of models on a cluster, such as 0.5. Default: none.", rich_help_panel=WHERE),
]
