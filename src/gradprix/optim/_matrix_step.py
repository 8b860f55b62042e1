"""Step of matrices in place, with small matrices of one shape as a stack."""

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gradprix.kernels import compile_in_place, compute_dtype
from gradprix.rules import Rule

from ._batch import PLAIN_TYPES
from ._eager_step import prepare, step_eagerly, steps_taken

MAX_STACKED = 2**15
"""Maximum number of elements of a matrix that is stacked: for larger ones, copies take longer than calls of torch."""
MAX_STACK = 2**18
"""Maximum number of elements of a stack, so that its temporary tensors fit into the cache."""


def step_matrices(rule: Rule, values: Mapping[str, Any], params: Sequence[Tensor], state: Any) -> None:
    """Step parameters in place by a rule with `steps_stacks`, with the numbers of `step_eagerly` for each.

    Args:
        rule: the rule.
        values: all hyperparameters.
        params: the parameters, with their gradients.
        state: state of the optimizer; missing tensors are added.
    """
    h, keys = SimpleNamespace(**values), [spec.key for spec in rule.active_state(values).values()]
    step = compile_in_place(rule, values)
    for stack in _stacks(rule, params, state):
        t = steps_taken(rule, state[stack[0]]) + 1
        for x in stack if t == 1 else ():
            prepare(rule, values, x, state[x])
        if stack[0].numel() == 0:  # has nothing to step, and no ratio of rows to columns
            continue
        columns = [[state[x][key] for x in stack] for key in keys]
        tensors: list[list[Any]] = [[*stack], [x.grad for x in stack], *columns]
        if step is None or not all(map(_is_viewable, tensors)):
            for x in stack:
                step_eagerly(rule, values, x, state[x], {})
        elif len(stack) == 1:
            step(h, t, *(each.detach().flatten(1) for (each,) in tensors))
        else:
            together = [torch.stack(list(each)).flatten(2) for each in tensors]
            step(h, t, *together)
            for old, new in zip((stack, *columns), (together[0], *together[2:]), strict=True):
                torch._foreach_copy_(old, [row.view_as(x) for row, x in zip(new.unbind(), old, strict=True)])


def _stacks(rule: Rule, params: Sequence[Tensor], state: Any) -> Iterator[list[Tensor]]:
    """Yield the parameters in stacks of equal shape, dtype, device and number of steps; large ones alone."""
    alike: dict[Any, list[Tensor]] = {}
    for x in params:
        alike.setdefault((x.shape, x.dtype, x.device, steps_taken(rule, state[x])), []).append(x)
    for matrices in alike.values():
        size = matrices[0].numel()
        count = MAX_STACK // max(size, 1) if size <= MAX_STACKED else 1
        yield from (matrices[start : start + count] for start in range(0, len(matrices), count))


def _is_viewable(tensors: Sequence[Any]) -> bool:
    """Return True if dense tensors are computed with in their own dtype, and can be flattened to matrices as views."""
    return all(
        type(x) in PLAIN_TYPES and compute_dtype(x.dtype) is x.dtype and (x.dim() == 2 or x.is_contiguous())
        for x in tensors
    )
