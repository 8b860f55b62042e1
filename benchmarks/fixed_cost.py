"""Measure the fixed cost of a race: everything but training.

The command of a race runs in a new process, several times. The fixed cost is the wall-clock time of the process minus
the training time, which is summed over the workers and divided by their number. A worker trains from the first to the
last step of a stack, evaluations included, except while it traces and compiles a step. The fixed cost includes the
start of processes, imports, the checks before the race, compilation, waiting of idle workers at the end of a phase,
statistics and the report.

    python benchmarks/fixed_cost.py                  # `gradprix race digits`, with an empty cache, then three times
    python benchmarks/fixed_cost.py mlp --networks 280
    python benchmarks/fixed_cost.py lstm gpt resnet --networks 104 --times 1
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib

HOOK = '''
import os
import time


def patch():
    """Make the trainer write the training time of each stack to a file.

    This is called in every forked process, and has an effect if the parent process has imported the package.
    """
    import sys
    if "gradprix.training.trainer" not in sys.modules or "TRAINING_SECONDS" not in os.environ:
        return
    from gradprix.training import stacked_models
    from gradprix.training.trainer import Trainer
    if hasattr(Trainer, "timed"):
        return
    Trainer.timed = True
    run, trace, tracing = Trainer.run, stacked_models.trace_step, []

    def timed_trace(*args):
        started = time.perf_counter()
        step = trace(*args)
        tracing.append(time.perf_counter() - started)
        return step

    def timed_run(self):
        tracing.clear()
        started = time.perf_counter()
        outcomes = run(self)
        seconds = time.perf_counter() - started - sum(tracing)
        with open(os.environ["TRAINING_SECONDS"], "a") as file:
            file.write(f"{seconds}\\n")
        return outcomes

    stacked_models.trace_step, Trainer.run = timed_trace, timed_run


os.register_at_fork(after_in_child=patch)
'''
RACED = """
import sys
sys.path.insert(0, {folder!r})
from race import time_race
if __name__ == "__main__":
    time_race({name!r}, {networks}, processes={processes})
"""


def measure(name: str, networks: int, processes: int, cache: Path) -> dict[str, float]:
    """Run a race in a new process and return its duration in seconds, its training time per worker, and its fixed cost.

    Args:
        name: `digits`, or a model of `race_models`.
        networks: number of training runs of a race with a model of `race_models`.
        processes: number of workers.
        cache: folder of the kernel cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(HOOK)
        training_log = Path(folder) / "seconds"
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH", ""))))
        variables = {"PYTHONPATH": path, "TRAINING_SECONDS": str(training_log), "GRADPRIX_CACHE": str(cache)}
        code = RACED.format(folder=str(Path(__file__).parent), name=name, networks=networks, processes=processes)
        command = f"-m gradprix race digits --json --processes {processes} --out".split()
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *([*command, f"{folder}/race"] if name == "digits" else ["-c", code])],
            env={**os.environ, **variables},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        seconds = time.perf_counter() - started
        training = sum(map(float, training_log.read_text().split())) / processes
    return {"seconds": seconds, "training": training, "fixed": seconds - training}


def main() -> None:
    """Measure the given races and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["digits"], help="`digits`, or models of `race_models`")
    parser.add_argument("--networks", type=int, default=104, help="training runs of a race of a model")
    parser.add_argument("--times", type=int, default=3, help="races after the first one")
    parser.add_argument("--processes", type=int, default=joblib.cpu_count(), help="workers")
    given = parser.parse_args()
    for name in given.names:
        with tempfile.TemporaryDirectory() as cache:
            races = [
                measure(name, given.networks, given.processes, Path(cache)) for _ in range(1 + max(1, given.times))
            ]
        for label, chosen in (("first", races[:1]), ("later", races[1:])):
            medians = {key: statistics.median(race[key] for race in chosen) for key in races[0]}
            text = ", ".join(f"{key} {seconds:.2f} s" for key, seconds in medians.items())
            print(f"{name}, {label}: {text}", flush=True)


if __name__ == "__main__":
    main()
