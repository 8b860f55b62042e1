"""Modifiers of rules: functions from rule to rule, such as `cautious(lion)` or `clipped(adam, norm=1)`."""

from ._algebra import identifiers, rewrite
from ._base_calls import decayed, direction, step
from ._composition import compile_tree, format_call, unmodified
from ._expression import parse_expression, split_names
from ._modifier import Modifier, modifier
from ._nesterov import nesterov
from ._of_gradient import clipped, mars
from ._of_step import cautious, cautious_decay, decoupled
from ._of_weights import ema, lookahead, schedule_free

MODIFIERS: dict[str, Modifier] = {
    each.name: each
    for each in (cautious, cautious_decay, decoupled, clipped, mars, nesterov, lookahead, ema, schedule_free)
}
"""All modifiers by name."""

__all__ = [
    "MODIFIERS",
    "Modifier",
    "cautious",
    "cautious_decay",
    "clipped",
    "compile_tree",
    "decayed",
    "decoupled",
    "direction",
    "ema",
    "format_call",
    "identifiers",
    "lookahead",
    "mars",
    "modifier",
    "nesterov",
    "parse_expression",
    "rewrite",
    "schedule_free",
    "split_names",
    "step",
    "unmodified",
]
