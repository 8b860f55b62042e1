"""Fast start of processes: on Linux, processes are forks of a server that has imported the required modules.

Where forks are impossible or unsafe (Windows, macOS, GPUs, libraries that start threads when imported), loky starts new
interpreters instead.
"""

import atexit
import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing import context as multiprocessing_context
from multiprocessing import process, resource_tracker
from typing import Any, ClassVar

import psutil
import torch
from joblib.externals.loky.backend import reduction
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.externals.loky.backend.context import LokyContext
from joblib.externals.loky.backend.process import LokyProcess

from gradprix.tasks.user_modules import base_path

from .fork_server import READY, STREAMS, ReceivedFile, can_fork, descendants
from .process_fork import ProcessFork

SERVE = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import {modules}
from gradprix.executors.fork_server import serve
serve({parent}, {requests})
"""
MODULES = "gradprix.race, torch.fx.experimental.symbolic_shapes"
"""Modules that a server imports, so that each of its forks need not import them again.

The second module is imported by `torch._check` when operations are decomposed. torch's compiler is not among them: its
import takes longer than all of these, and only constructors of `torch.optim` and tracing of stacked operations need it.
"""
PASSED_ON = {"GRADPRIX_CACHE", "PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR"}
"""Environment variables that no library reads on import. A server is kept if they change; its forks get new values."""

ENVIRONMENT = threading.Lock()
"""Lock to hold while environment variables of this process are temporarily changed, or are read."""

_LOCK = threading.Lock()
_SERVERS: dict[str, "Server"] = {}
_REPLACED: list["Server"] = []
_is_ending = False
"""True once this program ends: then no process is started any more."""


class Server:
    """A fork server that this process has started, and the connection to it.

    Args:
        start: function that starts the server process, given the file descriptor of the socket to read requests from.
        settings: all settings that the server's forks inherit from it; if they change, a new server is needed.
    """

    def __init__(self, start: "Callable[[int], subprocess.Popen[bytes] | ProcessFork]", settings: Any) -> None:
        self.settings = settings
        self._is_ready: bool | None = None
        self._lock = threading.Lock()
        self._requests, server_socket = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with server_socket:
            self.process = start(server_socket.fileno())

    def wait(self) -> bool:
        """Wait until the server has imported all modules; return True if it can be forked."""
        with self._lock:
            if self._is_ready is None:
                try:
                    self._is_ready = self._requests.recv(len(READY)) == READY
                except OSError:
                    self._is_ready = False
            return self._is_ready

    def is_usable(self) -> bool:
        """Return True if the server need not be replaced by a new one.

        This is so if it is alive, or if it never became ready, because a new server would not become ready either.
        """
        return self.process.poll() is None or self._is_ready is False

    def fork(self, files: Sequence[int]) -> tuple[int, int]:
        """Start a process through the fork server.

        Args:
            files: file descriptors that the new process receives; the first three become its standard streams.

        Returns:
            File descriptors of two pipes. The process ID and, after termination, the exit code can be read from the
            first one; the process object must be written to the second one.

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
        """Release the server in a fork of the process that started the server."""
        self.release()
        self.process.returncode = 0  # not a child of this process

    def end(self) -> None:
        """Kill the server and its forks."""
        self.release()
        if self.process.poll() is None:
            forks = descendants(self.process.pid)
            self.process.kill()  # before its forks, so that it cannot fork any more
            for process in forks:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self.process.wait()


def get_server(group: str, environment: Mapping[str, str]) -> Server | None:
    """Return a server that starts processes in an environment; start the server if there is none.

    Returns None if processes must be started as new interpreters.

    Args:
        group: name of a group of processes; different groups never share a server.
        environment: environment variables of the processes, in addition to those of this process.
    """
    if not _has_servers():
        return None
    variables, settings = _server_settings(environment)
    with _LOCK:
        if _is_ending:
            return None
        server = _SERVERS.get(group)
        if server is None or server.settings != settings or not server.is_usable():
            if server is not None:
                server.release()
                _REPLACED.append(server)
            _REPLACED[:] = [each for each in _REPLACED if each.process.poll() is None]
            try:
                server = _SERVERS[group] = Server(partial(_start_interpreter, variables), settings)
            except OSError:
                _SERVERS.pop(group, None)
                return None
    return server if server.wait() else None


def fork_server_from_here(group: str, environment: Mapping[str, str]) -> None:
    """Start the server of a group as a fork of this process; see `process_fork` for when that is safe.

    Does nothing if the group has a server, or if this process cannot be forked.

    Args:
        group: name of the group of processes.
        environment: environment variables of the processes, in addition to those of this process.
    """
    if not _has_servers() or None in (sys.__stdout__, sys.__stderr__) or not can_fork():
        return
    variables, settings = _server_settings(environment)
    with _LOCK, contextlib.suppress(OSError, ValueError):  # too many processes, or a stream is closed
        if group not in _SERVERS:
            _SERVERS[group] = Server(partial(ProcessFork, variables, MODULES.split(", ")), settings)


def _has_servers() -> bool:
    # Unlike is_available(), device_count() asks the driver's management library first, which does not initialize CUDA.
    return sys.platform == "linux" and not torch.cuda.device_count()


def _server_settings(environment: Mapping[str, str]) -> tuple[dict[str, str], Any]:
    """Return the environment variables that a server starts with, and its settings; see `Server`."""
    variables = {**_variables(environment), "PYTHONPATH": os.pathsep.join(filter(None, base_path()))}
    return variables, (
        {name: value for name, value in variables.items() if name not in PASSED_ON},
        _inherited_settings(),
    )


def _start_interpreter(variables: Mapping[str, str], requests: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", SERVE.format(modules=MODULES, parent=os.getpid(), requests=requests)],
        env=variables,
        pass_fds=[requests],
        # The server must not hold the streams of this process open; its forks receive them when they start.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    with ENVIRONMENT:
        return {**os.environ, **environment}


def _inherited_settings() -> tuple[Any, ...]:
    """Return CPU affinity, priority, resource limits and umask, which a process inherits from its parent."""
    if sys.platform != "linux":
        return ()
    import resource

    limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
    with open("/proc/self/status") as file:
        mask = [line for line in file if line.startswith("Umask")]
    return os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), limits, mask


class ForkedProcess(LokyProcess):  # type: ignore[misc]
    """A process that starts as a fork of a server if possible, otherwise as a new interpreter."""

    group: ClassVar[str] = "workers"

    @staticmethod
    def _Popen(process_obj: "ForkedProcess") -> Any:  # noqa: N802  # multiprocessing's name
        for _ in range(2):  # the server may have been killed
            server = get_server(process_obj.group, process_obj.env)
            if server is None:
                break
            with contextlib.suppress(EOFError, OSError):
                return _ForkedPopen(process_obj, server)
        if _is_ending:  # a new interpreter would find no process object, and print a traceback on standard output
            raise ChildProcessError("no process is started while the program ends")
        return LokyProcess._Popen(process_obj)


class ForkContext(LokyContext):  # type: ignore[misc]
    """Multiprocessing context that starts processes as forks of a server if possible."""

    Process = ForkedProcess


if sys.platform == "linux":
    from multiprocessing import forkserver, popen_forkserver, util

    class _ForkedPopen(popen_forkserver.Popen):
        """Handle of a process that is started through a fork server, from which it receives the exit code.

        Args:
            process_obj: the process object to run in the new process.
            server: the fork server.
        """

        DupFd = ReceivedFile  # type: ignore[assignment]
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
                # If an interrupt occurs here, the process receives no process object and ends.
                self.pid = forkserver.read_signed(status)
                file.write(buffer.getbuffer())


def _preparation(name: str) -> dict[str, Any]:
    """Return the argument for `multiprocessing.spawn.prepare`, without the main module of the user's program."""
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
    """Yield the file descriptors of the standard streams; closed streams are replaced by the null device."""
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


def end_servers() -> None:
    """Kill all fork servers started by this process, and their child processes."""
    with _LOCK:
        ended = [*_SERVERS.values(), *_REPLACED]
        _SERVERS.clear()
        _REPLACED.clear()
    for server in ended:
        server.end()


def end_starts() -> None:
    """Kill all fork servers and their child processes, and start no further process: this program ends."""
    global _is_ending
    with _LOCK:
        _is_ending = True
    end_servers()


def _forget_servers() -> None:
    global _LOCK, ENVIRONMENT
    _LOCK, ENVIRONMENT = threading.Lock(), threading.Lock()
    for server in (*_SERVERS.values(), *_REPLACED):
        server.forget()
    _SERVERS.clear()
    _REPLACED.clear()


atexit.register(end_starts)  # runs before multiprocessing's own handler, which waits for the forks
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_servers)
