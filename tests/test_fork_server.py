"""The server whose forks are worker processes: fast, alone, as the user's program is now, and gone with it."""

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from gradprix.executors import forked_process
from gradprix.executors.forked_process import ForkedProcess, get_server
from gradprix.executors.fresh_process import FreshProcesses
from gradprix.executors.worker_processes import start_environment, workers
from gradprix.tasks.user_modules import load_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="servers are for Linux")


LIGHT = "gradprix.executors.worker_processes"


def ask(function: Any, *args: Any) -> Any:
    """Return what a function answers in a worker of a new pool."""
    executor = workers(1)
    answer = executor.submit(function, *args).result()
    executor.shutdown(kill_workers=True)
    return answer


def server_of(group: str = ForkedProcess.group) -> Any:
    server = get_server(group, start_environment())
    assert server is not None
    return server


def wait_for_end(numbers: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(psutil.pid_exists, numbers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state() -> dict[str, Any]:
    return {
        "server": os.getppid(),
        "seconds": time.process_time(),
        "threads": len(os.listdir("/proc/self/task")) - 2,  # one watches the server, and one is the main thread
        "variable": os.environ.get("GRADPRIX_TEST"),
        "cache": os.environ.get("GRADPRIX_CACHE"),
        "path": list(sys.path),
        "folder": os.getcwd(),
        "files": sorted(os.readlink(f"/proc/self/fd/{number}") for number in range(3)),
        "draws": (float(np.random.rand()), random.random()),
        "interrupt": signal.getsignal(signal.SIGINT),
        "child": signal.getsignal(signal.SIGCHLD),
        "mask": os.umask(0),
    }


def test_a_second_pool_starts_at_once() -> None:
    first, second = ask(state), ask(state)
    assert second["server"] == first["server"]
    assert second["seconds"] < 1, "the fork imports nothing"


def test_a_fork_has_what_jobs_need_imported() -> None:
    assert ask(eval, "'gradprix.race.preflight' in __import__('sys').modules")


def test_a_fork_is_as_a_new_process() -> None:
    first, second = ask(state), ask(state)
    assert first["threads"] == 0
    assert first["draws"][0] != second["draws"][0]
    assert first["draws"][1] != second["draws"][1]
    assert first["interrupt"] == signal.SIG_IGN
    assert first["child"] == signal.SIG_DFL
    assert len(psutil.Process(server_of().process.pid).threads()) == 1


def test_new_workers_see_what_the_program_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ask(state)
    monkeypatch.setenv("GRADPRIX_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "some_module_of_mine.py").write_text("")
    load_file(tmp_path / "some_module_of_mine.py")
    after = ask(state)
    assert (after["cache"], after["folder"], after["path"]) == (str(tmp_path), str(tmp_path), sys.path)
    assert str(tmp_path) in sys.path
    assert after["server"] == before["server"]


@pytest.mark.usefixtures("light")
def test_another_environment_has_another_server_and_the_first_ends_after_its_forks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, executor = server_of(), workers(1)
    assert executor.submit(os.getppid).result() == first.process.pid
    monkeypatch.setenv("GRADPRIX_TEST", "1")  # a library may read it when it is imported
    mask = os.umask(0o077)
    try:
        second = server_of()
        assert second is not first
        assert executor.submit(os.getppid).result() == first.process.pid, "it is not ended by this"
        executor.shutdown(kill_workers=True)
        found = ask(state)
    finally:
        os.umask(mask)
    assert (found["server"], found["variable"], found["mask"]) == (second.process.pid, "1", 0o077)
    assert first.process.wait(60) == 0


def test_workers_write_where_the_program_writes_now(capfd: pytest.CaptureFixture[str]) -> None:
    ask(print, "here")
    assert capfd.readouterr().out == "here\n"


@pytest.mark.usefixtures("light")
def test_a_server_that_was_killed_is_replaced() -> None:
    server = server_of()
    executor = workers(1)
    number = executor.submit(os.getpid).result()
    server.process.kill()
    wait_for_end([number])  # it notices
    other = ask(os.getppid)
    assert other == server_of().process.pid != server.process.pid


@pytest.mark.usefixtures("light")
def test_fresh_calls_have_a_server_whose_strings_have_other_hashes() -> None:
    fresh = FreshProcesses()
    (number, order), other = fresh.submit(order_of_strings).result(300), ask(order_of_strings)
    assert number == server_of("fresh").process.pid != other[0]
    assert order != other[1]
    with pytest.raises(ChildProcessError):
        fresh.submit(os._exit, 1).result(300)
    endless = fresh.submit(time.sleep, 600)
    time.sleep(0.5)
    fresh.stop()
    with pytest.raises(ChildProcessError):
        endless.result(60)


def order_of_strings() -> tuple[int, list[str]]:
    return os.getppid(), list({str(i) for i in range(50)})


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that start from here on import only what they need themselves, which takes half the time."""
    monkeypatch.setattr(forked_process, "MODULES", LIGHT)


@pytest.fixture
def no_server() -> Iterator[None]:
    forked_process.end_servers()
    yield
    forked_process.end_servers()


@pytest.mark.usefixtures("no_server", "light")
@pytest.mark.parametrize("why", ["threads", "gpu"])
def test_where_a_fork_is_not_safe_workers_are_new_interpreters(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "gpu":
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    else:  # something that starts a thread when the interpreter starts, as a profiler does
        text = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        (tmp_path / "sitecustomize.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
    assert get_server(ForkedProcess.group, start_environment()) is None
    if why == "threads":
        assert ask(os.getppid) == os.getpid()
    else:
        assert FreshProcesses().submit(os.getppid).result(300) == os.getpid()


SCRIPT = """
import os, time
from gradprix.executors.fresh_process import FreshProcesses
from gradprix.executors import forked_process
from gradprix.executors.worker_processes import start_environment, workers

if __name__ == "__main__":
    forked_process.MODULES = {modules!r}
    server = forked_process.get_server("workers", start_environment())
    number = os.fork()
    if not number:  # it has no server, and ends none
        os._exit(len(forked_process._SERVERS))
    assert os.waitpid(number, 0)[1] == 0
    assert forked_process.get_server("workers", start_environment()) is server
    executor = workers(2)
    fresh = FreshProcesses().submit(os.getppid)
    print(executor.submit(os.getppid).result(), fresh.result(), flush=True)
    executor.submit(time.sleep, 600)
    FreshProcesses().submit(time.sleep, 600)
    time.sleep({seconds})
"""


END_DURING_START = """
import time, torch
from gradprix.executors import forked_process
from gradprix.executors.fresh_process import FreshProcesses

forked_process.MODULES = {modules!r}
if {has_gpu}:
    torch.cuda.device_count = lambda: 1
FreshProcesses().submit(len, bytes(3_000_000))
time.sleep(0.4)
"""


@pytest.mark.parametrize("has_gpu", [False, True], ids=["fork server", "new interpreter"])
def test_a_program_that_ends_while_a_process_starts_prints_nothing(has_gpu: bool) -> None:
    script = END_DURING_START.format(modules=LIGHT, has_gpu=has_gpu)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")


@pytest.mark.parametrize("seconds", [600, pytest.param(1, marks=pytest.mark.slow)], ids=["killed", "ends"])
def test_servers_and_workers_end_with_their_program(seconds: int) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(modules=LIGHT, seconds=seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert isinstance(program.stdout, io.TextIOBase)
    line = program.stdout.readline()
    time.sleep(0.5)
    family = [child.pid for child in psutil.Process(program.pid).children(recursive=True)]
    assert {*map(int, line.split())} < {*family}
    if seconds == 600:
        program.kill()
    _, said = program.communicate(timeout=60)
    assert said == ""
    wait_for_end(family)


FORKING = """
import os, signal, sys, threading, time
from gradprix.executors import forked_process
from gradprix.executors.worker_processes import fork_server_early, workers

STATE = '''(lambda os, signal, name: (
    os.getppid(),
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
    os.environ["MKL_CBWR"],
    name in {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")},
))(__import__("os"), __import__("signal"), %r)'''

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: None)
    own = open(sys.argv[1], "w")
    os.set_inheritable(own.fileno(), True)
    if sys.argv[2] == "threads":
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    fork_server_early()
    server = forked_process._SERVERS.get("workers")
    executor = workers(1)
    executor.submit(print, "from a worker").result()
    found = executor.submit(eval, STATE % sys.argv[1]).result()
    print(None if server is None else server.process.pid, *found, flush=True)
"""


@pytest.mark.parametrize("what", ["alone", "threads"])
def test_a_process_without_threads_is_forked_to_be_the_server(what: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(FORKING)
    command = [sys.executable, str(program), str(tmp_path / "a file"), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    first, last = done.stdout.splitlines()
    server, parent, ignores, mode, holds_file = last.split()
    assert first == "from a worker"
    assert (server == parent) == (what == "alone")
    assert (server == "None") == (what == "threads")
    assert (ignores, mode, holds_file) == ("True", os.environ["MKL_CBWR"], "False")
    wait_for_end([int(parent)])


@pytest.mark.usefixtures("light")
def test_pools_of_several_threads_have_one_server() -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(server_of())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(server) for server in found}) == 1
