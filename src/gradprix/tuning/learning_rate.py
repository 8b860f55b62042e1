"""Tuning one learning rate on a ladder, as a conversation: yields what to try, receives how it went."""

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gradprix.rules import Log

STEPS = (1.0, 1.5, 2.2, 3.3, 4.7, 6.8)
"""Six readable rates a decade, even in the logarithm to two digits."""
SPREAD, REFINE, RESEEDED = 6, 4, 3
"""Rungs spread over the space, rungs tried round the best, and how many of the best are tried on more seeds."""

APART = 2
"""The best rates to try on more seeds are at least this many rungs apart: neighbours are too alike for it to matter
which is taken, and three neighbours leave it to one seed's luck which region they are in."""


class Score(NamedTuple):
    """How a tuning run did on validation examples: the smaller, the better; infinite if it diverged."""

    loss: float
    metric: float


Key = TypeVar("Key", int, Any)
Ask = list[tuple[int, int]]
"""(rung, which tuning seed) of each trial wanted."""
Answers = dict[tuple[int, int], Score]


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Args:
        rung: the best.
        at_edge: whether no worse rung was tried on one side of it, so that the optimum may lie further out.
    """

    rung: int
    at_edge: bool


def rate(rung: int, offset: float = 0.0) -> float:
    """The learning rate of a rung: 0 is 1, 6 is 10; an offset moves the whole ladder up, in rungs."""
    decade, step = divmod(rung, len(STEPS))
    plain = float(f"{STEPS[step]}e{decade}")
    return plain if offset == 0 else float(f"{plain * 10 ** (offset / len(STEPS)):.3g}")


def rungs(space: Log) -> tuple[int, int]:
    """The lowest and highest rung within a space, where the search starts; it may go on beyond them."""
    low = math.ceil(len(STEPS) * math.log10(space.low) - 0.1)
    high = math.floor(len(STEPS) * math.log10(space.high) + 0.1)
    if low > high:
        raise ValueError(f"there is no rate of the ladder from {space.low:g} to {space.high:g}: give a wider space.")
    return low, high


def spread(space: Log, default: float, count: int = SPREAD) -> list[int]:
    """Rungs evenly over the space, the one nearest the default rate among them."""
    low, high = rungs(space)
    home = min(max(round(len(STEPS) * math.log10(default)), low), high) if default > 0 else low
    if count == 1:
        return [home]
    chosen = [round(low + (high - low) * i / (count - 1)) for i in range(count)]
    nearest = min(range(count), key=lambda i: abs(chosen[i] - home))
    chosen[nearest] = home
    return list(dict.fromkeys(chosen))


def tune(space: Log, default: float, trials: int) -> Generator[Ask, Answers, Tuned]:
    """Find the best rung in exactly this many trials.

    Spread first; then, two at a time round the best: midway to each neighbour, and from then on the nearest free rung
    on either side: all by the loss, which is smooth. Last, three of the best on more seeds, if there are trials for it,
    and the choice between them by what the race is judged by: the metric, over all their seeds.

    Args:
        space: where to look; the search may leave it when the best is at its end.
        default: a rate to begin near.
        trials: how many in all.
    """
    seeds = max(0, (trials - SPREAD - REFINE) // RESEEDED)
    alone = trials - RESEEDED * seeds
    losses: dict[int, float] = {}
    scores: Answers = {}

    def ask(wanted: list[int]) -> Generator[Ask, Answers, None]:
        answers = yield [(rung, 0) for rung in wanted]
        scores.update(answers)
        losses.update({rung: answers[rung, 0].loss for rung in wanted})

    yield from ask(spread(space, default, min(SPREAD, alone)))
    halving = True
    while len(losses) < alone:
        yield from ask(around(losses, halving)[: alone - len(losses)])
        halving = False
    if not seeds:
        rung = ranked(losses)[0]
    else:
        best = finalists(losses)
        scores |= yield [(rung, seed) for rung in best for seed in range(1, seeds + 1)]
        mean = {rung: Score(*np.mean([scores[rung, seed] for seed in range(seeds + 1)], axis=0)) for rung in best}
        rung = min(best, key=lambda rung: (mean[rung].metric, mean[rung].loss, rung))
    return Tuned(rung, rung in (min(losses), max(losses)))


def ranked(losses: Mapping[Key, float]) -> list[Key]:
    """From the best loss to the worst; the smaller rate first where they are equal."""
    return sorted(losses, key=lambda key: (losses[key], key))


def finalists(losses: dict[int, float]) -> list[int]:
    """The best rungs that are no neighbours, then, if those are too few, the best of the rest."""
    chosen: list[int] = []
    for rung in ranked(losses):
        if all(abs(rung - other) >= APART for other in chosen):
            chosen.append(rung)
    rest = [rung for rung in ranked(losses) if rung not in chosen]
    return (chosen + rest)[:RESEEDED]


def around(losses: dict[int, float], halving: bool) -> list[int]:
    """Two untried rungs, one on each side of the best: midway to its neighbours, or beside it.

    At an end of what was tried there is no neighbour: as far outwards as the other side goes inwards.
    """
    best = ranked(losses)[0]
    below = max((rung for rung in losses if rung < best), default=None)
    above = min((rung for rung in losses if rung > best), default=None)
    gap_below = best - below if below is not None else above - best if above is not None else 2
    gap_above = above - best if above is not None else gap_below
    wanted = []
    for side, gap in ((-1, gap_below), (1, gap_above)):
        rung = best + side * (max(1, round(gap / 2)) if halving else 1)
        while rung in losses:
            rung += side
        wanted.append(rung)
    return wanted
