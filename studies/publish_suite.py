"""Write the final runs of the published suite into the package, for `gradprix suite --entry`.

    python studies/publish_suite.py   # seconds; reads studies/suite, writes src/gradprix/race/published

Run it again after `studies/suite.py`.
"""

from gradprix.race.published_task import publish, write_published
from suite_records import suite_machine, suite_records


def main() -> None:
    """Write a file for each task, and print its size."""
    total = 0
    for record in suite_records().values():
        file = write_published(publish(record, suite_machine()))
        total += (size := file.stat().st_size)
        print(f"{file.name}: {size / 1000:.0f} kB")
    print(f"{total / 1000:.0f} kB in all")


if __name__ == "__main__":
    main()
