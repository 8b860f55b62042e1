"""Execution mode of a race's training: in stacks or one model at a time, on which device, and why."""

from dataclasses import dataclass
from enum import StrEnum


class RejectionCause(StrEnum):
    """Category of the reason why a race does not use stacking or a device."""

    TRAINING_LOOP = "training_loop"
    SLOW_STEP = "slow_step"
    MEMORY = "memory"
    FAILS = "fails"
    OTHER_GRADIENTS = "other_gradients"
    SLOWER = "slower"
    ROWS_DIFFER = "rows_differ"
    RAGGED = "ragged"
    CLOSURE = "closure"


@dataclass(frozen=True)
class Rejection:
    """Reason why a race does not use stacking or a device.

    Args:
        cause: category of the reason.
        value: the measured value: seconds of one model's step (`SLOW_STEP`), bytes of the stack (`MEMORY`), or the
            slowdown (`SLOWER`); None for other causes.
        models: number of models in the stack that needs too much memory (`MEMORY`); None for other causes.
        message: explanation of the error (`FAILS`), names of entries (`CLOSURE`), or the type of value in the batches
            that cannot be stacked,
            `"Tensor"` if their shapes differ (`RAGGED`).
        device: the rejected device; empty if stacking was rejected.
    """

    cause: RejectionCause
    value: float | None = None
    models: int | None = None
    message: str = ""
    device: str = ""


@dataclass(frozen=True)
class ExecutionMode:
    """Execution mode of a race's training, the same for all models of a race, since modes differ in rounding.

    Args:
        stacked: train the models of a stack together, as one program; otherwise one at a time.
        compiled: compile the stacked program with `torch.compile`.
        device: the device of the models.
        widest: the largest stack size that was checked; None if there is no limit.
        stack_rejection: the reason why models are trained one at a time.
        device_rejection: the reason why an available GPU is not used.
    """

    stacked: bool = True
    compiled: bool = False
    device: str = "cpu"
    widest: int | None = None
    stack_rejection: Rejection | None = None
    device_rejection: Rejection | None = None


STACKED = ExecutionMode()
