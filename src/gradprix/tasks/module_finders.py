"""Import finders and loaders of user modules: their sources are read once and can be sent to other processes."""

import importlib.util
import linecache
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Source:
    """Source code of a module as it was loaded.

    Args:
        name: module name.
        path: path of its file.
        text: content of the file.
        is_package: True for the `__init__.py` of a package.
    """

    name: str
    path: str
    text: bytes
    is_package: bool

    @classmethod
    def from_module(cls, name: str, module: ModuleType) -> "Source":
        """Return the source of a module: as `SourceLoader` loaded it, or else the current content of its file."""
        path, loader = str(module.__file__), getattr(module.__spec__, "loader", None)
        text = loader.text if isinstance(loader, SourceLoader) else None
        return cls(name, path, read_file(path) or b"" if text is None else text, hasattr(module, "__path__"))


class SourceLoader(SourceFileLoader):
    """Load a module from its source text, bypassing Python's bytecode cache, which compares whole seconds and sizes."""

    def __init__(self, name: str, path: str, text: bytes | None = None) -> None:
        super().__init__(name, path)
        self.text = text

    def get_data(self, path: str) -> bytes:
        """Return the source text, read once."""
        if path != self.path:
            return super().get_data(path)
        if self.text is None:
            self.text = super().get_data(path)
        return self.text

    def get_code(self, fullname: str) -> Any:
        """Compile the source text."""
        text = self.get_data(self.path)
        code = self.source_to_code(text, self.path)
        # Tracebacks and `inspect` must show the loaded lines, even if the file has changed since.
        lines = importlib.util.decode_source(text).splitlines(keepends=True)
        linecache.cache[self.path] = (len(text), None, lines, self.path)
        return code


class FolderFinder:
    """Import finder that searches the folders of a user's file first, as Python does for a script."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = folders

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module in the folders, or in a package inside them."""
        if path is None and name in sys.stdlib_module_names:
            return None
        where = list(self.folders) if path is None else [each for each in path if is_in(each, self.folders)]
        spec = PathFinder.find_spec(name, where) if where else None
        if spec is None or spec.loader is None:  # a namespace package: a regular package elsewhere has precedence
            return None
        if type(spec.loader) is SourceFileLoader:
            spec.loader = SourceLoader(spec.loader.name, spec.loader.path)
        return spec


class SentModuleFinder:
    """Import finder for modules that another process has loaded."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module among the received sources."""
        source = self.sources.get(name)
        if source is None:
            return None
        loader = SourceLoader(name, source.path, source.text)
        places = [str(Path(source.path).parent)] if source.is_package else None
        return importlib.util.spec_from_file_location(
            name, source.path, loader=loader, submodule_search_locations=places
        )


def read_file(path: str) -> bytes | None:
    """Return the content of a file; None if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def is_users_path(path: str) -> bool:
    """Return True if a path belongs neither to the standard library, nor to an installed package, nor to gradprix."""
    libraries = (os.path.dirname(os.__file__), str(Path(__file__).parents[1]))
    is_installed = bool({"site-packages", "dist-packages"} & set(Path(path).parts)) or is_in(path, libraries)
    return path not in ("built-in", "frozen") and not is_installed


def is_in(path: str, folders: Iterable[str | Path]) -> bool:
    """Return True if a path is one of some folders, or inside one."""
    path = str(path)
    return any(path == each or path.startswith(each.rstrip(os.sep) + os.sep) for each in map(str, folders))
