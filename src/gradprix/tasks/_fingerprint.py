"""A hash of what a task is, down to the code of its functions: a changed task is never taken for the old one."""

import functools
import hashlib
import sys
import sysconfig
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

PLAIN = frozenset(vars(nn.Module()))
STANDARD = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
OURS = str(Path(__file__).parents[1])


def fingerprint(*things: Any) -> str:
    """The same for the same things, in any process of one Python version.

    Functions are followed into what they call and the constants they use, as far as that is not a library's.

    Args:
        *things: text, numbers, tensors, arrays, functions, classes, networks, and tuples, lists, sets and mappings of
            these. Of anything else, its attributes.
    """
    digest, known = hashlib.sha256(), set[int]()
    for thing in things:
        digest.update(repr(_described(thing, (), known)).encode())
    return digest.hexdigest()


def _described(thing: Any, inside: tuple[int, ...], known: set[int]) -> Any:
    """The thing as plain text and tuples; code that was seen, and what is inside itself, is only named."""
    if isinstance(thing, str | bytes | int | float | bool | None):
        return thing
    if isinstance(thing, FunctionType | type | ModuleType):
        name = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing.__name__)}"
        if id(thing) in known or _of_a_library(thing):
            return name
        known.add(id(thing))
    if id(thing) in inside:
        return "itself"
    inside = (*inside, id(thing))

    def below(other: Any) -> Any:
        return _described(other, inside, known)

    match thing:
        case Tensor():
            return str(thing.dtype), _bytes(thing.detach().cpu().contiguous().numpy())
        case nn.Module():
            own = [m for m in thing.modules() if not type(m).__module__.startswith("torch.")]
            kept = [below({name: x for name, x in vars(m).items() if name not in PLAIN}) for m in own]
            return str(thing), [below(type(m)) for m in own], kept, [below(t) for t in thing.state_dict().values()]
        case CodeType():
            return thing.co_code, thing.co_names, [below(constant) for constant in thing.co_consts]
        case FunctionType():
            cells = [below(cell.cell_contents) for cell in thing.__closure__ or ()]
            used = [below(value) for value in _used(thing.__code__, thing.__globals__)]
            return below(thing.__code__), below(thing.__defaults__), below(thing.__kwdefaults__), cells, used
        case MethodType():
            return below(thing.__func__), below(thing.__self__)
        case functools.partial():
            return below(thing.func), below(thing.args), below(thing.keywords)
        case type():
            plain = {key: value for key, value in vars(thing).items() if not (key[:2] == key[-2:] == "__")}
            written = [vars(thing).get(name) for name in ("__init__", "__call__", "__len__", "__getitem__", "__iter__")]
            return thing.__qualname__, [below(base) for base in thing.__bases__], below(plain), below(written)
        case ModuleType() | BuiltinFunctionType():
            return thing.__name__
        case tuple() | list():
            return [below(each) for each in thing]
        case dict():
            return [(key, below(value)) for key, value in thing.items()]
        case set() | frozenset():
            return sorted(repr(below(each)) for each in thing)
    if hasattr(thing, "__wrapped__"):  # a cache round a function
        return below(thing.__wrapped__)
    if hasattr(thing, "__array__"):  # arrays, data frames
        return type(thing).__qualname__, _bytes(np.asarray(thing))
    return below(type(thing)), below(getattr(thing, "__dict__", {}))


def _used(code: CodeType, names: dict[str, Any]) -> list[Any]:
    """What a function's code finds by name: globals, and attributes of modules that are no library's."""
    found = [names[name] for name in code.co_names if name in names]
    for module in [each for each in found if isinstance(each, ModuleType) and not _of_a_library(each)]:
        found += [getattr(module, name) for name in code.co_names if hasattr(module, name)]
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found += _used(inner, names)
    return found


def _of_a_library(thing: Any) -> bool:
    """Whether its code is the standard library's, an installed package's, or ours but for the tasks."""
    module = thing if isinstance(thing, ModuleType) else sys.modules.get(thing.__module__)
    file = getattr(module, "__file__", None)
    if file is None:
        return module is not None and module.__name__ != "__main__"
    if file.startswith(OURS):
        return not file.startswith(str(Path(OURS) / "tasks"))
    return file.startswith(STANDARD) or bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def _bytes(array: np.ndarray[Any, Any]) -> Any:
    raw = repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()
    return array.shape, str(array.dtype), hashlib.sha256(raw).hexdigest()
