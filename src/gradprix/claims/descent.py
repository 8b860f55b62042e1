"""Decrease of the loss by every rule on every landscape."""

from gradprix.explain.descent import descend, tuned
from gradprix.explain.landscapes import LANDSCAPES
from gradprix.rules import ALL

from .claim import experiment
from .decisions import all_of
from .estimates import exact, proportion
from .registry import Quantities

STEPS, QUICK = 60, 30
QUICK_LANDSCAPES = ("bowl", "ravine", "rosenbrock", "saddle")


@experiment("rules-lower-the-loss", decide=lambda m: all_of(m["tuned"].effect == 1))
def measure(quick: bool) -> Quantities:
    """Run every rule that is not a matrix rule on every landscape, at its tuned and at its default learning rate."""
    steps, names = (QUICK, QUICK_LANDSCAPES) if quick else (STEPS, tuple(LANDSCAPES))
    changes: dict[str, list[float]] = {"tuned": [], "default": []}
    rules = [rule for rule in ALL.values() if not rule.is_matrix_rule]
    for name in names:
        landscape = LANDSCAPES[name]()
        racers = {
            "tuned": [(rule, rule.values(lr=tuned(rule, landscape, steps))) for rule in rules],
            "default": [(rule, rule.values()) for rule in rules],
        }
        for arm, pairs in racers.items():
            losses = descend(pairs, landscape, steps, seed=1)[1][..., 0]
            changes[arm] += (losses[-1] - losses[0]).tolist()
    return summarize(changes["tuned"], changes["default"], len(rules))


def summarize(tuned: list[float], default: list[float], rules: int) -> Quantities:
    """Return the proportions of pairs of a rule and a landscape for which the loss decreased.

    Args:
        tuned: change of the loss for each pair, at tuned learning rates.
        default: the same, at default learning rates.
        rules: number of rules.
    """
    return {
        "tuned": proportion(sum(change < 0 for change in tuned), len(tuned)),
        "default": proportion(sum(change < 0 for change in default), len(default)),
        "rules": exact(rules),
    }
