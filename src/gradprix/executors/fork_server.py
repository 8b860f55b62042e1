"""Fast start of processes: on Linux, forks of a server that has imported the required modules.

A new interpreter takes seconds to import torch. A server imports everything once, computes nothing, starts no threads
and no accelerator, and is forked for each process. It lives as long as the process that started it. Where forks are
impossible or unsafe (Windows, macOS, GPUs, libraries that start threads when imported), loky starts new interpreters.
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
"""Variables that libraries do not read on import: the server survives their change, and its forks receive them."""
INTERVAL = 1.0
"""Seconds between two checks that the parent process is alive."""
STREAMS = 3
"""Standard input, output and error."""
MOST_FILES = 64
"""Maximum number of file descriptors that a process receives when it starts."""

ENVIRONMENT = threading.Lock()
"""Held while this process's variables differ from the user's, or are read."""

_LOCK = threading.Lock()
_SERVERS: dict[str, "Server"] = {}
_REPLACED: list["Server"] = []
_received: Sequence[int] = ()
"""File descriptors that this process received when it started."""


class Server:
    """The fork server of this process for one environment.

    Args:
        environment: the variables that it starts with.
        settings: the server is reused as long as these are equal.
    """

    def __init__(self, environment: Mapping[str, str], settings: Any) -> None:
        self.settings = settings
        self._is_ready: bool | None = None
        self._lock = threading.Lock()
        self._requests, server_socket = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with server_socket:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE.format(parent=os.getpid(), requests=server_socket.fileno())],
                env=environment,
                pass_fds=[server_socket.fileno()],
                # It must not hold the streams open; its forks receive those of the requesting process.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def wait(self) -> bool:
        """Wait until the server has imported everything; return True if it can be forked."""
        with self._lock:
            if self._is_ready is None:
                try:
                    self._is_ready = self._requests.recv(len(READY)) == READY
                except OSError:
                    self._is_ready = False
            return self._is_ready

    def is_usable(self) -> bool:
        """Return True if the server is alive, or if it never became ready, in which case a new one would not either."""
        return self.process.poll() is None or self._is_ready is False

    def fork(self, files: Sequence[int]) -> tuple[int, int]:
        """Start a process.

        Args:
            files: the file descriptors that it receives, the first three as its standard streams.

        Returns:
            Two pipes: one to read its process number and, after its end, its exit code from; one to write the process
            object to.

        Raises:
            OSError: if the server has ended.
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
        """Let the server end after its last fork has ended."""
        self._requests.close()

    def forget(self) -> None:
        """Release the server in a fork of the process that started it."""
        self.release()
        self.process.returncode = 0  # not a child of this process

    def end(self) -> None:
        """Kill the server and its forks."""
        self.release()
        if self.process.poll() is None:
            descendants = _descendants(self.process.pid)
            self.process.kill()  # first, so that it cannot fork any more
            for process in descendants:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self.process.wait()


def get_server(group: str, environment: Mapping[str, str]) -> Server | None:
    """Return a server that starts processes in this environment, or None if new interpreters must be started.

    Args:
        group: processes of different groups never share a server.
        environment: variables to set in addition to those of this process.
    """
    # Unlike is_available(), device_count() first asks the driver's management library and initializes nothing.
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
    """Return the settings that a process inherits from its parent, besides variables and files."""
    if sys.platform != "linux":
        return ()
    import resource

    limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
    with open("/proc/self/status") as file:
        mask = [line for line in file if line.startswith("Umask")]
    return os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), limits, mask


class ForkedProcess(LokyProcess):  # type: ignore[misc]
    """A process that is a fork of the server if possible, and otherwise a new interpreter."""

    group: ClassVar[str] = "workers"

    @staticmethod
    def _Popen(process_obj: "ForkedProcess") -> Any:  # noqa: N802  # multiprocessing's name
        for _ in range(2):  # the server may have been killed
            server = get_server(process_obj.group, process_obj.env)
            if server is None:
                break
            with contextlib.suppress(EOFError, OSError):
                return _ForkedPopen(process_obj, server)
        return LokyProcess._Popen(process_obj)


class ForkContext(LokyContext):  # type: ignore[misc]
    """Multiprocessing context that starts processes as forks of the server if possible."""

    Process = ForkedProcess


class _Received:
    """A file descriptor that is being sent to a starting process."""

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        """Return the descriptor's number in this process."""
        return _received[self._index]


if sys.platform == "linux":
    from multiprocessing import forkserver, popen_forkserver, util

    class _ForkedPopen(popen_forkserver.Popen):
        """Start a process by a server and receive its exit code."""

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
                # Without its object the process ends, so an interruption here leaves no unknown process.
                self.pid = forkserver.read_signed(status)
                file.write(buffer.getbuffer())


def _preparation(name: str) -> dict[str, Any]:
    """Return the argument of `multiprocessing.spawn.prepare`, without the main module of the user's program."""
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
    """Yield the standard streams' descriptors, with the null device for closed ones."""
    null_device = os.open(os.devnull, os.O_RDWR)
    try:
        yield [number if _is_open(number) else null_device for number in range(STREAMS)]
    finally:
        os.close(null_device)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def serve(parent: int, requests: int) -> None:
    """Fork this process for each request; in the fork, run the process object that is sent, and exit.

    Args:
        parent: number of the process whose end also ends the server.
        requests: number of the socket that requests are read from.
    """
    with socket.socket(fileno=requests) as requests_socket:
        if not _can_fork():
            return
        try:
            requests_socket.send(READY)
        except OSError:
            return
        gc.collect()
        gc.freeze()  # garbage collection in a fork would copy the pages of all objects
        files = _fork_on_request(requests_socket, parent)
    if files is not None:
        sys.exit(_run(files))


def _can_fork() -> bool:
    """Return True if a fork of this process is complete: it has one thread and no accelerator."""
    if torch.accelerator.is_available():
        return False
    # OpenBLAS starts threads on import, and ends them at the first fork.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1


def _fork_on_request(requests: socket.socket, parent: int) -> list[int] | None:
    """Return the received files in each fork, and None in the server after the last request."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up descriptor needs a handler
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
        except OSError:  # too many processes: the requester gets the error when it starts a new interpreter
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
    with contextlib.suppress(BrokenPipeError):  # the requester has ended
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
    np.random.seed()  # otherwise all forks would draw the same numbers
    importlib.invalidate_caches()
    with open(data, "rb") as stream_of_objects:
        current = process.current_process()
        current._inheriting = True  # type: ignore[attr-defined]
        try:
            _set_environment(pickle.load(stream_of_objects))
            spawn.prepare(pickle.load(stream_of_objects))
            process_obj = pickle.load(stream_of_objects)
        except EOFError:  # the requester was interrupted
            return 1
        finally:
            del current._inheriting  # type: ignore[attr-defined]
    return int(process_obj._bootstrap())


def _reopen(stream: Any, number: int) -> Any:
    """Return the stream that a new interpreter would create for this file; pipes, terminals and files differ."""
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
    """Kill all descendants of this process."""
    for child in _descendants(os.getpid()):
        with contextlib.suppress(psutil.Error):
            child.kill()


def _descendants(number: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(number).children(recursive=True))
    return []


def end_servers() -> None:
    """Kill all servers of this process and their forks."""
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


atexit.register(end_servers)  # runs before multiprocessing's own handler, which waits for the forks
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_servers)
