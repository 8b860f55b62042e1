"""What happens under a setting: who goes where, and where every start ends. Nothing is drawn."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradprix.explain import Landscape, descend, tuned

from ._state import Racer, Setting
from ._state import made as landscape_of

Numbers = NDArray[np.float64]
DRAWS = 5
"""Of noise, over which a rate is tuned where there is any."""
FAR = 1.5
"""Boxes away from the middle of the box, beyond which a point is lost from sight."""
LATTICE = 31
"""Starts a side."""


@dataclass(frozen=True, eq=False)
class Run:
    """Optimizers on a surface, side by side.

    Args:
        setting: what was asked for.
        landscape: where.
        rates: each optimizer's learning rate.
        points: `[steps + 1, racers, 2]`; not numbers once they are lost from sight.
        heights: how far each point is above the lowest one of the surface, `[steps + 1, racers]`.
    """

    setting: Setting
    landscape: Landscape
    rates: tuple[float, ...]
    points: Numbers
    heights: Numbers

    @property
    def names(self) -> list[str]:
        """Of the optimizers."""
        return [racer.name for racer in self.setting.racers]

    def summaries(self) -> dict[str, "Summary"]:
        """How each optimizer did."""
        return {
            racer.name: Summary.of(racer, rate, self.heights[:, i], self.points[:, i])
            for i, (racer, rate) in enumerate(zip(self.setting.racers, self.rates, strict=True))
        }


@dataclass(frozen=True)
class Summary:
    """How an optimizer did on a surface.

    Args:
        rate: its learning rate.
        chosen: whether that was given, not tuned.
        start: its height above the lowest point of the surface, like the next three.
        end: after the last step.
        highest: at worst.
        hovers: the mean over the last quarter of the steps.
        hundredth: the first step after which it stays below one hundredth of the start; None when it does not.
        lost: whether it left the picture.
        x: where it ended.
        y: likewise.
    """

    rate: float
    chosen: bool
    start: float
    end: float
    highest: float
    hovers: float
    hundredth: int | None
    lost: bool
    x: float
    y: float

    @classmethod
    def of(cls, racer: Racer, rate: float, heights: Numbers, points: Numbers) -> "Summary":
        """The summary of one descent."""
        above = np.flatnonzero(~(heights <= heights[0] / 100))
        first = 0 if not len(above) else int(above[-1]) + 1
        hovers = float(heights[len(heights) * 3 // 4 :].mean())
        return cls(
            rate,
            "lr" in dict(racer.own),
            float(heights[0]),
            float(heights[-1]),
            float(heights.max()),
            hovers,
            first if first < len(heights) else None,
            bool(np.isnan(points).any()),
            float(points[-1, 0]),
            float(points[-1, 1]),
        )


@lru_cache(maxsize=256)
def surface(name: str, parameters: tuple[tuple[str, float], ...], noise: float) -> Landscape:
    """A landscape, the same object for the same words: rates are tuned for it once."""
    return landscape_of(name, parameters).change(noise=noise)


def floor(landscape: Landscape) -> float:
    """The lowest value of a surface."""
    if not landscape.minima:
        return float(landscape.grid()[2].min())
    return float(landscape.value(torch.tensor(landscape.minima, dtype=torch.float64)).min())


@lru_cache(maxsize=32)
def run(setting: Setting) -> Run:
    """What comes of a setting."""
    landscape = surface(setting.surface, setting.parameters, setting.noise)
    rates = tuple(rate(racer, setting) for racer in setting.racers)
    if not rates:
        nothing = np.zeros((setting.steps + 1, 0))
        return Run(setting, landscape, (), nothing[..., None].repeat(2, -1), nothing)
    racing = [(racer.rule, values(racer, rate)) for racer, rate in zip(setting.racers, rates, strict=True)]
    points, found = descend(racing, landscape, setting.steps, setting.start, setting.seed)
    return Run(setting, landscape, rates, seen(points[:, :, 0], landscape), _heights(found[:, :, 0], landscape))


def _heights(found: Tensor, landscape: Landscape) -> Numbers:
    above = (found - floor(landscape)).clamp(min=0).nan_to_num(float("inf"))
    return np.asarray(above.numpy(), dtype=np.float64)


def rate(racer: Racer, setting: Setting) -> float:
    """The learning rate of an optimizer: its own, or the one tuned for the surface from the surface's own start."""
    given = dict(racer.own)
    if "lr" in given:
        return given["lr"]
    landscape = surface(setting.surface, setting.parameters, setting.noise)
    rest = tuple({**racer.entry.fixed, **given}.items())
    return tuned(racer.rule, landscape, setting.steps, None, DRAWS if landscape.noise else 1, rest)


def values(racer: Racer, rate: float) -> dict[str, Any]:
    """All hyperparameters of an optimizer."""
    return racer.entry.values(**{**dict(racer.own), "lr": rate})


def seen(points: Tensor, landscape: Landscape) -> Numbers:
    """Points as they can be drawn: no numbers where one is far outside the picture."""
    box = torch.tensor(landscape.box, dtype=torch.float64)
    away = (points - box.mean(1)).abs() / (box[:, 1] - box[:, 0])
    return np.asarray(torch.where((away < FAR).all(-1, keepdim=True), points, torch.nan).numpy(), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Ends:
    """Where one optimizer ends from each of a lattice of starts.

    Args:
        landscape: where.
        rate: its learning rate, the same from everywhere.
        starts: `[starts, 2]`.
        ends: `[starts, 2]`, not numbers where it was lost.
        heights: above the lowest point of the surface, `[starts]`.
        reached: the number of the minimum that it is near to, `[starts]`; −1 for none.
    """

    landscape: Landscape
    rate: float
    starts: Numbers
    ends: Numbers
    heights: Numbers
    reached: NDArray[np.int64]


@lru_cache(maxsize=16)
def ends(setting: Setting, racer: Racer) -> Ends:
    """Descend from a lattice of starts, and see which minimum each of them reaches."""
    landscape = surface(setting.surface, setting.parameters, setting.noise)
    x, y, _ = landscape.grid(LATTICE)
    starts = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    lr = rate(racer, setting)
    points, found = descend([(racer.rule, values(racer, lr))], landscape, setting.steps, starts, setting.seed)
    last, heights = seen(points[-1, 0], landscape), _heights(found[-1, 0], landscape)
    box = np.asarray(landscape.box)
    minima = np.asarray(landscape.minima).reshape(-1, 2)
    apart = np.linalg.norm((last[:, None] - minima) / (box[:, 1] - box[:, 0]), axis=-1)
    near = np.nan_to_num(apart, nan=np.inf) < 0.05  # of the picture: as near as one sees
    reached = np.where(near.any(1), near.argmax(1), -1)
    return Ends(landscape, lr, np.asarray(starts.numpy(), dtype=np.float64), last, heights, reached)
