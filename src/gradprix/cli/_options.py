"""Options shared by several commands: where models are trained."""

from typing import Annotated, Literal

import typer

WHERE = "Execution and output"
"""Panel of these options in `--help`."""

EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option(help="`local` is this machine; `ray` is a Ray cluster, see --address.", rich_help_panel=WHERE),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster. Default: $RAY_ADDRESS, else a cluster that runs on this machine, else a new "
        "one on this machine alone.",
        metavar="HOST:PORT|auto|local",
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
Memory = Annotated[
    float | None,
    typer.Option(
        help="Memory limit in GB: in total on this machine (default: half of the free memory), per stack of models on "
        "a cluster (default: an equal share of half of the machine's memory).",
        rich_help_panel=WHERE,
    ),
]
Cpus = Annotated[
    float | None, typer.Option(help="Cores per stack of models on a cluster. Default: 1.", rich_help_panel=WHERE)
]
Gpus = Annotated[
    float | None,
    typer.Option(help="GPUs per stack of models on a cluster, such as 0.5. Default: none.", rich_help_panel=WHERE),
]
