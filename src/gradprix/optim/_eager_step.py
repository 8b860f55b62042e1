"""Eager step of a single parameter, of any dtype, shape and device."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradprix import rules
from gradprix.kernels import (
    add_compensation,
    compute_dtype,
    compute_evaluation_point,
    eager_step,
    init_state,
    initial_number,
    rule_view,
    step_group,
)
from gradprix.rules import Rule

from ._overlap import local

COMPENSATION = "compensation"
"""State key of the rounding error of a half-precision parameter. Rules step the sum of parameter and rounding error."""

SPARSE = {"sgd", "adagrad"}
"""Rules that support sparse gradients, as in torch: they leave a weight with zero gradient and its state unchanged."""


TORCH_SCALARS = {rules.nadam, rules.asgd}
"""Rules whose scalar state has the dtype of step counts, as in torch. Other rules use float64."""


def steps_taken(rule: Rule, state: Mapping[str, Any]) -> int:
    """Return the number of steps taken for a parameter.

    If the rule does not count steps, the result is 0 before the first step and 1 afterwards.
    """
    if rule.counts_steps and "step" in state:
        return int(state["step"])
    return int(any(state.get(spec.key) is not None for spec in rule.state.values()))


def step_dtype(group: Mapping[str, Any]) -> torch.dtype:
    """Return the dtype of new step counts, as in torch.

    It is float64 if that is torch's default dtype and the group has no `fused=True`, else float32.
    """
    wide_default = torch.get_default_dtype() is torch.float64 and not group.get("fused")
    return torch.float64 if wide_default else torch.float32


def scalar_dtype(rule: Rule, x: Tensor, count_dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of new scalar state, which is at least as precise as the parameter's dtype."""
    return torch.promote_types(count_dtype, as_real(x).dtype) if rule in TORCH_SCALARS else torch.float64


def check_supported(rule: Rule, values: Mapping[str, Any], x: Tensor, state: Mapping[str, Any]) -> None:
    """Raise RuntimeError for a parameter, gradient or state that the rule does not support."""
    if x.grad is None:
        return
    if x.grad.layout is not torch.strided and rule.name not in SPARSE:
        raise RuntimeError(f"{rule.name} does not step sparse gradients: make the layer with sparse=False.")
    if rule.takes_vectors and x.is_complex():
        raise RuntimeError(f"{rule.name} does not step complex parameters. Give them to another optimizer.")
    if rule.is_matrix_rule and not rule.takes_vectors and not is_matrix(x):
        raise RuntimeError(
            f"{rule.name} steps matrices of real numbers, and a parameter has shape {tuple(x.shape)} and dtype "
            f"{x.dtype}. Give it to another optimizer, such as AdamW; optim.MuonWithAuxAdam does so by itself."
        )
    _check_internal_overlap("a parameter", x)
    for spec in rule.active_state(values).values():
        key, tensor = spec.key, state.get(spec.key)
        if spec.kind == "scalar" or not isinstance(tensor, Tensor):
            continue
        if tensor.shape != spec.shape(tuple(x.shape), values):
            raise RuntimeError(
                f"the state {key!r} of a parameter of shape {tuple(x.shape)} has shape {tuple(tensor.shape)}: "
                "it belongs to another network. Leave it out of what is loaded."
            )
        _check_internal_overlap(f"the state {key!r}", tensor)


def _check_internal_overlap(what: str, tensor: Tensor) -> None:
    if torch._debug_has_internal_overlap(tensor) == 1:
        raise RuntimeError(
            f"{what} of shape {tuple(tensor.shape)} has strides {tensor.stride()}: several of its elements are one "
            "place in memory, as after expand(), and cannot be stepped apart. Give a copy of it: tensor.clone()."
        )


def prepare(
    rule: Rule, values: Mapping[str, Any], x: Tensor, state: dict[str, Any], count_dtype: torch.dtype = torch.float32
) -> None:
    """Initialize the missing state of a parameter, including its step count.

    Args:
        rule: rule of the parameter.
        values: all hyperparameters.
        x: the parameter.
        state: state of the parameter, by torch's keys; updated in place.
        count_dtype: dtype of a new step count.
    """
    if rule.counts_steps and not isinstance(state.get("step"), Tensor):
        state["step"] = torch.tensor(float(steps_taken(rule, state)), dtype=count_dtype, device="cpu")
    # Scalars first, as in torch's state dicts.
    for spec in sorted(rule.active_state(values).values(), key=lambda spec: spec.kind != "scalar"):
        if spec.shared or isinstance(state.get(spec.key), Tensor):
            continue
        full, g = as_real(x.detach()), (x if x.grad is None else x.grad).detach()
        value = init_state(
            spec, values, full.to(compute_dtype(full.dtype)), as_real(g.to_dense()).to(compute_dtype(full.dtype))
        )
        if value is None:
            continue
        if not isinstance(value, Tensor):
            number = value if state.get(spec.key) is None else float(state[spec.key])
            state[spec.key] = torch.tensor(number, dtype=scalar_dtype(rule, x, count_dtype), device="cpu")
        else:
            state[spec.key] = torch.view_as_complex(value) if x.is_complex() else value


def step_params_eagerly(
    rule: Rule,
    values: Mapping[str, Any],
    params: Sequence[Tensor],
    states: Sequence[dict[str, Any]],
    group: dict[str, Any],
    count_dtype: torch.dtype = torch.float32,
) -> None:
    """Step parameters of a group in place, one after the other, and update the state that they share.

    Args:
        rule: rule of the group.
        values: all hyperparameters.
        params: the parameters, with their gradients; all of the group if the rule uses the group.
        states: state of each parameter, see `step_eagerly`.
        group: the parameter group, which holds the shared state.
        count_dtype: dtype of a new step count.
    """
    after: dict[str, float] = {}

    def step(param: tuple[Tensor, dict[str, Any]]) -> None:
        after.update(step_eagerly(rule, values, *param, group, count_dtype))

    if rule.uses_group:
        step_group(list(zip(params, states, strict=True)), step)
    else:
        for param in zip(params, states, strict=True):
            step(param)
    group.update(after)


def shared_state(rule: Rule, values: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, float]:
    """Return the state that the parameters of a group share, by the rule's names."""
    shared = {name: spec for name, spec in rule.active_state(values).items() if spec.shared}
    return {name: float(group.get(spec.key, initial_number(spec, values))) for name, spec in shared.items()}


def step_eagerly(
    rule: Rule,
    values: Mapping[str, Any],
    x: Tensor,
    state: dict[str, Any],
    group: Mapping[str, Any],
    count_dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Step one parameter in place.

    Args:
        rule: rule of the parameter.
        values: all hyperparameters.
        x: the parameter, with its gradient.
        state: state of the parameter, by torch's keys. Tensors keep their dtypes and are updated in place; missing
            tensors are added.
        group: parameter group, which holds the shared state.
        count_dtype: dtype of a new step count.

    Returns:
        The new shared state, by its keys in the group.
    """
    assert x.grad is not None
    t = steps_taken(rule, state) + 1
    prepare(rule, values, x, state, count_dtype)
    if rule.is_matrix_rule and not x.numel():  # has nothing to step, and no ratio of rows to columns
        return {}
    full = _full_precision(x, state)
    g = as_real(x.grad.to_dense()).to(full.dtype)  # in the rules of `SPARSE`, the added zeros have no effect
    previous = {**_rule_state(rule, values, state), **shared_state(rule, values, group)}
    updated, after = eager_step(rule, values, t, rule_view(rule, full), rule_view(rule, g), previous)
    updated = updated.reshape(full.shape)
    after = {name: _copy_if_shared(value, previous) for name, value in after.items()}
    as_real(x).copy_(updated)
    if compute_dtype(x.dtype) is not x.dtype:
        low = (updated - x.to(updated.dtype)).to(x.dtype)
        if _matches(state.get(COMPENSATION), low):
            state[COMPENSATION].copy_(low)
        else:
            state[COMPENSATION] = low
    else:
        state.pop(COMPENSATION, None)
    if rule.counts_steps:
        state["step"].fill_(t)
    shared = {}
    for name, spec in rule.active_state(values).items():
        value = after.get(name)
        if isinstance(value, Tensor):
            stored = as_real(state[spec.key])
            stored.copy_(value.reshape(stored.shape))
        elif value is None:
            continue
        elif spec.shared:
            shared[spec.key] = float(value)
        else:
            state[spec.key].fill_(value)
    return shared


def _matches(low: Any, new: Tensor) -> bool:
    return isinstance(low, Tensor) and low.shape == new.shape and low.dtype is new.dtype


def _copy_if_shared(value: Any, before: Mapping[str, Any]) -> Any:
    """Return a value, copied if it shares memory with the previous state, which the caller overwrites next."""
    if not isinstance(value, Tensor):
        return value
    places = {local(v).untyped_storage().data_ptr() for v in before.values() if isinstance(v, Tensor)}
    return value.clone() if local(value).untyped_storage().data_ptr() in places else value


def evaluation_point(
    rule: Rule, values: Mapping[str, Any], x: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]
) -> Tensor:
    """Return the evaluation point of a parameter of a group, in the dtype of the parameter."""
    full = _full_precision(x, state)
    rule_state = {**_rule_state(rule, values, state), **shared_state(rule, values, group)}
    point = compute_evaluation_point(rule, values, steps_taken(rule, state), rule_view(rule, full), rule_state).reshape(
        full.shape
    )
    return torch.view_as_complex(point) if x.is_complex() else point.to(x.dtype)


def is_matrix(x: Tensor) -> bool:
    """Return True if a parameter can be stepped as a matrix.

    It must be real and have at least two dimensions. Convolution kernels are matrices with one row per output channel.
    """
    return x.dim() >= 2 and not x.is_complex()


def _full_precision(x: Tensor, state: Mapping[str, Any]) -> Tensor:
    """Return a parameter in the dtype that steps are computed in, with its stored rounding error added."""
    full: Tensor = as_real(x).to(compute_dtype(x.dtype)) if compute_dtype(x.dtype) is not x.dtype else as_real(x)
    low = state.get(COMPENSATION)
    if full.dtype is x.dtype or low is None or low.dtype is not x.dtype or low.shape != x.shape:
        return full
    return add_compensation(full, low.to(full.dtype), x.dtype)


def _rule_state(rule: Rule, values: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter's own state under the rule's names, in the form that the rule computes with.

    Scalars become Python numbers; tensors are converted to the dtype of computation, and to matrices for matrix rules.
    """
    return {
        name: float(state[spec.key])
        if spec.kind == "scalar"
        else rule_view(rule, _to_compute_dtype(as_real(state[spec.key])))
        for name, spec in rule.active_state(values).items()
        if state.get(spec.key) is not None
    }


def _to_compute_dtype(x: Tensor) -> Tensor:
    return x.to(compute_dtype(x.dtype))


def as_real(x: Any) -> Any:
    """Return a complex tensor as a view of pairs of real numbers, which rules can step; return other values as is."""
    return torch.view_as_real(x) if isinstance(x, Tensor) and x.is_complex() else x
