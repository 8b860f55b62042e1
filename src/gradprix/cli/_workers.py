"""Early start of worker processes by the commands that train models."""

import os

_program: list[int] = []
"""The process of the command line, which has no other threads, if it is not a library of another program."""


def allow_fork() -> None:
    """Declare that this process runs the command line and nothing else."""
    _program.append(os.getpid())


def prepare_workers() -> None:
    """Import what worker processes need, and fork this process to have it at hand, before it does anything else."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch reads it on import; see `environment`
    import gradprix.race  # noqa: F401
    from gradprix.executors.worker_processes import fork_server_early

    if os.getpid() in _program:
        fork_server_early()
