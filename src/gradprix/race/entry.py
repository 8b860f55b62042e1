"""Entries of a race: an optimizer with its fixed hyperparameters, search space and batch size."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gradprix import optim
from gradprix.rules import Axis, Rule
from gradprix.training.torch_optimizer_adapter import CLASSES, TorchOptimizerAdapter, constructor_arguments

ALL_EXAMPLES = 0
"""Batch size of a full-batch entry."""


@dataclass(frozen=True)
class Entry:
    """An optimizer and its configuration in a race.

    Args:
        name: name in the race.
        rule: a rule, or any class of `torch.optim.Optimizer`.
        fixed: hyperparameters and options that are not tuned and differ from the rule's defaults (arguments of the
            class).
        space: search range of each tuned hyperparameter, including `lr`, optionally `batch_size` and `schedule`; the
            rule's range of `lr` by default.
        batch_size: examples per step; None for the task's, 0 for full-batch training.
        offset: shift of the learning-rate grid, as a fraction of a grid step from 0 to 1.
        about: one-line description, if the rule's summary does not fit.
        replicate: number of the replicate, which selects the tuning seeds: entries that differ only in `offset` and
            `replicate` are used in A/A tests.
    """

    name: str
    rule: Rule | TorchOptimizerAdapter
    fixed: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Axis] = field(default_factory=dict)
    batch_size: int | None = None
    offset: float = 0.0
    replicate: int = 0
    about: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", as_steppable(self.rule))
        if isinstance(self.rule, Rule) and "betas" in self.fixed:
            fixed = {name: value for name, value in self.fixed.items() if name != "betas"}
            fixed |= dict(zip(self.rule.betas, self.fixed["betas"], strict=True))
            object.__setattr__(self, "fixed", fixed)
        if not self.space:
            object.__setattr__(self, "space", {"lr": self.rule.axes["lr"]})
        if not self.about:
            object.__setattr__(self, "about", self.rule.summary)
        if "lr" not in self.space:
            raise ValueError(f"entry {self.name!r}: space = {', '.join(self.space)}: it must include lr.")
        try:
            json.dumps(dict(self.fixed))
        except TypeError as error:
            raise ValueError(
                f"entry {self.name!r}: {error}, and fixed hyperparameters are saved as JSON. Give numbers, strings "
                "and lists of them, or set other values as defaults of the class."
            ) from error
        if self.batch_size is not None and self.batch_size < 0:
            raise ValueError(
                f"entry {self.name!r}: batch_size = {self.batch_size}: it must be at least 1, or 0 for full batches."
            )
        if tuned := self.space.keys() & self.fixed.keys():
            raise ValueError(f"entry {self.name!r}: {', '.join(tuned)} is both fixed and tuned. Remove it from one.")
        if not 0 <= self.replicate < 90 or not 0 <= self.offset < 1:
            raise ValueError(f"entry {self.name!r}: replicate must be from 0 to 89 and offset from 0 to 1.")
        for share in (0.0, 1.0):
            self.values(**{name: axis.from_unit(share) for name, axis in self.space.items()})

    def values(self, lr: float, **tuned: Any) -> dict[str, Any]:
        """Return all hyperparameters at a learning rate and values of the other tuned hyperparameters."""
        return self.rule.values(**{**self.fixed, **_optimizer_values(tuned), "lr": lr})

    def tuning(self, names: Sequence[str], training: Mapping[str, Axis]) -> "Entry":
        """Return a copy of the entry that tunes those of the given hyperparameters that it uses.

        Args:
            names: hyperparameters to tune besides the learning rate.
            training: search ranges of batch size and schedule.
        """
        axes = {**self.rule.axes, **training, **self.space}
        own = self.rule.defaults if isinstance(self.rule, TorchOptimizerAdapter) else self.rule.hyperparameters
        values = {**own, **self.values(self.default_rate)}
        used = [name for name in names if name in training or name == "weight_decay" or values.get(name)]
        space = {"lr": axes["lr"]} | {name: axes[name] for name in used if name in axes}
        fixed = {name: value for name, value in self.fixed.items() if name not in space}
        return replace(self, space=space, fixed=fixed)

    @property
    def default_rate(self) -> float:
        """Default learning rate of the rule, or the middle of the search space if it has none."""
        lr = self.rule.hyperparameters.get("lr")
        return float(lr) if isinstance(lr, int | float) else float(self.space["lr"].from_unit(0.5))

    @property
    def optimizer(self) -> str:
        """Name of the class in `gradprix.optim`, full name of another class, or `from_rule(rule)` without a class."""
        if isinstance(self.rule, TorchOptimizerAdapter):
            ours = getattr(optim, self.rule.name, None) is self.rule.make
            return self.rule.name if ours else self.rule.full_name
        return CLASSES.get(self.rule, f"from_rule({self.rule.name})")

    def arguments(self, lr: float, **tuned: Any) -> dict[str, Any]:
        """Return the constructor arguments of the class, in torch's names."""
        return constructor_arguments(self.rule, {"lr": lr, **self.fixed, **_optimizer_values(tuned)})

    def code(self, lr: float, **tuned: Any) -> str:
        """Return the constructor call as source code."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments(lr, **tuned).items())
        home = "" if "." in self.optimizer else "gradprix.optim."
        return f"{home}{self.optimizer}(params, {arguments})"


TRAINING = ("batch_size", "schedule")
"""Tunable hyperparameters of the training, not of the optimizer."""


def _optimizer_values(tuned: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tuned.items() if name not in TRAINING}


def as_steppable(given: Any) -> Rule | TorchOptimizerAdapter:
    """Convert a rule or class to a rule that a stacked kernel can step, or else to a per-model optimizer class.

    Raises:
        TypeError: for anything but a rule or an optimizer class.
        ValueError: for a class that cannot be raced.
    """
    if isinstance(given, TorchOptimizerAdapter):
        return given
    if isinstance(given, type) and issubclass(given, torch.optim.Optimizer):
        rule = rule_of(given)
        return rule if rule is not None and _stacks(rule) else TorchOptimizerAdapter(given)
    if not isinstance(given, Rule):
        raise TypeError(f"{given!r} is neither a gp.rule nor a subclass of torch.optim.Optimizer.")
    return (
        given
        if _stacks(given)
        else TorchOptimizerAdapter(getattr(optim, CLASSES[given]) if given in CLASSES else optim.from_rule(given))
    )


def rule_of(given: Any) -> Rule | None:
    """Return the rule of an optimizer class; None for a class that may override the step."""
    rule = getattr(given, "rule", None)
    return rule if isinstance(rule, Rule) and optim.from_rule(rule) is given else None


def _stacks(rule: Rule) -> bool:
    """Return True for an elementwise rule that evaluates the model at its own iterate: a kernel can step it stacked."""
    return rule.scope == "element" and rule.evaluate is None


def twin(entry: Entry, number: int) -> Entry:
    """Return a replicate of an entry, for A/A tests: a shifted learning-rate grid and other tuning seeds."""
    golden = 0.618  # spreads any number of offsets evenly over a grid step
    return replace(entry, name=f"{entry.name}~{number}", offset=number * golden % 1, replicate=number)
