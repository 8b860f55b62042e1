"""Optimizers and surfaces of the landscape and step pages, and the parameters that people can change."""

import inspect
from collections.abc import Callable

from gradprix.explain import LANDSCAPES, SLICES, Landscape
from gradprix.race import ENTRIES, Entry
from gradprix.rules import DOMAINS, Rule

SURFACES: dict[str, Callable[..., Landscape]] = {**LANDSCAPES, **SLICES}

# Surfaces have no data, so `gd`, `sgd` and `minibatch`, which differ only in batch size, are equal: only `gd` is used.
RACERS: dict[str, Entry] = {
    name: ENTRIES[name]
    for name in ("gd", *ENTRIES)
    if name not in ("sgd", "minibatch") and isinstance(ENTRIES[name].rule, Rule)
}
PARAMETERS: dict[str, tuple[str, float, float]] = {
    "curvature": ("Curvature λ", 0.01, 100),
    "condition": ("Condition number κ", 1, 1e4),
    "angle": ("Rotation (°)", -90, 90),
}
"""Label and range of each surface parameter."""


def parameters(surface: str) -> dict[str, float]:
    """Return the parameters of a surface and their defaults.

    The noise is left out, because all surfaces have it.
    """
    signature = inspect.signature(SURFACES[surface]).parameters
    return {name: float(parameter.default) for name, parameter in signature.items() if name != "noise"}


def adjustable(entry: Entry) -> dict[str, float]:
    """Return the adjustable hyperparameters of an optimizer and their defaults, except the learning rate."""
    values = entry.values(entry.default_rate)
    return {name: float(values[name]) for name in DOMAINS if 0 < values.get(name, 0) < 1}
