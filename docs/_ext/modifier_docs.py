"""Tables of the modifiers of rules, for `gradprix_docs`."""

from suite_docs import table

from gradprix.rules import ALL, MODIFIERS, Modifier, Rule
from gradprix.rules.modifiers import parse_expression

GIVEN: dict[str, dict[str, float]] = {"clipped": {"norm": 1.0}}
"""Values of the modifiers that do nothing by default."""


def find_rule(name: str) -> Rule:
    """Return a rule of the library, or a modified one, by a name such as `cautious(lion)`."""
    base, applications = parse_expression(name, MODIFIERS)
    rule = ALL[base]
    for modifier, values in applications:
        rule = modifier(rule, **values)
    return rule


def overview() -> str:
    """Return a table of the modifiers."""
    rows = []
    for modifier in MODIFIERS.values():
        values = ", ".join(f"`{name}={value:g}`" for name, value in modifier.hyperparameters.items())
        memory = sum(state.kind == "element" for state in modifier.state.values())
        rows.append((f"[{modifier.name}](#{modifier.name.replace('_', '-')})", modifier.summary, values, str(memory)))
    return table(("modifier", "effect", "hyperparameters", "additional state per weight"), rows)


def refusals() -> str:
    """Return the pairs of modifier and rule that are refused, with the reasons."""
    reasons: dict[str, list[str]] = {}
    for modifier in MODIFIERS.values():
        for rule in ALL.values():
            reason = _refusal(modifier, rule)
            if reason:
                reasons.setdefault(reason, []).append(f"`{modifier.name}({rule.name})`")
    count = sum(map(len, reasons.values()))
    total = len(MODIFIERS) * len(ALL)
    lines = [f"* {', '.join(pairs)}: {reason}" for reason, pairs in reasons.items()]
    return f"{total - count} of {total} pairs of a modifier and a rule are defined. These are refused:\n\n" + "\n".join(
        lines
    )


def _refusal(modifier: Modifier, rule: Rule) -> str:
    """Return the reason for which a pair is refused, or an empty text."""
    try:
        modifier(rule, **GIVEN.get(modifier.name, {}))
    except ValueError as error:
        return str(error).partition(": ")[2].replace(rule.name, "the rule")
    return ""
