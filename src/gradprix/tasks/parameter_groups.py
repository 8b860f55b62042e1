"""Parameter groups of a task: parameters that share factors of the learning rate and of the weight decay."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor, nn

from .model_with_loss import ModelWithLoss, trained_modules

Groups = Callable[[nn.Module], Sequence[Mapping[str, Any]]] | str
"""Function `groups(model)` that returns a list of parameter groups, or the name of a built-in one."""
NO_DECAY_NORMS = "no_decay_norms"
SETTINGS = ("lr_factor", "weight_decay", "weight_decay_factor")
"""Keys of a parameter group besides `params`."""
NORM_LAYERS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,  # batch norm and instance norm of all dimensions
)


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters that have the same settings.

    Args:
        names: names of the parameters.
        settings: values of the keys in `SETTINGS`; without a key, the optimizer's value is used.
    """

    names: tuple[str, ...]
    settings: Mapping[str, float]


def parameter_groups(groups: Groups | None, model: nn.Module) -> list[ParameterGroup]:
    """Return the parameter groups of a model, one for each combination of settings.

    Args:
        groups: the argument of a task; None puts all parameters in one group without settings.
        model: the model. Parameters that are not trained are left out.

    Raises:
        ValueError: if a group is malformed, or a parameter is in no group or in several.
        TypeError: if the function does not return dictionaries.
    """
    trained = {name: x for name, x in model.named_parameters() if x.requires_grad}
    if groups is None:
        return [ParameterGroup(tuple(trained), {})]
    own = trained_modules(model)
    given = no_decay_norms(own) if isinstance(groups, str) else _call(groups, own)
    names = {id(x): name for name, x in model.named_parameters()}
    aliases = {name: names[id(x)] for name, x in own.named_parameters(remove_duplicate=False)}
    chosen: dict[tuple[tuple[str, float], ...], list[str]] = {}
    seen: set[str] = set()
    for number, group in enumerate(given):
        settings = _settings(group, number)
        for name in _names(group["params"], names, aliases, number):
            if name in seen:
                raise ValueError(f"groups: the parameter {name} is in two groups. Leave it in one of them.")
            seen.add(name)
            if name in trained:
                chosen.setdefault(tuple(settings.items()), []).append(name)
    if missing := [name for name in trained if name not in seen]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(
            f"groups: the parameter {missing[0]}{more} of the model is in no group, so that no optimizer would train "
            "it. Add it to a group, or call requires_grad_(False) on it in model()."
        )
    order = list(trained)
    return [ParameterGroup(tuple(sorted(each, key=order.index)), dict(key)) for key, each in chosen.items()]


def _call(groups: Callable[[nn.Module], Any], model: nn.Module) -> list[Any]:
    """Return the list that a function of the user returns."""
    try:
        given: Any = groups(model)
    except AttributeError as error:
        if not isinstance(model, ModelWithLoss):
            raise
        raise AttributeError(
            f"{error}. Since the loss has parameters, groups gets a module with the attributes model and loss: "
            'give [{"params": m.model.parameters()}, {"params": m.loss.parameters()}]'
        ) from error
    if not isinstance(given, Iterable):
        raise TypeError(f"groups returns {given!r}, not a list of dictionaries with params.")
    return list(given)


def no_decay_norms(model: nn.Module) -> list[dict[str, Any]]:
    """Return two parameter groups: those with weight decay, and those without.

    Biases, parameters of norm layers and parameters with fewer than two dimensions have no weight decay.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))
        >>> [len(group["params"]) for group in no_decay_norms(model)]
        [1, 3]
    """
    in_norms = {
        id(x) for module in model.modules() if isinstance(module, NORM_LAYERS) for x in module.parameters(recurse=False)
    }
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, x in model.named_parameters():
        is_exempt = x.dim() < 2 or id(x) in in_norms or name.rpartition(".")[2] == "bias"
        (others if is_exempt else decayed).append(x)
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


def _settings(group: Any, number: int) -> dict[str, float]:
    """Return the checked settings of a group; `number` is its place in the list, from 0."""
    if not isinstance(group, Mapping) or "params" not in group:
        raise TypeError(
            f"groups: item {number} of the list is {type(group).__name__}, not a dictionary with params. Return a list "
            'such as [{"params": model.head.parameters()}, {"params": ..., "lr_factor": 0.1}].'
        )
    if unknown := [key for key in group if key not in ("params", *SETTINGS)]:
        cure = f"Keys are params, {', '.join(SETTINGS)}"
        if unknown[0] == "lr":
            cure = "Give lr_factor, a multiple of the learning rate that the race tunes"
        raise ValueError(f"groups: a group has the key {unknown[0]!r}. {cure}.")
    if "weight_decay" in group and "weight_decay_factor" in group:
        raise ValueError("groups: a group has both weight_decay and weight_decay_factor. Leave one of them out.")
    settings = {}
    for key in SETTINGS:
        if key in group:
            value = group[key]
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
                raise ValueError(f"groups: a group has {key} = {value!r}. It must be a finite number, 0 or more.")
            settings[key] = float(value)
    return settings


def _names(params: Any, names: Mapping[int, str], aliases: Mapping[str, str], number: int) -> Iterable[str]:
    """Yield the names of the parameters of a group, which are given as tensors or names."""
    for each in [params] if isinstance(params, Tensor | str) else params:
        if isinstance(each, tuple) and len(each) == 2:  # an item of named_parameters()
            each = each[1]
        if isinstance(each, str) and each not in aliases:
            raise ValueError(f"groups: the model has no parameter {each!r}. model.named_parameters() lists the names.")
        if not isinstance(each, str) and id(each) not in names:
            raise ValueError(
                f"groups: group {number} has {type(each).__name__} in params that is not a parameter of the model that "
                "groups(model) gets. Take parameters of that model, or their names."
            )
        yield aliases[each] if isinstance(each, str) else names[id(each)]
