"""Record of the plans that have passed preflight on this machine, in the cache folder.

A plan is recorded only if its models are trained in stacks on the CPU: the other execution modes depend on measured
times, which may have been disturbed, or on the devices that are available. An identical plan needs no second check,
since its fingerprint covers the model, the examples, and the code of the task and of the optimizers.
"""

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path

from gradprix.executors.executor import Executor
from gradprix.executors.local import Local
from gradprix.tasks import Task
from gradprix.tasks.lazy_dataset import Stream
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.provenance import provenance
from gradprix.utils.devices import accelerator_type
from gradprix.utils.files import cache_folder, write_atomically

from .last_batch import batch_sizes
from .plan import Plan


def find_checked_mode(plan: Plan, engine: Executor) -> ExecutionMode | None:
    """Return the execution mode of a plan that has passed preflight on this machine; None if there is no record."""
    file = _file(plan, engine)
    try:
        return None if file is None else ExecutionMode(widest=json.loads(file.read_text("utf-8")))
    except (OSError, ValueError):
        return None


def record_checked_mode(plan: Plan, engine: Executor, mode: ExecutionMode) -> None:
    """Record the execution mode of a plan that has passed preflight, if models are stacked on the CPU."""
    if mode == ExecutionMode(widest=mode.widest) and (file := _file(plan, engine)) is not None:
        with contextlib.suppress(OSError):
            write_atomically(file, json.dumps(mode.widest).encode())


def _file(plan: Plan, engine: Executor) -> Path | None:
    """Return the file of a plan; None if its checks cannot be recorded.

    Checks are repeated for training loops and for examples that are read on demand, whose fingerprint does not cover
    all data; for `torch.compile`; with an accelerator; and on clusters.
    """
    task, folder = plan.task, cache_folder("checked")
    on_cpu = plan.device == "cpu" or (plan.device == "auto" and accelerator_type() is None)
    if not isinstance(task, Task) or isinstance(task.loaded, Stream) or not on_cpu:
        return None
    if folder is None or plan.compiled or type(engine) is not Local:
        return None
    trials = [({**plan.careful_trial(entry, 0).identity, "seed": None}, sorted(entry.space)) for entry in plan.entries]
    machine = provenance(), sys.version, os.environ.get("MKL_CBWR"), engine.bytes
    key = repr((task.fingerprint, batch_sizes(plan), trials, machine))
    return folder / hashlib.sha256(key.encode()).hexdigest()[:24]
