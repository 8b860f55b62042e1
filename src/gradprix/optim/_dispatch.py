"""Dispatch of parameters to batched kernels, batched foreach calls, the eager step, or the sequential step."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import is_, itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradprix.kernels import STORAGE_DTYPES, KernelSequence, compile_kernel, compute_dtype, hoist_scalars
from gradprix.rules import Rule
from gradprix.rules.vector_form import vector_form

from ._batch import Batch
from ._eager_step import check_supported, step_dtype, step_params_eagerly
from ._foreach_batch import ForeachBatch, fits_foreach, has_device_scalars
from ._kernel_batch import KernelBatch, fits_kernel
from ._overlap import Extent, WrittenMemory, extents, overlapping
from ._sequence_batch import SequenceBatch
from ._sequential_step import step_sequentially
from ._stack_batch import StackBatch, Workspaces, make_stacks

IMPLEMENTATION = ("fused", "foreach", "capturable")
"""Keys of a parameter group that select an implementation."""
Groups = Sequence[dict[str, Any]]
Values = Sequence[Mapping[str, Any]]


class StepPlan:
    """Assignment of each parameter to a batched kernel, batched foreach calls, the eager step or the sequential step.

    A plan is reused for later steps until tensors or options are replaced; see `is_valid`.

    Args:
        rules: rule of each group.
        groups: parameter groups of the optimizer.
        state: state of the optimizer.
        values: hyperparameters of each group.
    """

    @torch.no_grad()
    def __init__(self, rules: Sequence[Rule], groups: Groups, state: Any, values: Values) -> None:
        self.rules, self.groups, self.state, self.key = rules, list(groups), state, _plan_key(groups, values)
        self.count_dtypes = list(map(step_dtype, groups))
        self.params = [x for group in groups for x in group["params"]]
        self.idle = [x for x in self.params if x.grad is None]
        active = [(x, n) for n, group in enumerate(groups) for x in group["params"] if x.grad is not None]
        new = [x for x, _ in active if x not in state]
        for x, number in active:
            check_supported(rules[number], values[number], x, state.get(x, {}))  # a refusal adds no state
        self.eager: list[tuple[Tensor, int]] = []
        self.sequential: dict[int, list[Tensor]] = {}
        overlap = overlapping([x for x, _ in active], [state[x] for x, _ in active])
        kernels: dict[Any, list[tuple[Tensor, int]]] = {}
        others: list[tuple[Tensor, int]] = []
        fits = self._fits_kernels(active, overlap, values)
        for (x, number), overlaps, is_fused in zip(active, overlap, fits, strict=True):
            rule, group = rules[number], groups[number]
            if overlaps and not rule.uses_group:
                self.sequential.setdefault(number, []).append(x)
            elif is_fused:
                rule = element_rule(rule, x)
                key = rule, hoist_scalars(rule, values[number]), x.dtype, step_dtype(group)
                kernels.setdefault(key, []).append((x, number))
            else:
                others.append((x, number))
        self.batches: list[KernelBatch] = []
        self.foreach_batches: list[ForeachBatch] = []
        for (rule, split_rule, dtype, count_dtype), params in kernels.items():
            compiled = compile_kernel(split_rule, STORAGE_DTYPES[dtype])
            if compiled is None:
                others += params
                continue
            options = rule, split_rule, params, state, values, count_dtype
            if isinstance(compiled, KernelSequence):
                self.batches.append(SequenceBatch(self.groups, compiled, *options))
            else:
                self.batches.append(KernelBatch(compiled, *options))
        self.stack_batches = self._make_stack_batches(others, values)
        stacked = {x for batch in self.stack_batches for x in batch.params}
        self._batch_foreach([(x, number) for x, number in others if x not in stacked], groups, values)
        self.reusable = not self.sequential and all(
            state[x] or not _has_state(rules[n], values[n]) for x, n in self.eager
        )
        self.written = WrittenMemory(chain.from_iterable([x, *state[x].values()] for x, _ in active))
        self.eager_addresses = self._eager_extents()
        self._remove_empty(new)
        self.keys, self.cells = list(state), list(state.values())

    def _fits_kernels(
        self, active: Sequence[tuple[Tensor, int]], overlap: Sequence[bool], values: Values
    ) -> list[bool]:
        """Return for each parameter True if a kernel can step it."""
        fits = [
            not overlaps
            and self.groups[number].get("fused") is not False
            and (rule := element_rule(self.rules[number], x)).scope == "element"
            and fits_kernel(rule, values[number], x, self.state[x])
            for (x, number), overlaps in zip(active, overlap, strict=True)
        ]
        # The tensors of a group that depend on each other are stepped by the same kernel, or by none.
        kinds: dict[int, set[Any]] = {}
        for (x, number), is_fused in zip(active, fits, strict=True):
            kinds.setdefault(number, set()).add(x.dtype if is_fused else None)
        split = {n for n, dtypes in kinds.items() if self.rules[n].uses_group and len(dtypes) > 1}
        return [is_fused and number not in split for (_, number), is_fused in zip(active, fits, strict=True)]

    def _make_stack_batches(self, params: Sequence[tuple[Tensor, int]], values: Values) -> list[StackBatch]:
        """Return the batches of parameters of equal shape that rules on whole tensors step together."""
        batches: list[StackBatch] = []
        workspaces = Workspaces()
        for number, pairs in groupby(params, key=itemgetter(1)):
            if self.groups[number].get("fused") is not False and not self.groups[number].get("capturable"):
                options = values[number], [x for x, _ in pairs], self.state, self.count_dtypes[number], workspaces
                batches += make_stacks(self.rules[number], number, *options)
        return batches

    def _batch_foreach(self, params: Sequence[tuple[Tensor, int]], groups: Groups, values: Values) -> None:
        """Divide parameters that no kernel steps into batches of foreach calls, and those that are stepped eagerly."""
        batches: dict[Any, list[tuple[Tensor, int]]] = {}
        for x, number in params:
            rule, group, own = self.rules[number], groups[number], values[number]
            if (
                _is_independent(rule)
                and (group.get("foreach") or (group.get("foreach") is None and group.get("fused") is not False))
                and fits_foreach(rule, own, x, self.state[x])
            ):
                on_device = has_device_scalars(rule, own, x, self.state[x], bool(group.get("capturable")))
                key = on_device, rule, hoist_scalars(rule, own), step_dtype(group), x.dtype, x.device
                batches.setdefault(key, []).append((x, number))
            else:
                self.eager.append((x, number))
        for (on_device, rule, split_rule, count_dtype, *_), members in batches.items():
            batch = ForeachBatch(on_device, rule, split_rule, members, self.state, values, count_dtype)
            self.foreach_batches.append(batch)

    def is_valid(self, groups: Groups, state: Any, values: Values) -> bool:
        """Return True if the plan still applies to the given groups, state and hyperparameters.

        Between steps, users may replace tensors, state and options without notice, so all of them are compared.
        """
        return (
            self.reusable
            and state is self.state
            and self.key == _plan_key(groups, values)
            and all(map(is_, groups, self.groups))
            and all(map(is_, chain.from_iterable(map(itemgetter("params"), groups)), self.params))
            and len(state) == len(self.keys)
            and all(map(is_, state, self.keys))
            and all(map(is_, state.values(), self.cells))
            and all(x.grad is None for x in self.idle)
            and all(batch.is_valid(self.written) for batch in self._all_batches())
            and self._eager_is_unchanged()
        )

    def _all_batches(self) -> Iterator[Batch | StackBatch]:
        yield from (*self.batches, *self.foreach_batches)
        yield from self.stack_batches

    def _eager_is_unchanged(self) -> bool:
        """Return True if eagerly stepped tensors have not moved, and their gradients do not overlap written memory."""
        if not self.eager:
            return True
        gradients = np.array(extents(x.grad for x, _ in self.eager), dtype=np.int64).reshape(-1, 2)
        return self._eager_extents() == self.eager_addresses and not self.written.meets(*gradients.T)

    def _eager_extents(self) -> list[Extent]:
        return extents(chain.from_iterable([x, *self.state.get(x, {}).values()] for x, _ in self.eager))

    def step(self, values: Values) -> None:
        """Step every parameter that has a gradient.

        Raises:
            RuntimeError: if a rule does not support a gradient. In this case, no parameter is modified.
        """
        for x, number in self.eager:
            check_supported(self.rules[number], values[number], x, self.state.get(x, {}))
        for batch in self._all_batches():
            batch.step(values)
        if self.eager or self.sequential:
            self._step_eagerly(values)

    @torch.no_grad()
    def _step_eagerly(self, values: Values) -> None:
        new = [x for x in self.params if x not in self.state]
        for number, pairs in groupby(self.eager, key=itemgetter(1)):
            params = [x for x, _ in pairs if x.grad is not None]
            states = [self.state[x] for x in params]
            options = self.groups[number], self.count_dtypes[number]
            step_params_eagerly(self.rules[number], values[number], params, states, *options)
        for number, params in self.sequential.items():
            options = self.groups[number], self.count_dtypes[number]
            step_sequentially(self.rules[number], values[number], params, self.state, *options)
        self._remove_empty(new)

    def _remove_empty(self, new: list[Tensor]) -> None:
        """Remove the empty state of new parameters whose rule has no state: torch creates no such entries."""
        for x in new:
            if not self.state.get(x, True):
                del self.state[x]


def element_rule(rule: Rule, x: Tensor) -> Rule:
    """Return the elementwise rule that steps a parameter as a rule does, or the rule itself if there is none."""
    if rule.scope == "element" or x.dim() > 1 or x.is_complex() or not x.is_floating_point():
        return rule
    return vector_form(rule, torch.finfo(compute_dtype(x.dtype)).eps) or rule


def _is_independent(rule: Rule) -> bool:
    """Return True if the step of an element depends on no other element, and not on other tensors of its group."""
    return rule.is_separable and not rule.uses_group


def _has_state(rule: Rule, values: Mapping[str, Any]) -> bool:
    """Return True if parameters have state after their first step with these hyperparameters."""
    return rule.counts_steps or any(not state.shared for state in rule.active_state(values).values())


def _plan_key(groups: Groups, values: Values) -> list[Any]:
    """Return, for each group, what a plan depends on: parameter count, implementation, and which values are nonzero."""
    chosen = [(len(group["params"]), *map(group.get, IMPLEMENTATION)) for group in groups]
    return list(zip(chosen, map(_nonzero, groups, values), strict=True))


def _nonzero(group: Mapping[str, Any], values: Mapping[str, Any]) -> list[bool]:
    """Return which hyperparameters are nonzero."""
    if group.get("capturable"):  # to read the values of tensors, a step would have to wait for the device
        return [isinstance(value, Tensor) or bool(value) for value in values.values()]
    return list(map(bool, values.values()))
