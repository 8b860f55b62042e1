"""One parameter stepped by the rule itself: any dtype, shape and device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradprix.kernels import eager, evaluated, start, wide
from gradprix.rules import Rule

LOW = "compensation"
"""The key of what rounding a half-precision parameter cut off: the parameter is the sum of both."""

SPARSE = {"sgd", "adagrad"}
"""The rules that step sparse gradients, as torch's classes do: they are no others where they are zero."""


def steps_taken(rule: Rule, held: Mapping[str, Any]) -> int:
    """Return the number of steps a parameter has been through: 0 or 1 for a rule that does not count them."""
    if rule.counts_steps and "step" in held:
        return int(held["step"])
    return int(any(held.get(spec.key) is not None for spec in rule.state.values()))


def step_dtype(group: Mapping[str, Any]) -> torch.dtype:
    """Return the dtype in which a new parameter of a group counts its steps, as torch chooses it."""
    wide_default = torch.get_default_dtype() is torch.float64 and not group.get("fused")
    return torch.float64 if wide_default else torch.float32


def initial_state(rule: Rule, values: Mapping[str, Any], group: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    """Return a parameter's state before the first step, by torch's keys, for a rule that starts from numbers."""
    full = _real(x.detach()).to(wide(x.dtype)) if x.is_floating_point() else _real(x.detach())
    held: dict[str, Any] = {"step": torch.zeros((), dtype=step_dtype(group))}
    for spec in rule.kept(values).values():
        first = torch.as_tensor(start(spec, values, full, full))
        held[spec.key] = torch.view_as_complex(first) if x.is_complex() else first
    return held


def refuse(rule: Rule, x: Tensor) -> None:
    """Raise RuntimeError, saying what to do, for a gradient or a parameter that the rule cannot step."""
    if x.grad is None:
        return
    if x.grad.layout is not torch.strided and rule.name not in SPARSE:
        raise RuntimeError(f"{rule.name} does not step sparse gradients: make the layer with sparse=False.")
    if rule.of_matrices and not is_matrix(x):
        raise RuntimeError(
            f"{rule.name} steps matrices of real numbers, and a parameter has shape {tuple(x.shape)} and dtype "
            f"{x.dtype}. Give it to another optimizer, such as AdamW; optim.Muon does so by itself."
        )


def step_alone(
    rule: Rule, values: Mapping[str, Any], x: Tensor, held: dict[str, Any], counted_in: torch.dtype = torch.float32
) -> None:
    """Step one parameter.

    Args:
        rule: what steps it.
        values: all of the rule's hyperparameters.
        x: the parameter, with its gradient.
        held: its state by torch's keys, changed in place.
        counted_in: the dtype of a new step count.
    """
    assert x.grad is not None
    t = steps_taken(rule, held) + 1
    full = _full(x, held)
    g = _real(x.grad.to_dense()).to(full.dtype)  # where gradients may be sparse, a zero moves nothing
    moved, after = eager(rule, values, t, _seen(rule, full), _seen(rule, g), _remembered(rule, values, held))
    moved = moved.reshape(full.shape)
    _real(x).copy_(moved)
    if wide(x.dtype) is not x.dtype:
        held[LOW] = (moved - x.to(moved.dtype)).to(x.dtype)
    else:
        held.pop(LOW, None)
    if rule.counts_steps:
        held["step"] = torch.tensor(float(t), dtype=counted_in)
    for name, spec in rule.kept(values).items():
        # A number is kept in float64, whatever the weights are.
        value = after[name]
        if not isinstance(value, Tensor):
            held[spec.key] = torch.tensor(value, dtype=torch.float64)
        else:
            value = value.reshape(full.shape)
            held[spec.key] = torch.view_as_complex(value) if x.is_complex() else value


def point_alone(rule: Rule, values: Mapping[str, Any], x: Tensor, held: Mapping[str, Any]) -> Tensor:
    """Where to evaluate the model in place of a parameter that has been stepped, in the parameter's own form."""
    full = _full(x, held)
    state = _remembered(rule, values, held)
    point = evaluated(rule, values, steps_taken(rule, held), _seen(rule, full), state).reshape(full.shape)
    return torch.view_as_complex(point) if x.is_complex() else point.to(x.dtype)


def is_matrix(x: Tensor) -> bool:
    """Whether a rule of matrices can step a parameter: a kernel of a convolution counts as a row for each output."""
    return x.dim() >= 2 and x.numel() > 0 and not x.is_complex()


def _full(x: Tensor, held: Mapping[str, Any]) -> Tensor:
    """A parameter in what it is computed in, with what its own dtype cut off."""
    full = _real(x).to(wide(x.dtype)) if wide(x.dtype) is not x.dtype else _real(x)
    low = held.get(LOW)
    if full.dtype is x.dtype or low is None or low.dtype is not x.dtype or low.shape != x.shape:
        return full
    # What is more than half of the parameter's last digit is of another value, which somebody has overwritten.
    digits = torch.finfo(x.dtype)
    most = full.abs().clamp(min=digits.smallest_normal) * (digits.eps / 2)
    low = low.to(full.dtype)
    return torch.where(low.abs() <= most, full + low, full)


def _remembered(rule: Rule, values: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """The state by the rule's own names, as the rule sees it."""
    return {
        name: float(held[spec.key]) if spec.kind == "scalar" else _seen(rule, _real(held[spec.key]))
        for name, spec in rule.kept(values).items()
        if held.get(spec.key) is not None
    }


def _seen(rule: Rule, x: Tensor) -> Tensor:
    """A tensor as the rule sees it."""
    return x.flatten(1) if rule.of_matrices else x


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x
