"""What each optimizer does: one short pure function each, from which everything else is derived."""

from ._adam import adam, adamax, adamw, nadam, radam
from ._adaptive import adadelta, adagrad, rmsprop
from ._formula import formula
from ._parse import RuleError
from ._rule import AROUND, Rule, State, check, rule
from ._sgd import sgd
from ._space import Log, log
from ._vocabulary import clip, maximum, minimum, sign, sqrt, where

ALL: dict[str, Rule] = {r.name: r for r in (sgd, adagrad, rmsprop, adadelta, adam, adamw, adamax, nadam, radam)}

__all__ = [
    "ALL",
    "AROUND",
    "Log",
    "Rule",
    "RuleError",
    "State",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "check",
    "clip",
    "formula",
    "log",
    "maximum",
    "minimum",
    "nadam",
    "radam",
    "rmsprop",
    "rule",
    "sgd",
    "sign",
    "sqrt",
    "where",
]
