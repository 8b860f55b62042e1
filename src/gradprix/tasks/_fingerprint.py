"""A hash of what a task is, down to the code of its functions: a changed task is never taken for the old one."""

import functools
import hashlib
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

PLAIN = frozenset(vars(nn.Module()))


def fingerprint(*things: Any) -> str:
    """The same for the same things, in any process of one Python version.

    Args:
        *things: text, numbers, tensors, functions, networks, and tuples, lists, sets and mappings of these.
    """
    digest = hashlib.sha256()
    for thing in things:
        digest.update(repr(_described(thing, ())).encode())
    return digest.hexdigest()


def _described(thing: Any, inside: tuple[int, ...]) -> Any:
    """The thing as plain text and tuples; what is reached again from inside itself is only named."""
    if isinstance(thing, str | bytes | int | float | bool | None):
        return thing
    if id(thing) in inside:
        return "itself"
    inside = (*inside, id(thing))

    def below(other: Any) -> Any:
        return _described(other, inside)

    match thing:
        case Tensor():
            raw = thing.detach().cpu().contiguous().numpy().tobytes()
            return str(thing.dtype), tuple(thing.shape), hashlib.sha256(raw).hexdigest()
        case nn.Module():
            own = [m for m in thing.modules() if not type(m).__module__.startswith("torch.")]
            code = [below(f) for m in own for f in vars(type(m)).values() if isinstance(f, FunctionType)]
            kept = [below({name: x for name, x in vars(m).items() if name not in PLAIN}) for m in own]
            return str(thing), code, kept, [below(t) for t in thing.state_dict().values()]
        case CodeType():
            return thing.co_code, thing.co_names, [below(constant) for constant in thing.co_consts]
        case FunctionType():
            if thing.__module__.startswith("torch."):
                return thing.__qualname__
            cells = [below(cell.cell_contents) for cell in thing.__closure__ or ()]
            return below(thing.__code__), below(thing.__defaults__), cells
        case MethodType():
            return below(thing.__func__), below(thing.__self__)
        case functools.partial():
            return below(thing.func), below(thing.args), below(thing.keywords)
        case BuiltinFunctionType() | type():
            return thing.__qualname__
        case tuple() | list():
            return [below(each) for each in thing]
        case dict():
            return [(key, below(value)) for key, value in thing.items()]
        case set() | frozenset():
            return sorted(repr(below(each)) for each in thing)
    return type(thing).__qualname__, below(getattr(thing, "__dict__", {}))
