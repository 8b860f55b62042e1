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
    """A loaded module with the modules of its folders at that time."""

    name: str
    module: ModuleType
    modules: dict[str, ModuleType]
    sources: tuple[Source, ...]

    @property
    def is_current(self) -> bool:
        """True if the modules are still imported and their files are unchanged."""
        is_imported = all(sys.modules.get(name) is module for name, module in self.modules.items())
        return is_imported and all(read_file(source.path) == source.text for source in self.sources)


_LOADED: dict[str, _LoadedModule] = {}
_ADDED: list[str] = []
"""Folders appended to `sys.path`, the latest first."""
_LOCK = threading.RLock()
_SENT = SentModuleFinder()
_STARTED: float = psutil.Process().create_time()


def load_file(file: Path) -> ModuleType:
    """Return the module of a file, reloaded only if a file in its folder that it could import has changed.

    Neighbouring modules are importable as for a script: from the folder of a symbolic link's target, then the link's
    own.
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
    """Import a module by name; a user's module is reloaded like in `load_file`."""
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
    """Return the sources that other processes need to import the same modules."""
    with _LOCK:
        current = {
            source.name: source
            for each in _LOADED.values()
            for source in each.sources
            if sys.modules.get(source.name) is each.modules[source.name]
        }
    return tuple(current[name] for name in sorted(current))


def base_path() -> list[str]:
    """Return `sys.path` without the folders appended for user files."""
    with _LOCK:
        return [folder for folder in sys.path if folder not in _ADDED]


def install(sent: Iterable[Source]) -> None:
    """Make imports resolve to the modules that another process has loaded."""
    for source in sent:
        if _SENT.sources.get(source.name) != source:
            sys.modules.pop(source.name, None)
            _SENT.sources[source.name] = source
    if _SENT not in sys.meta_path:
        sys.meta_path.insert(0, _SENT)


def title(module: str) -> str:
    """Return the last component of a module name, or the file name if the module was loaded under a substitute name."""
    loaded = sys.modules.get(module)
    loader = getattr(getattr(loaded, "__spec__", None), "loader", None)
    if isinstance(loader, SourceLoader) and "." not in module and not hasattr(loaded, "__path__"):
        return os.fsencode(Path(loader.path).stem).decode(errors="replace")
    return module.rpartition(".")[2]


def text_of(kind: type) -> str | None:
    """Return the source text of a class's module as it was loaded, or None if unknown."""
    for value in vars(kind).values():
        if isinstance(value, FunctionType):
            loader = getattr(value.__globals__.get("__spec__"), "loader", None)
            if isinstance(loader, SourceLoader):
                return loader.get_data(loader.path).decode(errors="replace")
    return None


def _load(key: str, folders: list[str], load: Callable[[], ModuleType]) -> ModuleType:
    with _LOCK:
        previous = _LOADED.get(key)
        if previous is not None and previous.is_current:
            return previous.module
        before = _modules_of(folders)
        if previous is not None:
            replaced = before | {name: each for name, each in previous.modules.items() if sys.modules.get(name) is each}
        else:  # modules imported elsewhere, whose files may have changed since
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
    """Remove modules from `sys.modules`, so that remaining references to them are pickled by value."""
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
    """Return the user's modules in some folders."""
    modules = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and is_in(file, folders) and is_users_path(file):
            modules[name] = module
    for name in ("__main__", "__mp_main__"):
        modules.pop(name, None)
    return modules


def _shadowed_modules(folders: Sequence[str]) -> dict[str, ModuleType]:
    """Return modules loaded from other folders that modules in these folders would shadow."""
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
    """Append folders to `sys.path`, before those of earlier files."""
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
    """Return a file's module name: its own if it is unambiguous, else a unique one."""
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
    """Return True if a file was changed after this process started."""
    try:
        return os.stat(path).st_mtime > _STARTED - 2
    except OSError:
        return True
