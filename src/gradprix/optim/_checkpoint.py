"""State dicts: torch's keys, matched by name, copied and never shared."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any, Literal

from torch import Tensor

from gradprix.rules import Rule

from ._alone import LOW

Packed = dict[str, Any]
OWN = "gradprix_"
AT = OWN + "compensation_step"


def by_name(packed: Packed, groups: Sequence[Mapping[str, Any]]) -> Packed:
    """A packed state with each group's parameters in the order of these groups, where both have the same names."""
    ordered = []
    for saved, here in zip(packed["param_groups"], groups, strict=False):
        names, wanted = saved.get("param_names"), here.get("param_names")
        if names and wanted and names != wanted:
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


def converted(
    packed: Packed,
    rule: Rule,
    values: Callable[[Mapping[str, Any]], dict[str, Any]],
    way: Literal["stored", "loaded"],
) -> Packed:
    """A packed state in which what the rule keeps in another form than torch is in torch's form, or back.

    Our own form is kept beside torch's, since the way back can lose digits, and is taken again if it still fits what
    torch's key holds: torch carries it along but does not keep it up to date.
    """
    hyperparameters = {p: values(group) for group in packed["param_groups"] for p in group["params"]}
    state = {p: dict(held) for p, held in packed["state"].items()}
    for p, held in state.items():
        named = {name: held.get(spec.key) for name, spec in rule.state.items()}
        for name, spec in rule.state.items():
            if spec.stored is None or spec.loaded is None or named[name] is None:
                continue
            h, own = SimpleNamespace(**hyperparameters[p]), OWN + spec.key
            if way == "stored":
                held[spec.key], held[own] = spec.stored(h, **named), named[name]
            else:
                exact = held.pop(own, None)
                fits = exact is not None and bool((spec.stored(h, **{**named, name: exact}) == held[spec.key]).all())
                held[spec.key] = exact if fits else spec.loaded(h, **named)
        _date(held, way)
    return {**packed, "state": state}


def _date(held: dict[str, Any], way: str) -> None:
    """Mark the compensation of a half-precision parameter with its step, or drop one that torch has stepped past."""
    if LOW not in held:
        return
    if way == "stored":
        held[AT] = held["step"].clone()
    elif held.pop(AT, None) != held["step"]:
        del held[LOW]


def copy_state(packed: Packed, groups: Sequence[Mapping[str, Any]], state: Any) -> None:
    """Put copies of a packed state's tensors into a state that torch has just loaded.

    torch shares them with whoever made the checkpoint, and casts float32 averages to a bfloat16 parameter's dtype.
    """
    numbers = chain.from_iterable(group["params"] for group in packed["param_groups"])
    params = chain.from_iterable(group["params"] for group in groups)
    for number, x in zip(numbers, params, strict=True):
        for key, value in packed["state"].get(number, {}).items():
            if isinstance(value, Tensor):
                device = value.device if value.dim() == 0 else x.device
                state[x][key] = value.detach().to(device, copy=True)
