"""Computation of the trajectories of optimizers on surfaces, and of the minimum that each starting point reaches."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradprix.explain import Landscape, descend, tuned

from .state import Racer, Setting, make_landscape

Numbers = NDArray[np.float64]
DRAWS = 5
"""Number of noise samples for tuning the learning rate on a noisy surface."""
FAR = 1.5
"""Distance from the centre of the box, in units of its width, beyond which a point is not drawn."""
LATTICE = 31
"""Number of starting points per side of the grid."""


@dataclass(frozen=True, eq=False)
class Run:
    """Trajectories of several optimizers on one surface.

    Args:
        setting: setting of the run.
        landscape: surface.
        rates: learning rate of each optimizer.
        points: points of each optimizer, `[steps + 1, racers, 2]`; NaN for points far outside the box.
        heights: loss above the minimum at these points, `[steps + 1, racers]`.
    """

    setting: Setting
    landscape: Landscape
    rates: tuple[float, ...]
    points: Numbers
    heights: Numbers

    @property
    def names(self) -> list[str]:
        """Names of the optimizers."""
        return [racer.name for racer in self.setting.racers]

    def summaries(self) -> dict[str, "Summary"]:
        """Return the summary of each optimizer."""
        return {
            racer.name: Summary.from_trajectory(racer, rate, self.heights[:, i], self.points[:, i])
            for i, (racer, rate) in enumerate(zip(self.setting.racers, self.rates, strict=True))
        }


@dataclass(frozen=True)
class Summary:
    """Result of an optimizer on a surface.

    Losses are differences from the minimum.

    Args:
        rate: learning rate.
        is_given: True if the learning rate was given, False if it was tuned.
        start: initial loss.
        end: final loss.
        maximum: maximum loss.
        final_mean: mean loss over the last quarter of the steps.
        convergence_step: first step from which the loss stays below 1 % of its initial value; None if there is none.
        is_outside: True if the trajectory left the drawn region.
        x: first coordinate of the final point.
        y: second coordinate of the final point.
    """

    rate: float
    is_given: bool
    start: float
    end: float
    maximum: float
    final_mean: float
    convergence_step: int | None
    is_outside: bool
    x: float
    y: float

    @classmethod
    def from_trajectory(cls, racer: Racer, rate: float, heights: Numbers, points: Numbers) -> "Summary":
        """Summarize one trajectory.

        Args:
            racer: the optimizer.
            rate: its learning rate.
            heights: loss above the minimum, `[steps + 1]`.
            points: points of the trajectory, `[steps + 1, 2]`.
        """
        above = np.flatnonzero(~(heights <= heights[0] / 100))
        first = 0 if not len(above) else int(above[-1]) + 1
        final_mean = float(heights[len(heights) * 3 // 4 :].mean())
        return cls(
            rate,
            "lr" in dict(racer.own),
            float(heights[0]),
            float(heights[-1]),
            float(heights.max()),
            final_mean,
            first if first < len(heights) else None,
            bool(np.isnan(points).any()),
            float(points[-1, 0]),
            float(points[-1, 1]),
        )


@lru_cache(maxsize=256)
def surface(name: str, parameters: tuple[tuple[str, float], ...], noise: float) -> Landscape:
    """Return a landscape with the given noise.

    The same object is returned for the same arguments, so that the cache of tuned learning rates applies.
    """
    return make_landscape(name, parameters).change(noise=noise)


def minimum_value(landscape: Landscape) -> float:
    """Return the minimum loss of a surface.

    If no minimum is known, it is the lowest value on a grid.
    """
    if not landscape.minima:
        return float(landscape.grid()[2].min())
    return float(landscape.value(torch.tensor(landscape.minima, dtype=torch.float64)).min())


@lru_cache(maxsize=32)
def run(setting: Setting) -> Run:
    """Compute the trajectories of all optimizers of a setting."""
    landscape = surface(setting.surface, setting.parameters, setting.noise)
    rates = tuple(learning_rate(racer, setting) for racer in setting.racers)
    if not rates:
        empty = np.zeros((setting.steps + 1, 0))
        return Run(setting, landscape, (), empty[..., None].repeat(2, -1), empty)
    racing = [(racer.rule, hyperparameters(racer, rate)) for racer, rate in zip(setting.racers, rates, strict=True)]
    points, losses = descend(racing, landscape, setting.steps, setting.start, setting.seed)
    return Run(
        setting, landscape, rates, mask_outside(points[:, :, 0], landscape), _heights(losses[:, :, 0], landscape)
    )


def _heights(losses: Tensor, landscape: Landscape) -> Numbers:
    above = (losses - minimum_value(landscape)).clamp(min=0).nan_to_num(float("inf"))
    return np.asarray(above.numpy(), dtype=np.float64)


def learning_rate(racer: Racer, setting: Setting) -> float:
    """Return the given learning rate of an optimizer, or one tuned from the surface's default starting point."""
    given = dict(racer.own)
    if "lr" in given:
        return given["lr"]
    landscape = surface(setting.surface, setting.parameters, setting.noise)
    rest = tuple({**racer.entry.fixed, **given}.items())
    return tuned(racer.rule, landscape, setting.steps, None, DRAWS if landscape.noise else 1, rest)


def hyperparameters(racer: Racer, rate: float) -> dict[str, Any]:
    """Return all hyperparameters of an optimizer, with `rate` as the learning rate."""
    return racer.entry.values(**{**dict(racer.own), "lr": rate})


def mask_outside(points: Tensor, landscape: Landscape) -> Numbers:
    """Replace points far outside the box of a landscape by NaN, and return all points as an array."""
    box = torch.tensor(landscape.box, dtype=torch.float64)
    distance = (points - box.mean(1)).abs() / (box[:, 1] - box[:, 0])
    return np.asarray(torch.where((distance < FAR).all(-1, keepdim=True), points, torch.nan).numpy(), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class EndPoints:
    """Final points of one optimizer for a grid of starting points.

    Args:
        landscape: surface.
        rate: learning rate, which is the same for all starting points.
        starts: starting points, `[starts, 2]`.
        ends: final points, `[starts, 2]`; NaN for points far outside the box.
        heights: final loss above the minimum, `[starts]`.
        reached: index of the minimum that is reached, `[starts]`; −1 if none is reached.
    """

    landscape: Landscape
    rate: float
    starts: Numbers
    ends: Numbers
    heights: Numbers
    reached: NDArray[np.int64]


@lru_cache(maxsize=16)
def run_from_grid(setting: Setting, racer: Racer) -> EndPoints:
    """Run an optimizer from a grid of starting points and find the minimum that each reaches."""
    landscape = surface(setting.surface, setting.parameters, setting.noise)
    x, y, _ = landscape.grid(LATTICE)
    starts = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    lr = learning_rate(racer, setting)
    points, losses = descend([(racer.rule, hyperparameters(racer, lr))], landscape, setting.steps, starts, setting.seed)
    last, heights = mask_outside(points[-1, 0], landscape), _heights(losses[-1, 0], landscape)
    box = np.asarray(landscape.box)
    minima = np.asarray(landscape.minima).reshape(-1, 2)
    distances = np.linalg.norm((last[:, None] - minima) / (box[:, 1] - box[:, 0]), axis=-1)
    is_reached = np.nan_to_num(distances, nan=np.inf) < 0.05  # as a fraction of the box's width
    reached = np.where(is_reached.any(1), is_reached.argmax(1), -1)
    return EndPoints(landscape, lr, np.asarray(starts.numpy(), dtype=np.float64), last, heights, reached)
