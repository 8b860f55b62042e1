"""Detection of tensors that receive gradients but are not parameters of the model, so that no optimizer trains them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from gradprix.training.outputs import Output

DEEPEST = 4
"""Maximum depth of nested attributes, items and closures in the search for the name of a tensor."""


def gradient_leaves(value: Any) -> dict[int, Tensor]:
    """Return the leaf tensors in the autograd graphs of all tensors in a nested value, as `{id(tensor): tensor}`."""
    tensors = [x for x in Output.from_value(value).leaves if isinstance(x, Tensor) and x.requires_grad]
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
    """Return an error message if the gradient of the loss reaches tensors that are not parameters of the model.

    Tensors that every forward pass creates anew are exempt, such as inputs with respect to which a model computes
    gradients.

    Args:
        model: model to check.
        loss: loss function. Its attributes and closure are searched for the names of tensors.
        value: loss of a batch, with its autograd graph.
        run: function that computes the output and the loss of the same batch again.

    Returns:
        The error message, or None if there are no such tensors.
    """
    own = {id(x) for x in model.parameters()}
    first = gradient_leaves(value)
    if not first.keys() - own:
        return None
    output, again = run()
    unregistered = {key: x for key, x in gradient_leaves(again).items() if key in first and key not in own}
    if not unregistered:
        return None
    of_model = {key: x for key, x in unregistered.items() if key in gradient_leaves(output)}
    if of_model:
        tensors = _format_tensors(of_model, model)
        return (
            f"its model uses {tensors} with requires_grad=True outside its parameters, so that no optimizer would "
            "train it. Register layers in nn.ModuleList or nn.ModuleDict and tensors as nn.Parameter; "
            "call requires_grad_(False) on tensors that should not be trained."
        )
    tensors = _format_tensors(unregistered, loss)
    return (
        f"its loss uses {tensors} with requires_grad=True, not a parameter of the model, so that no optimizer would "
        "train it. If the task's loss is a function, give the nn.Module that has these parameters as the loss itself, "
        "as in Task(loss=MyLoss(), ...): they are then trained as well. Or compute the loss in the model and return it "
        "as its output; call requires_grad_(False) on tensors that should not be trained."
    )


def _format_tensors(tensors: Mapping[int, Tensor], where: Any) -> str:
    """Format the name and shape of the first tensor, and the number of further tensors.

    Args:
        tensors: tensors by their `id`.
        where: object that is searched for the names of the tensors.
    """
    names = dict(_named_tensors(where, "", set(), DEEPEST))
    first, *more = [f"{names.get(key, 'a tensor')} {tuple(x.shape)}" for key, x in tensors.items()]
    return first + (f" and {len(more)} more tensor{'s' if len(more) > 1 else ''}" if more else "")


def _named_tensors(thing: Any, name: str, seen: set[int], depth: int) -> Iterator[tuple[int, str]]:
    """Yield the `id` and the name of every tensor that an object holds or uses, recursively.

    Args:
        thing: object to search.
        name: name of the object.
        seen: ids of the objects that were searched already.
        depth: number of levels to search further.
    """
    if isinstance(thing, Tensor):
        yield id(thing), name or "a tensor"
    if id(thing) in seen or depth < 0 or isinstance(thing, str | int | float | Tensor):
        return
    seen.add(id(thing))
    for label, part in _parts(thing):
        yield from _named_tensors(part, f"{name}{label}".lstrip("."), seen, depth - (not isinstance(thing, nn.Module)))


def _parts(thing: Any) -> Iterable[tuple[str, Any]]:
    """Return the objects that an object holds or uses, each with the suffix that it adds to the name."""
    match thing:
        case nn.Module():
            members = {**thing._parameters, **thing._buffers, **thing._modules, **_own_attributes(thing)}
            return [*((f".{name}", part) for name, part in members.items()), ("", type(thing).forward)]
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
    return [(f".{name}", part) for name, part in _own_attributes(thing).items()]


def _own_attributes(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object, except those that every `nn.Module` has."""
    return {name: part for name, part in getattr(thing, "__dict__", {}).items() if name not in _MODULE_ATTRIBUTES}


_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
