"""Update rules of optimizers: short pure functions from which everything else is derived."""

from gradprix.spaces import Axis, Choice, Log, OneMinus, choice, log, one_minus

from ._adam import adam, adamax, adamw, nadam, radam
from ._adam_denominators import acprop, adabelief, adabound, adamod, laprop, yogi
from ._adam_momenta import grokfast_adamw, optimistic_adam, qhadam
from ._adam_variants import adan, ademamix, adopt
from ._adaptive import adadelta, adagrad, kate, rmsprop
from ._factored import adafactor, came
from ._layerwise import lamb, lars, novograd
from ._lion import lion
from ._momenta import accsgd, aggmo, asgd, pnm, qhm
from ._muon import muon
from ._parameter_free import dadapt_adam, dog, prodigy
from ._preconditioned import shampoo, soap
from ._rule import DOMAINS, PREPROCESSING, Rule, State, check, rule
from ._schedule_free import schedule_free_adamw, schedule_free_sgd
from ._sgd import sgd
from ._signs import grams, rprop, signum
from .matrix_ops import (
    axpy,
    column_means,
    columns,
    eigenvectors,
    epsilon,
    exists,
    lerp,
    matmul,
    matrix_power,
    order,
    qr,
    reordered,
    row_means,
    rows,
    transpose,
)
from .modifiers import (
    MODIFIERS,
    Modifier,
    cautious,
    cautious_decay,
    clipped,
    decoupled,
    ema,
    lookahead,
    mars,
    modifier,
    nesterov,
    schedule_free,
)
from .newton_schulz import newton_schulz
from .notation import formula
from .ops import clip, maximum, mean, minimum, norm, sign, size, sqrt, total, where
from .parser import RuleError
from .variants import variant

ALL: dict[str, Rule] = {
    r.name: r
    for r in (
        *(sgd, adagrad, rmsprop, adadelta, adam, adamw, adamax, nadam, radam),
        *(lion, adan, ademamix, adopt, schedule_free_sgd, schedule_free_adamw, lamb, muon),
        *(rprop, asgd, signum, qhm, aggmo, pnm, accsgd, kate),
        *(novograd, dog, dadapt_adam, prodigy),
        *(adabelief, yogi, adabound, adamod, laprop, acprop, qhadam, grams, optimistic_adam, grokfast_adamw),
        *(lars, adafactor, came, shampoo, soap),
    )
}
"""All rules by name."""

AROUND = PREPROCESSING  # former name

__all__ = [
    "ALL",
    "AROUND",
    "DOMAINS",
    "MODIFIERS",
    "PREPROCESSING",
    "Axis",
    "Choice",
    "Log",
    "Modifier",
    "OneMinus",
    "Rule",
    "RuleError",
    "State",
    "accsgd",
    "acprop",
    "adabelief",
    "adabound",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamod",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "aggmo",
    "asgd",
    "axpy",
    "came",
    "cautious",
    "cautious_decay",
    "check",
    "choice",
    "clip",
    "clipped",
    "column_means",
    "columns",
    "dadapt_adam",
    "decoupled",
    "dog",
    "eigenvectors",
    "ema",
    "epsilon",
    "exists",
    "formula",
    "grams",
    "grokfast_adamw",
    "kate",
    "lamb",
    "laprop",
    "lars",
    "lerp",
    "lion",
    "log",
    "lookahead",
    "mars",
    "matmul",
    "matrix_power",
    "maximum",
    "mean",
    "minimum",
    "modifier",
    "muon",
    "nadam",
    "nesterov",
    "newton_schulz",
    "norm",
    "novograd",
    "one_minus",
    "optimistic_adam",
    "order",
    "pnm",
    "prodigy",
    "qhadam",
    "qhm",
    "qr",
    "radam",
    "reordered",
    "rmsprop",
    "row_means",
    "rows",
    "rprop",
    "rule",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "sgd",
    "shampoo",
    "sign",
    "signum",
    "size",
    "soap",
    "sqrt",
    "total",
    "transpose",
    "variant",
    "where",
    "yogi",
]
