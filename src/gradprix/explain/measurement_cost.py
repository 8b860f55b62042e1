"""Cost of the measurements of a race, by counting: it decides at how many steps each run is measured.

A clock would make the result of a diagnosis depend on how busy the machine is. Operations, their arithmetic and the
numbers that they write depend on the task alone.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from gradprix.tasks import Task

from .loss_probe import LossProbe
from .network_measures import measure

SECONDS_PER_OPERATION, SECONDS_PER_FLOP, SECONDS_PER_NUMBER = 4e-6, 2.5e-11, 5e-10
"""Nominal speed of a core, which converts counts to seconds. It is the same on every machine."""
BUDGET = 80.0
"""Nominal seconds for all measurements of a race, not counting the replayed training: about a minute on `digits`."""
GRID = 12
"""Number of steps in the grid from which the measured steps are chosen; they are spread evenly over a run."""
SUBSETS: Sequence[tuple[int, ...]] = ((*range(GRID),), (0, 1, 3, 5, 7, 9, 11), (0, 1, 3, 5, 9), (0, 1, 9), (0, 1))
"""Indices of the measured steps in the grid, from most to fewest. Steps with an odd index are measured completely. All
but the last have early and late complete measurements; all have two early ones, because groups of examples are selected
at an earlier measurement."""


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of operations, floating-point operations of products and convolutions, and written numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations, self.flops, self.numbers = 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        self.numbers += sum(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))
        if func.overloadpacket in flop_registry:
            self.flops += int(flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result))
        return result

    @property
    def seconds(self) -> float:
        """The counts as nominal seconds."""
        return (
            SECONDS_PER_OPERATION * self.operations + SECONDS_PER_FLOP * self.flops + SECONDS_PER_NUMBER * self.numbers
        )


def count_cost(task: Task, seed: int, batch_size: int) -> tuple[float, float]:
    """Count the work of measuring an initial network, without and with gradient noise and sharpness.

    Args:
        task: the problem.
        seed: seed of the network and of the samples.
        batch_size: examples per step; 0 for full batches.

    Returns:
        Nominal seconds of a partial and of a complete measurement.
    """
    probe = LossProbe(task, seed)
    tensors = {name: x.detach() for name, x in (*probe.model.named_parameters(), *probe.model.named_buffers())}
    trained = {name: x.detach() for name, x in probe.model.named_parameters() if x.requires_grad}
    gains = {name: torch.ones_like(x) for name, x in trained.items()}
    costs = []
    for is_complete in (False, True):
        with OperationCounter() as counter:
            measure(probe, tensors, trained, tensors, batch_size, 0.0, 1.0, is_complete, gains if is_complete else None)
        costs.append(counter.seconds)
    return costs[0], costs[1]


def choose_points(costs: Sequence[tuple[float, float]], budget: float) -> tuple[int, ...]:
    """Return the largest of `SUBSETS` whose measurements fit into a budget, or the smallest one.

    Args:
        costs: nominal seconds of a partial and of a complete measurement, for each measured run.
        budget: nominal seconds for all measurements of all runs.
    """
    for points in SUBSETS:
        if sum(cost[i % 2] for cost in costs for i in points) <= budget:
            return points
    return SUBSETS[-1]


@cache
def measured_steps(steps: int, points: tuple[int, ...]) -> dict[int, bool]:
    """Return the steps at which networks are measured, each with True if it is measured completely.

    Args:
        steps: number of steps of the run.
        points: indices in the grid of measured steps.
    """
    grid = sorted({max(1, round((i + 0.5) / GRID * steps)) for i in range(GRID)})  # short runs have fewer steps
    return {step: i % 2 == 1 for i, step in enumerate(grid) if i in points}
