"""State dicts: torch's keys, matched by name, copied and never shared."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gradprix.kernels import wide
from gradprix.rules import Rule

from ._eager_step import LOW, real
from ._eval_mode import TRAINED

Packed = dict[str, Any]
EXACT = "gradprix"
"""The key, beside `state` and `param_groups`, of state in the rule's own form where torch's has fewer digits."""
OWN = "gradprix_"
AT = OWN + "compensation_step"


def by_name(packed: Packed, groups: Sequence[Mapping[str, Any]]) -> Packed:
    """A packed state with each group's parameters in the order of these groups, where both have the same names."""
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
    """Return a packed state in which what the rule keeps in another form than torch is in torch's form.

    The rule's own form is kept beside state and groups, since the way back can lose digits. torch ignores it there.
    """
    state = dict(packed["state"])
    exact: dict[Any, Packed] = {}
    for p, h in _hyperparameters(packed, values).items():
        if p not in state:
            continue
        held = state[p] = dict(state[p])
        named = {name: held.get(spec.key) for name, spec in rule.state.items()}
        for name, spec in rule.state.items():
            if spec.stored is not None and named[name] is not None:
                held[spec.key] = _changed(spec.stored, h, name, named)
                if held[spec.key] is not named[name]:
                    exact.setdefault(p, {})[spec.key] = named[name]
        if LOW in held and "step" in held:
            held[AT] = held["step"].clone()
    return {**packed, "state": state, **({EXACT: exact} if exact else {})}


def from_torch(packed: Packed, rule: Rule, values: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Packed:
    """Return a packed state in the rule's own form: the exact one if it still fits what torch's keys hold.

    What `torch.distributed.checkpoint` found no value for, an empty dict, is left out.
    """
    state, exact = dict(packed["state"]), packed.get(EXACT, {})
    own_keys = {"step", LOW, TRAINED, *(spec.key for spec in rule.state.values())}
    for p, h in _hyperparameters(packed, values).items():
        if p not in state:
            continue
        held = state[p] = {
            key: value
            for key, value in state[p].items()
            if not (key in own_keys and isinstance(value, dict) and not value)
        }
        named = {name: held.get(spec.key) for name, spec in rule.state.items()}
        for name, spec in rule.state.items():
            own = held.pop(OWN + spec.key, exact.get(p, {}).get(spec.key))  # older versions kept it in the state
            if spec.stored is None or spec.loaded is None or named[name] is None:
                continue
            fits = own is not None and bool(
                (_changed(spec.stored, h, name, {**named, name: own}) == held[spec.key]).all()
            )
            held[spec.key] = own if fits else _changed(spec.loaded, h, name, named)
        if held.pop(AT, None) != held.get("step") and LOW in held:
            del held[LOW]  # torch carries it along and does not keep it up to date
    return {**packed, "state": state}


def _changed(change: Callable[..., Any], h: Any, name: str, named: Mapping[str, Any]) -> Any:
    """Return one of a parameter's states in another form; complex numbers are pairs of real ones to a rule."""
    parts = {key: real(value) for key, value in named.items()}
    value = change(h, **parts)
    if value is parts[name]:
        return named[name]
    return torch.view_as_complex(value.contiguous()) if named[name].is_complex() else value


def _hyperparameters(packed: Packed, values: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[Any, Any]:
    """Return each parameter's hyperparameters, by its number in a packed state."""
    return {p: SimpleNamespace(**values(group)) for group in packed["param_groups"] for p in group["params"]}


def copy_state(packed: Packed, rule: Rule, groups: Sequence[Mapping[str, Any]], state: Any) -> None:
    """Put copies of a packed state's tensors into a state that torch has just loaded.

    torch shares them with whoever made the checkpoint, and casts the float32 averages of a bfloat16 parameter and the
    float64 numbers of a rule to the parameter's dtype: these stay as they were stored.
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
            elif key != "step" and wide(x.dtype) is not x.dtype:
                loaded = value.to(x.device, wide(x.dtype) if key in elements else value.dtype)
            state[x][key] = loaded.detach().clone()
