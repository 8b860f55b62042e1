"""One parameter stepped by the rule itself: any dtype, shape and device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradprix import rules
from gradprix.kernels import eager, evaluated, start, wide
from gradprix.rules import Rule

LOW = "compensation"
"""The key of what rounding a half-precision parameter cut off: the parameter is the sum of both."""

SPARSE = {"sgd", "adagrad"}
"""The rules that step sparse gradients, as torch's classes do: they are no others where they are zero."""


TORCH_SCALARS = {rules.nadam}
"""The rules whose classes in torch keep scalar state, too, in the dtype of a step count. Others keep it in float64."""


def steps_taken(rule: Rule, held: Mapping[str, Any]) -> int:
    """Return the number of steps a parameter has been through: 0 or 1 for a rule that does not count them."""
    if rule.counts_steps and "step" in held:
        return int(held["step"])
    return int(any(held.get(spec.key) is not None for spec in rule.state.values()))


def step_dtype(group: Mapping[str, Any]) -> torch.dtype:
    """Return the dtype in which a new parameter of a group counts its steps, as torch chooses it."""
    wide_default = torch.get_default_dtype() is torch.float64 and not group.get("fused")
    return torch.float64 if wide_default else torch.float32


def scalar_dtype(rule: Rule, x: Tensor, counted_in: torch.dtype) -> torch.dtype:
    """Return the dtype of new scalar state: never fewer digits than the parameter has."""
    return torch.promote_types(counted_in, real(x).dtype) if rule in TORCH_SCALARS else torch.float64


def refuse(rule: Rule, values: Mapping[str, Any], x: Tensor, held: Mapping[str, Any]) -> None:
    """Raise RuntimeError, saying what to do, for a parameter, gradient or state that the rule cannot step."""
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
    for key in (spec.key for spec in rule.kept(values).values() if spec.kind == "element"):
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
    """Add what is missing of a parameter's state, as it is before the first step.

    Args:
        rule: what steps it.
        values: all of the rule's hyperparameters.
        x: the parameter.
        held: its state by torch's keys.
        counted_in: the dtype of a new step count.
    """
    if rule.counts_steps and not isinstance(held.get("step"), Tensor):
        held["step"] = torch.tensor(float(steps_taken(rule, held)), dtype=counted_in, device="cpu")
    for spec in sorted(rule.kept(values).values(), key=lambda spec: spec.kind != "scalar"):  # in torch's order
        if isinstance(held.get(spec.key), Tensor):
            continue
        full, g = real(x.detach()), (x if x.grad is None else x.grad).detach()
        value = start(spec, values, full.to(wide(full.dtype)), real(g.to_dense()).to(wide(full.dtype)))
        if not isinstance(value, Tensor):
            number = value if held.get(spec.key) is None else float(held[spec.key])
            held[spec.key] = torch.tensor(number, dtype=scalar_dtype(rule, x, counted_in), device="cpu")
        else:
            held[spec.key] = torch.view_as_complex(value) if x.is_complex() else value


def step_alone(
    rule: Rule, values: Mapping[str, Any], x: Tensor, held: dict[str, Any], counted_in: torch.dtype = torch.float32
) -> None:
    """Step one parameter, in the memory of the parameter and of its state.

    Args:
        rule: what steps it.
        values: all of the rule's hyperparameters.
        x: the parameter, with its gradient.
        held: its state by torch's keys. Its tensors are changed in place, in their own dtypes; missing ones are added.
        counted_in: the dtype of a new step count.
    """
    assert x.grad is not None
    t = steps_taken(rule, held) + 1
    prepare(rule, values, x, held, counted_in)
    full = _full(x, held)
    g = real(x.grad.to_dense()).to(full.dtype)  # where gradients may be sparse, a zero moves nothing
    before = _remembered(rule, values, held)
    moved, after = eager(rule, values, t, _seen(rule, full), _seen(rule, g), before)
    moved = moved.reshape(full.shape)
    after = {name: _apart(value, before) for name, value in after.items()}
    real(x).copy_(moved)
    if wide(x.dtype) is not x.dtype:
        low = (moved - x.to(moved.dtype)).to(x.dtype)
        if _fits(held.get(LOW), low):
            held[LOW].copy_(low)
        else:
            held[LOW] = low
    else:
        held.pop(LOW, None)
    if rule.counts_steps:
        held["step"].fill_(t)
    for name, spec in rule.kept(values).items():
        value = after[name]
        if isinstance(value, Tensor):
            real(held[spec.key]).copy_(value.reshape(full.shape))
        else:
            held[spec.key].fill_(value)


def _fits(low: Any, new: Tensor) -> bool:
    return isinstance(low, Tensor) and low.shape == new.shape and low.dtype is new.dtype


def _apart(value: Any, before: Mapping[str, Any]) -> Any:
    """Return a value that shares no memory with the state before, which is written to next."""
    if not isinstance(value, Tensor):
        return value
    places = {v.untyped_storage().data_ptr() for v in before.values() if isinstance(v, Tensor)}
    return value.clone() if value.untyped_storage().data_ptr() in places else value


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
    full: Tensor = real(x).to(wide(x.dtype)) if wide(x.dtype) is not x.dtype else real(x)
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
        name: float(held[spec.key]) if spec.kind == "scalar" else _seen(rule, _widened(real(held[spec.key])))
        for name, spec in rule.kept(values).items()
        if held.get(spec.key) is not None
    }


def _widened(x: Tensor) -> Tensor:
    return x.to(wide(x.dtype))


def _seen(rule: Rule, x: Tensor) -> Tensor:
    """A tensor as the rule sees it."""
    return x.flatten(1) if rule.of_matrices else x


def real(x: Any) -> Any:
    """Return a view of a complex tensor as pairs of real numbers, in which rules step it; all else as it is."""
    return torch.view_as_real(x) if isinstance(x, Tensor) and x.is_complex() else x
