"""Public names of a module with their signatures and docstrings, as Markdown."""

import ast
import inspect
import itertools
import re
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

from markdown_docs import code

from gradprix import optim
from gradprix.rules import Modifier, Rule


def api(module: str) -> str:
    """Return the public names of a module with their signatures and docstrings."""
    home = import_module(module)
    return "\n\n".join(entry(home, name) for name in home.__all__)


def entry(home: Any, name: str) -> str:
    """Return the entry of one public name."""
    value, shown = getattr(home, name), f"{home.__name__}.{name}"
    if isinstance(value, Rule):
        return f"`{shown}`: [{value.name}](/optimizers/{value.name}.md). {value.summary}"
    if isinstance(value, Modifier):
        return f"`{shown}`: see [{value.name}](/modifiers.md). {value.summary}"
    if inspect.isclass(value) and issubclass(value, optim.RuleOptimizer) and hasattr(value, "rule"):
        return f"`{shown}`: see [{value.rule.name}](/optimizers/{value.rule.name}.md)."
    doc = inspect.getdoc(value) or ""
    if inspect.ismodule(value) or not callable(value) or hasattr(value, "__origin__"):
        summary = doc.partition("\n")[0] if inspect.ismodule(value) else _constant_docstring(home, name)
        return f"`{shown}`: {summary}"
    lines = textwrap.wrap(f"{shown}{_signature(value)}", 92, subsequent_indent=" " * 4)
    return f"{code(chr(10).join(lines), kind='signature')}\n\n{markdown(doc)}"


def _signature(value: Any) -> str:
    """Return a signature without types, which the docstring describes."""
    try:
        full = inspect.signature(value)
    except ValueError:
        return ""
    empty = inspect.Parameter.empty
    bare = full.replace(parameters=[p.replace(annotation=empty) for p in full.parameters.values()])
    text = str(bare.replace(return_annotation=inspect.Signature.empty))
    return re.sub(r"<function .*? at 0x[0-9a-f]+>|<factory>|PosixPath\([^)]*\)", "...", text)


def _constant_docstring(home: Any, name: str) -> str:
    """Return the string below the assignment of a constant, in any file of the package."""
    for file in sorted(Path(home.__file__).parent.glob("*.py")):
        body = ast.parse(file.read_text()).body
        for statement, below in itertools.pairwise(body):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        return " ".join(text.split())
    value = getattr(home, name)
    return f"`{value!r}`." if isinstance(value, str | int | float) else "a constant."


def markdown(doc: str) -> str:
    """Convert a Google-style docstring to Markdown, with its sections as lists."""
    text, *sections = re.split(r"^(Args|Returns|Raises|Yields):\n", doc, flags=re.MULTILINE)
    parts = [text.strip()]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        inside = textwrap.dedent(body.split("\n\n")[0]).strip()
        after = "\n\n".join(textwrap.dedent(part) for part in body.split("\n\n")[1:])
        if title in ("Args", "Raises"):
            items = re.split(r"\n(?=\S)", inside)
            joined = [" ".join(item.split()) for item in items]
            lines = [re.sub(r"^(\*{0,2}\w+): ", r"`\1`: ", item) for item in joined]
            inside = "\n".join(f"* {line}" for line in lines)
        parts.append(f"*{'Arguments' if title == 'Args' else title}*\n\n{inside}\n\n{after}".rstrip())
    return "\n\n".join(parts)
