"""Optimizer classes, each defined by a rule and the order of its arguments."""

import inspect
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from gradprix import rules

from ._eager_step import prepare, step_dtype
from ._optimizer import RuleOptimizer
from ._scalars import make_contiguous
from .variants import with_options


class SGD(
    RuleOptimizer,
    torch.optim.SGD,
    rule=rules.sgd,
    arguments="lr momentum dampening weight_decay nesterov * maximize foreach differentiable fused",
):
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, after checking its hyperparameters against the ranges that the rule allows.

        Raises:
            TypeError: if a key looks like a misspelt argument.
            ValueError: if a value is outside its range, or for `nesterov=True` without momentum or with dampening.
        """
        super().add_param_group(param_group)
        values = self.values(self.param_groups[-1])
        if values["nesterov"] and not (values["momentum"] and not values["dampening"]):
            self.param_groups.pop()
            raise ValueError("nesterov looks one step ahead of a momentum that is not dampened: give momentum=0.9.")


class Adagrad(
    RuleOptimizer,
    torch.optim.Adagrad,
    rule=rules.adagrad,
    arguments="lr lr_decay weight_decay initial_accumulator_value eps foreach * maximize differentiable fused",
):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # State exists from the start, as in torch, so that it can be shared between processes and saved.
        for group in self.param_groups:
            for x in group["params"]:
                prepare(self.rule, self.values(group), x, self.state[x], step_dtype(group))
        make_contiguous(self.state.values(), "step")


class RMSprop(
    RuleOptimizer,
    torch.optim.RMSprop,
    rule=rules.rmsprop,
    arguments="lr alpha eps weight_decay momentum centered capturable foreach maximize differentiable",
): ...


class Adadelta(
    RuleOptimizer,
    torch.optim.Adadelta,
    rule=rules.adadelta,
    arguments="lr rho eps weight_decay foreach * capturable maximize differentiable",
): ...


class Adam(
    RuleOptimizer,
    torch.optim.Adam,
    rule=rules.adam,
    arguments="lr betas eps weight_decay amsgrad "
    "* foreach maximize capturable differentiable fused decoupled_weight_decay",
): ...


class AdamW(
    Adam,
    torch.optim.AdamW,
    rule=rules.adamw,
    arguments="lr betas eps weight_decay amsgrad * maximize foreach capturable differentiable fused",
    fixed={"decoupled_weight_decay": True},
):
    def rule_of(self, group: Mapping[str, Any]) -> rules.Rule:
        """Return the rule of a group: Adam if it has `decoupled_weight_decay=False`, as in torch, otherwise AdamW."""
        return with_options(rules.adamw if group.get("decoupled_weight_decay", True) else rules.adam, group)


class Adamax(
    RuleOptimizer,
    torch.optim.Adamax,
    rule=rules.adamax,
    arguments="lr betas eps weight_decay foreach * maximize differentiable capturable",
): ...


class NAdam(
    RuleOptimizer,
    torch.optim.NAdam,
    rule=rules.nadam,
    arguments="lr betas eps weight_decay momentum_decay decoupled_weight_decay "
    "* foreach maximize capturable differentiable",
): ...


class RAdam(
    RuleOptimizer,
    torch.optim.RAdam,
    rule=rules.radam,
    arguments="lr betas eps weight_decay decoupled_weight_decay * foreach maximize capturable differentiable",
): ...


class Rprop(
    RuleOptimizer,
    torch.optim.Rprop,
    rule=rules.rprop,
    arguments="lr etas step_sizes * capturable foreach maximize differentiable",
): ...


class ASGD(
    RuleOptimizer,
    torch.optim.ASGD,
    rule=rules.asgd,
    arguments="lr lambd alpha t0 weight_decay foreach maximize differentiable capturable",
): ...


class Adafactor(
    RuleOptimizer,
    torch.optim.Adafactor,
    rule=rules.adafactor,
    arguments="lr beta2_decay eps d weight_decay * foreach maximize",
):
    """Adafactor, with `eps=(None, 1e-3)` for the machine epsilon of the dtype of computation, as in torch."""

    def values(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters of a parameter group under the rule's names; 0 stands for the machine epsilon."""
        match group.get("eps"):
            case (None, eps2):
                return super().values({**group, "eps": (0.0, eps2)})
        return super().values(group)


Adafactor.__signature__ = inspect.Signature(
    [
        parameter.replace(default=(None, 1e-3)) if name == "eps" else parameter
        for name, parameter in Adafactor.__signature__.parameters.items()
    ]
)


class Lion(RuleOptimizer, rule=rules.lion, arguments="lr betas weight_decay * maximize"): ...


class Adan(RuleOptimizer, rule=rules.adan, arguments="lr betas eps weight_decay * maximize"): ...


class AdEMAMix(RuleOptimizer, rule=rules.ademamix, arguments="lr betas alpha eps weight_decay * maximize"): ...


class ADOPT(RuleOptimizer, rule=rules.adopt, arguments="lr betas eps weight_decay * maximize"): ...


class ScheduleFreeSGD(
    RuleOptimizer,
    rule=rules.schedule_free_sgd,
    arguments="lr momentum weight_decay warmup_steps r weight_lr_power foreach * maximize",
): ...


class ScheduleFreeAdamW(
    RuleOptimizer,
    rule=rules.schedule_free_adamw,
    arguments="lr betas eps weight_decay warmup_steps r weight_lr_power foreach * maximize",
): ...


class AdamWScheduleFree(
    ScheduleFreeAdamW,
    rule=rules.schedule_free_adamw,
    arguments="lr betas eps weight_decay warmup_steps r weight_lr_power foreach * maximize",
    fixed={"correct_second_moment": True},
):
    """Schedule-Free AdamW as in the authors' current class of this name.

    It is `ScheduleFreeAdamW` with `correct_second_moment=True`: the second moment is bias-corrected in the denominator,
    as in Adam, so that early steps have the full learning rate and the full weight in the average. `ScheduleFreeAdamW`
    is the paper's Algorithm 1, the authors' `AdamWScheduleFreePaper`.
    """


class LAMB(RuleOptimizer, rule=rules.lamb, arguments="lr betas eps weight_decay * maximize"): ...


class _FromRule(RuleOptimizer):
    """Base of the classes that `from_rule` makes, whose instances are pickled with their rule.

    No module contains these classes, so that pickle cannot find them by name.
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        if "rule" not in vars(type(self)):  # a class that a user has derived
            return super().__reduce_ex__(protocol)
        return _without_state, (self.rule,), self.__getstate__()


def _without_state(rule: rules.Rule) -> RuleOptimizer:
    """Return an optimizer of a rule before its state is restored."""
    cls = from_rule(rule)
    return cls.__new__(cls)


def from_rule(rule: rules.Rule) -> type[RuleOptimizer]:
    """Return the optimizer class of a rule: the existing class, or a new class for a custom or modified rule.

    A new class takes `params`, `lr`, and the rule's other hyperparameters as keyword arguments with defaults. That of a
    modified rule takes `betas` and other tuples if the class of the unmodified rule does.

    Args:
        rule: the rule.

    Example:
        >>> import torch
        >>> from gradprix import optim, rules
        >>> optimizer = optim.from_rule(rules.cautious(rules.lion))([torch.ones(3)], lr=1e-4, betas=(0.9, 0.99))
    """
    existing = (cls for cls in _derived(RuleOptimizer) if cls.__dict__.get("rule") is rule)
    return next(existing, None) or _make_class(rule)


def _derived(cls: type[RuleOptimizer]) -> Iterator[type[RuleOptimizer]]:
    """Yield the direct and indirect subclasses of a class."""
    for derived in cls.__subclasses__():
        yield derived
        yield from _derived(derived)


def _make_class(rule: rules.Rule) -> type[RuleOptimizer]:
    name = "".join(part[:1].upper() + part[1:] for part in re.split(r"[\W_]+", rule.name))
    arguments = dict.fromkeys(rule.hyperparameters)
    if rule.composition is not None:
        known = from_rule(rule.composition[1]).__signature__.parameters
        whole = {part: name for name, parts in rule.tuple_arguments.items() if name in known for part in parts}
        arguments = dict.fromkeys(whole.get(name, name) for name in arguments)
    if rule.owns_weight_decay and "decoupled_weight_decay" not in rule.tree.conditions:
        arguments.pop("decoupled_weight_decay", None)  # it selects nothing
    arguments.pop("lr")
    made = types.new_class(name, (_FromRule,), {"rule": rule, "arguments": " ".join(["lr *", *arguments])})
    made.__module__, made.__qualname__ = "gradprix.optim", f"from_rule({rule.name})"
    return made
