"""Execution mode of a race, in sentences."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradprix.training.execution_mode import ExecutionMode, Rejection


def format_execution_mode(mode: "ExecutionMode") -> str:
    """Describe the execution mode in a sentence.

    The sentence names the device, and says if models were trained in parallel stacks. If stacking or another device was
    rejected, it gives the reason.
    """
    text = "Models were trained in parallel stacks" + ", compiled" * mode.compiled
    if not mode.stacked:
        text = "Models were trained one at a time"
    if mode.device != "cpu":
        text += f" on {mode.device}"
    if mode.stack_rejection is not None:
        text += f": {format_rejection(mode.stack_rejection)}"
    if mode.device_rejection is not None:
        text += f"; not on {format_rejection(mode.device_rejection)}"
    return f"{text}."


def format_rejection(rejection: "Rejection") -> str:
    """Format the reason for the rejection of stacking or of a device as a clause."""
    value = rejection.value or 0.0
    what = "it" if rejection.device else "a stack of it"
    clauses = {
        "training_loop": "it is a training loop of your own",
        "slow_step": f"a step of one model takes {value:.2g} s: stacking does not pay",
        "memory": f"a stack of {rejection.models} models would take {value / 1e9:.2g} GB",
        "fails": rejection.message,
        "other_gradients": f"{what} gives other gradients" + " than the CPU" * bool(rejection.device),
        "slower": f"{what} takes {value:.1f} times as long",
        "rows_differ": "a model's last digits would depend on its place in a stack",
        "closure": f"{rejection.message} computes several gradients in a step, by a closure",
        "ragged": "its batches have different shapes"
        if rejection.message in ("", "Tensor")
        else f"its batches hold values of the type {rejection.message}, which cannot be stacked",
    }
    return f"{rejection.device}: " * bool(rejection.device) + clauses[rejection.cause]
