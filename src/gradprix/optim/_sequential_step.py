"""Steps of parameters whose memory overlaps, one after another, with the numbers of torch's own classes."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gradprix import rules
from gradprix.kernels import wide
from gradprix.rules import Rule

from ._eager_step import prepare, real, step_alone

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
}


def step_in_turn(
    rule: Rule, values: Mapping[str, Any], params: Sequence[Tensor], state: Any, counted_in: torch.dtype
) -> None:
    """Step parameters of one group that overlap with others, or with their own gradients or state.

    What such a step does depends on the order of single operations in place. torch's class of that name defines it,
    and does it here, on the same state; where torch has no such class or option, each parameter is stepped by the rule.

    Args:
        rule: what steps them.
        values: all of the rule's hyperparameters.
        params: parameters with gradients, in the order of the group; one may occur twice.
        state: the optimizer's state.
        counted_in: the dtype of new step counts.
    """
    arguments = torch_arguments(rule, values)
    if arguments is None or any(wide(x.dtype) is not x.dtype for x in params):
        # As in torch, a first gradient is taken whole by every occurrence of a parameter.
        held = [dict(state[x]) if not rule.counts_steps else state[x] for x in params]
        for x, own in zip(params, held, strict=True):
            step_alone(rule, values, x, own, counted_in)
            state[x].update(own)
        return
    if rule.counts_steps:
        for x in params:
            prepare(rule, values, x, state[x], counted_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user has been warned of duplicates
        optimizer = TORCH[rule](params, **arguments, foreach=False)
    optimizer.state = state
    held = list({id(state[x]): state[x] for x in params}.values())
    _convert(rule, values, held, "stored")
    type(optimizer).step.__wrapped__(optimizer)  # without the hooks, which see our own step
    _convert(rule, values, held, "loaded")


def torch_arguments(rule: Rule, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a group's hyperparameters as arguments of torch's class, or None where it has no such class or option."""
    if rule not in TORCH:
        return None
    known = inspect.signature(TORCH[rule]).parameters
    own = values.keys() - {*known, *rule.betas, *(["decoupled_weight_decay"] if rule.owns_weight_decay else [])}
    if any(values[name] != rule.hyperparameters[name] for name in own):
        return None
    arguments = {name: value for name, value in values.items() if name in known}
    return {**arguments, "betas": tuple(values[beta] for beta in rule.betas)} if rule.betas else arguments


def _convert(rule: Rule, values: Mapping[str, Any], held: Sequence[Mapping[str, Any]], way: str) -> None:
    """Change state that the rule keeps in another form than torch into torch's form, or back, in place."""
    for state in held:
        named: dict[str, Any] = {name: real(state.get(spec.key)) for name, spec in rule.state.items()}
        for name, spec in rule.state.items():
            change = spec.stored if way == "stored" else spec.loaded
            if change is not None and isinstance(named[name], Tensor):
                named[name].copy_(change(SimpleNamespace(**values), **named))
