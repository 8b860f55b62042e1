"""Spaces and synthetic losses on which the requests and choices of the tuners were recorded, in tuners.json."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

from gradprix.spaces import Axis, choice, log, one_minus

Point = tuple[tuple[str, Any], ...]

SPACES: dict[str, tuple[dict[str, Axis], dict[str, Any], float]] = {
    "three decades": ({"lr": log(1e-4, 1e-1)}, {"lr": 1e-3}, 0.0),
    "shifted grid": ({"lr": log(1e-3, 1)}, {"lr": 1e-3}, 0.618),
    "two grid points": ({"lr": log(1e-3, 1.6e-3)}, {"lr": 0.5}, 0.0),
    "decay": ({"lr": log(1e-4, 1e-1), "beta1": one_minus(2e-2, 0.5)}, {"lr": 1e-3, "beta1": 0.9}, 0.0),
    "training": (
        {"lr": log(1e-3, 1), "batch_size": choice(8, 16, 32, 64), "schedule": choice("cosine", "linear", "constant")},
        {"lr": 0.01, "batch_size": 32, "schedule": "cosine"},
        0.0,
    ),
    "choice": ({"lr": choice(*(round(0.001 * 1.2**i, 6) for i in range(60)))}, {"lr": 0.001}, 0.0),
}
"""Search space, defaults, and shift of the learning-rate grid."""


def distance(point: Point, best: float) -> float:
    """Return the squared distance from a best learning rate in decades, plus a term of the other hyperparameters."""
    rest = sum(int(hashlib.sha256(repr(item).encode()).hexdigest()[:4], 16) / 2**17 for item in point[1:])
    return round((math.log10(dict(point)["lr"]) - math.log10(best)) ** 2 + rest, 9)


def noise(point: Point, seed: int) -> float:
    return int(hashlib.sha256(repr((point, seed)).encode()).hexdigest()[:6], 16) / 2**24


LOSSES: dict[str, Callable[[Point, int], tuple[float, float]]] = {
    "bowl": lambda point, seed: (distance(point, 6e-3), distance(point, 6e-3)),
    "best at an edge": lambda point, seed: (distance(point, 100.0), noise(point, seed)),
    "noise": lambda point, seed: (distance(point, 0.02) + noise(point, seed), noise(point, seed + 100)),
    "ties": lambda point, seed: (round(distance(point, 0.02)), round(2 * noise(point, seed)) / 2),
    "divergence": lambda point, seed: (math.inf,) * 2 if dict(point)["lr"] > 5e-3 else (-noise(point, 0), 0.0),
    "divergence on some seeds": lambda point, seed: (
        (math.inf,) * 2 if seed and noise(point, seed) > 0.3 else (distance(point, 6e-3), noise(point, seed))
    ),
    "all diverge": lambda point, seed: (math.inf, math.inf),
}
"""Loss and metric of a tuning run, by its point and the index of its seed."""


def digest(value: Any) -> str:
    """Return a short hash of a JSON value; floating-point numbers count to the bit."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
