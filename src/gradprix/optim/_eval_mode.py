"""Switch between training point and evaluation point of rules that distinguish them (Schedule-Free)."""

from collections.abc import Mapping
from typing import Any

import torch

from gradprix.rules import Rule

from ._eager_step import evaluation_point

MODE = "train_mode"
"""Group key of the mode, as in the Schedule-Free authors' code; groups without it are in train mode."""
TRAINED = "trained"
"""State key of the training point, which is stored while the parameter holds the evaluation point."""


@torch.no_grad()
def to_evaluate(rule: Rule, values: Mapping[str, Any], group: dict[str, Any], state: Any) -> None:
    """Set the parameters of a group to the evaluation point, and store the training point in the state.

    Parameters without state, which have not been stepped yet, do not change. Groups whose rule has no evaluation point
    do not change either.
    """
    if rule.evaluate is None or not is_training(group):
        return
    for x in group["params"]:
        if state.get(x):
            # The training point is stored: computing it back from the evaluation point would change it by rounding.
            state[x][TRAINED] = x.detach().clone()
            x.copy_(evaluation_point(rule, values, x, state[x], group))
    group[MODE] = False


@torch.no_grad()
def to_train(group: dict[str, Any], state: Any) -> None:
    """Restore the training point of the parameters of a group, which `to_evaluate` has stored."""
    if is_training(group):
        return
    for x in group["params"]:
        if TRAINED in state.get(x, {}):
            x.copy_(state[x].pop(TRAINED))
    group[MODE] = True


def is_training(group: Mapping[str, Any]) -> bool:
    """Return True if the parameters of a group hold the training point, False if they hold the evaluation point."""
    return bool(group.get(MODE, True))
