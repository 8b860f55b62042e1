"""One parameter stepped by the rule itself: any dtype, shape and device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradprix.kernels import eager
from gradprix.rules import Rule

LOW = "compensation"
"""The key of what rounding a half-precision parameter cut off: the parameter is the sum of both."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """What a parameter of this dtype is computed and remembered in."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def steps_taken(held: Mapping[str, Any]) -> int:
    """How many steps a parameter has been through.

    torch's SGD does not count: a checkpoint of it that holds a buffer has taken one at least.
    """
    return int(held["step"]) if "step" in held else int(bool(held))


def step_alone(rule: Rule, values: Mapping[str, Any], x: Tensor, held: dict[str, Any]) -> None:
    """Step one parameter.

    Args:
        rule: what steps it.
        values: all of the rule's hyperparameters.
        x: the parameter, with its gradient.
        held: its state by torch's keys, changed in place.

    Raises:
        RuntimeError: for a sparse gradient.
    """
    assert x.grad is not None
    if x.grad.layout is not torch.strided:
        raise RuntimeError(f"{rule.name} does not step sparse gradients: make the layer with sparse=False.")
    kept, t = rule.kept(values), steps_taken(held) + 1
    before = {
        name: float(held[spec.key]) if spec.kind == "scalar" else _real(held[spec.key])
        for name, spec in kept.items()
        if held.get(spec.key) is not None
    }
    full, g = _real(x), _real(x.grad)
    half = wide(x.dtype) is not x.dtype
    if half:
        full, g = full.to(wide(x.dtype)), g.to(wide(x.dtype))
    if half and LOW in held:
        full = full + held[LOW].to(full.dtype)
    moved, after = eager(rule, values, t, full, g, before)
    _real(x).copy_(moved)
    if half:
        held[LOW] = (moved - x.to(moved.dtype)).to(x.dtype)
    held["step"] = torch.tensor(float(t))
    for name, spec in kept.items():
        # A number is kept in float64, whatever the weights are.
        value = after[name]
        if not isinstance(value, Tensor):
            held[spec.key] = torch.tensor(value, dtype=torch.float64)
        else:
            held[spec.key] = torch.view_as_complex(value) if x.is_complex() else value


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x
