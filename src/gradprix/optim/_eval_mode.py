"""The two points of a rule that evaluates elsewhere than it trains (Schedule-Free), and the way between them."""

from collections.abc import Mapping
from typing import Any

import torch

from gradprix.rules import Rule

from ._eager_step import point_alone

MODE = "train_mode"
"""The key of a group's mode, as in the Schedule-Free authors' code; a group without it is trained."""
TRAINED = "trained"
"""The key of the point being trained, for as long as the parameter holds the one to evaluate at."""


@torch.no_grad()
def to_evaluate(rule: Rule, values: Mapping[str, Any], group: dict[str, Any], state: Any) -> None:
    """Put the point to evaluate at into each of a group's parameters that has been stepped."""
    if rule.evaluate is None or not trains(group):
        return
    for x in group["params"]:
        if state.get(x):
            # Kept, not computed back from the other point: so that looking changes no bit.
            state[x][TRAINED] = x.detach().clone()
            x.copy_(point_alone(rule, values, x, state[x]))
    group[MODE] = False


@torch.no_grad()
def to_train(group: dict[str, Any], state: Any) -> None:
    """Put the point being trained back into each of a group's parameters."""
    if trains(group):
        return
    for x in group["params"]:
        if TRAINED in state.get(x, {}):
            x.copy_(state[x].pop(TRAINED))
    group[MODE] = True


def trains(group: Mapping[str, Any]) -> bool:
    """Whether a group's parameters hold the point being trained."""
    return bool(group.get(MODE, True))
