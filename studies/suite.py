"""Race classic and newer optimizers on every built-in task by the full protocol, and write the records to commit.

    python studies/suite.py                  # two hours on two cores; run again to resume
    python studies/suite.py --tasks digits   # one task
    python studies/suite.py --collect        # only write the records of the races that are finished

The races are kept in `runs/suite` (`--out`). The record of each race is written to `studies/suite/<task>.json.gz` as
soon as it is finished; see `suite_records.py`. The entries are `published_entries` of each task.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from gradprix.race import JournalError, Local, RaceRecord, load, progress, published_entries, run
from gradprix.race.config import make_plan
from gradprix.tasks import ALL
from gradprix.utils.run_info import describe_machine
from suite_records import FOLDER, SUFFIX, write_file

OUT = Path("runs/suite")


def race(names: Iterable[str], out: Path) -> None:
    """Race on tasks, one after the other, and write the record of each race."""
    engine = Local()
    for name in names:
        with progress() as watch:
            save(name, run(make_plan(name, published_entries(name)), out / name, engine, watch).record)


def collect(names: Iterable[str], out: Path) -> None:
    """Write the records of those races that are finished."""
    for name in names:
        try:
            save(name, load(out / name).record)
        except (JournalError, FileNotFoundError) as error:
            print(f"{name}: {error}")


def save(name: str, record: RaceRecord) -> None:
    """Write the record of a race, and print its size and its answer."""
    file = FOLDER / f"{name}{SUFFIX}"
    write_file(record, describe_machine(), file)
    seconds, size = record.cost.seconds, file.stat().st_size / 1000
    print(f"{name}: {record.verdict.recommended}, {seconds / 60:.0f} minutes, {size:.0f} kB", flush=True)


def main() -> None:
    """Race, or collect finished races."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the races")
    parser.add_argument("--tasks", default=",".join(ALL), help="names of tasks, separated by commas")
    parser.add_argument("--collect", action="store_true", help="write the records of finished races, and race no more")
    arguments = parser.parse_args()
    names = arguments.tasks.split(",")
    (collect if arguments.collect else race)(names, arguments.out)


if __name__ == "__main__":
    main()
