"""Detects training loops that override the hyperparameters under trial, as `OneCycleLR(max_lr=...)` does."""

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
"""Mean elasticity of the rates in the groups with respect to the learning rate under trial, below which it counts as
overridden: schedules that multiply have 1, an absolute floor takes a little of it, rates of the loop's own have 0."""
MOST_EQUAL = 0.5
"""Share of steps with the same learning rate in both runs, no lower than the lower one under trial, from which it is
overridden: by a loop that sets it in later epochs. A floor under a schedule is lower."""
Values = dict[str, Any]


@dataclass
class GroupHistory:
    """Record the hyperparameters in every parameter group at each step, and what the optimizers train.

    Args:
        names: the hyperparameters to record.
    """

    names: Iterable[str]
    steps: list[list[list[Values]]] = field(default_factory=list)
    """`[optimizer][step][group]`"""
    initial: list[str] = field(default_factory=list)
    """A digest of each parameter as it was when its optimizer was made."""
    params: list[Tensor] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """All keys that any group has had."""

    def watch(self, make_optimizer: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Wrap `make_optimizer` so that every optimizer it makes is recorded."""

        def make(params: Any, **given: Any) -> torch.optim.Optimizer:
            optimizer = make_optimizer(params, **given)
            params = [x for group in optimizer.param_groups for x in group["params"]]
            self.initial += map(digest, params)
            self.params += params
            record: list[list[Values]] = []
            self.steps.append(record)

            def note(stepped: torch.optim.Optimizer, *_: Any) -> None:
                record.append([{name: _value(group, name) for name in self.names} for group in stepped.param_groups])
                self.keys.update(key for group in stepped.param_groups for key in group)

            optimizer.register_step_pre_hook(note)
            return optimizer

        return make

    @property
    def stepped(self) -> bool:
        """Whether any of the optimizers took a step."""
        return any(self.steps)

    @property
    def current(self) -> list[str]:
        """A digest of each parameter as it is now."""
        return list(map(digest, self.params))


def find_overridden(
    first: GroupHistory, second: GroupHistory, trials: Mapping[str, tuple[Any, Any]]
) -> dict[str, list[Any]]:
    """Return the hyperparameters that do not follow the trial in some parameter group, and examples of their values.

    Args:
        first: of a run.
        second: of a run of the same loop, in which all hyperparameters under trial have other values.
        trials: both values of each hyperparameter under trial.
    """
    overridden: dict[str, list[Any]] = {}
    for name, given in trials.items():
        for pairs in _aligned(first, second, name):
            # What is zero is switched off, as in a group that must not decay.
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
    """One list of pairs of values, step by step, for each parameter group that both runs have."""
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
    """A group's hyperparameter, where `betas` holds `beta1` and `beta2`; None where it has none."""
    value = group.get(name)
    if value is None and name.startswith("beta") and name[4:].isdigit():
        betas = group.get("betas")
        value = betas[int(name[4:]) - 1] if isinstance(betas, tuple | list) and int(name[4:]) <= len(betas) else None
    return float(value) if isinstance(value, Tensor) and value.numel() == 1 else value
