"""Detection of training loops that override tuned hyperparameters, as `OneCycleLR(max_lr=...)` does."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

LEAST_RESPONSE = 0.25
"""Mean elasticity of the groups' learning rates with respect to the trial's, below which it counts as overridden:
multiplicative schedules have 1, an absolute floor slightly less, learning rates that the loop sets itself have 0."""
MOST_EQUAL = 0.5
"""Fraction of steps with equal learning rates in both runs, no lower than the trials' lower one, above which it is
overridden: by a loop that sets it in later epochs. The floor of a schedule is lower."""
Values = dict[str, Any]


@dataclass
class GroupHistory:
    """Record of the hyperparameters in every parameter group at each step, and of the trained parameters.

    Args:
        names: hyperparameters to record.
    """

    names: Iterable[str]
    steps: list[list[list[Values]]] = field(default_factory=list)
    """`[optimizer][step][group]`"""
    initial: list[str] = field(default_factory=list)
    """Digest of each parameter at the construction of its optimizer."""
    params: list[Tensor] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """All keys of all groups."""

    def watch(self, make_optimizer: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Wrap `make_optimizer` so that every optimizer it returns is recorded."""

        def make(params: Any, **given: Any) -> torch.optim.Optimizer:
            optimizer = make_optimizer(params, **given)
            params = [x for group in optimizer.param_groups for x in group["params"]]
            self.initial += map(digest, params)
            self.params += params
            record: list[list[Values]] = []
            self.steps.append(record)

            def record_groups(stepped: torch.optim.Optimizer, *_: Any) -> None:
                record.append([{name: _value(group, name) for name in self.names} for group in stepped.param_groups])
                self.keys.update(key for group in stepped.param_groups for key in group)

            optimizer.register_step_pre_hook(record_groups)
            return optimizer

        return make

    @property
    def stepped(self) -> bool:
        """True if any of the optimizers took a step."""
        return any(self.steps)

    @property
    def current(self) -> list[str]:
        """Digest of the current value of each parameter."""
        return list(map(digest, self.params))


def find_overridden(
    first: GroupHistory, second: GroupHistory, trials: Mapping[str, tuple[Any, Any]]
) -> dict[str, list[Any]]:
    """Return the hyperparameters that do not follow the trial in some parameter group, with examples of their values.

    Args:
        first: history of a run.
        second: history of a run of the same loop with other values of all tuned hyperparameters.
        trials: both values of each tuned hyperparameter.
    """
    overridden: dict[str, list[Any]] = {}
    for name, given in trials.items():
        for pairs in _aligned(first, second, name):
            # Zero switches a hyperparameter off, as in a group without weight decay.
            both = [pair for pair in pairs if all(value is not None and value != 0 for value in pair)]
            if both and not (_follows_rate(both, given) if name == "lr" else _follows(both)):
                overridden.setdefault(name, []).extend(dict.fromkeys(value for value, _ in both))
    return overridden


def digest(x: Tensor) -> str:
    """Return a hash of a tensor's bytes."""
    if is_lazy(x):
        return ""
    flat = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(flat.numpy().tobytes(), digest_size=16).hexdigest()


def _aligned(first: GroupHistory, second: GroupHistory, name: str) -> Iterator[list[tuple[Any, Any]]]:
    """Yield, for each parameter group common to both runs, the pairs of values at each step."""
    for a, b in zip(first.steps, second.steps, strict=False):
        groups: dict[int, list[tuple[Any, Any]]] = {}
        for one, other in zip(a, b, strict=False):
            for number, (x, y) in enumerate(zip(one, other, strict=False)):
                groups.setdefault(number, []).append((x[name], y[name]))
        yield from groups.values()


def _follows_rate(pairs: list[tuple[float, float]], given: tuple[float, float]) -> bool:
    scale = math.log(given[0] / given[1])
    positive = [(x, y) for x, y in pairs if x > 0 and y > 0]
    if not positive:
        return True
    response = fmean(math.log(x / y) / scale for x, y in positive)
    equal = fmean(x == y >= min(given) for x, y in positive)
    return response >= LEAST_RESPONSE and equal < MOST_EQUAL


def _follows(pairs: list[tuple[Any, Any]]) -> bool:
    return fmean(x != y for x, y in pairs) >= 0.5


def _value(group: Mapping[str, Any], name: str) -> Any:
    """Return a group's hyperparameter, `beta1` and `beta2` from its `betas`; None if it has none."""
    value = group.get(name)
    if value is None and name.startswith("beta") and name[4:].isdigit():
        betas = group.get("betas")
        value = betas[int(name[4:]) - 1] if isinstance(betas, tuple | list) and int(name[4:]) <= len(betas) else None
    return float(value) if isinstance(value, Tensor) and value.numel() == 1 else value
