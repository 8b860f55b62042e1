"""torch's classes and newer ones: each a rule and the order of its arguments."""

import types

from gradprix import rules

from ._optimizer import Optimizer


class SGD(
    Optimizer,
    rule=rules.sgd,
    arguments="lr momentum dampening weight_decay nesterov * maximize foreach differentiable fused",
): ...


class Adagrad(
    Optimizer,
    rule=rules.adagrad,
    arguments="lr lr_decay weight_decay initial_accumulator_value eps foreach * maximize differentiable fused",
): ...


class RMSprop(
    Optimizer,
    rule=rules.rmsprop,
    arguments="lr alpha eps weight_decay momentum centered capturable foreach maximize differentiable",
): ...


class Adadelta(
    Optimizer, rule=rules.adadelta, arguments="lr rho eps weight_decay foreach * capturable maximize differentiable"
): ...


class Adam(
    Optimizer,
    rule=rules.adam,
    arguments="lr betas eps weight_decay amsgrad "
    "* foreach maximize capturable differentiable fused decoupled_weight_decay",
): ...


class AdamW(
    Optimizer,
    rule=rules.adamw,
    arguments="lr betas eps weight_decay amsgrad * maximize foreach capturable differentiable fused",
): ...


class Adamax(
    Optimizer, rule=rules.adamax, arguments="lr betas eps weight_decay foreach * maximize differentiable capturable"
): ...


class NAdam(
    Optimizer,
    rule=rules.nadam,
    arguments="lr betas eps weight_decay momentum_decay decoupled_weight_decay "
    "* foreach maximize capturable differentiable",
): ...


class RAdam(
    Optimizer,
    rule=rules.radam,
    arguments="lr betas eps weight_decay decoupled_weight_decay * foreach maximize capturable differentiable",
): ...


class Lion(Optimizer, rule=rules.lion, arguments="lr betas weight_decay * maximize"): ...


class Adan(Optimizer, rule=rules.adan, arguments="lr betas eps weight_decay * maximize"): ...


class AdEMAMix(Optimizer, rule=rules.ademamix, arguments="lr betas alpha eps weight_decay * maximize"): ...


class ADOPT(Optimizer, rule=rules.adopt, arguments="lr betas eps weight_decay * maximize"): ...


class ScheduleFreeSGD(
    Optimizer,
    rule=rules.schedule_free_sgd,
    arguments="lr momentum weight_decay warmup_steps r weight_lr_power * maximize",
): ...


class ScheduleFreeAdamW(
    Optimizer,
    rule=rules.schedule_free_adamw,
    arguments="lr betas eps weight_decay warmup_steps r weight_lr_power * maximize",
): ...


class LAMB(Optimizer, rule=rules.lamb, arguments="lr betas eps weight_decay * maximize"): ...


def of(rule: rules.Rule) -> type[Optimizer]:
    """The class that steps with a rule: torch's class of that name, or one made for a rule of your own.

    A class that is made takes `params, lr` and the rule's other hyperparameters, each with its default.

    Args:
        rule: the rule.
    """
    known = (cls for cls in Optimizer.__subclasses__() if cls.rule is rule)
    return next(known, None) or _made(rule)


def _made(rule: rules.Rule) -> type[Optimizer]:
    name = "".join(part.capitalize() for part in rule.name.split("_"))
    arguments = "lr * " + " ".join(name for name in rule.hyperparameters if name != "lr")
    return types.new_class(name, (Optimizer,), {"rule": rule, "arguments": arguments})
