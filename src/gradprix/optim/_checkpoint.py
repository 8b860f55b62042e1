"""Conversion of state dicts from and to torch's format; parameters are matched by name, tensors are copied."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gradprix.kernels import compute_dtype
from gradprix.rules import Rule

from ._eager_step import COMPENSATION, as_real
from ._eval_mode import TRAINED

Packed = dict[str, Any]
"""State dict of an optimizer, in which parameters are represented by their indices."""
EXACT_STATE = "gradprix"
"""Top-level key of a state dict, for state in the rule's own form where torch's form is less precise."""
PREFIX = "gradprix_"
COMPENSATION_STEP = PREFIX + "compensation_step"


def by_name(packed: Packed, groups: Sequence[Mapping[str, Any]]) -> Packed:
    """Reorder the parameters of a state dict to match the order of their names in `groups`.

    The order does not change if names are missing, or if the names differ; in the latter case, a warning is issued.
    """
    ordered = []
    for saved, here in zip(packed["param_groups"], groups, strict=False):
        names, wanted = saved.get("param_names"), here.get("param_names")
        if names and wanted and names != wanted and len(set(names)) == len(names):
            if set(names) != set(wanted):
                odd = ", ".join(sorted(set(names) ^ set(wanted)))
                warnings.warn(
                    f"gradprix: the checkpoint and the optimizer name different parameters ({odd}): they are matched "
                    "in order, as torch does.",
                    stacklevel=5,
                )
            else:
                number = dict(zip(names, saved["params"], strict=True))
                saved = {**saved, "params": [number[name] for name in wanted], "param_names": list(wanted)}
        ordered.append(saved)
    return {**packed, "param_groups": [*ordered, *packed["param_groups"][len(ordered) :]]}


def to_torch(packed: Packed, rule: Rule, values: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Packed:
    """Convert a state dict from the rule's own form to torch's form.

    State that loses precision by the conversion is also stored in the rule's own form, under a separate top-level key
    that torch ignores.
    """
    state = dict(packed["state"])
    exact: dict[Any, Packed] = {}
    for p, h in _hyperparameters(packed, values).items():
        if p not in state:
            continue
        param_state = state[p] = dict(state[p])
        named = {name: param_state.get(spec.key) for name, spec in rule.state.items()}
        for name, spec in rule.state.items():
            if spec.stored is not None and named[name] is not None:
                param_state[spec.key] = _convert(spec.stored, h, name, named)
                if param_state[spec.key] is not named[name]:
                    exact.setdefault(p, {})[spec.key] = named[name]
        if COMPENSATION in param_state and "step" in param_state:
            param_state[COMPENSATION_STEP] = param_state["step"].clone()
    return {**packed, "state": state, **({EXACT_STATE: exact} if exact else {})}


def from_torch(packed: Packed, rule: Rule, values: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Packed:
    """Convert a state dict from torch's form to the rule's own form.

    State that `to_torch` has stored in the rule's own form is used if it is still consistent with torch's form. Empty
    dicts are removed, since `torch.distributed.checkpoint` replaces missing values by them.
    """
    state, exact = dict(packed["state"]), packed.get(EXACT_STATE, {})
    own_keys = {"step", COMPENSATION, TRAINED, *(spec.key for spec in rule.state.values())}
    for p, h in _hyperparameters(packed, values).items():
        if p not in state:
            continue
        param_state = state[p] = {
            key: value
            for key, value in state[p].items()
            if not (key in own_keys and isinstance(value, dict) and not value)
        }
        named = {name: param_state.get(spec.key) for name, spec in rule.state.items()}
        for name, spec in rule.state.items():
            # Older versions stored the exact value in the state.
            exact_value = param_state.pop(PREFIX + spec.key, exact.get(p, {}).get(spec.key))
            if spec.stored is None or spec.loaded is None or named[name] is None:
                continue
            fits = exact_value is not None and bool(
                (_convert(spec.stored, h, name, {**named, name: exact_value}) == param_state[spec.key]).all()
            )
            param_state[spec.key] = exact_value if fits else _convert(spec.loaded, h, name, named)
        if param_state.pop(COMPENSATION_STEP, None) != param_state.get("step") and COMPENSATION in param_state:
            del param_state[COMPENSATION]  # stale: torch has stepped since, without updating the compensation
    return {**packed, "state": state}


def _convert(change: Callable[..., Any], h: Any, name: str, named: Mapping[str, Any]) -> Any:
    """Apply a conversion to one state of a parameter.

    Complex tensors are passed to the conversion as pairs of real numbers, which is how rules represent them.

    Args:
        change: the conversion, `State.stored` or `State.loaded`.
        h: hyperparameters of the parameter.
        name: name of the state to convert.
        named: all state of the parameter, by name.
    """
    parts = {key: as_real(value) for key, value in named.items()}
    value = change(h, **parts)
    if value is parts[name]:
        return named[name]
    return torch.view_as_complex(value.contiguous()) if named[name].is_complex() else value


def _hyperparameters(packed: Packed, values: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[Any, Any]:
    """Return the hyperparameters of each parameter, by its index in a state dict."""
    return {p: SimpleNamespace(**values(group)) for group in packed["param_groups"] for p in group["params"]}


def copy_state(packed: Packed, rule: Rule, groups: Sequence[Mapping[str, Any]], state: Any) -> None:
    """Replace the state that torch has loaded by copies of the stored tensors, in their stored dtypes.

    torch's own loading shares tensors with the checkpoint. It also casts the float32 state of bfloat16 parameters and
    the float64 scalars of rules to the dtype of the parameter.
    """
    scalars = {spec.key for spec in rule.state.values() if spec.kind == "scalar"}
    elements = {spec.key for spec in rule.state.values()} - scalars
    numbers = chain.from_iterable(group["params"] for group in packed["param_groups"])
    params = chain.from_iterable(group["params"] for group in groups)
    for number, x in zip(numbers, params, strict=True):
        for key, value in packed["state"].get(number, {}).items():
            if not isinstance(value, Tensor) or key not in state[x]:
                continue
            loaded = state[x][key]
            if key in scalars:
                loaded = value
            elif key != "step" and compute_dtype(x.dtype) is not x.dtype:
                loaded = value.to(x.device, compute_dtype(x.dtype) if key in elements else value.dtype)
            state[x][key] = loaded.detach().clone()
