"""Drop-in replacements for `torch.optim`, made from rules: same names, arguments, defaults and results."""

from typing import Any

import torch

from ._classes import (
    ADOPT,
    LAMB,
    SGD,
    Adadelta,
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
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    from_rule,
)
from ._groups import groups
from ._muon import Muon
from ._optimizer import RuleOptimizer

of = from_rule  # former name

__all__ = [
    "ADOPT",
    "LAMB",
    "SGD",
    "AdEMAMix",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "AdamWScheduleFree",
    "Adamax",
    "Adan",
    "Lion",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "RuleOptimizer",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "from_rule",
    "groups",
    "of",
]


def __getattr__(name: str) -> Any:
    # Fall back to torch for other names, so that this module can replace torch.optim.
    try:
        return getattr(torch.optim, name)
    except AttributeError:
        raise AttributeError(f"neither gradprix.optim nor torch.optim has {name!r}") from None
