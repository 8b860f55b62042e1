"""Reference implementation of a step: the rule's Python function, applied to tensors of any device and dtype."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradprix.rules import Rule, State
from gradprix.rules.gradient_preprocessing import preprocessing
from gradprix.rules.ops import GROUP_TOTAL

Value = Tensor | float


def eager_step(
    rule: Rule, values: Mapping[str, Any], t: int, x: Tensor, g: Tensor, state: Mapping[str, Value]
) -> tuple[Tensor, dict[str, Value]]:
    """Perform one step of a rule on one tensor, out of place.

    Args:
        rule: the rule.
        values: all hyperparameters.
        t: step number, from 1.
        x: parameter, of any shape.
        g: gradient, of the same shape.
        state: optimizer state by name; missing entries are initialized.

    Returns:
        The new parameter and the new state. Reductions over the group are over this tensor alone, except in calls by
        `step_group`.
    """
    h = SimpleNamespace(**values)
    specs = rule.active_state(values)
    before = {name: state[name] if name in state else init_state(spec, values, x, g) for name, spec in specs.items()}
    before = as_reduction_operands(rule, before)
    updated = x
    with np.errstate(all="ignore"):
        for function in preprocessing(rule):
            updated, g = function(h, t, updated, g)
        updated, *after = rule(h, t, updated, g, *(before.get(name) for name in rule.state))
    named = {name: value for name, value in zip(rule.state, after, strict=True) if name in specs and value is not None}
    return updated, {name: _copy_if_aliased(value, x, g) for name, value in named.items()}


def as_reduction_operands(rule: Rule, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state with scalars as NumPy scalars if the rule has reductions, whose results are of this type.

    Their division by zero gives infinity or NaN, as for tensors, and that of Python numbers an error.
    """
    convert = np.float64 if rule.reductions else float
    return {name: convert(value) if isinstance(value, int | float) else value for name, value in state.items()}


def step_group(tensors: Sequence[Any], step: Callable[[Any], None]) -> None:
    """Step all tensors of a parameter group, with reductions over the group.

    The step of a tensor is interrupted at the first reduction over the group whose result is not known yet. When all
    tensors have reached it, their totals are added in order, and all steps are repeated with the known result.

    Args:
        tensors: the tensors, in the order of the group.
        step: function that steps a tensor. It must call `eager_step` before it changes a tensor.
    """
    totals: list[Any] = []
    while True:
        pending = []
        for tensor in tensors:
            try:
                with _known_totals(totals):
                    step(tensor)
            except _PendingTotalError as error:
                pending.append(error.own)
        if not pending:
            return
        totals.append(add_in_order(pending))


def add_in_order(numbers: Sequence[Any]) -> Any:
    """Return the sum of float64 numbers, added one after the other."""
    result = np.float64(0)
    with np.errstate(all="ignore"):
        for number in numbers:
            result = result + number
    return result


class _PendingTotalError(Exception):
    """Signal that a total of the group is not known yet; `own` is the total of the tensor."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        self.own = own


@contextmanager
def _known_totals(totals: Sequence[Any]) -> Iterator[None]:
    """Return the given totals, in order, from reductions over the group; raise `_PendingTotalError` after the last."""
    known = iter(totals)

    def group_total(own: Any) -> Any:
        for value in known:
            return value
        raise _PendingTotalError(own)

    token = GROUP_TOTAL.set(group_total)
    try:
        yield
    finally:
        GROUP_TOTAL.reset(token)


def compute_evaluation_point(
    rule: Rule, values: Mapping[str, Any], t: int, x: Tensor, state: Mapping[str, Value]
) -> Tensor:
    """Return the point at which to evaluate the model, which may differ from the training point.

    Args:
        rule: the rule.
        values: all hyperparameters.
        t: number of the last step.
        x: parameter at the training point.
        state: complete optimizer state by name.
    """
    if rule.evaluate is None or rule.evaluation is None:
        return x
    point: Tensor = rule.evaluate(SimpleNamespace(**values), t, x, *(state[name] for name in rule.evaluation.state))
    return point


def add_compensation(x: Tensor, low: Tensor, dtype: torch.dtype) -> Tensor:
    """Return half-precision parameters with their stored rounding errors added.

    Args:
        x: the parameters, converted to the dtype of computation.
        low: their rounding errors, converted likewise.
        dtype: dtype of the parameters.
    """
    # A residual above half an ulp is stale: the parameter was overwritten.
    digits = torch.finfo(dtype)
    most = x.abs().clamp(min=digits.smallest_normal) * (digits.eps / 2)
    return torch.where(low.abs() <= most, x + low, x)


def _copy_if_aliased(value: Any, x: Tensor, g: Tensor) -> Any:
    """Return a state value, copied if it is the parameter or the gradient, which are modified in place."""
    return value.clone() if value is x or value is g else value


def rule_view(rule: Rule, x: Tensor) -> Tensor:
    """Return a tensor in the shape that a rule expects: flattened to a matrix for rules on matrices, else unchanged."""
    return x.flatten(1) if rule.is_matrix_rule and x.dim() > 2 else x


def init_state(spec: State, values: Mapping[str, Any], x: Tensor, g: Tensor) -> Any:
    """Return the initial value of an optimizer state.

    Args:
        spec: specification of the state.
        values: all hyperparameters.
        x: parameter, in the dtype of computation.
        g: first gradient.

    Returns:
        A number for scalar state, otherwise a tensor of the dtype of `x`. None if such a parameter has no such state.
    """
    init = spec.init
    if init == "x" or init == "g":
        return (x if init == "x" else g).to(x.dtype, copy=True)
    given = values.get(init) if isinstance(init, str) else None
    if isinstance(given, Tensor) and given.numel() > 1:  # a value for each of several starting points
        return given if spec.kind == "scalar" else torch.zeros_like(x) + given
    number = initial_number(spec, values)
    if spec.kind in ("scalar", "element"):
        return number if spec.kind == "scalar" else torch.full_like(x, number)
    shape = spec.shape(tuple(x.shape), values)
    return None if shape is None else x.new_full(shape, number)


def initial_number(spec: State, values: Mapping[str, Any]) -> float:
    """Return the initial value of a state that is a number, or given by one."""
    return float(values[spec.init]) if isinstance(spec.init, str) else spec.init
