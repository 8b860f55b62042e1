"""Entries named by expressions, such as `clipped(adam, norm=1)`: modifiers applied to the rule of another entry."""

from gradprix.rules import MODIFIERS, Rule
from gradprix.rules.modifiers import format_call, parse_expression

from .entry import Entry, rule_of


def is_expression(name: str) -> bool:
    """Return True if a name is a call of a modifier, and not the name of an entry or the location of an object."""
    return "(" in name and (name.endswith(")") or name.partition("(")[0].strip() in MODIFIERS)


def base_name(expression: str) -> str:
    """Return the name of the entry that an expression modifies.

    Raises:
        ValueError: if the expression is malformed.
    """
    return parse_expression(expression, MODIFIERS)[0]


def modify_entry(expression: str, base: Entry) -> Entry:
    """Return the entry of an expression.

    It has the values, search space and batch size of the entry that it modifies. Values in the expression take
    precedence.

    Args:
        expression: name of the new entry.
        base: the entry that it modifies.

    Raises:
        ValueError: if the expression is malformed, or a modifier cannot be applied.
    """
    _, applications = parse_expression(expression, MODIFIERS)
    rule = base.rule if isinstance(base.rule, Rule) else rule_of(getattr(base.rule, "make", None))
    if rule is None:
        raise ValueError(f"{expression}: {base.name} is not made from a rule, and only rules can be modified.")
    name, fixed = base.name, dict(base.fixed)
    for modifier, values in applications:
        name = format_call(modifier.name, name, tuple(values.items()))
        try:
            rule = modifier(rule, **values)
        except TypeError as error:  # no such hyperparameter
            raise ValueError(f"{name}: {error}") from error
        given = {modifier.full_name(key) for key in values}
        fixed = {key: value for key, value in fixed.items() if key in rule.hyperparameters and key not in given}
    return Entry(name, rule, fixed, base.space, base.batch_size, schedule=base.schedule, sam_rho=base.sam_rho)
