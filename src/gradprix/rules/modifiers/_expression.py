"""Names of modified rules, such as `clipped(ema(adam), norm=1)`, as they are given on the command line."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from ._modifier import Modifier

Application = tuple[Modifier, Mapping[str, float | bool]]
"""A modifier, with the values that it is called with."""


def split_names(text: str) -> list[str]:
    """Split a list of names at those commas that are not inside parentheses, as in `clipped(adam, norm=1), lion`.

    Example:
        >>> split_names("clipped(adam, norm=1), lion")
        ['clipped(adam, norm=1)', 'lion']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def parse_expression(text: str, modifiers: Mapping[str, Modifier]) -> tuple[str, list[Application]]:
    """Parse the name of a modified rule.

    Args:
        text: name of a rule, or a call of a modifier: its first argument is again such a text, and all others are
            keyword arguments with numbers, `True` or `False` as values.
        modifiers: modifiers by name.

    Returns:
        The name of the unmodified rule, and the modifiers to apply, in order.

    Raises:
        ValueError: if the text is not of this form, or a modifier is unknown.

    Example:
        >>> from gradprix.rules.modifiers import MODIFIERS
        >>> name, applications = parse_expression("ema(clipped(adam, norm=1))", MODIFIERS)
        >>> name, [(modifier.name, values) for modifier, values in applications]
        ('adam', [('clipped', {'norm': 1.0}), ('ema', {})])
    """
    name, opening, rest = text.strip().partition("(")
    if not opening:
        return name, []
    if not rest.endswith(")") or _is_closed_early(rest):
        raise ValueError(f"{text}: its parentheses do not match.")
    base, *arguments = split_names(rest[:-1]) or [""]
    if name.strip() not in modifiers:
        closest = get_close_matches(name, modifiers)
        known = f"Did you mean {' or '.join(closest)}?" if closest else f"There are: {', '.join(modifiers)}."
        raise ValueError(f"{text}: no modifier is called {name!r}. {known}")
    if not base or "=" in base.partition("(")[0]:
        raise ValueError(f"{text}: {name} modifies an optimizer. Give it first, as in {name}(adamw).")
    optimizer, applications = parse_expression(base, modifiers)
    return optimizer, [*applications, (modifiers[name.strip()], _values(text, arguments))]


def _is_closed_early(rest: str) -> bool:
    """Return True if the last character of a text does not close the parenthesis that was open before it."""
    depth = 1
    for i, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i < len(rest) - 1
    return True


def _values(text: str, arguments: Sequence[str]) -> dict[str, float | bool]:
    """Parse keyword arguments."""
    values: dict[str, float | bool] = {}
    for argument in arguments:
        key, _, value = (part.strip() for part in argument.partition("="))
        try:
            values[key] = value == "True" if value in ("True", "False") else float(value)
        except ValueError:
            example = f"{key}=0.1" if key.isidentifier() else "name=0.1"
            raise ValueError(f"{text}: {argument!r} is not a keyword argument with a number, as {example}.") from None
    return values
