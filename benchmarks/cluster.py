"""Compare the duration of races on a running Ray cluster of this machine with local processes. Both run in turn.

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
"""Number of measured races per executor and task."""
TASKS = ("digits", "mnist-small")


def time_race(name: str, engine: engines.Executor) -> float:
    """Return the duration in seconds of a race on a task."""
    started = time.perf_counter()
    run(make_plan(name), None, engine)
    return time.perf_counter() - started


def compare(name: str, local: engines.Executor, ray: engines.Executor) -> dict[str, object]:
    """Return the durations of races with both executors, and their ratios. Both have run a race before."""
    for engine in (local, ray):
        time_race(name, engine)
    pairs = [(time_race(name, local), time_race(name, ray)) for _ in range(TIMES)]
    on_local, on_ray = ([round(seconds, 3) for seconds in column] for column in zip(*pairs, strict=True))
    ratio = min(on_ray) / min(on_local)
    print(f"{name}: fastest race {min(on_local):.2f} s locally, {min(on_ray):.2f} s on Ray, ratio {ratio:.2f}")
    return {
        "local": on_local,
        "ray": on_ray,
        "of_best": round(ratio, 3),
        "median_of_pairs": round(statistics.median(b / a for a, b in pairs), 3),
    }


def main() -> None:
    """Measure on each task and write the results."""
    os.environ.pop("RAY_ADDRESS", None)
    started = time.perf_counter()
    local, ray = engines.Local(), engines.Ray("local")
    results = {name: compare(name, local, ray) for name in TASKS}
    head = describe_run("python benchmarks/cluster.py", round(time.perf_counter() - started), "ray")
    text = json.dumps({**head, "tasks": results}, indent=1)
    (Path(__file__).parent / "cluster.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
