"""Compare the duration of a gradprix race with that of PyTorch loops for the same trials.

The race has eight optimizers, and one of the models of `race_models`: an MLP, a CNN and a transformer of one block on
`digits`, with about 1,500 steps per trial, and larger models. It is a complete race: tuning, final runs, evaluation,
journal and verdict. The PyTorch loops train a few of the same trials with the same evaluations, first in one process
with all threads, then in one process per core with one thread each. The race is compared with the faster of the two.

    python benchmarks/race.py                  # hours on two cores; adds a measurement of each to benchmarks/race.json
    python benchmarks/race.py mlp --networks 280 --compile
    python benchmarks/race.py --scale          # time and memory against the number of trials
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from gradprix import tasks
from gradprix.race import race
from gradprix.stats.verdict import MOST_SEEDS
from gradprix.utils.run_info import describe_run
from race_models import CASES

FILE = Path(__file__).with_suffix(".json")
ENTRIES = ["minibatch", "momentum", "adagrad", "adadelta", "rmsprop", "adam", "adamax", "nadam"]
CLASSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "minibatch": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.02}),
    "adadelta": (torch.optim.Adadelta, {"lr": 1.0}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-3}),
    "adam": (torch.optim.Adam, {"lr": 2e-3}),
    "adamax": (torch.optim.Adamax, {"lr": 2e-3}),
    "nadam": (torch.optim.NAdam, {"lr": 2e-3}),
}


def train_in_pytorch(name: str, entry: str, seed: int, threads: int) -> float:
    """Train one network in a PyTorch loop, with the evaluations of a race, and return the duration in seconds.

    Args:
        name: name of the model.
        entry: name of the optimizer.
        seed: seed of the run.
        threads: number of threads.
    """
    torch.set_num_threads(threads)
    case = CASES[name]
    task = case.task(name)
    data, score, size = task.loaded, task.metric.score, case.batch_size
    split = data.split(seed)
    started = time.perf_counter()
    torch.manual_seed(seed)
    model = case.model()
    make, given = CLASSES[entry]
    optimizer = make(model.parameters(), **given)
    steps = case.epochs * -(-len(split.train) // size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, tasks.schedule("cosine", steps))
    for _ in range(case.epochs):
        model.train()
        for index in split.train[torch.randperm(len(split.train))].split(size):
            loss = task.loss(model(data.inputs[index]), data.targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        model.eval()
        with torch.no_grad():
            for index in split.valid.split(8 * size):
                output = model(data.inputs[index])
                task.loss(output, data.targets[index])
                float(score(output, data.targets[index]))
    return time.perf_counter() - started


def time_pytorch_loops(name: str, each: int) -> dict[str, float]:
    """Return the seconds per trial of PyTorch loops, in one process and in one process per core.

    Args:
        name: name of the model.
        each: number of trials per optimizer.
    """
    cores = torch.get_num_threads()
    jobs = [(name, entry, seed) for seed in range(each) for entry in ENTRIES]
    context = get_context("spawn")
    seconds_by_way = {}
    for way, processes, threads in (("one process", 1, cores), ("a process a core", cores, 1)):
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            warm_up = [pool.submit(train_in_pytorch, name, "adam", 0, threads) for _ in range(processes)]
            _ = [future.result() for future in warm_up]
            started = time.perf_counter()
            futures = [pool.submit(train_in_pytorch, *job, threads) for job in jobs]
            _ = [future.result() for future in futures]
            seconds_by_way[way] = (time.perf_counter() - started) / len(jobs)
    return seconds_by_way


def time_race(name: str, networks: int, **given: Any) -> dict[str, float]:
    """Return the number of training runs of a race, its duration in seconds, and the duration per training run.

    The margin is zero, so that the race does not end before its last analysis.

    Args:
        name: name of the model.
        networks: number of training runs.
        **given: further arguments of `gradprix.race`.
    """
    runs_per_entry = networks // len(ENTRIES)
    seeds = min(MOST_SEEDS, max(6, runs_per_entry // 2))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = race(
            CASES[name].task(name), ENTRIES, trials=runs_per_entry - seeds, seeds=seeds, margin=0, out=folder, **given
        )
        seconds = time.perf_counter() - started
    runs = result.record.cost.trials
    return {"networks": runs, "seconds": seconds, "a trial": seconds / runs}


def measure_peak() -> float:
    """Return the GFLOP/s of a large matrix product on all cores."""
    a = torch.randn(2048, 2048)
    a @ a
    times = []
    for _ in range(5):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / statistics.median(times) / 1e9


def flops(name: str) -> float:
    """Return the number of floating-point operations in all training steps of a network, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    case, task = CASES[name], CASES[name].task(name)
    train = task.loaded.split(0).train
    index = train[: case.batch_size]
    counter = FlopCounterMode(display=False)
    with counter:
        task.loss(case.model()(task.loaded.inputs[index]), task.loaded.targets[index]).backward()
    return float(counter.get_total_flops()) * case.epochs * len(train) / case.batch_size


def measure_scaling(name: str, counts: list[int]) -> list[dict[str, float]]:
    """Return the duration and the peak memory of races with given numbers of training runs, each in a new process."""
    rows = []
    for count in counts:
        code = f"""
import json, resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from race import time_race
if __name__ == "__main__":
    row = time_race({name!r}, {count})
    memory = sum(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps(row | {{"MB": memory / 1024}}))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{name}: {rows[-1]}", flush=True)
    return rows


def main() -> None:
    """Measure the given models, print the results and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CASES), help="models; all by default")
    parser.add_argument("--networks", type=int, help="training runs of the race; by default those in `CASES`")
    parser.add_argument("--each", type=int, help="PyTorch trials per optimizer; by default those in `CASES`")
    parser.add_argument("--compile", action="store_true", help="compile the training step of the race")
    parser.add_argument("--scale", action="store_true", help="measure time and memory against the number of trials")
    given = parser.parse_args()
    if given.scale:
        write_results({"scale": measure_scaling("mlp", [104, 1_000, 4_800])})
        return
    peak = measure_peak()
    for name in given.names:
        loops = time_pytorch_loops(name, given.each or CASES[name].runs)
        options = {"compile": True} if given.compile else {}
        measured = time_race(name, given.networks or CASES[name].networks, **options)
        ratio = min(loops.values()) / measured["a trial"]
        rate = flops(name) / measured["a trial"] / 1e9
        text = ", ".join(f"{way} {seconds:.3f} s" for way, seconds in loops.items())
        print(f"{name}: PyTorch, {text} per trial; race {measured['a trial']:.4f} s: {ratio:.1f}×")
        print(f"{' ' * len(name)}  {rate:.1f} GFLOP/s; a large matrix product: {peak:.0f}", flush=True)
        row = {"plain": loops, "race": measured, "ratio": ratio, "GFLOP/s": rate, "of": peak}
        key = f"{name}{', compiled' * given.compile}"
        write_results({key: [*read_results().get(key, []), row]})


def read_results() -> dict[str, Any]:
    """Return the results in the file."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def write_results(results: dict[str, Any]) -> None:
    """Write results to the file, which keeps its other results."""
    header = describe_run("python benchmarks/race.py")
    del header["seconds"]  # the file is the work of several processes
    FILE.write_text(json.dumps({**read_results(), **header, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
