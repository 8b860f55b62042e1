"""One training step of one model, before any other model is made: its time and memory bound what a preflight does."""

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradprix.tasks import Task
from gradprix.utils.devices import wait

from .model_stack import Form, quiet
from .trainer import Lane
from .trial import Trial

ARITHMETIC_BOUND = 0.3
"""Seconds of processor time of one model's step from which its arithmetic takes nearly all of them. A stack saves the
time of calling operations, which is at most tens of milliseconds a step."""
SLOW = 1.0
"""Seconds of one model's step, waiting included, from which trying stacks would take minutes."""
REPEATED, TWICE, ONCE = 2, 1.0, 30.0
"""A step is timed so often again, for the first one also imports and allocates, and others may be at work on the
machine; once again if that takes so many seconds, and not at all if the first one takes so many."""
STACK_SHARE = 0.5
"""The share of the memory that a race may take that a trial stack may take."""


@dataclass(frozen=True)
class FirstStep:
    """What one step of one model takes.

    Args:
        parameters: trained numbers.
        seconds: of a step up to its gradients, reading its batch included.
        processor_seconds: likewise, without waiting.
        weight_bytes: of the weights and buffers of a model.
        step_bytes: held at most besides: gradients and activations of a step, or the outputs for all validation
            examples.
        state_bytes: of the state of an optimizer with two averages.
    """

    parameters: int
    seconds: float
    processor_seconds: float
    weight_bytes: float
    step_bytes: float
    state_bytes: float

    def describe(self) -> str:
        """Return it in words."""
        size = f"{self.parameters / 1e6:.1f} M" if self.parameters >= 1e5 else f"{self.parameters:,}"
        return f"one training step of {size} parameters: {self.seconds:.2g} s"

    def reason_against_stack(self, count: int, memory: float) -> str:
        """Return why a stack is not even tried; an empty string where it may pay.

        Args:
            count: models in the stack.
            memory: bytes that the race may take.
        """
        if self.processor_seconds > ARITHMETIC_BOUND or self.seconds > SLOW:
            return f"a step of one model takes {self.seconds:.2g} s: stacking does not pay"
        needed = count * (self.weight_bytes + self.step_bytes + self.state_bytes)
        if needed > STACK_SHARE * memory:
            return f"a stack of {count} models would take {needed / 1e9:.2g} GB"
        return ""


def measure_first_step(task: Task, trial: Trial, device: str = "cpu") -> FirstStep:
    """Find the gradients of one model, two or three times.

    Args:
        task: the problem.
        trial: the batch size and the seed.
        device: where the model is.
    """
    with quiet(device):
        lane = Lane(task, [trial], Form(stacked=False, device=device))
        index = lane.train[:, : trial.batch_size or lane.train.shape[1]]
        with PeakMemory() as memory:
            seconds, processor = _timed(lane, index)
        for _ in range(REPEATED if seconds < ONCE else 0):
            again, busy = _timed(lane, index)
            seconds, processor = min(seconds, again), min(processor, busy)
            if again > TWICE:
                break
        outputs, _ = lane.network.outputs(lane.leaves, lane.rest, *lane.batch(lane.valid[:, :2]))
    weights = [x[0].nbytes for x in (*lane.leaves.values(), *lane.rest.values())]
    # All outputs are kept for the metric, in parts and together, and the metric makes about as much again.
    examples = max(lane.valid.shape[1], lane.test.shape[1])
    kept = 3 * examples / 2 * sum(x.nbytes for x in outputs[0].leaves if isinstance(x, Tensor))
    copies = 3 * sum(weights)  # while the model is put into its stack
    trained = [x[0] for x in lane.leaves.values()]
    state = 2 * sum(x.nbytes for x in trained)
    parameters = sum(x.numel() for x in trained)
    return FirstStep(parameters, seconds, processor, sum(weights), max(memory.peak, kept, copies), state)


KNOWN: dict[tuple[str, int, str], FirstStep] = {}
"""What was measured for a task, a batch size and a device."""


def known_first_step(task: Task, trial: Trial, device: str, measure: Callable[[], FirstStep]) -> FirstStep:
    """Return what is known of a step, measured if it is not.

    Args:
        task: the problem.
        trial: the batch size.
        device: where the model is.
        measure: measures it where models are trained.
    """
    key = task.fingerprint, trial.batch_size, device
    if key not in KNOWN:
        KNOWN[key] = measure()
    return KNOWN[key]


def _timed(lane: Lane, index: Tensor) -> tuple[float, float]:
    """Find the gradients of a step, and return the seconds and the seconds of processor time."""
    started, busy = time.perf_counter(), time.thread_time()
    lane.network.gradients(lane.leaves, lane.rest, *lane.batch(index))
    wait(lane.device)
    return time.perf_counter() - started, time.thread_time() - busy


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are made while it is entered, and the most that are held at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note the memory that its results have of their own."""
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.layout is torch.strided:  # others have no storage of their own
                self._note(x.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self.known or not size:
            return

        def gone(_: Any) -> None:
            self.held -= size
            self.known.pop(address, None)

        self.known[address] = weakref.ref(storage, gone)
        self.held += size
        self.peak = max(self.peak, self.held)
