"""Fingerprints of tasks: a hash of data, networks and code, so that a changed task is not mistaken for the old one."""

import collections
import functools
import hashlib
import os
import re
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = frozenset(vars(nn.Module()))
STANDARD = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
OURS = str(Path(__file__).parents[1])
RESOURCES = frozenset(
    "_thread threading _io io logging socket ssl selectors subprocess multiprocessing concurrent asyncio queue "
    "sqlite3 mmap weakref _weakref _weakrefset contextvars tempfile random _random itertools".split()
)
"""Modules whose objects belong to a process and have no value that another process could share."""
GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, torch.Generator)
EXACT = frozenset(map(type, (None, True, 1, 1.0, 1j, b"", ..., NotImplemented)))
DEEP = 100
"""Maximum nesting depth."""
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
TEMPORARY = tempfile.gettempdir().rstrip("/\\")


def fingerprint(*things: Any) -> str:
    """Return a hash that is equal for equal things, in any process of one Python version.

    Functions are followed into the functions and constants they use, except those of libraries.

    Args:
        *things: text, numbers, tensors, arrays, functions, classes, networks, and tuples, lists, sets and mappings of
            these. Other objects are hashed by their pickled state or attributes; process resources, such as locks, open
            files and random generators, by their type.
    """
    digest, seen = hashlib.sha256(), dict[int, Any]()
    for thing in things:
        digest.update(repr(_describe(thing, (), seen)).encode(errors="backslashreplace"))
    return digest.hexdigest()


def _describe(thing: Any, inside: tuple[int, ...], seen: dict[int, Any]) -> Any:
    """Return a description of an object made of plain text and tuples.

    Args:
        thing: the object.
        inside: ids of the objects that contain it.
        seen: code and instances that have been described, by id. They are kept alive so that no id is reused. They, and
            containers of themselves, are represented by name.
    """
    kind = type(thing)
    if kind in EXACT:
        return thing
    if kind is str or len(inside) > DEEP:
        return _text(thing) if kind is str else kind.__qualname__
    if isinstance(thing, FunctionType | type | ModuleType):
        if _is_library_code(thing):
            return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing.__name__)}"
        if id(thing) in seen:
            return _name(thing)
        seen[id(thing)] = thing
    if id(thing) in inside:
        return "itself"
    inside = (*inside, id(thing))

    def below(other: Any) -> Any:
        return _describe(other, inside, seen)

    def unordered(others: Iterable[Any]) -> list[Any]:
        """Return objects with their descriptions, sorted independently of hashes and addresses."""
        each = [(_describe(o, inside, seen if isinstance(o, str | int) else dict(seen)), o) for o in others]
        return sorted(each, key=lambda pair: repr(pair[0]))

    match thing:
        case str() | int() | float() | complex() | bytes():  # instances of subclasses, such as enum members
            if isinstance(thing, str):
                return below(kind), _text(thing)
            plain = next(each for each in (int, float, complex, bytes) if isinstance(thing, each))
            return below(kind), plain.__repr__(thing)
        case Tensor():
            return _tensor(thing)
        case np.ndarray() | np.generic():
            return kind.__qualname__, _array(np.asarray(thing), below), _array(np.asarray(np.ma.getmask(thing)), below)
        case nn.Module():
            return _network(thing, below)
        case CodeType():
            return thing.co_code, thing.co_names, [below(constant) for constant in thing.co_consts]
        case FunctionType():
            cells = [below(_content(cell)) for cell in thing.__closure__ or ()]
            used = [below(value) for value in _referenced_objects(thing.__code__, thing.__globals__)]
            given = below(thing.__defaults__), below(thing.__kwdefaults__), below(vars(thing))
            return below(thing.__code__), *given, cells, used
        case MethodType():
            return below(thing.__func__), below(thing.__self__)
        case functools.partial():
            return below(thing.func), below(thing.args), below(thing.keywords), below(vars(thing))
        case property():
            return [below(each) for each in (thing.fget, thing.fset, thing.fdel)]
        case type():
            written = {name: value for name, value in vars(thing).items() if _is_written(name, value)}
            return thing.__qualname__, [below(base) for base in thing.__bases__], below(written)
        case ModuleType():
            return _name(thing)
        case BuiltinFunctionType():
            own = thing.__self__
            return thing.__qualname__, _name(own) if isinstance(own, ModuleType) else below(own)
        case torch.dtype() | torch.device() | torch.layout() | torch.memory_format() | np.dtype():
            return str(thing)
        case PurePath():
            return "path", _text(str(thing))
        case tuple() | list() | collections.deque():
            return below(kind), [below(each) for each in thing]
        case collections.OrderedDict():
            return below(kind), [(below(key), below(value)) for key, value in thing.items()]
        case dict() | MappingProxyType():
            return below(kind), [(key, below(thing[name])) for key, name in unordered(thing)]
        case set() | frozenset():
            return below(kind), [key for key, _ in unordered(thing)]
    for within in ("py_func", "__wrapped__"):  # compiled or cached functions
        if hasattr(kind, within) or within in getattr(thing, "__dict__", {}):
            return kind.__qualname__, below(getattr(thing, within))
    if hasattr(kind, "__array__"):  # data frames and similar, with their labels
        labels = [below(np.asarray(getattr(thing, name))) for name in ("columns", "index") if hasattr(thing, name)]
        return kind.__qualname__, _array(np.asarray(thing), below), labels
    if kind.__module__ == "torch._ops":
        return str(thing)
    if _belongs_to_its_process(thing):
        return below(kind)
    if id(thing) in seen:
        return kind.__qualname__
    seen[id(thing)] = thing
    return below(kind), _state(thing, below)


def _text(text: str) -> str:
    """Return a text without process-specific parts: memory addresses and temporary paths."""
    text = str.__str__(text)
    if text.startswith(TEMPORARY) and text[len(TEMPORARY) : len(TEMPORARY) + 1] in ("/", "\\"):
        return "a temporary path"
    return ADDRESS.sub("at an address", text)


def _name(thing: Any) -> str:
    """Return the name of user code without its module name, which depends on the way it was loaded."""
    if isinstance(thing, ModuleType):
        return thing.__name__ if _is_library_code(thing) else "module"
    return str(thing.__qualname__)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an unbound name
        return None


def _is_written(name: str, value: Any) -> bool:
    """Return True if a class attribute is part of the source code, not added by Python."""
    code = (FunctionType, classmethod, staticmethod, property)
    return not name[:2] == name[-2:] == "__" or isinstance(value, code)


def _belongs_to_its_process(thing: Any) -> bool:
    roots = {base.__module__.partition(".")[0] for base in type(thing).__mro__}
    return isinstance(thing, (*GENERATORS, type(os.environ))) or bool(roots & RESOURCES)


def _state(thing: Any, below: Any) -> Any:
    """Describe an object by its pickled state, or else by its attributes, if it has any."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reduced: Any = thing.__reduce_ex__(2)
        if isinstance(reduced, str):
            return reduced
        parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
    except Exception:  # not picklable
        parts = [getattr(thing, "__dict__", None)]
    return [below(part) for part in parts]


def _tensor(thing: Tensor) -> Any:
    about = str(thing.dtype), str(thing.layout), tuple(thing.shape), thing.requires_grad
    try:
        plain = thing.detach().cpu()
        if plain.layout != torch.strided:
            sparse = plain.to_sparse().coalesce()
            return about, _tensor(sparse.indices()), _tensor(sparse.values())
        raw = plain.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy()
    except (RuntimeError, TypeError, ValueError, NotImplementedError):  # without values, or quantized
        return about
    return about, hashlib.sha256(raw.data).hexdigest()


def _array(array: np.ndarray[Any, Any], below: Any) -> Any:
    if array.dtype.hasobject:
        return array.shape, str(array.dtype), [below(each) for each in array.ravel().tolist()]
    return array.shape, str(array.dtype), hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _network(network: nn.Module, below: Any) -> Any:
    """Describe a network: its modules with settings and hooks, its parameters and buffers."""
    modules = []
    for name, module in network.named_modules():
        settings = {key: value for key, value in vars(module).items() if key not in PLAIN}
        hooks = {
            key: list(each.values()) for key, each in vars(module).items() if key in PLAIN and "_hooks" in key and each
        }
        modules.append((name, below(type(module)), below(settings), below(hooks)))
    tensors = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return modules, [(name, below(tensor)) for name, tensor in tensors]


def _referenced_objects(code: CodeType, names: Mapping[str, Any]) -> list[Any]:
    """Return the objects that a function's code refers to: globals, and attributes of user modules."""
    objects = [names[name] for name in code.co_names if name in names]
    for each in objects:  # grows while iterating, by modules of modules
        if isinstance(each, ModuleType) and not _is_library_code(each):
            more = [vars(each)[name] for name in code.co_names if name in vars(each)]
            objects += [candidate for candidate in more if not any(candidate is other for other in objects)]
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            objects += _referenced_objects(inner, names)
    return objects


def _is_library_code(thing: Any) -> bool:
    """Return True for code of the standard library, an installed package, or gradprix except its tasks."""
    module = thing if isinstance(thing, ModuleType) else sys.modules.get(str(thing.__module__))
    folders = list(getattr(module, "__path__", ()))  # a namespace package has no __file__
    file = getattr(module, "__file__", None) or (folders or [None])[0]
    if file is None:
        return module is not None and module.__name__ != "__main__"
    if file.startswith(OURS):
        return not file.startswith(str(Path(OURS) / "tasks"))
    return file.startswith(STANDARD) or bool({"site-packages", "dist-packages"} & set(Path(file).parts))
