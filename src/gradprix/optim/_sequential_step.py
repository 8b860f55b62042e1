"""Sequential step of parameters with overlapping memory, with the same results as torch's classes."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gradprix import rules
from gradprix.kernels import compute_dtype
from gradprix.rules import Rule

from ._eager_step import as_real, prepare, step_params_eagerly

TORCH = {
    rules.sgd: torch.optim.SGD,
    rules.adagrad: torch.optim.Adagrad,
    rules.rmsprop: torch.optim.RMSprop,
    rules.adadelta: torch.optim.Adadelta,
    rules.adam: torch.optim.Adam,
    rules.adamw: torch.optim.AdamW,
    rules.adamax: torch.optim.Adamax,
    rules.nadam: torch.optim.NAdam,
    rules.radam: torch.optim.RAdam,
    rules.rprop: torch.optim.Rprop,
    rules.asgd: torch.optim.ASGD,
}


def step_sequentially(
    rule: Rule,
    values: Mapping[str, Any],
    params: Sequence[Tensor],
    state: Any,
    group: dict[str, Any],
    count_dtype: torch.dtype,
) -> None:
    """Step those parameters of a group that overlap in memory with others, or with their own gradients or state.

    The result of such a step depends on the order of in-place operations. Results must equal those of torch's class, so
    this function runs torch's class on the same state. If torch lacks the class or an option in use, the rule steps one
    parameter after the other.

    Args:
        rule: rule of the group.
        values: all hyperparameters.
        params: parameters with gradients, in the order of the group; duplicates are allowed.
        state: state of the optimizer.
        group: the parameter group.
        count_dtype: dtype of new step counts.
    """
    arguments = torch_arguments(rule, values)
    if arguments is None or any(compute_dtype(x.dtype) is not x.dtype for x in params):
        # As in torch, state is initialized separately for every occurrence of a parameter.
        states = [dict(state[x]) if not rule.counts_steps else state[x] for x in params]
        step_params_eagerly(rule, values, params, states, group, count_dtype)
        for x, own in zip(params, states, strict=True):
            state[x].update(own)
        return
    if rule.counts_steps:
        for x in params:
            prepare(rule, values, x, state[x], count_dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # users have already been warned of duplicates
        optimizer = TORCH[rule](params, **arguments, foreach=False)
    optimizer.state = state
    states = list({id(state[x]): state[x] for x in params}.values())
    _convert(rule, values, states, "stored")
    type(optimizer).step.__wrapped__(optimizer)  # without hooks, which run for the outer step
    _convert(rule, values, states, "loaded")


def torch_arguments(rule: Rule, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return hyperparameters as arguments of torch's class. Returns None if torch lacks the class or an option."""
    if rule not in TORCH:
        return None
    known = inspect.signature(TORCH[rule]).parameters
    parts = {part for names in rule.tuple_arguments.values() for part in names}
    own = values.keys() - {*known, *parts, *(["decoupled_weight_decay"] if rule.owns_weight_decay else [])}
    if any(values[name] != rule.hyperparameters[name] for name in own):
        return None
    arguments = {name: value for name, value in values.items() if name in known}
    tuples = {name: tuple(values[part] for part in names) for name, names in rule.tuple_arguments.items()}
    return {**arguments, **tuples}


def _convert(rule: Rule, values: Mapping[str, Any], states: Sequence[Mapping[str, Any]], direction: str) -> None:
    """Convert state between the rule's form and torch's form in place, where these differ.

    Args:
        rule: rule of the parameters.
        values: all hyperparameters.
        states: state of each parameter.
        direction: `"stored"` to convert to torch's form, `"loaded"` to convert from it.
    """
    for state in states:
        named: dict[str, Any] = {name: as_real(state.get(spec.key)) for name, spec in rule.state.items()}
        for name, spec in rule.state.items():
            change = spec.stored if direction == "stored" else spec.loaded
            if change is not None and isinstance(named[name], Tensor):
                named[name].copy_(change(SimpleNamespace(**values), **named))
