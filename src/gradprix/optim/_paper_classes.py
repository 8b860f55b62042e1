"""Optimizer classes that torch lacks, each defined by a rule and the order of its arguments."""

from gradprix import rules

from ._optimizer import RuleOptimizer


class Signum(RuleOptimizer, rule=rules.signum, arguments="lr momentum weight_decay * maximize"): ...


class Grams(RuleOptimizer, rule=rules.grams, arguments="lr betas eps weight_decay * maximize"): ...


class AdaBelief(RuleOptimizer, rule=rules.adabelief, arguments="lr betas eps weight_decay * maximize"): ...


class Yogi(
    RuleOptimizer, rule=rules.yogi, arguments="lr betas eps initial_accumulator_value weight_decay * maximize"
): ...


class AdaBound(
    RuleOptimizer, rule=rules.adabound, arguments="lr betas final_lr gamma eps weight_decay * base_lr maximize"
): ...


class AdaMod(RuleOptimizer, rule=rules.adamod, arguments="lr betas eps weight_decay * maximize"): ...


class LaProp(RuleOptimizer, rule=rules.laprop, arguments="lr betas eps weight_decay * maximize"): ...


class ACProp(RuleOptimizer, rule=rules.acprop, arguments="lr betas eps weight_decay * maximize"): ...


class QHM(RuleOptimizer, rule=rules.qhm, arguments="lr momentum nu weight_decay * maximize"): ...


class QHAdam(RuleOptimizer, rule=rules.qhadam, arguments="lr betas nus weight_decay eps * maximize"): ...


class AggMo(RuleOptimizer, rule=rules.aggmo, arguments="lr betas weight_decay * maximize"): ...


class PNM(RuleOptimizer, rule=rules.pnm, arguments="lr betas weight_decay * maximize"): ...


class AccSGD(RuleOptimizer, rule=rules.accsgd, arguments="lr kappa xi small_const weight_decay * maximize"): ...


class OptimisticAdam(RuleOptimizer, rule=rules.optimistic_adam, arguments="lr betas eps weight_decay * maximize"): ...


class GrokfastAdamW(
    RuleOptimizer, rule=rules.grokfast_adamw, arguments="lr betas eps weight_decay * alpha amplification maximize"
): ...


class KATE(RuleOptimizer, rule=rules.kate, arguments="lr delta eps weight_decay * maximize"): ...


class NovoGrad(RuleOptimizer, rule=rules.novograd, arguments="lr betas eps weight_decay grad_averaging * maximize"): ...


class DoG(RuleOptimizer, rule=rules.dog, arguments="lr reps_rel eps weight_decay * maximize"): ...


class DAdaptAdam(
    RuleOptimizer, rule=rules.dadapt_adam, arguments="lr betas eps weight_decay * d0 growth_rate maximize"
): ...


class Prodigy(
    RuleOptimizer,
    rule=rules.prodigy,
    arguments="lr betas eps weight_decay * use_bias_correction safeguard_warmup d0 d_coef maximize",
): ...


class LARS(RuleOptimizer, rule=rules.lars, arguments="lr momentum weight_decay trust_coefficient * maximize"): ...


class CAME(RuleOptimizer, rule=rules.came, arguments="lr betas eps d weight_decay * maximize"): ...


class Shampoo(
    RuleOptimizer,
    rule=rules.shampoo,
    arguments="lr momentum weight_decay eps precondition_frequency * max_precond_dim maximize",
): ...


class SOAP(
    RuleOptimizer,
    rule=rules.soap,
    arguments="lr betas shampoo_beta eps weight_decay precondition_frequency max_precond_dim * maximize",
): ...
