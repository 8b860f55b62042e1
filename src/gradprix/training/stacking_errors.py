"""Explanations of why a model cannot be stacked, with the change that its author can make."""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path

from gradprix.tasks.task import TaskError, first_line
from gradprix.tasks.user_code import find_users_frame

READS = (
    "it reads numbers out of tensors (.item(), float(), .tolist(), .numpy()), which differ from network to network: "
    "compute with the tensors instead"
)
SHAPES = (
    "it makes tensors whose shape depends on the data (x[mask], nonzero, unique): use torch.where, or multiply by the "
    "mask, so that the shape stays"
)
BRANCH = (
    "its course depends on values in the data (if or while, assert, a check of values): use torch.where, or leave the "
    "check out"
)
FUNCTION = (
    "it calls an autograd.Function that has no vmap rule: write F.apply(x) where it is used instead of keeping F.apply "
    "under a name, or give it a setup_context and generate_vmap_rule = True"
)
IN_PLACE = "it changes a tensor in place that all networks share: make a new one, as by x.new_zeros(...), in forward"
SCRIPTED = (
    "it is a TorchScript module (torch.jit.script, torch.jit.trace): return the module itself from model(), unscripted"
)
OWN_GRADIENTS = "it differentiates by itself (torch.autograd.grad), which a stack cannot"
MIXED_TYPES = (
    "an operation gets numbers of several types, such as float32 and bfloat16: convert them first, as by "
    "x.to(weight.dtype)"
)
PARALLEL = "it is wrapped in nn.DataParallel: return the module inside it from model()"
REASONS = {
    "data-dependent control flow": BRANCH,
    "on the same device": "it makes a tensor on the CPU: give torch's functions device=x.device, and modules buffers",
    ".item()": READS,
    "reads numbers out of tensors": READS,
    "Cannot access data pointer": READS,
    "dynamic shape": SHAPES,
    "differently shaped Tensor": SHAPES,
    "shape of a tensor depends on the data": SHAPES,
    "Sparse": "it holds a sparse tensor, which torch cannot stack: .to_dense() where memory has room for it",
    "setup_context": FUNCTION,
    "does not have vmap support": FUNCTION,
    "in-place operation": IN_PLACE,
    "inplace arithmetic": IN_PLACE,
    "inplace randomness": "it draws random numbers into a tensor that all networks share: use torch.rand_like(x)",
    "Jitted modules": SCRIPTED,
    "nn.DataParallel": PARALLEL,
    "does not require grad": OWN_GRADIENTS,
    "does not have a grad_fn": OWN_GRADIENTS,
    "expected scalar type": MIXED_TYPES,
    "to have the same dtype": MIXED_TYPES,
}
"""Maps substrings of torch's messages to the reason and the remedy."""
PACKED = (
    "it packs or pads sequences, whose lengths differ from network to network: give the layer sequences padded in the "
    "data, and take each one's last output by its length (output.gather)"
)
AVERAGED = "its batch norm has momentum=None, which reads how many batches there were: give it a momentum"
BY_FILE = {
    "torch/nn/utils/rnn.py": PACKED,
    "torch/nn/modules/rnn.py": PACKED,
    "torch/nn/modules/batchnorm.py": AVERAGED,
}
"""Maps files of torch that read numbers out of tensors to the reason."""
INTERNAL = re.compile(r"vmap|functorch|[Bb]atching rule|BatchedTensor|batched tensor|NYI|unwrap", re.ASCII)


def depends_on_values(error: BaseException) -> bool:
    """Return True if a stack of models failed because the model's operations depend on the values of tensors."""
    return _reason(str(error)) in (READS, SHAPES, BRANCH)


def explain(error: BaseException) -> str:
    """Return the reason why a stack of models failed, with the line of the user's code that caused it.

    Args:
        error: the exception raised by the stack.
    """
    if isinstance(error, TaskError) and error.__cause__ is not None:
        error = error.__cause__
    message, frames = str(error), traceback.extract_tb(error.__traceback__)
    reason = _reason(message)
    if reason in (READS, None):
        by_file = (r for end, r in BY_FILE.items() if any(f.filename.endswith(end) for f in frames))
        reason = next(by_file, reason)
    if reason is None:
        if operation := re.search(r"aten::\w+", message):
            reason = f"it has an operation that cannot be stacked, {operation[0]}"
        elif INTERNAL.search(message) or _is_internal(error, frames):
            reason = "it has an operation that cannot be stacked"
        else:
            return first_line(error)
    if frame := find_users_frame(error, or_package=True):
        reason += f" ({Path(frame.filename).name}, line {frame.lineno}: {frame.line})"
    return reason


def _reason(message: str) -> str | None:
    """Return the reason for an error of torch, or None for other errors."""
    return next((reason for words, reason in REASONS.items() if words in message), None)


def _is_internal(error: BaseException, frames: Sequence[traceback.FrameSummary]) -> bool:
    """Return True for an error that torch's operations raised, whose message is not written for users."""
    is_written_here = bool(frames) and (frames[-1].line or "").startswith("raise")
    return type(error) in (RuntimeError, NotImplementedError) and not is_written_here
