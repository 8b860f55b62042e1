"""Processes: those that a user's code starts, those that a race starts, and how all of them end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from command_line import gradprix

HEAD = """
import multiprocessing, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor

import gradprix as gp
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()

def square(x):
    return x * x

def accuracy(outputs, targets):
    return (outputs.argmax(-1) == targets).double().mean()

def make_task(data, model=lambda: nn.Linear(4, 2)):
    metric = gp.Metric("accuracy", accuracy, higher_is_better=True, margin=0.01)
    return gp.Task("mine", model, nn.functional.cross_entropy, metric, 0.5, data, batch_size=16, epochs=1)

def trained(make_optimizer, batches):
    net = nn.Linear(4, 2)
    optimizer = make_optimizer(net.parameters())
    for x, y in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return {"valid": accuracy(net(X), Y)}
"""
LOOP = """
def environment(pipe):
    while (action := pipe.recv()) is not None:
        pipe.send(action + 1)

def train(make_optimizer, seed):
    loader = DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True, num_workers=2)
    yield trained(make_optimizer, loader)
    with multiprocessing.Pool(2) as pool:
        assert pool.map(square, [1, 2]) == [1, 4]
    with ProcessPoolExecutor(1) as pool:
        assert list(pool.map(square, [3])) == [9]
    assert subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True).stdout.split() == [b"5"]
    here, there = multiprocessing.Pipe()
    simulator = multiprocessing.Process(target=environment, args=(there,), daemon=True)
    simulator.start()
    here.send(1)
    assert here.recv() == 2
    here.send(None)
    simulator.join()
    yield trained(make_optimizer, loader)
"""
TASK = """
from squares import square

class Squares(Dataset):
    def __init__(self):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            self.rows = pool.map(square, range(60))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return X[i] + (self.rows[i] - i * i), Y[i]

task = make_task(lambda: gp.Data.from_dataset(Squares()))
"""
SMALL = "--optimizers adam,minibatch --trials 1 --seeds 6 --processes 1".split()


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(HEAD + text)
    return file


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "gradprix", *words]


def test_a_loop_may_start_processes(tmp_path: Path) -> None:
    write(tmp_path, "own.py", LOOP)
    gradprix("race", "own.py:train", "--direction", "max", *SMALL, folder=tmp_path)


def test_a_task_may_start_processes(tmp_path: Path) -> None:
    (tmp_path / "squares.py").write_text("def square(x):\n    return x * x\n")  # the new processes import no torch
    write(tmp_path, "own.py", TASK)
    gradprix("race", "own.py", *SMALL, folder=tmp_path)


def test_a_script_needs_no_guard_and_races_in_a_thread_but_not_in_a_daemonic_process(tmp_path: Path) -> None:
    script = """
print("once")

def train(make_optimizer, seed):
    threading.Thread(target=time.sleep, args=(600,)).start()  # the worker's interpreter would wait for it
    yield trained(make_optimizer, [(X, Y)])

def race():
    return gp.race(train, "adam,minibatch", trials=1, seeds=6, direction="max", processes=1)

def tried(_):
    from gradprix.race import WorkerError
    try:
        race()
    except WorkerError as error:
        return str(error)

with multiprocessing.get_context("fork").Pool(1) as pool:
    (said,) = pool.map(tried, [0])
assert "daemon" in said and len(said.splitlines()) == 1, said
print("refused")
results = []
thread = threading.Thread(target=lambda: results.append(race()))
thread.start()
thread.join()
print(len(results[0].record.entries), "entries")
"""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(write(tmp_path, "script.py", script))], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, ["once", "refused", "2 entries"]), done.stderr
    assert time.monotonic() - started < 300


def test_the_command_ends_though_a_thread_of_the_task_does_not(tmp_path: Path) -> None:
    text = "threading.Thread(target=time.sleep, args=(600,)).start()\ntask = make_task(lambda: gp.Data(X, Y))"
    write(tmp_path, "own.py", text)
    done = subprocess.run(
        command("race", "own.py", *SMALL, "--plan", "--json"), cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def endless(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A race whose loops never end, one of which has started a process of its own."""
    write(
        tmp_path,
        "own.py",
        """
def train(make_optimizer, seed):
    yield trained(make_optimizer, [(X, Y)])
    multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True).start()
    print("started", flush=True)
    time.sleep(600)
""",
    )
    race = subprocess.Popen(
        command("race", "own.py:train", "--direction", "max", *SMALL),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield race
    if race.poll() is None:
        os.killpg(race.pid, signal.SIGKILL)
    race.communicate()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", *(pytest.param(n, marks=pytest.mark.slow) for n in ("SIGHUP", "SIGINT"))])
def test_a_race_that_is_told_to_stop_leaves_nothing(endless: "subprocess.Popen[str]", name: str) -> None:
    assert endless.stderr is not None
    while "started" not in endless.stderr.readline():
        assert endless.poll() is None
    family = psutil.Process(endless.pid).children(recursive=True)
    number = getattr(signal, name)
    endless.send_signal(number)
    _, said = endless.communicate(timeout=120)
    assert endless.returncode == 128 + number
    assert [line for line in said.splitlines() if line.strip() and line != "started"] == [
        "gradprix: stopped. Finished runs are saved; run the same command to resume."
    ]
    assert psutil.wait_procs(family, timeout=60)[1] == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_race_that_is_killed_leaves_nothing(endless: "subprocess.Popen[str]") -> None:
    assert endless.stderr is not None
    while "started" not in endless.stderr.readline():
        assert endless.poll() is None
    family = psutil.Process(endless.pid).children(recursive=True)
    endless.kill()
    _, said = endless.communicate(timeout=120)
    assert "leaked" not in said
    assert psutil.wait_procs(family, timeout=60)[1] == []
