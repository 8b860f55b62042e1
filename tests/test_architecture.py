"""Packages talk through public names: no private module or name of one package is imported by another."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradprix

SOURCE = Path(gradprix.__file__).parent


def imports(package: tuple[str, ...], source: str) -> Iterator[tuple[str, ...]]:
    """Yield the parts of the dotted name, after `gradprix`, of everything that a module of a package imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                module = ("gradprix", *package[: len(package) - node.level + 1], *module)
            if module[:1] == ("gradprix",):
                for alias in node.names:
                    yield (*module[1:], alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("gradprix."):
                    yield tuple(alias.name.split(".")[1:])


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_imports(package: tuple[str, ...], source: str) -> list[str]:
    names = [name for name in imports(package, source) if name[:1] != package[:1]]
    return [".".join(name) for name in names if any(map(is_private, name))]


def test_no_private_name_of_a_package_is_imported_by_another() -> None:
    modules = [file.relative_to(SOURCE) for file in SOURCE.rglob("*.py")]
    private = {str(each): private_imports(each.parent.parts, (SOURCE / each).read_text()) for each in modules}

    assert {module: names for module, names in private.items() if names} == {}


@pytest.mark.parametrize(
    ("line", "private"),
    [
        ("from gradprix.optim._classes import Adam", ["optim._classes.Adam"]),
        ("from ..optim import _classes", ["optim._classes"]),
        ("import gradprix.optim._classes", ["optim._classes"]),
        ("def f():\n    from gradprix.optim import _classes", ["optim._classes"]),
        ("from gradprix import __version__", []),
        ("from gradprix.optim import Adam", []),
        ("from ._own import name", []),
        ("from gradprix.race._own import name", []),
    ],
)
def test_a_private_import_is_noticed(line: str, private: list[str]) -> None:
    assert private_imports(("race",), line) == private


def test_texts_reach_the_terminal_through_functions_that_remove_control_characters() -> None:
    """`echo` and `warn` of `utils.streams`, and `SafeConsole`."""
    direct = re.compile(r"typer\.echo\(|(?<!\w)Console\(")
    modules = [file for file in SOURCE.rglob("*.py") if file.parent != SOURCE / "utils"]
    assert [str(file) for file in modules if direct.search(file.read_text())] == []
