"""Processes that start within milliseconds: on Linux, forks of a server that has imported what they need.

A new interpreter takes seconds to import torch. A server imports everything once, computes nothing, starts no threads
and no accelerator, and is forked for each process. It lives as long as the process that started it. Where forks are
impossible or unsafe (Windows, macOS, GPUs, libraries that start threads when they are imported), loky starts new
interpreters.
"""

import atexit
import contextlib
import gc
import importlib
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection, process, resource_tracker, spawn
from multiprocessing import context as multiprocessing_context
from typing import Any, ClassVar

import numpy as np
import psutil
import torch
from joblib.externals.loky.backend import reduction
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.externals.loky.backend.context import LokyContext
from joblib.externals.loky.backend.process import LokyProcess

from gradprix.tasks.user_modules import base_path

SERVE = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from gradprix.executors.fork_server import serve
serve({parent}, {requests})
"""
READY = b"ready"
PASSED_ON = {"GRADPRIX_CACHE", "PYTEST_CURRENT_TEST"}
"""Variables that no library reads when it is imported: a server is kept when they change, and its forks receive them.
"""
INTERVAL = 1.0
"""Seconds between two checks of whether the process is alive for which others work."""
STREAMS = 3
"""Standard input, output and error."""
MOST_FILES = 64
"""File descriptors that a process can receive when it starts."""

ENVIRONMENT = threading.Lock()
"""Held while the variables of this process are other than the user's, or are read."""

_LOCK = threading.Lock()
_SERVERS: dict[str, "Server"] = {}
_REPLACED: list["Server"] = []
_received: Sequence[int] = ()
"""File descriptors that this process received when it started."""


class Server:
    """The server of this process, in an environment.

    Args:
        environment: the variables that it starts with.
        settings: what must be equal for the server to be used again.
    """

    def __init__(self, environment: Mapping[str, str], settings: Any) -> None:
        self.settings = settings
        self._is_ready: bool | None = None
        self._lock = threading.Lock()
        self._requests, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE.format(parent=os.getpid(), requests=theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                # It must not hold the streams open; its forks receive those of the process that asks.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def wait(self) -> bool:
        """Wait until the server has imported everything; return whether it can be forked."""
        with self._lock:
            if self._is_ready is None:
                try:
                    self._is_ready = self._requests.recv(len(READY)) == READY
                except OSError:
                    self._is_ready = False
            return self._is_ready

    def is_usable(self) -> bool:
        """Return whether the server is alive, or has never been ready, so that another one would not be either."""
        return self.process.poll() is None or self._is_ready is False

    def fork(self, files: Sequence[int]) -> tuple[int, int]:
        """Start a process.

        Args:
            files: the descriptors that it receives, the first three as its standard streams.

        Returns:
            Two pipes: one from which to read its number and, when it has ended, its exit code; one to which to write
            the process object.

        Raises:
            OSError: when the server is gone.
        """
        status, their_status = os.pipe()
        their_data, data = os.pipe()
        try:
            socket.send_fds(self._requests, [b"fork"], [their_data, their_status, *files])
        except BaseException:
            os.close(status)
            os.close(data)
            raise
        finally:
            os.close(their_data)
            os.close(their_status)
        return status, data

    def release(self) -> None:
        """Let the server end when its last fork has ended."""
        self._requests.close()

    def forget(self) -> None:
        """Let go of the server in a fork of the process that started it."""
        self.release()
        self.process.returncode = 0  # it is not this process's child

    def end(self) -> None:
        """End the server and its forks."""
        self.release()
        if self.process.poll() is None:
            family = _descendants(self.process.pid)
            self.process.kill()  # first, so that nothing is forked any more
            for member in family:
                with contextlib.suppress(psutil.Error):
                    member.kill()
        self.process.wait()


def get_server(group: str, environment: Mapping[str, str]) -> Server | None:
    """Return a server that starts processes in this environment; None where new interpreters must be started.

    Args:
        group: processes of different groups never have the same server.
        environment: variables to set beside those of this process.
    """
    # Unlike is_available(), device_count() asks the driver's management library first, and starts nothing.
    if sys.platform != "linux" or torch.cuda.device_count():
        return None
    variables = {**_variables(environment), "PYTHONPATH": os.pathsep.join(filter(None, base_path()))}
    settings = {name: value for name, value in variables.items() if name not in PASSED_ON}, _inherited_settings()
    with _LOCK:
        server = _SERVERS.get(group)
        if server is None or server.settings != settings or not server.is_usable():
            if server is not None:
                server.release()
                _REPLACED.append(server)
            _REPLACED[:] = [each for each in _REPLACED if each.process.poll() is None]
            try:
                server = _SERVERS[group] = Server(variables, settings)
            except OSError:
                _SERVERS.pop(group, None)
                return None
    return server if server.wait() else None


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    with ENVIRONMENT:
        return {**os.environ, **environment}


def _inherited_settings() -> tuple[Any, ...]:
    """Return what a process inherits from the one that starts it, besides its variables and files."""
    if sys.platform != "linux":
        return ()
    import resource

    limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
    with open("/proc/self/status") as file:
        mask = [line for line in file if line.startswith("Umask")]
    return os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), limits, mask


class ForkedProcess(LokyProcess):  # type: ignore[misc]
    """A process that is a fork of the server where that is possible, and else a new interpreter."""

    group: ClassVar[str] = "workers"

    @staticmethod
    def _Popen(process_obj: "ForkedProcess") -> Any:  # noqa: N802  # multiprocessing's name
        for _ in range(2):  # a server may have been killed
            server = get_server(process_obj.group, process_obj.env)
            if server is None:
                break
            with contextlib.suppress(EOFError, OSError):
                return _ForkedPopen(process_obj, server)
        return LokyProcess._Popen(process_obj)


class ForkContext(LokyContext):  # type: ignore[misc]
    """Starts processes as forks of the server where that is possible."""

    Process = ForkedProcess


class _Received:
    """A file descriptor on its way to a process that starts."""

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        """Return the descriptor's number in this process."""
        return _received[self._index]


if sys.platform == "linux":
    from multiprocessing import forkserver, popen_forkserver, util

    class _ForkedPopen(popen_forkserver.Popen):
        """Starts a process and hears of its end, by a server."""

        DupFd = _Received  # type: ignore[assignment]
        _fds: list[int]

        def __init__(self, process_obj: ForkedProcess, server: Server) -> None:
            self._server = server
            super().__init__(process_obj)

        def _launch(self, process_obj: ForkedProcess) -> None:
            buffer = io.BytesIO()
            multiprocessing_context.set_spawning_popen(self)
            try:
                reduction.dump(_variables(process_obj.env), buffer)
                reduction.dump(_preparation(process_obj.name), buffer)
                reduction.dump(process_obj, buffer)
            finally:
                multiprocessing_context.set_spawning_popen(None)
            trackers = [resource_tracker.getfd(), loky_tracker.getfd()]
            with _standard_streams() as streams:
                status, data = self._server.fork([*streams, *trackers, *self._fds])
            self.sentinel = status
            self.finalizer = util.Finalize(self, os.close, (status,))
            with open(data, "wb") as file:
                # Without its object, the process ends: interrupted here, nothing is left that nobody knows of.
                self.pid = forkserver.read_signed(status)
                file.write(buffer.getbuffer())


def _preparation(name: str) -> dict[str, Any]:
    """Return what `multiprocessing.spawn.prepare` takes; the main module of the user's program is not run."""
    return {
        "name": name,
        "authkey": bytes(process.current_process().authkey),
        "sys_path": [each or process.ORIGINAL_DIR for each in sys.path],  # type: ignore[attr-defined]
        "sys_argv": sys.argv,
        "orig_dir": process.ORIGINAL_DIR,  # type: ignore[attr-defined]
        "dir": os.getcwd(),
    }


@contextlib.contextmanager
def _standard_streams() -> Iterator[list[int]]:
    """Open nothing in place of what a process has closed."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        yield [number if _is_open(number) else nowhere for number in range(STREAMS)]
    finally:
        os.close(nowhere)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def serve(parent: int, requests: int) -> None:
    """Fork this process for each request; in the fork, run the process object that is sent, and exit.

    Args:
        parent: the process without which the server ends.
        requests: number of the socket from which requests come.
    """
    with socket.socket(fileno=requests) as asked:
        if not _can_fork():
            return
        try:
            asked.send(READY)
        except OSError:
            return
        gc.collect()
        gc.freeze()  # a fork that looks for garbage would copy the pages of everything
        files = _fork_on_request(asked, parent)
    if files is not None:
        sys.exit(_run(files))


def _can_fork() -> bool:
    """Return whether nothing in this process is lost in a fork: it has one thread, and no accelerator."""
    if torch.accelerator.is_available():
        return False
    # OpenBLAS has threads from the start, and ends them for the first fork.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = os.fork()
    if not first:
        os._exit(0)
    os.waitpid(first, 0)
    return threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1


def _fork_on_request(requests: socket.socket, parent: int) -> list[int] | None:
    """Return in each fork the files that it receives; in the server, None when there is nothing left to do."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up needs a handler
    forks: dict[int, int] = {}
    is_asked = True
    while is_asked or forks:
        ready = connection.wait([requests, woken] if is_asked else [woken], INTERVAL)
        if os.getppid() != parent:
            end_children()
            os._exit(1)
        if woken in ready:
            os.read(woken, 1 << 16)
            _report_ended(forks)
        if requests not in ready:
            continue
        message, files, *_ = socket.recv_fds(requests, len(READY), MOST_FILES)
        if not message:
            is_asked = False
            continue
        data, status, *rest = files
        try:
            number = os.fork()
        except OSError:  # too many processes: the one that asks hears of it when it starts a new interpreter
            for file in files:
                os.close(file)
            continue
        if not number:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for file in (woken, wake, status, *forks.values()):
                os.close(file)
            return [data, *rest]
        _write(status, number)
        forks[number] = status
        for file in (data, *rest):
            os.close(file)
    return None


def _report_ended(forks: dict[int, int]) -> None:
    """Send the exit codes of the forks that have ended."""
    while forks:
        number, status = os.waitpid(-1, os.WNOHANG)
        if not number:
            return
        file = forks.pop(number, None)
        if file is not None:
            _write(file, os.waitstatus_to_exitcode(status))
            os.close(file)


def _write(file: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it
        forkserver.write_signed(file, number)


def _run(files: Sequence[int]) -> int:
    """Run the process object that is sent to a fork, as in a new interpreter; return the exit code."""
    global _received
    data, *files = files
    for file in files:
        os.set_inheritable(file, False)
    for number, file in enumerate(files[:STREAMS]):
        os.dup2(file, number)
        os.close(file)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = _reopen(getattr(sys, name), number)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    resource_tracker._resource_tracker._fd, loky_tracker._resource_tracker._fd, *_received = files[STREAMS:]  # type: ignore[attr-defined]
    np.random.seed()  # all forks would draw the same
    importlib.invalidate_caches()
    with open(data, "rb") as stream_of_objects:
        current = process.current_process()
        current._inheriting = True  # type: ignore[attr-defined]
        try:
            _set_environment(pickle.load(stream_of_objects))
            spawn.prepare(pickle.load(stream_of_objects))
            process_obj = pickle.load(stream_of_objects)
        except EOFError:  # whoever asked for this process was interrupted
            return 1
        finally:
            del current._inheriting  # type: ignore[attr-defined]
    return int(process_obj._bootstrap())


def _reopen(stream: Any, number: int) -> Any:
    """Return the stream that an interpreter has which starts with this file: pipes, terminals and files differ."""
    is_unbuffered = stream.write_through
    return io.TextIOWrapper(
        open(number, "wb", buffering=0 if is_unbuffered else -1, closefd=False),
        encoding=stream.encoding,
        errors=stream.errors,
        newline="\n",
        line_buffering=number == 2 or os.isatty(number),
        write_through=is_unbuffered,
    )


def _set_environment(variables: Mapping[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in variables.items() if os.environ.get(name) != value})


def end_children() -> None:
    """End all processes that this one has started, and those that they have."""
    for child in _descendants(os.getpid()):
        with contextlib.suppress(psutil.Error):
            child.kill()


def _descendants(number: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(number).children(recursive=True))
    return []


def end_servers() -> None:
    """End all servers of this process, and their forks."""
    with _LOCK:
        ended = [*_SERVERS.values(), *_REPLACED]
        _SERVERS.clear()
        _REPLACED.clear()
    for server in ended:
        server.end()


def _forget_servers() -> None:
    global _LOCK, ENVIRONMENT
    _LOCK, ENVIRONMENT = threading.Lock(), threading.Lock()
    for server in (*_SERVERS.values(), *_REPLACED):
        server.forget()
    _SERVERS.clear()
    _REPLACED.clear()


atexit.register(end_servers)  # after multiprocessing's own function, and so before it, which waits for the forks
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_servers)
