"""Detection of training loops that override tuned hyperparameters, for example by `OneCycleLR(max_lr=...)`."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

MIN_ELASTICITY = 0.25
"""Minimum mean elasticity of the learning rates in a parameter group with respect to the learning rate of the trial.
The elasticity is 1 for multiplicative schedules, slightly less for schedules with an absolute minimum, and 0 if the
loop sets the learning rate itself. Below this value, the learning rate counts as overridden."""
MAX_EQUAL_FRACTION = 0.5
"""Maximum fraction of steps at which two trials with different learning rates use the same one. Learning rates below
both trials' values do not count, because they may be the minimum of a schedule. Above this fraction, the learning rate
counts as overridden, for example by a loop that sets it in later epochs."""
Values = dict[str, Any]


@dataclass
class GroupHistory:
    """Recorder of the hyperparameters in every parameter group at each step, and of the trained parameters.

    Args:
        names: names of the hyperparameters to record.
    """

    names: Iterable[str]
    steps: list[list[list[Values]]] = field(default_factory=list)
    """Values of the hyperparameters, by name, indexed as `[optimizer][step][group]`."""
    initial: list[str] = field(default_factory=list)
    """Hash of each parameter at the construction of its optimizer."""
    params: list[Tensor] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """Names of all hyperparameters that occur in any parameter group."""

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
        """True if at least one of the optimizers took a step."""
        return any(self.steps)

    @property
    def current(self) -> list[str]:
        """Hash of the current value of each parameter."""
        return list(map(digest, self.params))


def find_overridden(
    first: GroupHistory, second: GroupHistory, trials: Mapping[str, tuple[Any, Any]]
) -> dict[str, list[Any]]:
    """Find tuned hyperparameters that a training loop overrides.

    A hyperparameter is overridden if, in any parameter group, its values do not differ between two runs as the values
    of the trials do.

    Args:
        first: history of a run.
        second: history of a run of the same loop with other values of all tuned hyperparameters.
        trials: values of each tuned hyperparameter in both runs.

    Returns:
        The values of each overridden hyperparameter in the first run, by its name.
    """
    overridden: dict[str, list[Any]] = {}
    for name, given in trials.items():
        for pairs in _aligned(first, second, name):
            # A value of zero switches a hyperparameter off, for example weight decay in one of the groups.
            both = [pair for pair in pairs if all(value is not None and value != 0 for value in pair)]
            if both and not (_follows_rate(both, given) if name == "lr" else _follows(both)):
                overridden.setdefault(name, []).extend(dict.fromkeys(value for value, _ in both))
    return overridden


def digest(x: Tensor) -> str:
    """Return a hash of the bytes of a tensor, or an empty string if it is not initialized yet."""
    if is_lazy(x):
        return ""
    flat = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(flat.numpy().tobytes(), digest_size=16).hexdigest()


def _aligned(first: GroupHistory, second: GroupHistory, name: str) -> Iterator[list[tuple[Any, Any]]]:
    """Yield, for each parameter group that exists in both runs, a list with the pair of values at each step.

    Args:
        first: history of a run.
        second: history of another run.
        name: name of the hyperparameter.
    """
    for a, b in zip(first.steps, second.steps, strict=False):
        groups: dict[int, list[tuple[Any, Any]]] = {}
        for one, other in zip(a, b, strict=False):
            for number, (x, y) in enumerate(zip(one, other, strict=False)):
                groups.setdefault(number, []).append((x[name], y[name]))
        yield from groups.values()


def _follows_rate(pairs: list[tuple[float, float]], given: tuple[float, float]) -> bool:
    """Return True if the learning rates of two runs differ as those of the trials do.

    Args:
        pairs: learning rates of both runs at each step.
        given: learning rates of both trials.
    """
    scale = math.log(given[0] / given[1])
    positive = [(x, y) for x, y in pairs if x > 0 and y > 0]
    if not positive:
        return True
    response = fmean(math.log(x / y) / scale for x, y in positive)
    equal = fmean(x == y >= min(given) for x, y in positive)
    return response >= MIN_ELASTICITY and equal < MAX_EQUAL_FRACTION


def _follows(pairs: list[tuple[Any, Any]]) -> bool:
    """Return True if the values of two runs differ in at least half of the steps."""
    return fmean(x != y for x, y in pairs) >= 0.5


def _value(group: Mapping[str, Any], name: str) -> Any:
    """Return the value of a hyperparameter in a parameter group; None if the group does not have it.

    `beta1` and `beta2` are taken from `betas` if necessary.
    """
    value = group.get(name)
    if value is None and name.startswith("beta") and name[4:].isdigit():
        betas = group.get("betas")
        value = betas[int(name[4:]) - 1] if isinstance(betas, tuple | list) and int(name[4:]) <= len(betas) else None
    return float(value) if isinstance(value, Tensor) and value.numel() == 1 else value
