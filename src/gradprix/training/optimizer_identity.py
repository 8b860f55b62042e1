"""Identity of the code that makes an optimizer, so that runs of changed code are not mistaken for those of the old."""

import hashlib
import inspect
import sys
from contextlib import suppress
from functools import partial
from importlib import metadata
from typing import Any

from gradprix.rules import Rule
from gradprix.tasks.fingerprint import fingerprint
from gradprix.tasks.user_modules import text_of

from .optimizer_factories import MakeOptimizer


def describe_implementation(make: MakeOptimizer) -> dict[str, str]:
    """Return a hash of the code of a class or function, and the versions of the packages that it uses."""
    if isinstance(make, type):
        code, version = _class_code(make), _version(make.__module__.partition(".")[0])
    else:
        code, used = fingerprint(make), {name: _version(name) for name in sorted(_used_packages(make))}
        version = ", ".join(f"{name} {number}" for name, number in used.items() if number)
    return {"code": hashlib.sha256(code.encode()).hexdigest()[:16], "version": version}


def _class_code(cls: type) -> str:
    """Return the source code of the files that define a class and its base classes, except those of torch."""
    code = ""
    for base in cls.__mro__:  # whole files, since a class may use other definitions of its module
        if base.__module__.partition(".")[0] not in ("torch", "builtins", "typing"):
            with suppress(OSError, TypeError):
                code += text_of(base) or inspect.getsource(sys.modules.get(base.__module__) or base)
    rule = getattr(cls, "rule", None)
    return code + _equations(rule) if isinstance(rule, Rule) else code


def _equations(rule: Rule) -> str:
    """Return the complete equations and the state of a rule, which the file of its class does not contain."""
    trees = [rule.tree, *([rule.evaluation] if rule.evaluation else [])]
    equations = [(assign.name, assign.value) for tree in trees for assign in tree.assigns]
    state = [(name, spec.kind, spec.init, spec.when, spec.shared) for name, spec in rule.state.items()]
    return repr((equations, state))


def _used_packages(function: Any) -> set[str]:
    """Return the top-level modules that a function refers to, by its global names or by its imports."""
    if isinstance(function, partial):
        values = [function.func, *function.args, *function.keywords.values()]
        return {name for value in values for name in _used_packages(value)}
    if not inspect.isfunction(function):
        return {str(getattr(function, "__module__", "")).partition(".")[0]}
    names = inspect.getclosurevars(function)
    values = [*names.globals.values(), *names.nonlocals.values()]
    modules = [value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "") for value in values]
    return {str(name).partition(".")[0] for name in modules} | names.unbound  # an import within it is unbound


def _version(package: str) -> str:
    """Return the version of an installed package; empty if there is none of this name."""
    try:
        return metadata.version(package) if package else ""
    except metadata.PackageNotFoundError:
        return ""
