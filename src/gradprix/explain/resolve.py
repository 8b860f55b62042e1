"""Resolution of optimizer names to rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gradprix.race import ENTRIES, Entry
from gradprix.race.entry import rule_of
from gradprix.race.entry_registry import resolve_entries
from gradprix.race.modified_entries import is_expression
from gradprix.rules import Rule
from gradprix.tasks import UnknownNameError
from gradprix.tasks.registry import import_object
from gradprix.training.param_groups import build_optimizer


@dataclass(frozen=True)
class ExplainedOptimizer:
    """An optimizer to explain.

    Args:
        name: its name.
        rule: its rule.
        fixed: hyperparameters and options that differ from the rule's defaults.
        about: description in one sentence.
    """

    name: str
    rule: Rule
    fixed: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""


def resolve_optimizer(given: Rule | str) -> ExplainedOptimizer:
    """Return the optimizer to explain for a rule or a name.

    Args:
        given: a rule, the name of a race entry, the place of an object, `mine.py:name`, or modifiers of these, such as
            `cautious(lion)`. The object is a rule, an optimizer made from a rule, or a race entry.

    Raises:
        UnknownNameError: if the name is unknown; the message lists the closest known names.
        ValueError: if the object is neither a rule nor made from one.
    """
    if isinstance(given, Rule):
        return ExplainedOptimizer(given.name, given, {}, given.summary)
    if given in ENTRIES:
        return _to_subject(ENTRIES[given], given)
    if is_expression(given):
        return _to_subject(resolve_entries(given)[0], given)
    if ":" not in given:
        raise UnknownNameError("optimizer", given, ENTRIES)
    target = import_object(given)
    return _to_subject(target if isinstance(target, Entry) else getattr(target, "rule", target), given)


def _to_subject(target: Any, given: str) -> ExplainedOptimizer:
    if isinstance(target, Entry):
        rule = target.rule if isinstance(target.rule, Rule) else rule_of(target.rule.make)
        if rule is not None:
            return ExplainedOptimizer(target.name, rule, _rule_values(rule, target), target.about)
    if not isinstance(target, Rule):
        raise ValueError(f"{given} is neither a gp.rule nor an optimizer made from one: only those can be explained.")
    return resolve_optimizer(target)


def _rule_values(rule: Rule, entry: Entry) -> Mapping[str, Any]:
    """Return the fixed values of an entry as hyperparameters of its rule, which its class may name differently."""
    if isinstance(entry.rule, Rule) or entry.fixed.keys() <= rule.hyperparameters.keys():
        return entry.fixed
    optimizer = build_optimizer(entry.rule.make, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), entry.fixed)
    values: Mapping[str, Any] = optimizer.values(optimizer.param_groups[0])  # type: ignore[attr-defined]
    return {name: value for name, value in values.items() if value != rule.hyperparameters[name]}
