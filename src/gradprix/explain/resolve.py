"""What an optimizer is called, and the rule behind the name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradprix.race import ENTRIES, Entry
from gradprix.race.entry import rule_of
from gradprix.rules import Rule
from gradprix.tasks import UnknownNameError
from gradprix.tasks.registry import imported


@dataclass(frozen=True)
class Subject:
    """An optimizer to be explained.

    Args:
        name: what it is called.
        rule: what it does.
        fixed: hyperparameters and options in which it differs from the rule's defaults.
        about: what it does, in a sentence.
    """

    name: str
    rule: Rule
    fixed: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""


def subject(given: Rule | str) -> Subject:
    """A rule, or what a name leads to: an entry of a race, or `mine.py:name` for a rule or what is made of one.

    Raises:
        UnknownNameError: with the nearest names that are known.
        ValueError: when what it leads to is not made of a rule.
    """
    if isinstance(given, Rule):
        return Subject(given.name, given, {}, given.summary)
    if given in ENTRIES:
        return _of(ENTRIES[given], given)
    if ":" not in given:
        raise UnknownNameError("optimizer", given, ENTRIES)
    found = imported(given)
    return _of(found if isinstance(found, Entry) else getattr(found, "rule", found), given)


def _of(found: Any, given: str) -> Subject:
    if isinstance(found, Entry):
        rule = found.rule if isinstance(found.rule, Rule) else rule_of(found.rule.make)
        if rule is not None:
            return Subject(found.name, rule, found.fixed, found.about)
    if not isinstance(found, Rule):
        raise ValueError(f"{given} is no rule, nor made of one: only what is written as a gp.rule can be explained.")
    return subject(found)
