"""Where lanes run: processes that may die, memory that may be short, a width that is measured once."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import gradprix as gp
from gradprix import tasks
from gradprix.executors import local as local_executor
from gradprix.executors.executor import WorkerError
from gradprix.race import ENTRIES, Local, make_plan, run
from gradprix.training import autotune as width
from gradprix.training.autotune import MemoryTooSmallError, StackLayout, choose_layout
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Trial

TASK = tasks.digits.change(epochs=3)


def trials(count: int, epochs: int = 3) -> list[Trial]:
    entry = ENTRIES["adam"]
    return [Trial(entry.rule, entry.values(1e-3 * (1 + i)), 1, 32, epochs, "cosine", True) for i in range(count)]


def is_at_work(child: psutil.Process) -> bool:
    """A worker that is a new interpreter and imports, or the fork of a server, which has imported, and has begun."""
    command, seconds = " ".join(child.cmdline()), child.cpu_times().user
    if "fork_server" in command:
        return child.ppid() != os.getpid() and seconds > 0.05
    return "loky" in command and seconds > 1.5


class Killer(threading.Thread):
    """Kills worker processes as they appear."""

    def __init__(self, most: int) -> None:
        super().__init__(daemon=True)
        self.most, self.killed, self.over = most, 0, threading.Event()

    def run(self) -> None:
        while self.killed < self.most and not self.over.is_set():
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it may be gone by now
                    if is_at_work(child):
                        child.kill()
                        self.killed += 1
                        break
            time.sleep(0.05)


def engine(processes: int = 2, lane: int = 2) -> Local:
    local = Local(processes)
    local.layouts = {(TASK.fingerprint, ExecutionMode(), 32): StackLayout(lane, processes)}
    return local


def test_a_killed_worker_is_replaced_and_changes_no_bit() -> None:
    todo = trials(8, epochs=15)
    expected = {
        t.key: o.to_json() for lane, found in Local(1).run(TASK, todo) for t, o in zip(lane, found, strict=True)
    }
    killer = Killer(1)
    killer.start()
    got = {t.key: o.to_json() for lane, found in engine().run(TASK, todo) for t, o in zip(lane, found, strict=True)}
    killer.over.set()
    killer.join()

    assert killer.killed == 1
    assert got == expected


def test_workers_killed_while_idle_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    todo, killed, workers = trials(4), [], local_executor.workers

    def kill_at_first(processes: int) -> Any:
        executor = workers(processes)
        if not killed:
            killed.append(executor)
            for process in list(executor._processes.values()):
                process.kill()
            while executor._flags.broken is None:
                time.sleep(0.01)
        return executor

    def run_all() -> dict[str, Any]:
        stacks = engine().run(TASK, todo)
        return {t.key: o.to_json() for stack, outcomes in stacks for t, o in zip(stack, outcomes, strict=True)}

    expected = run_all()
    monkeypatch.setattr(local_executor, "workers", kill_at_first)
    assert run_all() == expected
    assert killed


def test_workers_that_are_always_killed_are_an_error_that_says_what_to_do() -> None:
    killer = Killer(40)  # two at once are one death, and who is to blame is tried by itself
    killer.start()
    with pytest.raises(WorkerError, match=r"killed again and again.*--memory"):
        list(engine().run(TASK, trials(8, epochs=400)))
    killer.over.set()
    killer.join()


def test_memory_bounds_width_and_processes() -> None:
    todo = trials(500)
    each = width.bytes_of_one(TASK, todo, ExecutionMode())
    data = TASK.loaded.nbytes
    room = lambda networks, processes: processes * (width.PROCESS + data + 100 + networks * each)  # noqa: E731

    assert 1e5 < each < 1e6
    assert choose_layout(TASK, todo, ExecutionMode(), 2, room(20, 2)).width <= 20
    assert choose_layout(TASK, todo, ExecutionMode(), 2, room(5, 1)).processes == 1
    with pytest.raises(
        MemoryTooSmallError, match=r"memory = 0.1 GB: two networks of task 'digits' .* take about 0.4 GB"
    ):
        choose_layout(TASK, todo, ExecutionMode(), 2, 1e8)
    with pytest.raises(ValueError, match="memory = -1"):
        Local(memory=-1)
    with pytest.raises(MemoryTooSmallError):
        gp.race(TASK, "adam,sgd", trials=1, seeds=6, memory=0.1)


def test_the_shape_is_measured_once_for_a_task_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPRIX_CACHE", str(tmp_path))
    asked: list[tuple[int, int]] = []

    def call_workers(count: int, function: Any, *args: Any) -> list[Any]:
        if function is not width.seconds_of_one:
            return [function(*args)]
        asked.append((args[-1], count))
        crowded = 2.5 if count > 2 else 1
        return [{16: 1.0, 64: 0.8, 256: 0.79}[args[-1]] * crowded] * count

    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 2)
    todo = trials(500)
    assert [choose_layout(TASK, todo, ExecutionMode(), 2, 1e12, call_workers) for _ in range(2)] == [
        StackLayout(64, 2)
    ] * 2
    assert asked == [(16, 2), (64, 2), (256, 2)]
    assert choose_layout(TASK, trials(3), ExecutionMode(), 2, 1e12, call_workers).width == width.UNMEASURED
    assert len(asked) == 3, "a short race is not worth it"
    assert choose_layout(TASK, todo, ExecutionMode(), 4, 1e12, call_workers) == StackLayout(64, 2), (
        "more than cores do not pay here"
    )


def test_each_task_form_and_batch_size_has_a_shape_of_its_own() -> None:
    all_at_once = [Trial(t.rule, t.values, 1, 0, 1, "cosine", False) for t in trials(4)]
    local = Local(1)
    list(local.run(TASK, [*trials(4, epochs=1), *all_at_once]))

    other = TASK.change(name="other")
    list(local.run(other, trials(4, epochs=1)))
    list(local.run(TASK, trials(2, epochs=1), mode=ExecutionMode(stacked=False)))

    about = TASK.fingerprint
    wanted = {
        (about, ExecutionMode(), 32),
        (about, ExecutionMode(), 0),
        (other.fingerprint, ExecutionMode(), 32),
        (about, ExecutionMode(False), 32),
    }
    assert local.layouts.keys() == wanted
    assert width.bytes_of_one(TASK, all_at_once, ExecutionMode()) > 3 * width.bytes_of_one(
        TASK, trials(4), ExecutionMode()
    )


def test_wider_lanes_of_small_networks_take_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of CPU time, and in turns, of which the fastest count: others are at work on the machines that run the tests.
    monkeypatch.setattr(width, "time", SimpleNamespace(perf_counter=time.process_time))
    todo = trials(64)
    turns = [[width.seconds_of_one(TASK, todo, ExecutionMode(), n) for n in (2, 64)] for _ in range(5)]
    narrow, wide = map(min, zip(*turns, strict=True))

    assert wide < 0.7 * narrow


def test_a_race_in_which_a_worker_is_killed_ends_as_any_other(tmp_path: Path) -> None:
    plan = make_plan(TASK, "adam,momentum", trials=4, seeds=6, epochs=8)
    expected = run(plan, None, Local(1)).record.curves
    killer = Killer(1)
    killer.start()
    got = run(plan, tmp_path, engine()).record.curves
    killer.over.set()

    assert killer.killed == 1
    assert got == expected


KILLED_AT_ANY_MOMENT = """
import os, psutil, random, threading, time
from gradprix.executors.executor import WorkerError
from gradprix.race import Local

class Killer(threading.Thread):
    def __init__(self, known):
        super().__init__(daemon=True)
        self.known, self.over = known, False

    def run(self):
        left = 2
        while left and not self.over:
            for child in psutil.Process().children(recursive=True):
                try:
                    if child.pid not in self.known and child.ppid() != os.getpid() and random.random() < 0.5:
                        time.sleep(random.random() * 0.02)
                        child.kill()
                        self.known.add(child.pid)
                        left -= 1
                        break
                except psutil.Error:
                    pass
            time.sleep(0.001)

random.seed(1)
executors = {processes: Local(processes) for processes in (1, 2)}
executors[2].call_workers(2, os.getpid)
ended = 0
for _ in range(20):
    processes = random.choice((1, 2))
    known = {child.pid for child in psutil.Process().children(recursive=True)} if random.random() < 0.7 else set()
    killer = Killer(known)
    killer.start()
    try:
        assert len(executors[processes].call_workers(processes, os.getpid)) == processes
    except WorkerError as error:
        assert "killed again and again" in str(error)
    ended += 1
    killer.over = True
    killer.join()
print(ended)
"""


def test_workers_may_be_killed_at_any_moment() -> None:
    """Also while they start, while their number changes, and just before the program ends."""
    command = [sys.executable, "-c", KILLED_AT_ANY_MOMENT]
    assert subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout == "20\n"


def test_a_task_that_cannot_be_sent_to_a_process_is_named() -> None:
    lock = threading.Lock()

    def load() -> gp.Data:
        with lock:
            return tasks.digits.data()

    with pytest.raises(
        WorkerError, match=r"cannot be sent to another process: .*cannot pickle '_thread.lock' object\."
    ):
        Local(2).call_workers(1, len, tasks.digits.change(data=load))
