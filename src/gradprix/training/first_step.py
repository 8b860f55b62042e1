"""Measurement of time and memory of a single model's training step.

The measurement takes place before a stack is built, so that preflight does not try stacks that are too slow or too
large.
"""

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

from .execution_mode import ExecutionMode, Rejection, RejectionCause
from .model_stack import ModelStack
from .runtime_settings import runtime_settings
from .trial import Trial

ARITHMETIC_BOUND = 0.3
"""If one model's step takes more CPU seconds than this, arithmetic takes nearly all of the time. A stack saves only
dispatch overhead, which is at most tens of milliseconds per step."""
SLOW = 1.0
"""If one model's step takes more wall-clock seconds than this, trying stacks would take minutes."""
REPETITIONS, SLOW_REPETITION, SLOW_FIRST_STEP = 2, 1.0, 30.0
"""The first step is repeated `REPETITIONS` times, since it also imports and allocates, and the machine may be busy. A
repetition that takes more than `SLOW_REPETITION` seconds is the last. A first step that takes `SLOW_FIRST_STEP` seconds
is not repeated."""
STACK_SHARE = 0.5
"""Fraction of a race's memory limit that a stack may take when preflight tries it."""


@dataclass(frozen=True)
class FirstStep:
    """Cost of one training step of one model.

    Args:
        parameters: number of trainable parameters.
        seconds: wall-clock time of loading a batch, the forward and the backward pass.
        processor_seconds: CPU time of the same operations.
        weight_bytes: size of the model's weights and buffers.
        step_bytes: peak memory besides the weights: the gradients and activations of a step, the outputs for all
            validation or test examples, or copies of the model, whichever is largest.
        state_bytes: size of the state of an optimizer with two moments.
        precision: the largest machine epsilon of the numbers that the step computes, such as that of bfloat16 under
            autocast.
    """

    parameters: int
    seconds: float
    processor_seconds: float
    weight_bytes: float
    step_bytes: float
    state_bytes: float
    precision: float = torch.finfo(torch.float32).eps

    def describe(self) -> str:
        """Format the size of the model and the time of a step."""
        size = f"{self.parameters / 1e6:.1f} M" if self.parameters >= 1e5 else f"{self.parameters:,}"
        return f"one training step of {size} parameters: {self.seconds:.2g} s"

    def reject_stack(self, count: int, memory: float) -> Rejection | None:
        """Return the reason not to try stacking, or None if stacking may save time.

        Args:
            count: number of models in the stack.
            memory: memory limit of the race in bytes.
        """
        if self.processor_seconds > ARITHMETIC_BOUND or self.seconds > SLOW:
            return Rejection(RejectionCause.SLOW_STEP, self.seconds)
        needed = count * (self.weight_bytes + self.step_bytes + self.state_bytes)
        if needed > STACK_SHARE * memory:
            return Rejection(RejectionCause.MEMORY, needed, models=count)
        return None


def measure_first_step(task: Task, trial: Trial, device: str = "cpu") -> FirstStep:
    """Measure time and memory of a training step of one model.

    Args:
        task: the task.
        trial: supplies the batch size and the seed.
        device: the model's device.
    """
    with runtime_settings(device):
        stack = ModelStack(task, [trial], ExecutionMode(stacked=False, device=device))
        indices = stack.data.train[:, : trial.batch_size or stack.data.train.shape[1]]
        with PeakMemory() as memory:
            seconds, cpu_seconds = _time_step(stack, indices)
        for _ in range(REPETITIONS if seconds < SLOW_FIRST_STEP else 0):
            seconds_again, cpu_again = _time_step(stack, indices)
            seconds, cpu_seconds = min(seconds, seconds_again), min(cpu_seconds, cpu_again)
            if seconds_again > SLOW_REPETITION:
                break
        outputs, _ = stack.outputs(*stack.data.read(stack.data.valid[:, :2]))
    weights = [x[0].nbytes for x in (*stack.parameters.values(), *stack.buffers.values())]
    # All outputs are stored for the metric, in batches and concatenated, and the metric allocates about as much again.
    examples = max(stack.data.valid.shape[1], stack.data.test.shape[1])
    output_bytes = 3 * examples / 2 * sum(x.nbytes for x in outputs[0].leaves if isinstance(x, Tensor))
    copy_bytes = 3 * sum(weights)  # while the model is copied into its stack
    trained = [x[0] for x in stack.parameters.values()]
    state = 2 * sum(x.nbytes for x in trained)
    parameters = sum(x.numel() for x in trained)
    step_bytes = max(memory.peak, output_bytes, copy_bytes)
    return FirstStep(parameters, seconds, cpu_seconds, sum(weights), step_bytes, state, memory.precision)


KNOWN: dict[tuple[str, int, str], FirstStep] = {}
"""Cache of measurements by task fingerprint, batch size and device."""


def known_first_step(task: Task, trial: Trial, device: str, measure: Callable[[], FirstStep]) -> FirstStep:
    """Return the cost of a training step from the cache, or measure it.

    Args:
        task: the task.
        trial: supplies the batch size.
        device: the model's device.
        measure: called without arguments to measure the step if it is not in the cache.
    """
    key = task.fingerprint, trial.batch_size, device
    if key not in KNOWN:
        KNOWN[key] = measure()
    return KNOWN[key]


def _time_step(stack: ModelStack, indices: Tensor) -> tuple[float, float]:
    """Load a batch, compute its gradients, and return the wall-clock and CPU time in seconds."""
    start, cpu_start = time.perf_counter(), time.thread_time()
    stack.batch_gradients(indices)
    wait(stack.device)
    return time.perf_counter() - start, time.thread_time() - cpu_start


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that tracks the memory of tensors allocated while it is active, and their precision.

    Attributes:
        held: bytes that are allocated now.
        peak: maximum of `held`.
        precision: the largest machine epsilon of the tensors, at least that of float32.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self.precision = torch.finfo(torch.float32).eps
        self.known: dict[int, Any] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch imports its compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count the memory that it allocates for its results."""
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.layout is torch.strided:  # other layouts have no storage of their own
                self._note(x.untyped_storage())
                if x.is_floating_point():
                    self.precision = max(self.precision, torch.finfo(x.dtype).eps)
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self.known or not size:
            return

        def release(_: Any) -> None:
            self.held -= size
            self.known.pop(address, None)

        self.known[address] = weakref.ref(storage, release)
        self.held += size
        self.peak = max(self.peak, self.held)
