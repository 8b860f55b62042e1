"""Measurement of the training cost of a task, as a process of its own: `python -m gradprix.app.cost_process TASK SIZE`.

It prints the cost as JSON. The app itself trains nothing, so that it can stop at any time.
"""

import json
import sys
from dataclasses import asdict

from gradprix.executors.local import Local
from gradprix.race import make_plan, measure_cost


def main(task: str, size: str) -> None:
    """Measure the cost of a race of the default entries on a built-in task, and print it."""
    print(json.dumps(asdict(measure_cost(make_plan(task, preset=size), Local()))))


if __name__ == "__main__":
    main(*sys.argv[1:])
