"""Registry of the optimizers that can be raced by name, and the brackets of default entries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from gradprix import rules
from gradprix.rules import Axis, Rule, log
from gradprix.rules.modifiers import split_names
from gradprix.tasks import UnknownNameError
from gradprix.tasks.registry import import_object, import_source
from gradprix.utils.wording import format_list

from .entry import ALL_EXAMPLES, Entry
from .modified_entries import (
    SCHEDULE_FREE,
    base_name,
    is_expression,
    is_sharpness_aware,
    modify_entry,
    parse_sharpness_aware,
)

LR_SPACE = {"lr": log(1e-3, 1)}
ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("momentum", rules.sgd, {"momentum": 0.9}, LR_SPACE, about="Gradient descent with momentum (heavy ball)."),
        Entry(
            "nesterov",
            rules.sgd,
            {"momentum": 0.9, "nesterov": True},
            LR_SPACE,
            about="Momentum with Nesterov's look-ahead.",
        ),
        Entry("adagrad", rules.adagrad),
        Entry("rmsprop", rules.rmsprop),
        Entry("adadelta", rules.adadelta),
        Entry("adam", rules.adam),
        Entry("adamw", rules.adamw),
        Entry("adamax", rules.adamax),
        Entry("nadam", rules.nadam),
        Entry("minibatch", rules.sgd, about="Mini-batch gradient descent."),
        Entry("radam", rules.radam),
        Entry("amsgrad", rules.adam, {"amsgrad": True}, about="Adam with a second moment that never decreases."),
        Entry(
            "rmsprop-centered", rules.rmsprop, {"centered": True}, about="RMSProp with the variance of the gradients."
        ),
        Entry("gd", rules.sgd, batch_size=ALL_EXAMPLES, about="Gradient descent on all examples."),
        # The gradient of a single example is noisier than that of a batch of 32, and needs a smaller learning rate.
        Entry("sgd", rules.sgd, space=LR_SPACE, batch_size=1, about="Gradient descent on one example at a time."),
        Entry("lion", rules.lion),
        Entry("adan", rules.adan),
        Entry("ademamix", rules.ademamix),
        Entry("adopt", rules.adopt),
        Entry("schedule_free_sgd", rules.schedule_free_sgd, schedule=SCHEDULE_FREE),
        Entry("schedule_free_adamw", rules.schedule_free_adamw, schedule=SCHEDULE_FREE),
        Entry(
            "schedule_free_adamw-corrected",
            rules.schedule_free_adamw,
            {"correct_second_moment": True},
            schedule=SCHEDULE_FREE,
            about="Schedule-Free AdamW as in its authors' present code: bias correction in the denominator.",
        ),
        Entry("lamb", rules.lamb),
        Entry("muon", rules.muon),
        Entry(
            "muon-original",
            rules.muon,
            {"adjust_lr_fn": "original"},
            {"lr": log(1e-3, 1), "adamw_lr": log(1e-4, 1e-1)},
            about="Muon with its author's scale of steps and a learning rate of its own for AdamW.",
        ),
        Entry("rprop", rules.rprop, batch_size=ALL_EXAMPLES),
        Entry("asgd", rules.asgd),
        Entry("signum", rules.signum),
        Entry("qhm", rules.qhm),
        Entry("aggmo", rules.aggmo),
        Entry("pnm", rules.pnm),
        Entry("accsgd", rules.accsgd),
        Entry("kate", rules.kate),
        Entry("adabelief", rules.adabelief),
        Entry("yogi", rules.yogi),
        Entry("adabound", rules.adabound),
        Entry("adamod", rules.adamod),
        Entry("laprop", rules.laprop),
        Entry("acprop", rules.acprop),
        Entry("qhadam", rules.qhadam),
        Entry("grams", rules.grams),
        Entry("optimistic_adam", rules.optimistic_adam),
        Entry("grokfast_adamw", rules.grokfast_adamw),
        Entry("novograd", rules.novograd),
        Entry("dog", rules.dog),
        Entry("dadapt_adam", rules.dadapt_adam),
        Entry("prodigy", rules.prodigy),
        Entry("lars", rules.lars),
        Entry("adafactor", rules.adafactor),
        Entry("came", rules.came),
        Entry("shampoo", rules.shampoo),
        Entry("soap", rules.soap),
    )
}
"""Built-in entries by name."""
BRACKETS = {"rules": list(ENTRIES)[:10], "data": ["gd", "sgd", "minibatch"]}
"""Names of the entries in each bracket, by name of the bracket."""
EVERY_RULE = list(ENTRIES)[:13]
"""Names of the entries that `"all"` stands for."""


def entries(
    names: str | Iterable[str | Entry] | None = None,
    bracket: str = "rules",
    baseline: str | None = None,
    scheduled: bool = True,
) -> list[Entry]:
    """Return the entries of a race.

    Args:
        names: entries or their names, see `resolve_entries`, as a list or separated by commas. `"all"` stands for the
            built-in entries from `momentum` to `rmsprop-centered`. None selects the entries of the bracket.
        bracket: `"rules"` (optimizers at one batch size) or `"data"` (one optimizer at three batch sizes).
        baseline: name of an entry to add, if `names` does not contain it.
        scheduled: see `resolve_entries`.

    Raises:
        UnknownNameError: if a name is unknown. The error suggests similar names.
        ValueError: if there are fewer than two entries, or two with the same name.
    """
    if bracket not in BRACKETS:
        raise UnknownNameError("bracket", bracket, BRACKETS)
    if names is None:
        names = BRACKETS[bracket]
    elif bracket != "rules":
        raise ValueError(f"the bracket {bracket!r} is a list of optimizers: give a bracket or optimizers, not both.")
    elif isinstance(names, str):
        names = split_names(names)
    chosen = [entry for name in names for entry in resolve_entries(name, scheduled)]
    if baseline not in (None, "all"):
        known = [entry.name for entry in chosen]
        if baseline not in known:
            chosen += [entry for entry in resolve_entries(str(baseline), scheduled) if entry.name not in known]
    duplicates = {e.name for e in chosen if [c.name for c in chosen].count(e.name) > 1}
    if duplicates:
        raise ValueError(f"{', '.join(sorted(duplicates))}: entered more than once. Give each entry a unique name.")
    if len(chosen) < 2:
        raise ValueError(f"a race needs at least two optimizers, not {len(chosen)}.")
    return chosen


def resolve_entries(name: str | Entry, scheduled: bool = True) -> list[Entry]:
    """Return the entries that a name stands for: one, or several for `"all"`.

    Args:
        name: name of a built-in entry, location of a rule or an optimizer class such as `mine.py:MyOpt`, modifiers of
            these such as `clipped(adam, norm=1)`, `sam(momentum, rho=0.1)` for sharpness-aware minimization, or an
            entry, which is returned as it is.
        scheduled: give built-in schedule-free entries the schedule of their authors: warmup, then constant. False for a
            problem that has no schedule.

    Raises:
        UnknownNameError: if the name is unknown. The error suggests similar names.
        TypeError: if the object at a location is no optimizer.
        ValueError: if modifiers are malformed or cannot be applied, or if a location has no such object.
    """
    chosen = _resolve(name)
    is_users = isinstance(name, Entry) or ":" in name
    return chosen if scheduled or is_users else [replace(entry, schedule=None) for entry in chosen]


def _resolve(name: str | Entry) -> list[Entry]:
    """Return the entries that a name stands for, with their schedules."""
    if isinstance(name, Entry):
        return [name]
    if is_sharpness_aware(name):
        base, rho = parse_sharpness_aware(name)
        return [replace(each, name=name, sam_rho=rho, about="") for each in _resolve(base)]
    if is_expression(name):
        return [modify_entry(name, base) for base in _resolve(base_name(name))]
    if name == "all":
        return [ENTRIES[each] for each in EVERY_RULE]
    if name in ENTRIES:
        return [ENTRIES[name]]
    if ":" in name:
        rule = import_object(name)
        try:
            return [rule if isinstance(rule, Entry) else Entry(name.rpartition(":")[2].lower(), rule)]
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from error
    if name.endswith(".py"):
        inside = _optimizers_in(name)
        there = f" There {'is' if len(inside) == 1 else 'are'} {format_list(inside)}." if inside else ""
        raise ValueError(f"{name} is a file: name the optimizer in it, as {name}:NAME.{there}")
    raise UnknownNameError("optimizer", name, ENTRIES, " Your own is file.py:NAME; `gradprix list optimizers` has all.")


def _optimizers_in(file: str) -> list[str]:
    """Return the names of the optimizer classes, rules and entries in a user's file, without imported classes."""
    module = import_source(file, file)

    def is_optimizer(given: object) -> bool:
        if isinstance(given, type):
            return issubclass(given, torch.optim.Optimizer) and given.__module__ == module.__name__
        return isinstance(given, Rule | Entry)

    return [name for name, given in vars(module).items() if is_optimizer(given)]


def with_tuning(chosen: Sequence[Entry], names: Sequence[str], training: Mapping[str, Axis]) -> list[Entry]:
    """Return copies of the entries that tune more hyperparameters than the learning rate.

    Args:
        chosen: entries of a race.
        names: hyperparameters to tune. Each entry tunes only those that it uses.
        training: search ranges of batch size, schedule and gradient clipping.

    Raises:
        UnknownNameError: if no entry can tune one of the hyperparameters.
    """
    tuning = [entry.tuning(names, training) for entry in chosen]
    for name in names:
        if not any(name in entry.space for entry in tuning):
            known = {name: None for entry in chosen for name in (*entry.rule.axes, *training)}
            raise UnknownNameError("hyperparameter of these optimizers", name, known)
    return tuning


def with_recommended_tuning(chosen: Sequence[Entry], trials: int) -> list[Entry]:
    """Return copies of the entries that tune what the users of each optimizer tune with a number of trials.

    A user's entry keeps its own search space if that has more than the learning rate, and the values that it fixes. The
    fixed values of built-in entries, such as a momentum of 0.9, are defaults, which are tuned.
    """
    tuning = []
    for entry in chosen:
        fixed = () if ENTRIES.get(entry.name) is entry else entry.fixed
        names = entry.recommended_tuning(trials, fixed)
        tuning.append(entry.tuning(names, {}) if list(entry.space) == ["lr"] else entry)
    return tuning
