"""Import of user modules: reloaded when a file changes, and identical in worker processes."""

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import psutil

from .module_finders import FolderFinder, SentModuleFinder, Source, SourceLoader, is_in, is_users_path, read_file


@dataclass(frozen=True)
class _LoadedModule:
    """A module loaded from a user's file, with all user modules that its folders contained then.

    Args:
        name: name of the module in `sys.modules`.
        module: the module.
        modules: all user modules from the same folders, including `module`, by name.
        sources: source code of these modules.
    """

    name: str
    module: ModuleType
    modules: dict[str, ModuleType]
    sources: tuple[Source, ...]

    @property
    def is_current(self) -> bool:
        """True if all of these modules are still imported and their files are unchanged."""
        is_imported = all(sys.modules.get(name) is module for name, module in self.modules.items())
        return is_imported and all(read_file(source.path) == source.text for source in self.sources)


_LOADED: dict[str, _LoadedModule] = {}
"""Loaded modules, by path of the file or by module name."""
_ADDED: list[str] = []
"""Folders of users' files that were added to `sys.path`, the latest first."""
_LOCK = threading.RLock()
_SENT = SentModuleFinder()
_STARTED: float = psutil.Process().create_time()


def load_file(file: Path) -> ModuleType:
    """Import a user's file as a module.

    The module is cached. It is reloaded if its file, or the file of an imported module from the same folder, has
    changed. Like a script, the file can import modules from its folder; if the file is a symbolic link, from the folder
    of its target first, then from the folder of the link.
    """
    path = Path(os.path.abspath(file))

    def load() -> ModuleType:
        previous = _LOADED.get(str(path))
        name = _module_name(path) if previous is None else previous.name
        existing = sys.modules.get(name)
        if existing is not None and os.path.realpath(str(existing.__file__)) == os.path.realpath(path):
            return existing  # imported by the user
        spec = importlib.util.spec_from_file_location(name, path, loader=SourceLoader(name, str(path)))
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return _load(str(path), list(dict.fromkeys([str(path.resolve().parent), str(path.parent)])), load)


def load_module(name: str) -> ModuleType:
    """Import a module by name; modules of the user are reloaded if a file has changed, as in `load_file`."""
    try:
        spec = importlib.util.find_spec(name.partition(".")[0])
    except (ImportError, ValueError):  # e.g. __main__
        spec = None
    packages = [] if spec is None else list(spec.submodule_search_locations or ())
    origin = packages[0] if packages else None if spec is None else spec.origin
    if origin is None or not is_users_path(origin):
        return importlib.import_module(name)
    return _load(name, [str(Path(origin).parent)], lambda: importlib.import_module(name))


def sources() -> tuple[Source, ...]:
    """Return the source code of all loaded user modules, from which other processes can import the same modules."""
    with _LOCK:
        current = {
            source.name: source
            for each in _LOADED.values()
            for source in each.sources
            if sys.modules.get(source.name) is each.modules[source.name]
        }
    return tuple(current[name] for name in sorted(current))


def sources_of(where: str) -> tuple[Source, ...]:
    """Return the source code of a loaded user module and of the user modules that it was loaded with, itself first.

    Empty for a module that is not the user's.

    Args:
        where: path of the module's file, or its name.
    """
    with _LOCK:
        loaded = _LOADED.get(os.path.abspath(where) if where.endswith(".py") else where)
    return () if loaded is None else tuple(sorted(loaded.sources, key=lambda source: source.name != loaded.name))


def base_path() -> list[str]:
    """Return `sys.path` without the folders that were added for users' files."""
    with _LOCK:
        return [folder for folder in sys.path if folder not in _ADDED]


def install(sent: Iterable[Source]) -> None:
    """Make this process import modules from source code that another process has sent (see `sources`)."""
    for source in sent:
        if _SENT.sources.get(source.name) != source:
            sys.modules.pop(source.name, None)
            _SENT.sources[source.name] = source
    if _SENT not in sys.meta_path:
        sys.meta_path.insert(0, _SENT)


def title(module: str) -> str:
    """Return the display name of a module: the name of the user's file, or the last component of the module's name."""
    loaded = sys.modules.get(module)
    loader = getattr(getattr(loaded, "__spec__", None), "loader", None)
    if isinstance(loader, SourceLoader) and "." not in module and not hasattr(loaded, "__path__"):
        return os.fsencode(Path(loader.path).stem).decode(errors="replace")
    return module.rpartition(".")[2]


def text_of(kind: type) -> str | None:
    """Return the source code of a class's module, as it was loaded from a user's file.

    Returns None if the module was loaded in another way.
    """
    for value in vars(kind).values():
        if isinstance(value, FunctionType):
            loader = getattr(value.__globals__.get("__spec__"), "loader", None)
            if isinstance(loader, SourceLoader):
                return loader.get_data(loader.path).decode(errors="replace")
    return None


def _load(key: str, folders: list[str], load: Callable[[], ModuleType]) -> ModuleType:
    """Return the cached module for a key if it is current; otherwise import it anew, with its user modules.

    If the import fails, `sys.modules` is restored.

    Args:
        key: key in `_LOADED`.
        folders: folders that the module may import user modules from.
        load: function that imports the module.
    """
    with _LOCK:
        previous = _LOADED.get(key)
        if previous is not None and previous.is_current:
            return previous.module
        before = _modules_of(folders)
        if previous is not None:
            replaced = before | {name: each for name, each in previous.modules.items() if sys.modules.get(name) is each}
        else:  # modules that other code has imported, whose files may have changed since
            replaced = {name: each for name, each in before.items() if _is_newer(str(each.__file__))}
        replaced = replaced | _shadowed_modules(folders)
        _set_aside(replaced)
        importlib.invalidate_caches()
        _append_folders(folders)
        try:
            with _import_finder(FolderFinder(folders)):
                module = load()
        except BaseException:
            for name in _modules_of(folders).keys() - before.keys():
                sys.modules.pop(name, None)
            for name, each in replaced.items():
                each.__name__, sys.modules[name] = name, each
            raise
        modules = {**_modules_of(folders), module.__name__: module}
        modules = {name: each for name, each in modules.items() if getattr(each, "__file__", None)}
        texts = tuple(Source.from_module(name, each) for name, each in modules.items())
        _LOADED[key] = _LoadedModule(module.__name__, module, modules, texts)
        return module


def _set_aside(modules: Mapping[str, ModuleType]) -> None:
    """Remove modules from `sys.modules` and rename them, so that objects defined in them are pickled by value."""
    for name, module in modules.items():
        del sys.modules[name]
        module.__name__ = f"{name} (earlier)"


@contextmanager
def _import_finder(finder: Any) -> Iterator[None]:
    sys.meta_path.insert(0, finder)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        sys.meta_path.remove(finder)


def _modules_of(folders: Sequence[str]) -> dict[str, ModuleType]:
    """Return the imported user modules whose files are in the given folders, by name."""
    modules = {}
    for name, module in sys.modules.copy().items():  # other threads may import
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and is_in(file, folders) and is_users_path(file):
            modules[name] = module
    for name in ("__main__", "__mp_main__"):
        modules.pop(name, None)
    return modules


def _shadowed_modules(folders: Sequence[str]) -> dict[str, ModuleType]:
    """Return loaded modules from other folders that have the same names as modules in the given folders."""
    others = {
        name: module
        for each in _LOADED.values()
        for name, module in each.modules.items()
        if module is not each.module and sys.modules.get(name) is module and not is_in(str(module.__file__), folders)
    }
    tops = {name.partition(".")[0] for name in others}
    shadowed = {
        top
        for top in tops
        for folder in folders
        if Path(folder, f"{top}.py").exists() or Path(folder, top, "__init__.py").exists()
    }
    return {name: module for name, module in others.items() if name.partition(".")[0] in shadowed}


def _append_folders(folders: Sequence[str]) -> None:
    """Add folders to the end of `sys.path`, but before the folders that were added for earlier files."""
    for folder in reversed(folders):
        if folder in _ADDED:
            _ADDED.remove(folder)
            sys.path[:] = [each for each in sys.path if each != folder]
        elif folder in sys.path:
            continue
        position = min((sys.path.index(each) for each in _ADDED if each in sys.path), default=len(sys.path))
        sys.path.insert(position, folder)
        _ADDED.insert(0, folder)


def _module_name(path: Path) -> str:
    """Return the module name for a file: its stem, or a unique name if another module could have the same name."""
    name = path.stem
    if name.isidentifier() and name not in sys.stdlib_module_names:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None or os.path.realpath(spec.origin) == os.path.realpath(path):
            return name
    plain = re.sub(r"\W", "_", name)
    return f"{plain}_{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:8]}"


def _is_newer(path: str) -> bool:
    """Return True if a file was changed after this process started, or if it cannot be accessed."""
    try:
        return os.stat(path).st_mtime > _STARTED - 2
    except OSError:
        return True
