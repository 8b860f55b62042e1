"""Entries named by expressions, such as `clipped(adam, norm=1)`: modifiers applied to the rule of another entry."""

from gradprix.rules import MODIFIERS, Rule, formula
from gradprix.rules.modifiers import format_call, parse_expression, split_names

from .entry import Entry, rule_of
from .plan_limits import USUAL_SAM_RHO

SCHEDULE_FREE = "warmup"
"""Schedule of schedule-free optimizers, as their authors use them: warmup, then constant (arXiv:2405.15682)."""


def is_expression(name: str) -> bool:
    """Return True if a name is a call of a modifier, and not the name of an entry or the location of an object."""
    return "(" in name and (name.endswith(")") or name.partition("(")[0].strip() in MODIFIERS)


def is_sharpness_aware(name: str) -> bool:
    """Return True if a name is a call of `sam`, which must be the outermost."""
    return name.startswith("sam(") and name.endswith(")")


def parse_sharpness_aware(name: str) -> tuple[str, float]:
    """Return the name of the entry that `sam(entry, rho=0.05)` stands for, and ρ.

    Raises:
        ValueError: if the call is malformed.
    """
    base, *settings = split_names(name.removeprefix("sam(").removesuffix(")")) or [""]
    rho = settings[0].partition("=")[2] if settings else str(USUAL_SAM_RHO)
    if not base or len(settings) > 1 or (settings and settings[0].partition("=")[0].strip() != "rho"):
        raise ValueError(f"{name}: give the name of an optimizer, and rho, as in sam(momentum, rho=0.05).")
    _check_sam_is_outermost(name, base)
    try:
        return base, float(rho)
    except ValueError:
        raise ValueError(f"{name}: rho = {rho.strip()} is no number.") from None


def _check_sam_is_outermost(expression: str, base: str) -> None:
    if "sam(" in base:
        raise ValueError(f"{expression}: sam is applied once, and last, as in sam(cautious(adamw), rho=0.05).")


def base_name(expression: str) -> str:
    """Return the name of the entry that an expression modifies.

    Raises:
        ValueError: if the expression is malformed.
    """
    _check_sam_is_outermost(expression, expression)
    return parse_expression(expression, MODIFIERS)[0]


def modify_entry(expression: str, base: Entry) -> Entry:
    """Return the entry of an expression.

    It has the values, search space, batch size and schedule of the entry that it modifies. Values in the expression
    take precedence, and `schedule_free` has the schedule of its authors.

    Args:
        expression: name of the new entry.
        base: the entry that it modifies.

    Raises:
        ValueError: if the expression is malformed, a modifier cannot be applied or changes nothing, or a value is given
            for a hyperparameter that the race tunes.
    """
    _, applications = parse_expression(expression, MODIFIERS)
    rule = base.rule if isinstance(base.rule, Rule) else rule_of(getattr(base.rule, "make", None))
    if rule is None:
        raise ValueError(f"{expression}: {base.name} is not made from a rule, and only rules can be modified.")
    name, fixed = base.name, dict(base.fixed)
    for modifier, values in applications:
        name = format_call(modifier.name, name, tuple(values.items()))
        unmodified = rule
        try:
            rule = modifier(unmodified, **values)
        except TypeError as error:  # no such hyperparameter
            raise ValueError(f"{name}: {error}") from error
        own = {key: rule.hyperparameters[key] for key in modifier.hyperparameters}
        if own and not any(own.values()) and formula(rule) == formula(unmodified):
            raise ValueError(f"{name}: it changes nothing. Give {' or '.join(own)}.")
        given = {modifier.full_name(key) for key in values}
        if tuned := sorted(given & base.space.keys()):
            raise ValueError(f"{name}: the race tunes {', '.join(tuned)}. Leave it out.")
        fixed = {key: value for key, value in fixed.items() if key in rule.hyperparameters and key not in given}
    is_schedule_free = any(modifier.name == "schedule_free" for modifier, _ in applications)
    schedule = SCHEDULE_FREE if is_schedule_free and base.schedule is None else base.schedule
    return Entry(name, rule, fixed, base.space, base.batch_size, schedule=schedule, sam_rho=base.sam_rho)
