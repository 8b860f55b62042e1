"""What a race costs: the same trials as plain PyTorch loops, and as a gradprix race, in one run.

Eight optimizers, for the models of `race_models`: an MLP, a CNN and a transformer of one block on the digits, of about
1,500 steps a trial, and larger ones. Plain loops run in one process with all threads, and in one process per core with
one thread each; the race is compared with the faster of them. A race is a whole one: tuning, finals, evaluation,
journal, verdict. Plain loops train a few of the same trials (they take as long for each), with the same evaluations.

    python benchmarks/race.py                  # hours on two cores; writes benchmarks/race.json
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
from race_models import CASES

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


def plain(name: str, entry: str, seed: int, threads: int) -> float:
    """Train one network as anyone would, evaluate it as often as a race does, and say how long it took."""
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


def plain_ways(name: str, each: int) -> dict[str, float]:
    """Seconds a trial of both plain ways, over `each` trials of every optimizer."""
    cores = torch.get_num_threads()
    jobs = [(name, entry, seed) for seed in range(each) for entry in ENTRIES]
    context = get_context("spawn")
    found = {}
    for way, processes, threads in (("one process", 1, cores), ("a process a core", cores, 1)):
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            warm = [pool.submit(plain, name, "adam", 0, threads) for _ in range(processes)]
            _ = [future.result() for future in warm]
            started = time.perf_counter()
            futures = [pool.submit(plain, *job, threads) for job in jobs]
            _ = [future.result() for future in futures]
            found[way] = (time.perf_counter() - started) / len(jobs)
    return found


def raced(name: str, networks: int, **given: Any) -> dict[str, float]:
    """Seconds of a whole race of so many networks; without a margin, so that it does not end before."""
    an_entry = networks // len(ENTRIES)
    seeds = min(MOST_SEEDS, max(6, an_entry // 2))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = race(
            CASES[name].task(name), ENTRIES, trials=an_entry - seeds, seeds=seeds, margin=0, out=folder, **given
        )
        seconds = time.perf_counter() - started
    runs = result.record.cost.trials
    return {"networks": runs, "seconds": seconds, "a trial": seconds / runs}


def peak() -> float:
    """GFLOP/s of a large matrix product on all cores."""
    a = torch.randn(2048, 2048)
    a @ a
    times = []
    for _ in range(5):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / statistics.median(times) / 1e9


def flops(name: str) -> float:
    """Floating-point operations of the training steps of one network, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    case, task = CASES[name], CASES[name].task(name)
    train = task.loaded.split(0).train
    index = train[: case.batch_size]
    counter = FlopCounterMode(display=False)
    with counter:
        task.loss(case.model()(task.loaded.inputs[index]), task.loaded.targets[index]).backward()
    return float(counter.get_total_flops()) * case.epochs * len(train) / case.batch_size


def scale(name: str, counts: list[int]) -> list[dict[str, float]]:
    """Time and peak memory of races of more and more networks, each in a process of its own."""
    rows = []
    for count in counts:
        code = f"""
import json, resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from race import raced
if __name__ == "__main__":
    found = raced({name!r}, {count})
    memory = sum(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps(found | {{"MB": memory / 1024}}))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{name}: {rows[-1]}", flush=True)
    return rows


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CASES), help="networks; all when left out")
    parser.add_argument("--networks", type=int, help="how many a race trains; those of the table when left out")
    parser.add_argument("--each", type=int, help="plain trials of every optimizer; those of the table when left out")
    parser.add_argument("--compile", action="store_true", help="compiled lanes")
    parser.add_argument("--scale", action="store_true", help="time and memory for more and more networks")
    given = parser.parse_args()
    if given.scale:
        keep({"scale": scale("mlp", [104, 1_000, 4_800])})
        return
    top = peak()
    for name in given.names:
        ways = plain_ways(name, given.each or CASES[name].runs)
        found = raced(name, given.networks or CASES[name].networks, **({"compile": True} if given.compile else {}))
        ratio = min(ways.values()) / found["a trial"]
        rate = flops(name) / found["a trial"] / 1e9
        shown = ", ".join(f"{way} {seconds:.3f} s" for way, seconds in ways.items())
        print(f"{name}: plain {shown} a trial; race {found['a trial']:.4f} s: {ratio:.1f}×")
        print(f"{' ' * len(name)}  {rate:.1f} GFLOP/s; a large matrix product does {top:.0f}", flush=True)
        row = {"plain": ways, "race": found, "ratio": ratio, "GFLOP/s": rate, "of": top}
        keep({f"{name}{', compiled' * given.compile}": row})


def keep(found: dict[str, Any]) -> None:
    """Put what was measured into the file."""
    file = Path(__file__).with_suffix(".json")
    before = json.loads(file.read_text()) if file.exists() else {}
    about = {"command": "python benchmarks/race.py", "cores": torch.get_num_threads(), "torch": str(torch.__version__)}
    file.write_text(json.dumps({**before, **about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
