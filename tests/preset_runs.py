"""What Python computes for the presets of the landscape page."""

from dataclasses import dataclass
from urllib.parse import parse_qs

import numpy as np
import torch
from numpy.typing import NDArray

from gradprix.app.presets import Preset
from gradprix.app.racers import PARAMETERS, RACERS
from gradprix.explain import LANDSCAPES, descend, tuned

NOISY_DRAWS = 5
"""Number of noise samples over which the page tunes learning rates."""


@dataclass(frozen=True)
class PresetRun:
    """Descent of one optimizer: learning rate, losses above the minimum `[steps + 1]`, and points `[steps + 1, 2]`."""

    rate: float
    losses: NDArray[np.float64]
    points: NDArray[np.float64]

    @property
    def start(self) -> float:
        return float(self.losses[0])

    @property
    def end(self) -> float:
        return float(self.losses[-1])

    @property
    def maximum(self) -> float:
        return float(self.losses.max())

    @property
    def final_mean(self) -> float:
        return float(self.losses[len(self.losses) * 3 // 4 :].mean())

    @property
    def convergence_step(self) -> float:
        above = np.flatnonzero(~(self.losses <= self.losses[0] / 100))
        first = int(above[-1]) + 1 if len(above) else 0
        return first if first < len(self.losses) else float("inf")


def run_preset(preset: Preset, **changes: str) -> dict[str, PresetRun]:
    """Return the runs of a preset by the names of its optimizers; `changes` replace fields of its query."""
    fields = {name: values[0] for name, values in parse_qs(preset.query).items()} | changes
    make = LANDSCAPES[fields.get("surface", "ravine")]
    landscape = make(**{name: float(fields[name]) for name in PARAMETERS if name in fields})
    landscape = landscape.change(noise=float(fields.get("noise", landscape.noise or 0)))
    steps = int(fields.get("steps", 200))
    start = [float(value) for value in fields["start"].split(",")] if "start" in fields else landscape.start
    minimum = landscape.value(torch.tensor(landscape.minima, dtype=torch.float64)).min()
    runs = {}
    for racer in fields["who"].split(","):
        name, *own = racer.split(":")
        given = {key: float(value) for key, value in (each.split("=") for each in own)}
        entry = RACERS[name]
        draws = NOISY_DRAWS if landscape.noise else 1
        rate = given.get("lr") or tuned(entry.rule, landscape, steps, None, draws, tuple(entry.fixed.items()))
        racing = [(entry.rule, entry.values(**{**given, "lr": rate}))]
        points, losses = descend(racing, landscape, steps, start)
        runs[name] = PresetRun(rate, (losses[:, 0, 0] - minimum).clamp(min=0).numpy(), points[:, 0, 0].numpy())
    return runs
