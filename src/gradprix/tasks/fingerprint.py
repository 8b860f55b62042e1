"""Fingerprints of tasks: a hash of data, networks and code, so that a changed task is not mistaken for the old one."""

import hashlib
import os
import re
import sys
import sysconfig
import tempfile
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
"""Names of the attributes that every `nn.Module` has."""
STANDARD = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
OURS = str(Path(__file__).parents[1])
RESOURCES = frozenset(
    "_thread threading _io io logging socket ssl selectors subprocess multiprocessing concurrent asyncio queue "
    "sqlite3 mmap weakref _weakref _weakrefset contextvars tempfile random _random itertools".split()
)
"""Modules whose objects belong to a process and have no value that another process could share."""
GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, torch.Generator)
EXACT = frozenset(map(type, (None, True, 1, 1.0, 1j, b"", ..., NotImplemented)))
"""Types whose objects are their own descriptions."""
NUMBERS = (int, float, complex, bytes)
MAX_DEPTH = 100
"""Maximum nesting depth; objects nested more deeply are represented by the names of their types."""
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
TEMPORARY = tempfile.gettempdir().rstrip("/\\")


def fingerprint(*things: Any) -> str:
    """Return a hash of some objects that is equal for equal objects, in any process of one Python version.

    The hash of a function includes the functions and constants that it uses, except those of libraries.

    Args:
        *things: text, numbers, tensors, arrays, functions, classes, networks, and tuples, lists, sets and mappings of
            these. Other objects are hashed by their pickled state or attributes; process resources, such as locks, open
            files and random generators, by their type.
    """
    digest, describe = hashlib.sha256(), _Describer((), {})
    for thing in things:
        digest.update(repr(describe(thing)).encode(errors="backslashreplace"))
    return digest.hexdigest()


@dataclass(frozen=True)
class _Describer:
    """Converter of objects to descriptions that consist of strings, numbers, tuples and lists.

    Args:
        parents: ids of the objects that contain the object to describe. An object that contains itself is not
            described again.
        seen: functions, classes, modules and instances described so far, by id; these objects are kept alive so that no
            id is reused. When such an object occurs again, it is represented by its name.
    """

    parents: tuple[int, ...]
    seen: dict[int, Any]

    def __call__(self, thing: Any) -> Any:
        """Return the description of an object."""
        kind = type(thing)
        if kind in EXACT:
            return thing
        if kind is str:
            return _mask(thing)
        if len(self.parents) > MAX_DEPTH:
            return kind.__qualname__
        if isinstance(thing, FunctionType | type | ModuleType):
            if _is_library_code(thing):
                return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing.__name__)}"
            if id(thing) in self.seen:
                return _name(thing)
            self.seen[id(thing)] = thing
        if id(thing) in self.parents:
            return "itself"
        describe_part = _Describer((*self.parents, id(thing)), self.seen)
        for types, describe in DESCRIPTIONS:
            if isinstance(thing, types):
                return describe(thing, describe_part)
        return _describe_instance(thing, describe_part)

    def sort(self, things: Iterable[Any]) -> list[tuple[Any, Any]]:
        """Sort objects by their descriptions, which do not depend on hash values or addresses.

        Returns:
            Pairs (description, object).
        """
        copies = (self if isinstance(thing, str | int) else replace(self, seen=dict(self.seen)) for thing in things)
        pairs = [(describe(thing), thing) for describe, thing in zip(copies, things, strict=True)]
        return sorted(pairs, key=lambda pair: repr(pair[0]))


def _describe_number(number: Any, describe: _Describer) -> Any:
    """Describe an instance of a subclass of a number type, such as an enum member."""
    plain = next(kind for kind in NUMBERS if isinstance(number, kind))
    return describe(type(number)), plain.__repr__(number)


def _describe_array(array: Any, describe: _Describer) -> Any:
    parts = np.asarray(array), np.asarray(np.ma.getmask(array))
    return type(array).__qualname__, *(_hash_array(part, describe) for part in parts)


def _describe_function(function: FunctionType, describe: _Describer) -> Any:
    cells = [describe(_cell_content(cell)) for cell in function.__closure__ or ()]
    used = [describe(value) for value in _referenced_objects(function.__code__, function.__globals__)]
    given = [describe(part) for part in (function.__defaults__, function.__kwdefaults__, vars(function))]
    return describe(function.__code__), *given, cells, used


def _describe_class(kind: type, describe: _Describer) -> Any:
    attributes = {name: value for name, value in vars(kind).items() if _is_source_code(name, value)}
    return kind.__qualname__, [describe(base) for base in kind.__bases__], describe(attributes)


def _describe_builtin(function: Any, describe: _Describer) -> Any:
    own = function.__self__
    return function.__qualname__, _name(own) if isinstance(own, ModuleType) else describe(own)


def _describe_network(network: nn.Module, describe: _Describer) -> Any:
    """Describe a network: its modules with settings and hooks, its parameters and buffers."""
    modules = []
    for name, module in network.named_modules():
        settings = {key: value for key, value in vars(module).items() if key not in MODULE_ATTRIBUTES}
        hooks = {
            key: list(value.values())
            for key, value in vars(module).items()
            if key in MODULE_ATTRIBUTES and "_hooks" in key and value
        }
        modules.append((name, describe(type(module)), describe(settings), describe(hooks)))
    tensors = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return modules, [(name, describe(tensor)) for name, tensor in tensors]


def _describe_tensor(tensor: Tensor, describe: _Describer) -> Any:
    about = str(tensor.dtype), str(tensor.layout), tuple(tensor.shape), tensor.requires_grad
    try:
        plain = tensor.detach().cpu()
        if plain.layout != torch.strided:
            sparse = plain.to_sparse().coalesce()
            return about, *(_describe_tensor(part, describe) for part in (sparse.indices(), sparse.values()))
        raw = plain.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy()
    except (RuntimeError, TypeError, ValueError, NotImplementedError):  # a tensor without values, or a quantized one
        return about
    return about, hashlib.sha256(raw.data).hexdigest()


def _describe_instance(thing: Any, describe: _Describer) -> Any:
    """Describe an instance of a class that has no entry in `DESCRIPTIONS`."""
    kind = type(thing)
    for attribute in ("py_func", "__wrapped__"):  # compiled or cached functions
        if hasattr(kind, attribute) or attribute in getattr(thing, "__dict__", {}):
            return kind.__qualname__, describe(getattr(thing, attribute))
    if hasattr(kind, "__array__"):  # data frames and similar, with their labels
        labels = [describe(np.asarray(getattr(thing, name))) for name in ("columns", "index") if hasattr(thing, name)]
        return kind.__qualname__, _hash_array(np.asarray(thing), describe), labels
    if kind.__module__ == "torch._ops":
        return str(thing)
    if kind.__module__ == "torch_geometric.inspector":  # describes a class, and caches its source in the first instance
        return kind.__qualname__
    if _is_process_resource(thing):
        return describe(kind)
    if id(thing) in describe.seen:
        return kind.__qualname__
    describe.seen[id(thing)] = thing
    return describe(kind), _describe_state(thing, describe)


def _describe_state(thing: Any, describe: _Describer) -> Any:
    """Describe an object by its pickled state or, if it cannot be pickled, by its attributes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reduced: Any = thing.__reduce_ex__(2)
        if isinstance(reduced, str):
            return reduced
        parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
    except Exception:  # not picklable
        parts = [getattr(thing, "__dict__", None)]
    return [describe(part) for part in parts]


DESCRIPTIONS: tuple[tuple[Any, Callable[[Any, _Describer], Any]], ...] = (
    (str, lambda x, describe: (describe(type(x)), _mask(x))),
    (NUMBERS, _describe_number),
    (Tensor, _describe_tensor),
    ((np.ndarray, np.generic), _describe_array),
    (nn.Module, _describe_network),
    (CodeType, lambda x, describe: (x.co_code, x.co_names, [describe(constant) for constant in x.co_consts])),
    (FunctionType, _describe_function),
    (MethodType, lambda x, describe: (describe(x.__func__), describe(x.__self__))),
    (partial, lambda x, describe: tuple(describe(part) for part in (x.func, x.args, x.keywords, vars(x)))),
    (property, lambda x, describe: [describe(part) for part in (x.fget, x.fset, x.fdel)]),
    (type, _describe_class),
    (ModuleType, lambda x, describe: _name(x)),
    (BuiltinFunctionType, _describe_builtin),
    ((torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype), lambda x, describe: str(x)),
    (PurePath, lambda x, describe: ("path", _mask(str(x)))),
    ((tuple, list, deque), lambda x, describe: (describe(type(x)), [describe(part) for part in x])),
    (
        OrderedDict,
        lambda x, describe: (describe(type(x)), [(describe(key), describe(value)) for key, value in x.items()]),
    ),
    (
        (dict, MappingProxyType),
        lambda x, describe: (describe(type(x)), [(name, describe(x[key])) for name, key in describe.sort(x)]),
    ),
    ((set, frozenset), lambda x, describe: (describe(type(x)), [name for name, _ in describe.sort(x)])),
)
"""Functions that describe objects, by the types of the objects; the first matching entry applies."""


def _mask(text: str) -> str:
    """Replace the process-specific parts of a text: memory addresses and temporary paths."""
    text = str.__str__(text)
    if text.startswith(TEMPORARY) and text[len(TEMPORARY) : len(TEMPORARY) + 1] in ("/", "\\"):
        return "a temporary path"
    return ADDRESS.sub("at an address", text)


def _name(thing: Any) -> str:
    """Return the name of user code without its module name, which depends on how the module was loaded."""
    if isinstance(thing, ModuleType):
        return thing.__name__ if _is_library_code(thing) else "module"
    return str(thing.__qualname__)


def _cell_content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an unbound name
        return None


def _is_source_code(name: str, value: Any) -> bool:
    """Return True if a class attribute is defined in the source code, and not added by Python."""
    code = (FunctionType, classmethod, staticmethod, property)
    return not name[:2] == name[-2:] == "__" or isinstance(value, code)


def _is_process_resource(thing: Any) -> bool:
    roots = {base.__module__.partition(".")[0] for base in type(thing).__mro__}
    return isinstance(thing, (*GENERATORS, type(os.environ))) or bool(roots & RESOURCES)


def _hash_array(array: np.ndarray[Any, Any], describe: _Describer) -> Any:
    if array.dtype.hasobject:
        return array.shape, str(array.dtype), [describe(each) for each in array.ravel().tolist()]
    return array.shape, str(array.dtype), hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _referenced_objects(code: CodeType, names: Mapping[str, Any]) -> list[Any]:
    """Return the objects that a function's code refers to: globals, and attributes of user modules."""
    objects = [names[name] for name in code.co_names if name in names]
    for each in objects:  # the list grows while iterating, since modules may contain modules
        if isinstance(each, ModuleType) and not _is_library_code(each):
            more = [vars(each)[name] for name in code.co_names if name in vars(each)]
            objects += [candidate for candidate in more if not any(candidate is other for other in objects)]
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            objects += _referenced_objects(inner, names)
    return objects


def _is_library_code(thing: Any) -> bool:
    """Return True for code of the standard library, of an installed package, or of gradprix outside `tasks`."""
    module = thing if isinstance(thing, ModuleType) else sys.modules.get(str(thing.__module__))
    folders = list(getattr(module, "__path__", ()))  # a namespace package has no __file__
    file = getattr(module, "__file__", None) or (folders or [None])[0]
    if file is None:
        return module is not None and module.__name__ != "__main__"
    if file.startswith(OURS):
        return not file.startswith(str(Path(OURS) / "tasks"))
    return file.startswith(STANDARD) or bool({"site-packages", "dist-packages"} & set(Path(file).parts))
