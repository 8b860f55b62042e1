"""Drop-in replacements for `torch.optim`, made from rules: same names, arguments, defaults and results."""

from typing import Any

import torch

from ._classes import (
    ADOPT,
    ASGD,
    LAMB,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AdamWScheduleFree,
    Adan,
    AdEMAMix,
    Lion,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    from_rule,
)
from ._groups import groups
from ._muon import Muon, MuonWithAuxAdam
from ._muon_groups import muon_groups
from ._optimizer import RuleOptimizer
from ._paper_classes import (
    CAME,
    KATE,
    LARS,
    PNM,
    QHM,
    SOAP,
    AccSGD,
    ACProp,
    AdaBelief,
    AdaBound,
    AdaMod,
    AggMo,
    DAdaptAdam,
    DoG,
    Grams,
    GrokfastAdamW,
    LaProp,
    NovoGrad,
    OptimisticAdam,
    Prodigy,
    QHAdam,
    Shampoo,
    Signum,
    Yogi,
)

of = from_rule  # former name

__all__ = [
    "ADOPT",
    "ASGD",
    "CAME",
    "KATE",
    "LAMB",
    "LARS",
    "PNM",
    "QHM",
    "SGD",
    "SOAP",
    "ACProp",
    "AccSGD",
    "AdEMAMix",
    "AdaBelief",
    "AdaBound",
    "AdaMod",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "AdamWScheduleFree",
    "Adamax",
    "Adan",
    "AggMo",
    "DAdaptAdam",
    "DoG",
    "Grams",
    "GrokfastAdamW",
    "LaProp",
    "Lion",
    "Muon",
    "MuonWithAuxAdam",
    "NAdam",
    "NovoGrad",
    "OptimisticAdam",
    "Prodigy",
    "QHAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "RuleOptimizer",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "Shampoo",
    "Signum",
    "Yogi",
    "from_rule",
    "groups",
    "muon_groups",
    "of",
]


def __getattr__(name: str) -> Any:
    # Fall back to torch for other names, so that this module can replace torch.optim.
    try:
        return getattr(torch.optim, name)
    except AttributeError:
        raise AttributeError(f"neither gradprix.optim nor torch.optim has {name!r}") from None
