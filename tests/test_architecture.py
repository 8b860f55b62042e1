"""Packages talk through public names: no private module or name of one package is imported by another."""

import ast
from collections.abc import Iterator
from pathlib import Path

import gradprix

SOURCE = Path(gradprix.__file__).parent


def imports(file: Path) -> Iterator[tuple[str, ...]]:
    """Yield the dotted name of everything that a file imports from gradprix, as its parts without `gradprix`."""
    package = file.relative_to(SOURCE).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
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


def private_imports(file: Path) -> list[str]:
    own = file.relative_to(SOURCE).parts[0]
    return [".".join(name) for name in imports(file) if name[0] != own and any(map(is_private, name))]


def test_no_private_name_of_a_package_is_imported_by_another() -> None:
    private = {str(file.relative_to(SOURCE)): private_imports(file) for file in SOURCE.rglob("*.py")}

    assert {file: names for file, names in private.items() if names} == {}


def test_a_private_import_would_be_noticed() -> None:
    file = SOURCE / "race" / "plan.py"
    assert ("training", "trial", "Trial") in set(imports(file))
    assert [name for name in imports(SOURCE / "optim" / "__init__.py") if is_private(name[1])], "its own are allowed"
