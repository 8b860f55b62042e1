"""Measure how readable the source code is, against limits.

There are limits on docstrings that open with a question word, names that say nothing, long functions, long argument
lists, and private names that tests import. The exit code is 1 if a limit is exceeded.

    python studies/readability.py            # part of scripts/check
    python studies/readability.py --list     # list the places of all occurrences
"""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE, TESTS = ROOT / "src" / "gradprix", ROOT / "tests"
OPENERS = re.compile(r"(What|How|Whether|Where|Which|Who|Of|As)\b")
NAMES = {"of", "at", "made", "kept", "near", "told", "named", "found"}
"""Names that say nothing about what a function returns or a variable holds."""
LONGEST, MOST_PARAMETERS = 80, 12
SIGNATURES = ("cli", "optim")
"""Packages with long signatures, which list the options of a command or follow torch's classes."""
LIMITS = {
    "docstrings that open with a question word, %": 2.0,
    "functions or variables with names that say nothing": 0,
    f"functions of more than {LONGEST} lines": 0,
    f"functions of more than {MOST_PARAMETERS} parameters": 0,
    "private names that tests import": 20,
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield all functions and methods in a syntax tree."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def parameters(function: Function) -> list[str]:
    """Return the names of a function's parameters, without `self` and `cls`."""
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return names[names[:1] in (["self"], ["cls"]) :]


def body_lines(function: Function) -> int:
    """Return the number of lines of a function after its signature and docstring."""
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return (function.end_lineno or 0) - first.lineno + 1


def lists_options(file: Path, function: Function) -> bool:
    """Return True if a function may have many parameters.

    This is so for commands, for `gradprix.race`, and for classes that follow torch's.
    """
    return file.relative_to(SOURCE).parts[0] in SIGNATURES or (file.parent.name, function.name) == ("race", "race")


def count(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the occurrences in a source file that count towards a limit.

    Yields:
        Key of the limit in `LIMITS`, and place of the occurrence.
    """
    tree = ast.parse(file.read_text())
    openers, names, long, many, _ = LIMITS
    for function in functions(tree):
        place = f"{file.relative_to(ROOT)}:{function.lineno} {function.name}"
        if OPENERS.match(ast.get_docstring(function) or ""):
            yield openers, place
        if function.name.lstrip("_") in NAMES:
            yield names, place
        exempt = lists_options(file, function)
        if (body_lines(function) if exempt else (function.end_lineno or 0) - function.lineno + 1) > LONGEST:
            yield long, place
        if len(parameters(function)) > MOST_PARAMETERS and not exempt:
            yield many, place
        if "found" in parameters(function):
            yield names, f"{place}: found"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "found":
            yield names, f"{file.relative_to(ROOT)}:{node.lineno} found"


def private_imports(file: Path) -> Iterator[str]:
    """Yield the private names of gradprix that a test file imports, with their places."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            package, *parts = module.split(".")
            if package == "gradprix" and any(part.startswith("_") and not part.endswith("__") for part in parts):
                yield f"{file.relative_to(ROOT)}:{node.lineno} {module}"


def main() -> None:
    """Print the counts and their limits, and exit with 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the places of all occurrences")
    show_places = parser.parse_args().list
    files = sorted(SOURCE.rglob("*.py"))
    places: dict[str, list[str]] = {measure: [] for measure in LIMITS}
    for file in files:
        for measure, place in count(file):
            places[measure].append(place)
    openers, *_, private = LIMITS
    places[private] = [place for file in sorted(TESTS.glob("*.py")) for place in private_imports(file)]
    documented = sum(ast.get_docstring(f) is not None for file in files for f in functions(ast.parse(file.read_text())))
    lines = sum(len(file.read_text().splitlines()) for file in files)
    print(f"{lines:,} lines in {len(files)} files, {documented:,} functions with a docstring")
    exceeded = False
    for measure, limit in LIMITS.items():
        value = len(places[measure]) * (100 / documented if measure == openers else 1)
        exceeded |= value > limit
        print(f"{value:6.3g}  {measure} (at most {limit:g}){'  EXCEEDED' * (value > limit)}")
        if show_places or value > limit:
            print(*(f"        {place}" for place in places[measure]), sep="\n")
    raise SystemExit(exceeded)


if __name__ == "__main__":
    main()
