"""Tensors that a loss has gradients of, though they are no parameters of the model: no optimizer would train them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from gradprix.training.outputs import Output

DEEPEST = 4
"""How many attributes, items and closures deep the name of a tensor is looked for."""


def gradient_leaves(value: Any) -> dict[int, Tensor]:
    """Return the leaf tensors that the gradients of all tensors in a value reach, by their id."""
    tensors = [x for x in Output.of(value).leaves if isinstance(x, Tensor) and x.requires_grad]
    leaves = {id(x): x for x in tensors if x.grad_fn is None}
    nodes: list[Any] = [x.grad_fn for x in tensors if x.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if type(node).__name__ == "AccumulateGrad":
            leaves[id(node.variable)] = node.variable
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                nodes.append(below)
    return leaves


def untrained(model: nn.Module, loss: Any, value: Tensor, run: Callable[[], tuple[Any, Any]]) -> str | None:
    """Return what is wrong where the gradient reaches tensors that are no parameters of the model.

    Tensors that are made anew in each pass, as inputs are that a model differentiates by, are not meant.

    Args:
        model: the model.
        loss: the loss function, in which names are looked for.
        value: the loss of a batch.
        run: computes the output and the loss of the batch again.
    """
    own = {id(x) for x in model.parameters()}
    first = gradient_leaves(value)
    if not first.keys() - own:
        return None
    output, again = run()
    strange = {key: x for key, x in gradient_leaves(again).items() if key in first and key not in own}
    if not strange:
        return None
    of_model = {key: x for key, x in strange.items() if key in gradient_leaves(output)}
    if of_model:
        return (
            f"its model computes with {_listed(of_model, model)} to be trained, not among its parameters, so that no "
            "optimizer would train it. Keep layers in nn.ModuleList or nn.ModuleDict and tensors in nn.Parameter, as "
            "attributes of the model; what is not to be trained says requires_grad_(False)."
        )
    return (
        f"its loss computes with {_listed(strange, loss)} to be trained, no parameter of the model, so that no "
        "optimizer would train it. Compute the loss in the model and return it as its output, or race a training loop "
        "of your own; what is not to be trained says requires_grad_(False)."
    )


def _listed(tensors: Mapping[int, Tensor], where: Any) -> str:
    names = dict(_named(where, "", set(), DEEPEST))
    first, *more = [f"{names.get(key, 'a tensor')} {tuple(x.shape)}" for key, x in tensors.items()]
    return first + (f" and {len(more)} more tensor{'s' if len(more) > 1 else ''}" if more else "")


def _named(thing: Any, name: str, seen: set[int], depth: int) -> Iterator[tuple[int, str]]:
    """The tensors that a thing holds or uses, by their id, and what they are called there."""
    if isinstance(thing, Tensor):
        yield id(thing), name or "a tensor"
    if id(thing) in seen or depth < 0 or isinstance(thing, str | int | float | Tensor):
        return
    seen.add(id(thing))
    for label, part in _parts(thing):
        yield from _named(part, f"{name}{label}".lstrip("."), seen, depth - (not isinstance(thing, nn.Module)))


def _parts(thing: Any) -> Iterable[tuple[str, Any]]:
    match thing:
        case nn.Module():
            kept = {**thing._parameters, **thing._buffers, **thing._modules, **_plain(thing)}
            return [*((f".{name}", part) for name, part in kept.items()), ("", type(thing).forward)]
        case partial():
            return [("", each) for each in (thing.func, *thing.args, *thing.keywords.values())]
        case MethodType():
            return [("", thing.__self__), ("", thing.__func__)]
        case FunctionType():
            cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
            inside = [(f".{name}", cell.cell_contents) for name, cell in cells]
            used = {name: thing.__globals__[name] for name in thing.__code__.co_names if name in thing.__globals__}
            mine = {name: part for name, part in used.items() if isinstance(part, nn.Module | Tensor | list | dict)}
            return [*inside, *((f".{name}", part) for name, part in mine.items())]
        case Mapping():
            return [(f"[{key!r}]", part) for key, part in thing.items()]
        case list() | tuple() | set():
            return [(f"[{i}]", part) for i, part in enumerate(thing)]
    return [(f".{name}", part) for name, part in _plain(thing).items()]


def _plain(thing: Any) -> dict[str, Any]:
    """The attributes of a thing, but for those of every module."""
    return {name: part for name, part in getattr(thing, "__dict__", {}).items() if name not in _OF_MODULES}


_OF_MODULES = frozenset(vars(nn.Module()))
