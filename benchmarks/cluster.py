"""What a race costs more on a warm Ray of this machine than by itself: whole races, in turn.

    python benchmarks/cluster.py

Writes `benchmarks/cluster.json`.
"""

import json
import os
import statistics
import time
from pathlib import Path

from gradprix import engines
from gradprix.race import make_plan, run
from gradprix.utils.run_info import describe_run

TIMES = 5
TASKS = ("digits", "mnist-small")


def seconds(name: str, engine: engines.Executor) -> float:
    started = time.perf_counter()
    run(make_plan(name), None, engine)
    return time.perf_counter() - started


def compared(name: str, local: engines.Executor, ray: engines.Executor) -> dict[str, object]:
    """Both engines' times of a race, and their ratios, once both are warm."""
    for engine in (local, ray):
        seconds(name, engine)
    both = [(seconds(name, local), seconds(name, ray)) for _ in range(TIMES)]
    here, there = ([round(took, 3) for took in column] for column in zip(*both, strict=True))
    print(f"{name}: local {min(here):.2f} s at best, Ray {min(there):.2f}: {min(there) / min(here):.2f} times as long")
    return {
        "local": here,
        "ray": there,
        "of_best": round(min(there) / min(here), 3),
        "median_of_pairs": round(statistics.median(b / a for a, b in both), 3),
    }


def main() -> None:
    os.environ.pop("RAY_ADDRESS", None)
    started = time.perf_counter()
    local, ray = engines.Local(), engines.Ray("local")
    found = {name: compared(name, local, ray) for name in TASKS}
    head = describe_run("python benchmarks/cluster.py", round(time.perf_counter() - started), "ray")
    text = json.dumps({**head, "tasks": found}, indent=1)
    (Path(__file__).parent / "cluster.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
