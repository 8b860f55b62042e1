"""Slices of a real network's loss: a plane through three points, or the one nearest to a path, with what it hides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from gradprix.rules import Rule
from gradprix.tasks import Task, digits
from gradprix.tasks.schedules import count_steps

from .landscapes import Landscape
from .loss_probe import Looked
from .resolve import subject
from .tracing import OnTask, step

AT_ONCE = 128
"""Points of a plane that are computed together."""
ROOM = 0.25
"""What is shown beyond the points, as a share of what they span."""
KEPT = 60
"""Points of a path that are kept."""
GRID = 61
"""Points a side of a slice that is interpolated."""


@dataclass(frozen=True)
class Plane:
    """A plane in the space of a network's weights, and the loss on it.

    Args:
        landscape: the loss of a fixed sample of training examples, by two coordinates in units of weight space.
        points: where the points it was laid through, or those of the path, are on it, `[points, 2]`.
        true: the loss at those points themselves, `[points]`.
        drawn: the loss where they are drawn, `[points]`: the same where they lie in the plane.
        variance: the share of the path's variance in the plane; 1 for three points.
    """

    landscape: Landscape
    points: Tensor
    true: Tensor
    drawn: Tensor
    variance: float

    @property
    def honest(self) -> str:
        """What the picture hides, in a sentence."""
        spread = float(self.true.max() - self.true.min())
        off = float((self.true - self.drawn).abs().max())
        if self.variance > 0.9999:
            return "The points lie in the plane: nothing is hidden at them."
        return (
            f"The plane holds {100 * self.variance:.1f} % of the path's variance; at the points of the path the drawn "
            f"loss is off by up to {off:.2g}, {100 * off / spread if spread else 0:.0f} % of the range that they span."
        )


def path(rule: Rule | str, task: Task, steps: int, seed: int = 0, **values: Any) -> Tensor:
    """The weights that a network goes through, flat, `[points, weights]`: the start, up to 60 on the way, the end.

    Args:
        rule: a rule, or the name of an optimizer.
        task: the problem, trained as in a race.
        steps: how many.
        seed: of the run.
        **values: hyperparameters.

    Raises:
        ValueError: for a rule of matrices: trace it instead.
    """
    its = subject(rule)
    if its.rule.of_matrices:
        raise ValueError(f"{its.name} steps matrices: only a rule of elements or tensors has a path here.")
    problem, own = OnTask(task, seed), its.rule.values(**{**its.fixed, **values})
    state: dict[str, dict[str, Any]] = {name: {} for name in problem.parameters}
    keep = {round(i * steps / KEPT) for i in range(KEPT + 1)}
    points = [_flat(list(problem.parameters.values()))]
    for t, (_, gradients, factor) in zip(range(1, steps + 1), problem.losses(), strict=False):
        for (name, x), g in zip(problem.parameters.items(), gradients, strict=True):
            if g is not None:
                x.copy_(step(its.rule, {**own, "lr": own["lr"] * factor}, t, x, g, state[name])["x"])
        if t in keep:
            points.append(_flat(list(problem.parameters.values())))
    return torch.stack(points)


def through(task: Task, points: Tensor, seed: int = 0, name: str = "plane") -> Plane:
    """The plane through three points, the first of them its origin, the first axis towards the second.

    Args:
        task: whose network they are weights of.
        points: `[3, weights]`, as `path` has them.
        seed: of the examples whose loss is drawn.
        name: of the landscape.

    Raises:
        ValueError: when the three lie on a line.
    """
    origin, a, b = points.double()
    first = a - origin
    second = (b - origin) - (b - origin) @ first / (first @ first) * first
    if float(second.norm()) < 1e-6 * float(first.norm()):
        raise ValueError("the three points lie on a line, through which there is no one plane.")
    axes = torch.stack([first / first.norm(), second / second.norm()])
    return _laid(task, points.double(), origin, axes, seed, name, "The plane through three points of a real network.")


def nearest(task: Task, points: Tensor, seed: int = 0, name: str = "path") -> Plane:
    """The plane nearest to a path, by its first two principal components, with the end of the path as its origin.

    Args:
        task: whose network they are weights of.
        points: `[points, weights]`.
        seed: of the examples whose loss is drawn.
        name: of the landscape.
    """
    moved = points.double() - points[-1].double()
    *_, axes = torch.linalg.svd(moved - moved.mean(0), full_matrices=False)
    about = (
        "The plane nearest to the path of a real network, by principal components (Li et al. 2018, arXiv:1712.09913)."
    )
    return _laid(task, points.double(), points[-1].double(), axes[:2], seed, name, about)


def _laid(task: Task, points: Tensor, origin: Tensor, axes: Tensor, seed: int, name: str, about: str) -> Plane:
    looked = Looked(task, seed)
    looked.model.eval()  # a picture is of the network that is used, without the noise of training
    examples, _ = looked.sample(task.batch_size)
    names = [key for key, p in looked.model.named_parameters() if p.requires_grad]
    shapes = [looked.model.get_parameter(key).shape for key in names]
    sizes = [shape.numel() for shape in shapes]
    rest = {
        key: x.detach()
        for named in (looked.model.named_parameters(), looked.model.named_buffers())
        for key, x in named
        if key not in names
    }

    def at(flat: Tensor) -> Tensor:
        parts = torch.split(flat.to(torch.get_default_dtype()), sizes)
        own = {key: part.view(shape) for key, part, shape in zip(names, parts, shapes, strict=True)}
        return looked.loss({**rest, **own}, *examples).to(flat.dtype)

    def value(p: Tensor) -> Tensor:
        flat = origin + p.reshape(-1, 2) @ axes
        return torch.cat([vmap(at, randomness="same")(some) for some in torch.split(flat, AT_ONCE)]).view(p.shape[:-1])

    coordinates = (points - origin) @ axes.T
    centred = points - points.mean(0)
    inside = centred @ axes.T
    with torch.no_grad():
        true, drawn = torch.stack([at(x) for x in points]), value(coordinates)
    low, high = coordinates.min(0).values, coordinates.max(0).values
    room = ROOM * (high - low).max().clamp(min=1e-3)
    box = tuple((float(a - room), float(b + room)) for a, b in zip(low, high, strict=True))
    start = (round(float(coordinates[0, 0]), 2), round(float(coordinates[0, 1]), 2))
    landscape = Landscape(name, value, (box[0], box[1]), start, about=about)
    variance = float(inside.square().sum() / centred.square().sum())
    return Plane(landscape, coordinates, true, drawn, variance)


def sampled(plane: Plane, size: int = GRID) -> Landscape:
    """A slice that is quick to descend on: its values at a grid, and cubic interpolation between them.

    Args:
        plane: the slice.
        size: points a side.
    """
    landscape = plane.landscape
    values = landscape.grid(size)[2]
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in zip(*landscape.box, strict=True))

    def value(p: Tensor) -> Tensor:
        at = ((p - low) / (high - low)).clamp(0, 1) * (size - 1)
        corner = at.detach().floor().clamp(1, size - 3)
        f = at - corner
        # Catmull & Rom 1974: slopes at the grid are those through the neighbours, so that straight stays straight.
        weights = 0.5 * torch.stack(
            [-f + 2 * f**2 - f**3, 2 - 5 * f**2 + 3 * f**3, f + 4 * f**2 - 3 * f**3, f**3 - f**2]
        )
        place = corner.long()[..., None] + torch.arange(-1, 3)
        near = values[place[..., 1, :, None], place[..., 0, None, :]]
        inside = torch.einsum("...ij,i...,j...->...", near, weights[..., 1], weights[..., 0])
        beyond = p - torch.maximum(torch.minimum(p.detach(), high), low)  # nothing is known there: a wall
        return inside + beyond.square().sum(-1)

    return landscape.change(value=value, about=f"{landscape.about} {plane.honest}")


@lru_cache(maxsize=8)
def digits_path(rule: str = "adam", lr: float = 4.7e-3) -> Plane:
    """The plane nearest to the path of the `digits` network.

    Args:
        rule: the name of what trains it.
        lr: at which rate.
    """
    return nearest(digits, path(rule, digits, _whole_run(digits), lr=lr), name="digits-path")


@lru_cache(maxsize=1)
def digits_plane() -> Plane:
    """The plane through where three optimizers take one `digits` network from the same start."""
    settled: Sequence[tuple[str, float]] = (("momentum", 0.1), ("adam", 4.7e-3), ("adagrad", 0.047))
    ends = [path(rule, digits, _whole_run(digits), lr=lr)[-1] for rule, lr in settled]
    return through(digits, torch.stack(ends), name="digits-plane")


SLICES: dict[str, Callable[[], Landscape]] = {
    "digits-path": cache(lambda: sampled(digits_path())),
    "digits-plane": cache(lambda: sampled(digits_plane())),
}
"""Slices of a real network that can be descended on as any landscape; each takes some seconds when first wanted."""


def _whole_run(task: Task) -> int:
    return count_steps(len(task.loaded.split(0).train), task.batch_size, task.epochs)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.detach().flatten() for x in tensors])
