"""Findings about inclusion: Adam with a tuned ε contains momentum, and a frozen ε may reverse the ranking."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from gradprix.claims.decisions import Decision, all_of, is_above, is_below
from gradprix.claims.estimates import Measured, exact, mean
from gradprix.claims.registry import Quantities
from gradprix.race import ENTRIES, Entry
from gradprix.rules import log
from gradprix.show.figure import Chart

from .figures import interval_rows
from .registry import experiment
from .small_tasks import TASKS, lead_in_margins, small_task, train, tune

SEEDS, QUICK_SEEDS = 16, 3
FROZEN = 1e-8  # torch's default of ε
EPSILONS = (FROZEN, 1e-4, 1e-2, 1.0)
TURN = 1e-2
"""Value of ε from which on Adam's search range moves with ε: beyond the size of a gradient, the step is lr / ε."""
TOLERANCE = 1.0  # margins by which the more general optimizer may be behind
EFFECT = 0.5  # margins from which on an optimizer counts as behind


def adam(eps: float) -> Entry:
    """Return Adam with a value of ε.

    Its learning rates are 0.0001 to 0.1, times ε / `TURN` if that is more than 1. With the largest ε this is momentum's
    range of 0.001 to 1, because Adam is momentum there, with a step of lr (1 − β₁) / ε.
    """
    scale = max(1.0, eps / TURN)
    space = {"lr": log(1e-4 * scale, 1e-1 * scale)}
    return replace(ENTRIES["adam"], name=f"adam, eps {eps:g}", fixed={"eps": eps}, space=space)


@dataclass(frozen=True)
class Comparison:
    """Comparison of tuned Adam with tuned momentum on one task.

    Args:
        eps: the tuned ε.
        frozen: lead of Adam with a frozen ε over momentum, in margins, for each seed.
        free: the same of Adam with a tuned ε.
    """

    eps: float
    frozen: np.ndarray
    free: np.ndarray


@cache
def compare(quick: bool) -> Mapping[str, Comparison]:
    """Tune momentum and Adam on each task, and train the best settings on held-out seeds."""
    results = {}
    for name in TASKS:
        task = small_task(name, quick)
        momentum_arm, *each = tune(task, [ENTRIES["momentum"], *map(adam, EPSILONS)], quick)
        best = momentum_arm[1], each[0][1], min(each, key=lambda tuned: tuned[0])[1]
        momentum, frozen, free = train(task, best, QUICK_SEEDS if quick else SEEDS)
        leads = (lead_in_margins(task, runs, momentum) for runs in (frozen, free))
        results[name] = Comparison(float(best[2][0].fixed["eps"]), *leads)
    return results


def decide_inclusion(m: Quantities) -> Decision:
    """Return the verdict from the lead of Adam with a tuned ε on each task."""
    return all_of(*(is_above(m[name], -TOLERANCE) for name in TASKS))


def draw_inclusion(m: Quantities) -> Chart:
    """Draw Adam's lead on each task."""
    rows = {name: m[name] for name in TASKS}
    return interval_rows("tuned-adam-is-never-worse-than-momentum", "lead of Adam over momentum, margins", rows, 0.0)


@experiment("tuned-adam-is-never-worse-than-momentum", decide_inclusion, draw=draw_inclusion)
def measure_inclusion(quick: bool) -> Quantities:
    """Compare Adam, with tuned learning rate and ε, with tuned momentum. The smallest lead comes first."""
    each = compare(quick)
    leads = sorted(((name, mean(result.free)) for name, result in each.items()), key=lambda lead: lead[1].effect)
    return {**dict(leads), **{f"{name}_eps": exact(result.eps) for name, result in each.items()}}


def is_reversed(frozen: Measured, free: Measured) -> bool | None:
    """Return True if momentum is ahead of Adam with a frozen ε alone, False if it is not ahead, else None.

    Args:
        frozen: lead of Adam over momentum with a frozen ε, in margins.
        free: the same with a tuned ε.
    """
    if is_above(frozen, -EFFECT):
        return False
    is_behind = is_below(frozen, 0) and frozen.effect <= -EFFECT
    return True if is_behind and is_above(free, -EFFECT) else None


def decide_ranking(m: Quantities) -> Decision:
    """Return the verdict from the tasks: one reversal is enough, and none is possible if momentum is ahead nowhere."""
    answers = [is_reversed(m[f"{name}_frozen"], m[name]) for name in TASKS]
    return all_of(True if True in answers else None if None in answers else False)


def draw_ranking(m: Quantities) -> Chart:
    """Draw Adam's lead on each task, with a frozen and with a tuned ε."""
    rows = {}
    for name in TASKS:
        rows |= {f"{name}, ε frozen": m[f"{name}_frozen"], f"{name}, ε tuned": m[name]}
    return interval_rows("freezing-eps-reverses-the-ranking", "lead of Adam over momentum, margins", rows, 0.0)


@experiment("freezing-eps-reverses-the-ranking", decide_ranking, draw=draw_ranking)
def measure_ranking(quick: bool) -> Quantities:
    """Compare Adam with momentum, with a frozen and with a tuned ε. The smallest lead comes first."""
    each = compare(quick)
    quantities: dict[str, Measured] = {}
    for name in sorted(each, key=lambda name: each[name].frozen.mean()):
        quantities |= {f"{name}_frozen": mean(each[name].frozen), name: mean(each[name].free)}
    return quantities
