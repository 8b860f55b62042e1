"""What each optimizer does: one short pure function each, from which everything else is derived."""

from ._adam import adam, adamax, adamw, nadam, radam
from ._adaptive import adadelta, adagrad, rmsprop
from ._averaged import schedule_free_adamw, schedule_free_sgd
from ._formula import formula
from ._momenta import adan, ademamix, adopt
from ._parse import RuleError
from ._rule import AROUND, Rule, State, check, rule
from ._sgd import sgd
from ._sign import lion
from ._space import Axis, Choice, Log, OneMinus, choice, log, one_minus
from ._vocabulary import clip, columns, matmul, maximum, mean, minimum, norm, rows, sign, sqrt, transpose, where
from ._whole import lamb, muon

ALL: dict[str, Rule] = {
    r.name: r
    for r in (
        *(sgd, adagrad, rmsprop, adadelta, adam, adamw, adamax, nadam, radam),
        *(lion, adan, ademamix, adopt, schedule_free_sgd, schedule_free_adamw, lamb, muon),
    )
}

__all__ = [
    "ALL",
    "AROUND",
    "Axis",
    "Choice",
    "Log",
    "OneMinus",
    "Rule",
    "RuleError",
    "State",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "check",
    "choice",
    "clip",
    "columns",
    "formula",
    "lamb",
    "lion",
    "log",
    "matmul",
    "maximum",
    "mean",
    "minimum",
    "muon",
    "nadam",
    "norm",
    "one_minus",
    "radam",
    "rmsprop",
    "rows",
    "rule",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "sgd",
    "sign",
    "sqrt",
    "transpose",
    "where",
]
