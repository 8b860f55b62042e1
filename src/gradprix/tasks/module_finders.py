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
        """Return the source of a module: the text that `SourceLoader` loaded, or else its file's current content."""
        path, loader = str(module.__file__), getattr(module.__spec__, "loader", None)
        text = loader.text if isinstance(loader, SourceLoader) else None
        return cls(name, path, read_file(path) or b"" if text is None else text, hasattr(module, "__path__"))


class SourceLoader(SourceFileLoader):
    """Loader of a module from its source code, without Python's bytecode cache.

    Python considers cached bytecode current if the file's size and modification time in whole seconds are unchanged,
    so the cache can miss a quick edit.

    Args:
        name: module name.
        path: path of its file.
        text: source code; if None, it is read from the file when first needed.
    """

    def __init__(self, name: str, path: str, text: bytes | None = None) -> None:
        super().__init__(name, path)
        self.text = text

    def get_data(self, path: str) -> bytes:
        """Return the source code for the module's own path, which is read once, and the content of any other file."""
        if path != self.path:
            return super().get_data(path)
        if self.text is None:
            self.text = super().get_data(path)
        return self.text

    def get_code(self, fullname: str) -> Any:
        """Return the code object of the module, compiled from its source code."""
        text = self.get_data(self.path)
        code = self.source_to_code(text, self.path)
        # Tracebacks and `inspect` must show the loaded lines, even if the file has changed since.
        lines = importlib.util.decode_source(text).splitlines(keepends=True)
        linecache.cache[self.path] = (len(text), None, lines, self.path)
        return code


class FolderFinder:
    """Import finder that searches the folders of a user's file first, as Python does for a script.

    Args:
        folders: the folders, in order of precedence.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = folders

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module in the folders, or in a package inside them. Returns None if there is no such module."""
        if path is None and name in sys.stdlib_module_names:
            return None
        where = list(self.folders) if path is None else [each for each in path if is_in(each, self.folders)]
        spec = PathFinder.find_spec(name, where) if where else None
        if spec is None or spec.loader is None:  # a namespace package, over which regular packages take precedence
            return None
        if type(spec.loader) is SourceFileLoader:
            spec.loader = SourceLoader(spec.loader.name, spec.loader.path)
        return spec


class SentModuleFinder:
    """Import finder for modules whose source code another process has sent; `sources` holds them by name."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module among the received sources. Returns None if no source has this name."""
        source = self.sources.get(name)
        if source is None:
            return None
        loader = SourceLoader(name, source.path, source.text)
        places = [str(Path(source.path).parent)] if source.is_package else None
        return importlib.util.spec_from_file_location(
            name, source.path, loader=loader, submodule_search_locations=places
        )


def read_file(path: str) -> bytes | None:
    """Return the content of a file. Returns None if the file cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def is_users_path(path: str) -> bool:
    """Return True if a file is the user's: not of the standard library, an installed package, or gradprix."""
    libraries = (os.path.dirname(os.__file__), str(Path(__file__).parents[1]))
    is_installed = bool({"site-packages", "dist-packages"} & set(Path(path).parts)) or is_in(path, libraries)
    return path not in ("built-in", "frozen") and not is_installed


def is_in(path: str, folders: Iterable[str | Path]) -> bool:
    """Return True if a path is equal to one of the folders, or inside one of them."""
    path = str(path)
    return any(path == each or path.startswith(each.rstrip(os.sep) + os.sep) for each in map(str, folders))
