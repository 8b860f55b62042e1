"""Eager step of a single parameter, of any dtype, shape and device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradprix import rules
from gradprix.kernels import eager, evaluated, start, wide
from gradprix.rules import Rule

LOW = "compensation"
"""State key of the rounding error of a half-precision parameter, whose value is the sum of both."""

SPARSE = {"sgd", "adagrad"}
"""Rules that support sparse gradients, as in torch: zero gradients leave parameter and state unchanged."""


TORCH_SCALARS = {rules.nadam}
"""Rules whose scalar state has the dtype of step counts, as in torch. Other rules use float64."""


def steps_taken(rule: Rule, held: Mapping[str, Any]) -> int:
    """Return the number of steps taken for a parameter: 0 or 1 if the rule does not count steps."""
    if rule.counts_steps and "step" in held:
        return int(held["step"])
    return int(any(held.get(spec.key) is not None for spec in rule.state.values()))


def step_dtype(group: Mapping[str, Any]) -> torch.dtype:
    """Return the dtype of the step count of a new parameter, as in torch."""
    wide_default = torch.get_default_dtype() is torch.float64 and not group.get("fused")
    return torch.float64 if wide_default else torch.float32


def scalar_dtype(rule: Rule, x: Tensor, counted_in: torch.dtype) -> torch.dtype:
    """Return the dtype of new scalar state, at least as precise as the parameter."""
    return torch.promote_types(counted_in, real(x).dtype) if rule in TORCH_SCALARS else torch.float64


def refuse(rule: Rule, values: Mapping[str, Any], x: Tensor, held: Mapping[str, Any]) -> None:
    """Raise RuntimeError for a parameter, gradient or state that the rule does not support."""
    if x.grad is None:
        return
    if x.grad.layout is not torch.strided and rule.name not in SPARSE:
        raise RuntimeError(f"{rule.name} does not step sparse gradients: make the layer with sparse=False.")
    if rule.of_matrices and not is_matrix(x):
        raise RuntimeError(
            f"{rule.name} steps matrices of real numbers, and a parameter has shape {tuple(x.shape)} and dtype "
            f"{x.dtype}. Give it to another optimizer, such as AdamW; optim.Muon does so by itself."
        )
    _refuse_repeated_memory("a parameter", x)
    for key in (spec.key for spec in rule.active_state(values).values() if spec.kind == "element"):
        tensor = held.get(key)
        if not isinstance(tensor, Tensor):
            continue
        if tensor.shape != x.shape:
            raise RuntimeError(
                f"the state {key!r} of a parameter of shape {tuple(x.shape)} has shape {tuple(tensor.shape)}: "
                "it belongs to another network. Leave it out of what is loaded."
            )
        _refuse_repeated_memory(f"the state {key!r}", tensor)


def _refuse_repeated_memory(what: str, tensor: Tensor) -> None:
    if torch._debug_has_internal_overlap(tensor) == 1:
        raise RuntimeError(
            f"{what} of shape {tuple(tensor.shape)} has strides {tensor.stride()}: several of its elements are one "
            "place in memory, as after expand(), and cannot be stepped apart. Give a copy of it: tensor.clone()."
        )


def prepare(
    rule: Rule, values: Mapping[str, Any], x: Tensor, held: dict[str, Any], counted_in: torch.dtype = torch.float32
) -> None:
    """Initialize missing state of a parameter.

    Args:
        rule: rule of the parameter.
        values: all hyperparameters.
        x: the parameter.
        held: state of the parameter, by torch's keys.
        counted_in: dtype of a new step count.
    """
    if rule.counts_steps and not isinstance(held.get("step"), Tensor):
        held["step"] = torch.tensor(float(steps_taken(rule, held)), dtype=counted_in, device="cpu")
    # Scalars first, as in torch's state dicts.
    for spec in sorted(rule.active_state(values).values(), key=lambda spec: spec.kind != "scalar"):
        if isinstance(held.get(spec.key), Tensor):
            continue
        full, g = real(x.detach()), (x if x.grad is None else x.grad).detach()
        value = start(spec, values, full.to(wide(full.dtype)), real(g.to_dense()).to(wide(full.dtype)))
        if not isinstance(value, Tensor):
            number = value if held.get(spec.key) is None else float(held[spec.key])
            held[spec.key] = torch.tensor(number, dtype=scalar_dtype(rule, x, counted_in), device="cpu")
        else:
            held[spec.key] = torch.view_as_complex(value) if x.is_complex() else value


def step_eagerly(
    rule: Rule, values: Mapping[str, Any], x: Tensor, held: dict[str, Any], counted_in: torch.dtype = torch.float32
) -> None:
    """Step one parameter in place.

    Args:
        rule: rule of the parameter.
        values: all hyperparameters.
        x: the parameter, with its gradient.
        held: state of the parameter, by torch's keys; updated in place, in its own dtypes, with missing tensors added.
        counted_in: dtype of a new step count.
    """
    assert x.grad is not None
    t = steps_taken(rule, held) + 1
    prepare(rule, values, x, held, counted_in)
    full = _full(x, held)
    g = real(x.grad.to_dense()).to(full.dtype)  # for rules with sparse gradients, zeros change nothing
    previous = _rule_state(rule, values, held)
    updated, after = eager(rule, values, t, _rule_view(rule, full), _rule_view(rule, g), previous)
    updated = updated.reshape(full.shape)
    after = {name: _copy_if_shared(value, previous) for name, value in after.items()}
    real(x).copy_(updated)
    if wide(x.dtype) is not x.dtype:
        low = (updated - x.to(updated.dtype)).to(x.dtype)
        if _matches(held.get(LOW), low):
            held[LOW].copy_(low)
        else:
            held[LOW] = low
    else:
        held.pop(LOW, None)
    if rule.counts_steps:
        held["step"].fill_(t)
    for name, spec in rule.active_state(values).items():
        value = after[name]
        if isinstance(value, Tensor):
            real(held[spec.key]).copy_(value.reshape(full.shape))
        else:
            held[spec.key].fill_(value)


def _matches(low: Any, new: Tensor) -> bool:
    return isinstance(low, Tensor) and low.shape == new.shape and low.dtype is new.dtype


def _copy_if_shared(value: Any, before: Mapping[str, Any]) -> Any:
    """Return a value, copied if it shares memory with the previous state, which is overwritten next."""
    if not isinstance(value, Tensor):
        return value
    places = {v.untyped_storage().data_ptr() for v in before.values() if isinstance(v, Tensor)}
    return value.clone() if value.untyped_storage().data_ptr() in places else value


def evaluation_point(rule: Rule, values: Mapping[str, Any], x: Tensor, held: Mapping[str, Any]) -> Tensor:
    """Return the evaluation point of a parameter, with the dtype of the parameter."""
    full = _full(x, held)
    state = _rule_state(rule, values, held)
    point = evaluated(rule, values, steps_taken(rule, held), _rule_view(rule, full), state).reshape(full.shape)
    return torch.view_as_complex(point) if x.is_complex() else point.to(x.dtype)


def is_matrix(x: Tensor) -> bool:
    """Return whether a parameter can be stepped as a matrix; convolution kernels have one row per output channel."""
    return x.dim() >= 2 and x.numel() > 0 and not x.is_complex()


def _full(x: Tensor, held: Mapping[str, Any]) -> Tensor:
    """Return a parameter in the dtype of computation, including its rounding error."""
    full: Tensor = real(x).to(wide(x.dtype)) if wide(x.dtype) is not x.dtype else real(x)
    low = held.get(LOW)
    if full.dtype is x.dtype or low is None or low.dtype is not x.dtype or low.shape != x.shape:
        return full
    # A residual above half an ulp is stale: the parameter was overwritten.
    digits = torch.finfo(x.dtype)
    most = full.abs().clamp(min=digits.smallest_normal) * (digits.eps / 2)
    low = low.to(full.dtype)
    return torch.where(low.abs() <= most, full + low, full)


def _rule_state(rule: Rule, values: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state by the names of the rule, in the form used by the rule."""
    return {
        name: float(held[spec.key]) if spec.kind == "scalar" else _rule_view(rule, _widened(real(held[spec.key])))
        for name, spec in rule.active_state(values).items()
        if held.get(spec.key) is not None
    }


def _widened(x: Tensor) -> Tensor:
    return x.to(wide(x.dtype))


def _rule_view(rule: Rule, x: Tensor) -> Tensor:
    """Return a tensor in the form used by the rule: a matrix if the rule needs one."""
    return x.flatten(1) if rule.of_matrices else x


def real(x: Any) -> Any:
    """Return a view of a complex tensor as pairs of real numbers, for use by rules; other values are unchanged."""
    return torch.view_as_real(x) if isinstance(x, Tensor) and x.is_complex() else x
