"""What races: an optimizer with what is fixed, what is tuned, and how many examples it sees a step."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gradprix import optim, rules
from gradprix.rules import Log, Rule, log

CLASSES = {cls.rule: name for name in optim.__all__ if hasattr(cls := getattr(optim, name), "rule")}
ALL_EXAMPLES = 0
"""The batch size of an entry that sees every training example at each step."""


class UnknownNameError(ValueError):
    """A name that is not on a list; the message has the nearest ones that are."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = list(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known)}."
        super().__init__(f"no {kind} is called {name!r}. {hint}")


@dataclass(frozen=True)
class Entry:
    """An optimizer as it enters a race.

    Args:
        name: what it is called in the race.
        rule: what it does.
        fixed: hyperparameters and options that are not tuned and differ from the rule's defaults.
        space: where each tuned hyperparameter is searched; the rule's own space by default.
        batch_size: examples a step; None for the task's, 0 for all of them.
        offset: shifts the ladder of rates, in rungs from 0 to 1.
        about: what it does, when the rule's own summary does not say it.
        luck: which tuning seeds it draws. Two entries that differ only in `offset` and `luck` are twins.
    """

    name: str
    rule: Rule
    fixed: Mapping[str, float | bool] = field(default_factory=dict)
    space: Mapping[str, Log] = field(default_factory=dict)
    batch_size: int | None = None
    offset: float = 0.0
    luck: int = 0
    about: str = ""

    def __post_init__(self) -> None:
        if not self.space:
            object.__setattr__(self, "space", self.rule.space)
        if not self.about:
            object.__setattr__(self, "about", self.rule.summary)
        if self.rule.scope == "tensor":
            raise ValueError(
                f"entry {self.name!r}: {self.rule.name} steps whole tensors of their true shape, and a race stacks "
                "weights in rows: it cannot be stacked yet. gradprix.optim trains with it."
            )
        if self.rule.evaluate is not None:
            raise ValueError(
                f"entry {self.name!r}: {self.rule.name} is evaluated at another point than it trains, and a race "
                "scores the one being trained, for now. gradprix.optim trains with it."
            )
        if set(self.space) != {"lr"}:
            raise ValueError(f"entry {self.name!r} tunes {', '.join(self.space)}: a race tunes lr alone, for now.")
        if self.batch_size is not None and self.batch_size < 0:
            raise ValueError(
                f"entry {self.name!r}: batch_size = {self.batch_size}: it must be 1 or more, or 0 for all."
            )
        if tuned := self.space.keys() & self.fixed.keys():
            raise ValueError(f"entry {self.name!r}: {', '.join(tuned)} is both fixed and tuned. Leave it out of one.")
        if not 0 <= self.luck < 90 or not 0 <= self.offset < 1:
            raise ValueError(f"entry {self.name!r}: luck must be from 0 to 89 and offset from 0 to 1.")
        self.values(1.0)

    def values(self, lr: float) -> dict[str, float | bool]:
        """All hyperparameters at this learning rate."""
        return self.rule.values(**{**self.fixed, "lr": lr})

    @property
    def optimizer(self) -> str:
        """The class in `gradprix.optim`, or `of(rule)` when it has none."""
        return CLASSES.get(self.rule, f"of({self.rule.name})")

    def arguments(self, lr: float) -> dict[str, Any]:
        """What the class in `gradprix.optim` is called with, in torch's arguments."""
        given: dict[str, Any] = {"lr": lr, **self.fixed}
        betas = self.rule.betas
        if self.rule in CLASSES and given.keys() & set(betas):
            values = self.values(lr)
            given = {name: value for name, value in given.items() if name not in betas}
            given["betas"] = tuple(values[name] for name in betas)
        return given

    def code(self, lr: float) -> str:
        """The call that makes this optimizer, to paste."""
        arguments = ", ".join(f"{name}={value}" for name, value in self.arguments(lr).items())
        return f"gradprix.optim.{self.optimizer}(params, {arguments})"


SLOW = {"lr": log(1e-3, 1)}
ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("momentum", rules.sgd, {"momentum": 0.9}, SLOW, about="A step against a running sum of gradients."),
        Entry(
            "nesterov",
            rules.sgd,
            {"momentum": 0.9, "nesterov": True},
            SLOW,
            about="Momentum that looks one step ahead.",
        ),
        Entry("adagrad", rules.adagrad),
        Entry("rmsprop", rules.rmsprop),
        Entry("adadelta", rules.adadelta),
        Entry("adam", rules.adam),
        Entry("adamw", rules.adamw),
        Entry("adamax", rules.adamax),
        Entry("nadam", rules.nadam),
        Entry("minibatch", rules.sgd, about="A step against the gradient of a few examples."),
        Entry("radam", rules.radam),
        Entry("amsgrad", rules.adam, {"amsgrad": True}, about="Adam whose second moment never falls."),
        Entry("rmsprop-centered", rules.rmsprop, {"centered": True}, about="RMSProp by the variance of the gradients."),
        Entry("gd", rules.sgd, batch_size=ALL_EXAMPLES, about="A step against the gradient of all examples."),
        # One example is a noisier gradient than thirty-two, and bears a smaller rate.
        Entry("sgd", rules.sgd, space=SLOW, batch_size=1, about="A step against the gradient of one example."),
        Entry("lion", rules.lion),
        Entry("adan", rules.adan),
        Entry("ademamix", rules.ademamix),
        Entry("adopt", rules.adopt),
    )
}
BRACKETS = {"rules": list(ENTRIES)[:10], "data": ["gd", "sgd", "minibatch"]}
EVERY_RULE = list(ENTRIES)[:13]


def entries(names: str | Iterable[str | Entry] | None = None, bracket: str = "rules") -> list[Entry]:
    """The entries of a race.

    Args:
        names: names of entries or entries, or `"all"` for every rule; a bracket's entries when None.
        bracket: `"rules"` (at one batch size) or `"data"` (one rule at three).

    Raises:
        UnknownNameError: with the nearest valid names.
        ValueError: when fewer than two are left or two share a name.
    """
    if bracket not in BRACKETS:
        raise UnknownNameError("bracket", bracket, BRACKETS)
    if names is None:
        names = BRACKETS[bracket]
    elif bracket != "rules":
        raise ValueError(f"give optimizers, or the bracket {bracket!r}, which is a list of optimizers: not both.")
    elif isinstance(names, str):
        names = [name.strip() for name in names.split(",") if name.strip()]
    chosen: list[Entry] = []
    for name in names:
        if isinstance(name, Entry):
            chosen.append(name)
        elif name == "all":
            chosen += [ENTRIES[each] for each in EVERY_RULE]
        elif name in ENTRIES:
            chosen.append(ENTRIES[name])
        elif name in rules.ALL:
            chosen.append(Entry(name, rules.ALL[name]))  # which says why it cannot be raced
        else:
            raise UnknownNameError("optimizer", name, [*ENTRIES, "all"])
    doubled = {e.name for e in chosen if [c.name for c in chosen].count(e.name) > 1}
    if doubled:
        raise ValueError(f"{', '.join(sorted(doubled))}: entered more than once. Give each entry a name of its own.")
    if len(chosen) < 2:
        raise ValueError("a race needs two optimizers or more.")
    return chosen


def twin(entry: Entry, number: int) -> Entry:
    """The same optimizer entered again, with tuning luck of its own: another ladder, other tuning seeds."""
    golden = 0.618  # spreads any number of offsets evenly over a rung
    return replace(entry, name=f"{entry.name}~{number}", offset=number * golden % 1, luck=number)
