"""What races: an optimizer with what is fixed, what is tuned, and how many examples it sees a step."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gradprix import optim
from gradprix.rules import Axis, Rule
from gradprix.training.torch_optimizer_adapter import CLASSES, Anyone, constructor_arguments

ALL_EXAMPLES = 0
"""The batch size of an entry that sees every training example at each step."""


@dataclass(frozen=True)
class Entry:
    """An optimizer as it enters a race.

    Args:
        name: what it is called in the race.
        rule: what it does: a rule, or any class of `torch.optim.Optimizer`.
        fixed: hyperparameters and options that are not tuned and differ from the rule's defaults (arguments of the
            class).
        space: where each tuned hyperparameter is searched, `lr` among them, also `batch_size` and `schedule`; the
            rule's own range of `lr` by default.
        batch_size: examples a step; None for the task's, 0 for all of them.
        offset: shifts the ladder of rates, in rungs from 0 to 1.
        about: what it does, when the rule's own summary does not say it.
        luck: which tuning seeds it draws. Two entries that differ only in `offset` and `luck` are twins.
    """

    name: str
    rule: Rule | Anyone
    fixed: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Axis] = field(default_factory=dict)
    batch_size: int | None = None
    offset: float = 0.0
    luck: int = 0
    about: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", racer(self.rule))
        if isinstance(self.rule, Rule) and "betas" in self.fixed:
            fixed = {name: value for name, value in self.fixed.items() if name != "betas"}
            fixed |= dict(zip(self.rule.betas, self.fixed["betas"], strict=True))
            object.__setattr__(self, "fixed", fixed)
        if not self.space:
            object.__setattr__(self, "space", {"lr": self.rule.axes["lr"]})
        if not self.about:
            object.__setattr__(self, "about", self.rule.summary)
        if "lr" not in self.space:
            raise ValueError(f"entry {self.name!r} tunes {', '.join(self.space)}: lr must be among what is tuned.")
        try:
            json.dumps(dict(self.fixed))
        except TypeError as error:
            raise ValueError(
                f"entry {self.name!r}: {error}, and what is fixed is kept as JSON. Give numbers, texts and lists of "
                "them, or a class of which the rest is the default."
            ) from error
        if self.batch_size is not None and self.batch_size < 0:
            raise ValueError(
                f"entry {self.name!r}: batch_size = {self.batch_size}: it must be 1 or more, or 0 for all."
            )
        if tuned := self.space.keys() & self.fixed.keys():
            raise ValueError(f"entry {self.name!r}: {', '.join(tuned)} is both fixed and tuned. Leave it out of one.")
        if not 0 <= self.luck < 90 or not 0 <= self.offset < 1:
            raise ValueError(f"entry {self.name!r}: luck must be from 0 to 89 and offset from 0 to 1.")
        for share in (0.0, 1.0):
            self.values(**{name: axis.at(share) for name, axis in self.space.items()})

    def values(self, lr: float, **tuned: Any) -> dict[str, Any]:
        """All hyperparameters at this learning rate, and these values of whatever else is tuned."""
        return self.rule.values(**{**self.fixed, **_of_the_rule(tuned), "lr": lr})

    def tuning(self, names: Sequence[str], training: Mapping[str, Axis]) -> "Entry":
        """The same entry, tuning those of these hyperparameters that it uses.

        Args:
            names: what is to be tuned besides the learning rate.
            training: where what is no part of the optimizer is searched.
        """
        axes = {**self.rule.axes, **training, **self.space}
        own = self.rule.defaults if isinstance(self.rule, Anyone) else self.rule.hyperparameters
        values = {**own, **self.values(self.default_rate)}
        used = [name for name in names if name in training or name == "weight_decay" or values.get(name)]
        space = {"lr": axes["lr"]} | {name: axes[name] for name in used if name in axes}
        fixed = {name: value for name, value in self.fixed.items() if name not in space}
        return replace(self, space=space, fixed=fixed)

    @property
    def default_rate(self) -> float:
        """The rule's own learning rate, or the middle of the space where it has none."""
        lr = self.rule.hyperparameters.get("lr")
        return float(lr) if isinstance(lr, int | float) else float(self.space["lr"].at(0.5))

    @property
    def optimizer(self) -> str:
        """The class in `gradprix.optim`, the full name of another one, or `of(rule)` for a rule without a class."""
        if isinstance(self.rule, Anyone):
            ours = getattr(optim, self.rule.name, None) is self.rule.make
            return self.rule.name if ours else self.rule.full_name
        return CLASSES.get(self.rule, f"of({self.rule.name})")

    def arguments(self, lr: float, **tuned: Any) -> dict[str, Any]:
        """What the class is called with, in torch's arguments."""
        return constructor_arguments(self.rule, {"lr": lr, **self.fixed, **_of_the_rule(tuned)})

    def code(self, lr: float, **tuned: Any) -> str:
        """The call that makes this optimizer, to paste."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments(lr, **tuned).items())
        home = "" if "." in self.optimizer else "gradprix.optim."
        return f"{home}{self.optimizer}(params, {arguments})"


TRAINING = ("batch_size", "schedule")
"""What may be tuned and is no part of the optimizer."""


def _of_the_rule(tuned: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tuned.items() if name not in TRAINING}


def racer(given: Any) -> Rule | Anyone:
    """What steps the weights: a rule where its rows can be stepped together, else a class, an optimizer a network.

    Raises:
        TypeError: for anything but a rule or a class of optimizers.
        ValueError: for a class that cannot be raced.
    """
    if isinstance(given, Anyone):
        return given
    if isinstance(given, type) and issubclass(given, torch.optim.Optimizer):
        rule = rule_of(given)
        return rule if rule is not None and _stacks(rule) else Anyone(given)
    if not isinstance(given, Rule):
        raise TypeError(f"{given!r} is neither a rule nor a class of torch.optim.Optimizer.")
    return given if _stacks(given) else Anyone(getattr(optim, CLASSES[given]) if given in CLASSES else optim.of(given))


def rule_of(given: Any) -> Rule | None:
    """The rule that a class steps with; None for one that may have a step of its own."""
    rule = getattr(given, "rule", None)
    return rule if isinstance(rule, Rule) and optim.of(rule) is given else None


def _stacks(rule: Rule) -> bool:
    """Whether a kernel steps it row by row: each element by itself, and at the point where the model is evaluated."""
    return rule.scope == "element" and rule.evaluate is None


def twin(entry: Entry, number: int) -> Entry:
    """The same optimizer entered again, with tuning luck of its own: another ladder, other tuning seeds."""
    golden = 0.618  # spreads any number of offsets evenly over a rung
    return replace(entry, name=f"{entry.name}~{number}", offset=number * golden % 1, luck=number)
