"""Two-dimensional slices of a real network's loss: the plane through three points, or the plane nearest to a path."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from gradprix.rules import Rule
from gradprix.tasks import Task, digits
from gradprix.tasks.schedules import count_steps

from .landscape import Landscape
from .loss_grid import LossGrid
from .loss_probe import LossProbe
from .resolve import resolve_optimizer
from .tracing import TaskProblem, step

AT_ONCE = 128
"""Points of a plane that are evaluated in one batch."""
ROOM = 0.25
"""Margin around the points, as a share of their extent."""
KEPT = 60
"""Number of points recorded along a path, besides its start."""
GRID = 61
"""Points per side of an interpolated slice."""


@dataclass(frozen=True)
class Plane:
    """A plane in a network's weight space, and the loss on it.

    Args:
        landscape: loss of a fixed sample of training examples, as a function of two coordinates in the plane. Distances
            are the same as between weight vectors.
        points: coordinates in the plane of the three points, or of the path's points after projection, `[points, 2]`.
        true: loss at the original points, `[points]`.
        drawn: loss at the projected points, `[points]`; equal to `true` if the points lie in the plane.
        variance: fraction of the path's variance that lies in the plane; 1 for three points.
    """

    landscape: Landscape
    points: Tensor
    true: Tensor
    drawn: Tensor
    variance: float

    @property
    def projection_error(self) -> str:
        """Sentence about the error of drawing the points in the plane."""
        spread = float(self.true.max() - self.true.min())
        off = float((self.true - self.drawn).abs().max())
        if self.variance > 0.9999:
            return "The points lie in the plane, without projection error."
        return (
            f"The plane contains {100 * self.variance:.1f} % of the path's variance; the drawn loss of its points is "
            f"off by up to {off:.2g}, {100 * off / spread if spread else 0:.0f} % of their range."
        )


def training_path(rule: Rule | str, task: Task, steps: int, seed: int = 0, **values: Any) -> Tensor:
    """Train a network and return its flattened weights at up to 61 evenly spaced steps, `[points, weights]`.

    The first and the last point are the weights before the first and after the last step.

    Args:
        rule: a rule, or the name of an optimizer.
        task: the problem, on which the network is trained as in a race.
        steps: number of steps.
        seed: seed of the run.
        **values: hyperparameters.

    Raises:
        ValueError: if the rule updates matrices; use `trace` instead.
    """
    resolved = resolve_optimizer(rule)
    if resolved.rule.is_matrix_rule:
        raise ValueError(f"{resolved.name} updates matrices: a path needs an elementwise or tensorwise rule.")
    problem, own = TaskProblem(task, seed), resolved.rule.values(**{**resolved.fixed, **values})
    state: dict[str, dict[str, Any]] = {name: {} for name in problem.parameters}
    keep = {round(i * steps / KEPT) for i in range(KEPT + 1)}
    points = [_flatten(list(problem.parameters.values()))]
    for t, (_, gradients, factor) in zip(range(1, steps + 1), problem.losses(), strict=False):
        for (name, x), g in zip(problem.parameters.items(), gradients, strict=True):
            if g is not None:
                x.copy_(step(resolved.rule, {**own, "lr": own["lr"] * factor}, t, x, g, state[name])["x"])
        if t in keep:
            points.append(_flatten(list(problem.parameters.values())))
    return torch.stack(points)


def plane_through(task: Task, points: Tensor, seed: int = 0, name: str = "plane") -> Plane:
    """Return the plane through three points in a network's weight space.

    The first point is the origin of the plane, and the first axis points from it to the second point.

    Args:
        task: the problem that the weights belong to.
        points: flattened weights, `[3, weights]`, as returned by `training_path`.
        seed: seed of the examples whose loss is shown.
        name: name of the landscape.

    Raises:
        ValueError: if the three points are collinear.
    """
    origin, a, b = points.double()
    first_axis = a - origin
    second_axis = (b - origin) - (b - origin) @ first_axis / (first_axis @ first_axis) * first_axis
    if float(second_axis.norm()) < 1e-6 * float(first_axis.norm()):
        raise ValueError("the three points lie on a line, which does not define a plane. Give points that do not.")
    axes = torch.stack([first_axis / first_axis.norm(), second_axis / second_axis.norm()])
    return _project(
        task, points.double(), origin, axes, seed, name, "Plane through three points in the weight space of a network."
    )


def principal_plane(task: Task, points: Tensor, seed: int = 0, name: str = "path") -> Plane:
    """Return the plane along the first two principal components of a path in a network's weight space.

    The end of the path is the origin of the plane.

    Args:
        task: the problem that the weights belong to.
        points: flattened weights along the path, `[points, weights]`, as returned by `training_path`.
        seed: seed of the examples whose loss is shown.
        name: name of the landscape.
    """
    moved = points.double() - points[-1].double()
    *_, axes = torch.linalg.svd(moved - moved.mean(0), full_matrices=False)
    about = (
        "Plane nearest to the training path of a network, by principal components (Li et al. 2018, arXiv:1712.09913)."
    )
    return _project(task, points.double(), points[-1].double(), axes[:2], seed, name, about)


def _project(task: Task, points: Tensor, origin: Tensor, axes: Tensor, seed: int, name: str, about: str) -> Plane:
    """Return the plane with the given origin, `[weights]`, and orthonormal axes, `[2, weights]`."""
    probe = LossProbe(task, seed)
    probe.model.eval()  # show the network as it is used, without dropout
    examples, _ = probe.sample(task.batch_size)
    names = [key for key, p in probe.model.named_parameters() if p.requires_grad]
    shapes = [probe.model.get_parameter(key).shape for key in names]
    sizes = [shape.numel() for shape in shapes]
    rest = {
        key: x.detach()
        for named in (probe.model.named_parameters(), probe.model.named_buffers())
        for key, x in named
        if key not in names
    }

    def loss_at(flat: Tensor) -> Tensor:
        parts = torch.split(flat.to(torch.get_default_dtype()), sizes)
        parameters = {key: part.view(shape) for key, part, shape in zip(names, parts, shapes, strict=True)}
        return probe.loss({**rest, **parameters}, *examples).to(flat.dtype)

    def value(p: Tensor) -> Tensor:
        flat = origin + p.reshape(-1, 2) @ axes
        return torch.cat([vmap(loss_at, randomness="same")(chunk) for chunk in torch.split(flat, AT_ONCE)]).view(
            p.shape[:-1]
        )

    coordinates = (points - origin) @ axes.T
    centred = points - points.mean(0)
    inside = centred @ axes.T
    with torch.no_grad():
        true, drawn = torch.stack([loss_at(x) for x in points]), value(coordinates)
    low, high = coordinates.min(0).values, coordinates.max(0).values
    room = ROOM * (high - low).max().clamp(min=1e-3)
    box = tuple((float(a - room), float(b + room)) for a, b in zip(low, high, strict=True))
    start = (round(float(coordinates[0, 0]), 2), round(float(coordinates[0, 1]), 2))
    landscape = Landscape(name, value, (box[0], box[1]), start, about=about)
    variance = float(inside.square().sum() / centred.square().sum())
    return Plane(landscape, coordinates, true, drawn, variance)


def interpolate_plane(plane: Plane, size: int = GRID) -> Landscape:
    """Return a landscape that is fast to evaluate: it interpolates the loss of a plane between grid points.

    The interpolation is cubic (see `LossGrid`). Outside the plane's box, the loss grows with the squared distance from
    it.

    Args:
        plane: the plane.
        size: number of grid points per side.
    """
    landscape = plane.landscape
    value = LossGrid(landscape.box, landscape.grid(size)[2])
    return landscape.change(value=value, about=f"{landscape.about} {plane.projection_error}")


@lru_cache(maxsize=8)
def digits_path(rule: str = "adam", lr: float = 4.7e-3) -> Plane:
    """Return the plane nearest to the training path of the `digits` network.

    Args:
        rule: name of the optimizer.
        lr: learning rate.
    """
    return principal_plane(digits, training_path(rule, digits, _total_steps(digits), lr=lr), name="digits-path")


@lru_cache(maxsize=1)
def digits_plane() -> Plane:
    """Return the plane through the points that momentum, Adam and AdaGrad reach on `digits` from the same start."""
    settled: Sequence[tuple[str, float]] = (("momentum", 0.1), ("adam", 4.7e-3), ("adagrad", 0.047))
    ends = [training_path(rule, digits, _total_steps(digits), lr=lr)[-1] for rule, lr in settled]
    return plane_through(digits, torch.stack(ends), name="digits-plane")


def loss_planes() -> dict[str, Any]:
    """Return the planes in `loss_planes.json`, by name, which `studies/loss_planes.py` computes.

    Each has the keys `about`, `start` and `box` of a landscape, and `values`, the loss on a regular grid over the box,
    rows (y) first.
    """
    planes: dict[str, Any] = json.loads(Path(__file__).with_name("loss_planes.json").read_text())
    return planes


@cache
def _load_slice(name: str) -> Landscape:
    plane = loss_planes()[name]
    box: Any = tuple(map(tuple, plane["box"]))
    grid = LossGrid(box, torch.tensor(plane["values"], dtype=torch.float64))
    return Landscape(name, grid, box, tuple(plane["start"]), about=plane["about"])


SLICES: dict[str, Callable[[], Landscape]] = {
    name: partial(_load_slice, name) for name in ("digits-path", "digits-plane")
}
"""Slices of the loss of a real network that can be used as landscapes, sampled from `digits_path()` and
`digits_plane()`."""


def _total_steps(task: Task) -> int:
    return count_steps(len(task.loaded.split(0).train), task.batch_size, task.epochs)


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.detach().flatten() for x in tensors])
