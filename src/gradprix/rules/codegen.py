"""Python code generation from the tree of a rule."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .ir import Call, Choice, Hyper, Name, Node, Number, Reduction
from .ops import FUNCTIONS


def to_source(node: Node) -> str:
    """Return a node as a Python expression, with the grouping of the rule."""
    match node:
        case Number(value):
            return repr(value)
        case Name(name):
            return name
        case Hyper(name):
            return f"h.{name}"
        case Call(function, arguments):
            parts = [to_source(argument) for argument in arguments]
            if function == "if":
                return f"({parts[1]} if {parts[0]} else {parts[2]})"
            if function == "neg":
                return f"(-{parts[0]})"
            return (
                f"{function}({', '.join(parts)})" if function.isidentifier() else f"({parts[0]} {function} {parts[1]})"
            )
        case Reduction(function, argument, over):
            return f"{function}({to_source(argument)}, {over!r})"
        case Choice(option, yes, no):
            return f"({to_source(yes)} if h.{option} else {to_source(no)})"


def compile_function(
    name: str, arguments: Sequence[str], body: Sequence[str], names: Mapping[str, Any] = FUNCTIONS
) -> Callable[..., Any]:
    """Return a function compiled from source lines.

    Args:
        name: name of the function; characters that no identifier has are replaced.
        arguments: names of its arguments.
        body: source lines, without indentation.
        names: its globals.
    """
    name = re.sub(r"\W+", "_", name).strip("_")
    text = f"def {name}({', '.join(arguments)}):\n" + "".join(f"    {line}\n" for line in body)
    scope: dict[str, Any] = dict(names)
    exec(compile(text, f"<generated {name}>", "exec"), scope)
    function: Callable[..., Any] = scope[name]
    return function
