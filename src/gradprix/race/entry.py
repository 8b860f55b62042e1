"""Entries of a race: optimizers with their fixed hyperparameters, search space and batch size."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gradprix import optim
from gradprix.optim.variants import option_defaults
from gradprix.rules import Axis, Rule
from gradprix.training.torch_optimizer_adapter import CLASSES, TorchOptimizerAdapter, constructor_arguments

FEWEST_TRIALS = (10, 40)
"""Numbers of trials from which on a first and a second hyperparameter are tuned besides the learning rate."""
ALL_EXAMPLES = 0
"""Value of `Entry.batch_size` that stands for full-batch training."""


@dataclass(frozen=True)
class Entry:
    """Optimizer with its configuration in a race.

    Args:
        name: name of the entry, unique in a race.
        rule: rule, or any subclass of `torch.optim.Optimizer`.
        fixed: values of hyperparameters and options that are not tuned and differ from the defaults of the rule or
            class.
        space: search range of each tuned hyperparameter. It must contain `lr`, and may contain `batch_size`,
            `schedule` and `clip_norm`. Default: only `lr`, with the rule's search range.
        batch_size: number of examples per step. None means the batch size of the task, 0 full-batch training.
        offset: upward shift of the learning-rate grid, in grid steps, from 0 to 1.
        about: one-line description. Default: the summary of the rule.
        replicate: number of the replicate, which selects the tuning seeds. A/A tests compare entries that differ only
            in `offset` and `replicate`.
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
        if isinstance(self.rule, Rule) and self.fixed.keys() & option_defaults(self.rule):
            # Options of the class, which select variants of the rule.
            object.__setattr__(self, "rule", TorchOptimizerAdapter(optim.from_rule(self.rule)))
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
        """Return the values of all hyperparameters of the rule, given those of the tuned hyperparameters."""
        return self.rule.values(**{**self.fixed, **_optimizer_values(tuned), "lr": lr})

    def tuning(self, names: Sequence[str], training: Mapping[str, Axis]) -> "Entry":
        """Return a copy of the entry that tunes more hyperparameters than the learning rate.

        Args:
            names: names of the hyperparameters to tune. Those that the entry does not use are ignored.
            training: search ranges of batch size, schedule and gradient clipping.
        """
        axes = {**self.rule.axes, **training, **self.space}
        used = [name for name in names if name in training or self._uses(name)]
        space = {"lr": axes["lr"]} | {name: axes[name] for name in used if name in axes}
        fixed = {name: value for name, value in self.fixed.items() if name not in space}
        return replace(self, space=space, fixed=fixed)

    def _uses(self, name: str) -> bool:
        """Return True for weight decay, and for a hyperparameter that is not switched off by a value of zero."""
        own = self.rule.defaults if isinstance(self.rule, TorchOptimizerAdapter) else self.rule.hyperparameters
        return name == "weight_decay" or bool({**own, **self.values(self.default_rate)}.get(name))

    def recommended_tuning(self, trials: int, fixed: Collection[str] = ()) -> list[str]:
        """Return the hyperparameters to tune besides the learning rate with a number of trials.

        None with fewer than 10 trials, one with fewer than 40, otherwise two: as in the Deep Learning Tuning Playbook
        (Godbole et al. 2023, https://github.com/google-research/tuning_playbook), which adds the second one from 25
        trials on, all of them at different points; here a third of the trials repeats the best points.

        Args:
            trials: number of tuning trials.
            fixed: hyperparameters that are not to be tuned.
        """
        count = sum(trials >= fewest for fewest in FEWEST_TRIALS)
        return [name for name in self.rule.tuned if self._uses(name) and name not in fixed][:count]

    @property
    def has_default_rate(self) -> bool:
        """True if the learning rate of the rule has a default."""
        return isinstance(self.rule.hyperparameters.get("lr"), int | float)

    @property
    def default_rate(self) -> float:
        """Default learning rate of the rule, or the middle of the search range if the rule has no default."""
        lr = self.rule.hyperparameters.get("lr")
        return float(lr) if isinstance(lr, int | float) else float(self.space["lr"].from_unit(0.5))

    @property
    def optimizer(self) -> str:
        """Name of the optimizer.

        This is the name of a class in `gradprix.optim`, the full name of a class from another package, or
        `from_rule(rule)` for a rule without a class.
        """
        if isinstance(self.rule, TorchOptimizerAdapter):
            ours = getattr(optim, self.rule.name, None) is self.rule.make
            return self.rule.name if ours else self.rule.full_name
        return CLASSES.get(self.rule, f"from_rule({self.rule.name})")

    def arguments(self, lr: float, **tuned: Any) -> dict[str, Any]:
        """Return the constructor arguments of the optimizer's class, named as in torch."""
        return constructor_arguments(self.rule, {"lr": lr, **self.fixed, **_optimizer_values(tuned)})

    def code(self, lr: float, **tuned: Any) -> str:
        """Return the constructor call of the optimizer as source code."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments(lr, **tuned).items())
        home = "" if "." in self.optimizer else "gradprix.optim."
        return f"{home}{self.optimizer}(params, {arguments})"


TRAINING = ("batch_size", "schedule", "clip_norm")
"""Names of the tunable hyperparameters that belong to the training, not to the optimizer."""


def _optimizer_values(tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tuned values without those that belong to the training."""
    return {name: value for name, value in tuned.items() if name not in TRAINING}


def as_steppable(given: Any) -> Rule | TorchOptimizerAdapter:
    """Convert a rule or an optimizer class to an object that can train models in a race.

    Args:
        given: rule, subclass of `torch.optim.Optimizer`, or `TorchOptimizerAdapter`.

    Returns:
        A rule, if a kernel can step a whole stack of models with it; otherwise an adapter that constructs an optimizer
        for each model.

    Raises:
        TypeError: if the object has another type.
        ValueError: if the class cannot be raced.
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
    """Return the rule from which an optimizer class was made.

    Returns None for other classes, including subclasses of such a class, which may override the step.
    """
    rule = getattr(given, "rule", None)
    return rule if isinstance(rule, Rule) and optim.from_rule(rule) is given else None


def _stacks(rule: Rule) -> bool:
    """Return True if a kernel can step a whole stack of models with a rule.

    The rule must be elementwise, and must not evaluate the model at other weights than its iterate.
    """
    return rule.scope == "element" and rule.evaluate is None


def twin(entry: Entry, number: int) -> Entry:
    """Return a replicate of an entry, for A/A tests.

    The replicate has a shifted learning-rate grid and other tuning seeds, and is otherwise identical.

    Args:
        entry: entry to replicate.
        number: number of the replicate.
    """
    golden = 0.618  # multiples, modulo 1, are evenly spread over a grid step
    return replace(entry, name=f"{entry.name}~{number}", offset=number * golden % 1, replicate=number)
