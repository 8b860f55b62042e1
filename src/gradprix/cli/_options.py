"""Options shared by several commands: where models are trained."""

from typing import Annotated, Literal

import typer

WHERE = "Where, and what is shown"
"""Panel of these options in `--help`."""

EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option(help="`local` is this machine; `ray` is a Ray cluster, see --address.", rich_help_panel=WHERE),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Where the Ray cluster is; by default the one that $RAY_ADDRESS names, or that runs on this machine, or a "
        "new one of this machine alone.",
        metavar="HOST:PORT|auto|local",
        rich_help_panel=WHERE,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        help="How many train at once; by default as many as there are cores, or as the cluster has room for.",
        rich_help_panel=WHERE,
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        help="How much may be taken, in GB: on this machine by all together, half of what is free by default; on a "
        "cluster by each lane of networks, an even part of half of its machine's by default.",
        rich_help_panel=WHERE,
    ),
]
Cpus = Annotated[
    float | None, typer.Option(help="Cores for each lane on a cluster; 1 by default.", rich_help_panel=WHERE)
]
Gpus = Annotated[
    float | None,
    typer.Option(help="GPUs for each lane on a cluster, such as 0.5; none by default.", rich_help_panel=WHERE),
]
