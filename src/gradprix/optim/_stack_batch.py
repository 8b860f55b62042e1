"""Batches of parameters of one shape that a rule on whole tensors steps as a stack."""

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradprix.kernels import compile_stack_step, compute_dtype
from gradprix.rules import Rule
from gradprix.rules.matrix_ops import SIDE, SMALL

from ._batch import GRADIENT, PLAIN_TYPES, Values
from ._eager_step import prepare, steps_taken
from ._overlap import WrittenMemory
from ._scalars import Scalars, is_number, zeros

MAX_STACKED = {False: 2**15, True: 2**20}
"""Maximum number of elements of a tensor that is stacked, and of a matrix in products, whose threads work on one matrix
each in a stack. Copies of larger ones take longer than they save, or the memory of a stack is large."""
MAX_STACK = 2**18
"""Maximum number of elements of a stack, so that its temporary tensors fit into the cache."""
MIN_MATRICES = 4
"""Number of matrices in a stack for products, even if they do not fit into the cache: work for four threads."""
SIZE = attrgetter("nbytes")  # no gradient of another dtype has the same size in torch
Workspaces = dict[Any, Tensor]
"""Memory of stacks, which batches share, by the position of the tensors in a step, and their form."""


def make_stacks(
    rule: Rule,
    group: int,
    values: Values,
    params: Sequence[Tensor],
    state: Any,
    count_dtype: torch.dtype,
    workspaces: Workspaces,
) -> list["StackBatch"]:
    """Return batches of those parameters of a group that can be stepped in stacks.

    Args:
        rule: rule of the group.
        group: index of the group.
        values: all hyperparameters of the group.
        params: parameters of the group, which have gradients.
        state: state of the optimizer; missing entries of parameters in stacks are added.
        count_dtype: dtype of new step counts.
        workspaces: memory that the batches may use; missing memory is added.
    """
    if rule.scope != "tensor":
        return []
    alike: dict[Any, list[Tensor]] = {}
    specs = rule.active_state(values)
    keys = [spec.key for spec in specs.values()]
    for x in params:
        if _is_stackable(x, [x.grad, *(state[x].get(key, x) for key in keys)], state[x]):
            alike.setdefault((x.shape, x.dtype, x.device, steps_taken(rule, state[x])), []).append(x)
    batches = []
    for (*_, taken), tensors in alike.items():
        shape = tuple(tensors[0].shape)
        step = compile_stack_step(rule, values, [name for name, spec in specs.items() if spec.shape(shape, values)])
        if step is None:
            continue
        count = _stack_size(rule, tensors[0])
        _prepare(rule, values, tensors, state, count_dtype)
        for start in range(0, len(tensors), count):
            stack = tensors[start : start + count]
            batches.append(
                StackBatch(rule, group, step, taken, stack, [state[x] for x in stack], keys, workspaces, count)
            )
    return batches


def _stack_size(rule: Rule, x: Tensor) -> int:
    """Return the maximum number of parameters in a stack, given one of them."""
    sides = len(x), x[0].numel()
    if x.numel() > MAX_STACKED[rule.is_matrix_rule] or (
        rule.has_products and any(side > SMALL or side % SIDE for side in sides)
    ):
        return 1
    in_cache = MAX_STACK // max([x.numel(), *(side * side for side in sides if rule.has_products)])
    return max(in_cache, MIN_MATRICES) if rule.is_matrix_rule else in_cache


def _prepare(rule: Rule, values: Values, params: Sequence[Tensor], state: Any, count_dtype: torch.dtype) -> None:
    """Initialize the missing state of parameters."""
    missing = [state[x] for x in params if rule.counts_steps and not isinstance(state[x].get("step"), Tensor)]
    for own, count in zip(missing, zeros(len(missing), count_dtype), strict=True):
        own["step"] = count.fill_(steps_taken(rule, own))
    for x in params:
        prepare(rule, values, x, state[x], count_dtype)


def _is_stackable(x: Tensor, tensors: Sequence[Any], state: Mapping[str, Any]) -> bool:
    """Return True if a stack can step a matrix: a dense one, which is computed with in its own dtype."""
    return (
        x.dim() > 1
        and x.numel() > 0
        and all(
            type(a) in PLAIN_TYPES and a.layout is torch.strided and a.dtype is x.dtype and a.is_contiguous()
            for a in (x, *tensors)
        )
        and compute_dtype(x.dtype) is x.dtype
        and not x.is_complex()
        and (not isinstance(state.get("step"), Tensor) or is_number(state["step"]))
    )


class StackBatch:
    """Parameters of one shape, dtype and number of steps, which are stepped together.

    Small ones are copied into a stack, and back after the step; a large one is a stack of its own.

    Args:
        rule: rule of the parameters.
        group: index of their group.
        run: function that steps a stack, see `compile_stack_step`.
        taken: number of steps taken.
        params: the parameters.
        states: state of each parameter.
        keys: keys of the state, in the order of the rule.
        workspaces: memory of stacks; missing memory is added.
        most: maximum number of parameters in a stack.
    """

    def __init__(
        self,
        rule: Rule,
        group: int,
        run: Any,
        taken: int,
        params: list[Tensor],
        states: Sequence[dict[str, Any]],
        keys: Sequence[str],
        workspaces: Workspaces,
        most: int,
    ) -> None:
        self.rule, self.group, self.run, self.taken, self.params, self.states = rule, group, run, taken, params, states
        self.steps = Scalars([state["step"] for state in states]) if rule.counts_steps else None
        self.columns = {key: [state[key] for state in states] for key in keys if key in states[0]}
        tensors = [*params, *chain.from_iterable(self.columns.values())]
        self.addresses = list(map(Tensor.data_ptr, tensors))
        self.sizes, self.strides = list(map(SIZE, params)), list(map(Tensor.stride, params))
        self.lengths, self.checked_starts = np.array(self.sizes), b""
        first = [params[0], params[0], *(self.columns.get(key, [None])[0] for key in keys)]
        if len(params) == 1:
            self.stacks: list[Any] = [None if x is None else x.detach()[None] for x in first]
        else:
            self.stacks = [self._memory(workspaces, i, x, most) for i, x in enumerate(first)]
        self.inputs = list(map(self._stack_view, self.stacks))
        self.updated: list[tuple[Any, list[Tensor]]] = [(self.stacks[0], params)]
        self.updated += [(self.stacks[2 + i], self.columns[key]) for i, key in enumerate(keys) if key in self.columns]
        self.rows = [list(stack.unbind()) for stack, _ in self.updated]

    def _memory(self, workspaces: Workspaces, i: int, x: Tensor | None, count: int) -> Tensor | None:
        """Return memory for a stack of tensors of the form of `x`, which are at position `i` in a step."""
        if x is None:
            return None
        key = i, x.shape, x.dtype, x.device
        if key not in workspaces:
            workspaces[key] = x.new_empty((count, *x.shape))
        return workspaces[key][: len(self.params)]

    def _stack_view(self, stack: Tensor | None) -> Tensor | None:
        """Return a stack in the shape that the rule expects: of matrices for rules on matrices."""
        return stack.flatten(2) if stack is not None and stack.dim() > 3 and self.rule.is_matrix_rule else stack

    def is_valid(self, written: WrittenMemory) -> bool:
        """Return True if the batch can be stepped again; see `Batch.is_valid`."""
        gradients: list[Any] = list(map(GRADIENT, self.params))
        tensors: list[Any] = [*self.params, *(state.get(key) for key in self.columns for state in self.states)]
        try:
            is_usable = (
                set(map(type, gradients)) <= PLAIN_TYPES
                and all(map(Tensor.is_contiguous, gradients))
                and list(map(SIZE, gradients)) == self.sizes
                and list(map(Tensor.stride, self.params)) == self.strides  # `x.data = x.data.T` has the same address
                and list(map(Tensor.data_ptr, tensors)) == self.addresses
            )
            starts = np.fromiter(map(Tensor.data_ptr, gradients), np.int64, len(gradients))
        except (TypeError, RuntimeError):  # a tensor is missing, or has a layout without strides
            return False
        if starts.tobytes() != self.checked_starts:
            if written.meets(starts, starts + self.lengths):
                return False
            self.checked_starts = starts.tobytes()
        return is_usable and (self.steps is None or self.steps.is_unchanged())

    @torch.no_grad()
    def step(self, values: Sequence[Values]) -> None:
        """Step every parameter once."""
        gradients: list[Any] = list(map(GRADIENT, self.params))
        is_stacked = len(self.params) > 1
        if is_stacked:
            for stack, column in ((self.stacks[1], gradients), *self.updated):
                torch.stack(column, out=stack)
        else:
            self.inputs[1] = self._stack_view(gradients[0][None])
        self.taken = self.taken + 1 if self.steps else 1
        with np.errstate(all="ignore"):
            self.run(SimpleNamespace(**values[self.group]), self.taken, *self.inputs)
        if not is_stacked:
            self.inputs[1] = None  # gradients may be freed
        else:
            for (_, column), rows in zip(self.updated, self.rows, strict=True):
                torch._foreach_copy_(column, rows)
        if self.steps:
            self.steps.increment()
