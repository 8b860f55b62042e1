"""Write the final runs of the published suite into the package, for `gradprix suite --entry`.

    python studies/publish_suite.py                     # seconds; from the records in studies/suite
    python studies/publish_suite.py --races runs/suite  # from the folders of races that are finished

Run it again after `studies/suite.py`. It writes `src/gradprix/race/published/<task>.json.gz`.
"""

import argparse
from pathlib import Path

from gradprix.race import JournalError, RaceRecord, load, make_plan
from gradprix.race.published_task import PublishedTask, publish, write_published
from gradprix.race.suite_entry_plan import published_entry
from gradprix.tasks import ALL
from gradprix.utils.run_info import describe_machine
from suite_records import suite_machine, suite_records


def finished_races(folder: Path) -> dict[str, RaceRecord]:
    """Return the records of the finished races in a folder, by name of the task."""
    records = {}
    for name in ALL:
        try:
            records[name] = load(folder / name).record
        except (JournalError, FileNotFoundError) as error:
            print(f"{name}: {error}")
    return records


def is_stale(task: PublishedTask) -> bool:
    """Return True if task, optimizers, settings or libraries have changed since the race."""
    return make_plan(task.task, [published_entry(entry) for entry in task.entries]).key != task.key


def main() -> None:
    """Write a file for each task, and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=Path, help="folder of finished races, instead of the committed records")
    folder, total = parser.parse_args().races, 0
    records = suite_records() if folder is None else finished_races(folder)
    machine = suite_machine() if folder is None else describe_machine()
    for record in records.values():
        task = publish(record, machine)
        size = write_published(task).stat().st_size
        note = ", made by other optimizers, settings or versions than now: race again" * is_stale(task)
        print(f"{task.task}: {size / 1000:.0f} kB{note}", flush=True)
        total += size
    print(f"{total / 1000:.0f} kB in all")


if __name__ == "__main__":
    main()
