"""Command `gradprix verify`: check the result of others."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradprix.utils.streams import echo, echo_json, warn

from ._errors import report_errors
from ._options import AsJson, LocalMemory, LocalProcesses
from ._workers import prepare_workers

if TYPE_CHECKING:
    from gradprix.race import Verification

SAMPLE, CODE = "Which training runs to repeat", "Code and data"


def verify(
    file: Annotated[
        Path, typer.Argument(help="The bundle, such as digits.gradprix.zip: see `gradprix export --to bundle`.")
    ],
    runs: Annotated[
        int | None,
        typer.Option(
            help="Number of training runs to draw and repeat; 0 repeats none. Default: enough to find a change of 5 % "
            "of the runs with a probability of 95 %.",
            min=0,
            rich_help_panel=SAMPLE,
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Repeat all training runs.", rich_help_panel=SAMPLE)] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the draw, to repeat a verification. Default: a new one, which nobody can know in advance.",
            rich_help_panel=SAMPLE,
        ),
    ] = None,
    run_code: Annotated[
        bool,
        typer.Option(
            "--run-code",
            help="Run the code in the bundle, if its task or an optimizer is not part of gradprix. Code of others can "
            "do anything that you can do on this machine: read it first (folder `code` of the zip file).",
            rich_help_panel=CODE,
        ),
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(
            help="Your own copy of the task, instead of the bundle's code. Its fingerprint must be that of the race.",
            metavar="FILE:NAME",
            rich_help_panel=CODE,
        ),
    ] = None,
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Your own copies of optimizers that are not part of gradprix.",
            metavar="FILE:NAME,...",
            rich_help_panel=CODE,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Local copy of a built-in task's data.", rich_help_panel=CODE)
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the result of the race, with this verification, as an HTML page.")
    ] = None,
    processes: LocalProcesses = None,
    memory: LocalMemory = None,
    as_json: AsJson = False,
) -> None:
    """Check a result: are its files whole, does the answer follow from the runs, does training give these runs?

    On the same type of processor and with the same versions, repeated runs must be equal to the bit. Otherwise they
    must agree within the noise of a seed, which finds less.

    Exit code 0: nothing differs. 1: something differs. 2: the file cannot be read.
    """
    prepare_workers()
    from gradprix.race import JournalError, Local, Status, load, progress
    from gradprix.race import verify as verify_bundle
    from gradprix.rules.modifiers import split_names

    with report_errors(JournalError, FileNotFoundError, ValueError, TypeError, OSError), progress() as watch:
        result = verify_bundle(
            file,
            runs=runs,
            every=all_,
            seed=seed,
            run_code=run_code,
            task=task,
            optimizers=split_names(optimizers or ""),
            data=data,
            engine=Local(processes, memory),
            watch=watch,
        )
    if report is not None and result.checks[0].status is Status.DIFFERS:
        warn(f"gradprix: {report} is not written, because the bundle is damaged.")
        report = None
    if report is not None:
        from gradprix.show import write_verified_report

        with report_errors(JournalError, OSError):
            write_verified_report(load(file), result, report)
    show_verification(result, file, report, as_json)
    if result.status is Status.DIFFERS:
        raise typer.Exit(1)


def show_verification(verification: "Verification", file: Path, report: Path | None, as_json: bool) -> None:
    """Print the result of a verification.

    Args:
        verification: the result.
        file: the bundle.
        report: page that was written; None if there is none.
        as_json: print JSON.
    """
    from gradprix.race.record_json import to_json
    from gradprix.show import terminal, verification_answer
    from gradprix.text.verification import format_conclusion

    if as_json:
        data = {"file": str(file), "status": verification.status, "text": format_conclusion(verification)}
        echo_json({**data, **to_json(verification, finite=True)})
        return
    terminal.console().print(verification_answer(verification, file.name))
    if report is not None:
        echo(f"Page: {report}")
