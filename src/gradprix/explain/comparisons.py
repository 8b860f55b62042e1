"""Comparison of entries with the leaders, and of families of entries, by the levels of their runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gradprix.race.diagnosis_record import FamilyContrast, MeasurementKind, Ratio, Trait
from gradprix.rules import Rule
from gradprix.stats.contrasts import simultaneous_intervals

from .levels import COMPARED
from .preconditioner import classify_state

LARGE = 1.5
"""Factor that matters. A ratio is large if its whole interval is beyond it or its inverse."""
FEWEST = 6
"""Minimum number of runs of each entry for a comparison: fewer have too few sign flips."""

Levels = Mapping[str, Sequence[Mapping[MeasurementKind, float]]]
"""Levels of each entry's runs, in the order of the seeds; see `measure_levels`."""
Traits = Mapping[str, frozenset[Trait]]
"""Traits of entries by their names. Entries whose traits are unknown are left out."""
Weights = dict[str, float]
"""Weights of entries in a contrast, by name. They add up to zero."""
Label = tuple[MeasurementKind, str | Trait]
"""What a contrast is about: the measurement, and the entry or the trait."""


def find_traits(rule: Rule, values: Mapping[str, Any]) -> frozenset[Trait]:
    """Return the traits of a rule with these values of all its hyperparameters.

    A rule is adaptive if its state measures the size of gradients, and has momentum if its state averages gradients.
    """
    states = classify_state(rule, tuple(sorted(values.items()))).values()
    names = {"size": Trait.ADAPTIVE, "mean": Trait.MOMENTUM}
    return frozenset(names[kind] for kind, _ in states)


def compare_levels(
    levels: Levels, leaders: Sequence[str], traits: Traits
) -> tuple[dict[tuple[str, MeasurementKind], Ratio], tuple[FamilyContrast, ...]]:
    """Compare each entry with the other leaders, and entries with a trait with those without it.

    All intervals of all ratios hold jointly in 95 % of races with these settings.

    Args:
        levels: levels of the runs of each entry, on the same seeds. Entries with a run that lacks a level are left out
            of the comparisons of this level.
        leaders: names of the entries that lead the race.
        traits: traits of the entries.

    Returns:
        The ratio of an entry to the geometric mean of the other leaders, by name and kind; and the comparisons of
        families. Both are empty if there are fewer than `FEWEST` runs.
    """
    tables = {kind: _complete(levels, kind) for kind in COMPARED}
    chosen: list[tuple[Label, Weights]] = []
    for kind, table in tables.items():
        chosen += [((kind, name), weights) for name, weights in _against_leaders(list(table), leaders)]
        chosen += [((kind, trait), w) for trait in Trait if (w := weigh_families(trait, list(table), traits))]
    rows = [sum(w * tables[label[0]][name] for name, w in weights.items()) for label, weights in chosen]
    if not rows or min(map(len, levels.values())) < FEWEST:
        return {}, ()
    ends = np.exp(np.array(simultaneous_intervals(np.array(rows)))).T
    entries, families = {}, []
    for ((kind, subject), weights), (number, low, high) in zip(chosen, ends.tolist(), strict=True):
        ratio = Ratio(number=number, low=low, high=high, is_large=low > LARGE or high < 1 / LARGE)
        if isinstance(subject, Trait):
            members, others = ([name for name, w in weights.items() if sign * w > 0] for sign in (1, -1))
            families.append(
                FamilyContrast(trait=subject, kind=kind, members=tuple(members), others=tuple(others), ratio=ratio)
            )
        else:
            entries[subject, kind] = ratio
    return entries, tuple(families)


def weigh_families(trait: Trait, names: Sequence[str], traits: Traits) -> Weights:
    """Return the weights of entries in the contrast of those with a trait and those without it.

    Entries are compared with those that have the same other traits, and these comparisons are averaged. The result is
    empty if the two sides together have fewer than three entries: two entries are no families.

    Args:
        trait: the trait.
        names: names of the entries to compare.
        traits: traits of the entries.
    """
    cells = []
    for others in dict.fromkeys(traits[name] - {trait} for name in names if name in traits):
        members, rest = (
            [name for name in names if traits.get(name) == wanted] for wanted in (others | {trait}, others)
        )
        if members and rest:
            cells.append((members, rest))
    weights = dict.fromkeys(names, 0.0)
    for members, rest in cells:
        for side, sign in ((members, 1.0), (rest, -1.0)):
            for name in side:
                weights[name] += sign / len(side) / len(cells)
    used = {name: w for name, w in weights.items() if w}
    return used if len(used) > 2 else {}


def _against_leaders(names: Sequence[str], leaders: Sequence[str]) -> Iterator[tuple[str, Weights]]:
    """Yield each entry with its weights in the contrast with the other leaders, if there are any."""
    for name in names:
        rest = [leader for leader in leaders if leader in names and leader != name]
        if rest:
            yield name, {name: 1.0, **dict.fromkeys(rest, -1 / len(rest))}


def _complete(levels: Levels, kind: MeasurementKind) -> dict[str, np.ndarray]:
    """Return the levels of the entries all of whose runs have this level, `[seeds]` each."""
    count = max(map(len, levels.values()), default=0)
    rows = {name: np.array([run.get(kind, math.nan) for run in runs]) for name, runs in levels.items()}
    return {name: row for name, row in rows.items() if len(row) == count and bool(np.isfinite(row).all())}
