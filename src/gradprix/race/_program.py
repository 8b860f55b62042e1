"""A step of a stack of networks, written out once as a list of operations.

Stacking networks, and finding their gradients, costs torch far more time than the arithmetic of small ones. So it is
done once: what comes of it is a graph of plain operations on stacked tensors, which is then run step after step.
"""

import operator
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary

from gradprix.tasks import Task
from gradprix.tasks._seeds import Luck, fresh, luck

from ._noise import TAG, Noise

aten = torch.ops.aten
Like = tuple[tuple[tuple[int, ...], torch.dtype], ...]
FREE = {aten.detach.default, aten.alias.default}
"""What only autograd needs."""


@dataclass(frozen=True)
class Program:
    """A step, written out.

    Args:
        graph: the operations, on a list of tensors.
        noise: whether they draw random numbers.
        peak: about how many bytes it holds at most while it runs, besides what it is given.
        outputs: how the outputs are put together.
    """

    graph: Callable[..., list[Any]]
    noise: bool
    peak: int
    outputs: Any

    def __call__(self, noise: Noise | None, *args: Tensor) -> Any:
        """Run it, with random numbers from `noise`."""
        with torch.no_grad():
            results = self.graph(*args, *[noise] * self.noise)
        return results if self.outputs is None else tree_unflatten(results, self.outputs)


@lru_cache(maxsize=64)
def program(task: Task, what: str, names: tuple[str, ...], leaves: int, like: Like, compiled: bool = False) -> Program:
    """Write a step of stacked networks out.

    Args:
        task: the problem.
        what: `"train"` for `[losses, *gradients]`, with None for a leaf that nothing uses; `"score"` for
            `(outputs, losses)`.
        names: of the leaves (what gradients are wanted of), then of the other parameters and of the buffers.
        leaves: how many of the names are leaves.
        like: the stacked shape and the dtype of each of these, then of inputs and targets.
        compiled: whether to compile the operations, which takes many seconds, and rounds in other places.

    Raises:
        ValueError: for a loss that is not one number, or a model that changes its own attributes as it runs.
    """
    model = fresh(task.model, 0)
    model.train(what == "train")
    outputs: list[Any] = [None]

    def output(tensors: dict[str, Tensor], inputs: Tensor) -> Any:
        def look(*_: Any) -> None:
            if new := [name for name, buffer in model.named_buffers() if buffer is not tensors[name]]:
                raise ValueError(f"it puts other tensors in the place of its buffers {', '.join(new)}")

        with model.register_forward_hook(look):
            return functional_call(model, tensors, (inputs,))

    def loss(tensors: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return task.loss(output(tensors, inputs), targets)

    def scored(tensors: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Any:
        found = output(tensors, inputs)
        return found, task.loss(found, targets)

    def train(*args: Tensor) -> Any:
        own = [x.detach().requires_grad_() for x in args[:leaves]]
        tensors = dict(zip(names, (*own, *args[leaves:-2]), strict=True))
        losses = vmap(loss, randomness="different")(tensors, *args[-2:])
        if losses.dim() != 1:
            raise ValueError(f"the loss of a batch has the shape {tuple(losses.shape[1:])}, not one number")
        gradients = torch.autograd.grad(losses.sum(), own, allow_unused=True)
        return [losses, *(None if g is None else g.contiguous() for g in gradients)]

    def score(*args: Tensor) -> Any:
        with torch.no_grad():
            found = vmap(scored, randomness="different")(dict(zip(names, args[:-2], strict=True)), *args[-2:])
        flat, outputs[0] = tree_flatten(found)
        return flat

    if any(parameter._backward_hooks for parameter in model.parameters()):
        raise ValueError("it has hooks on its parameters, which are not those of a stack")
    before = _attributes(model)
    with Luck(torch.Generator()) as lent:
        recorder, again = (_Recorder([torch.zeros(shape, dtype=kind) for shape, kind in like]) for _ in range(2))
        for each in (recorder, again):
            each.record(train if what == "train" else score)
        others = luck()[1:]
    if any(repr(now) != repr(then) for now, then in zip(others, lent[1:], strict=True)):
        raise ValueError("it draws random numbers of Python or NumPy, which networks in a stack would share")
    if changed := [name for name, value in _attributes(model).items() if before.get(name, "") != value]:
        raise ValueError(f"it changes {', '.join(changed)} as it runs, which networks in a stack would share")
    if str(recorder.graph) != str(again.graph):
        raise ValueError("it does something else each time it runs")
    noise = _tidy(recorder.graph)
    made = GraphModule(recorder.constants, recorder.graph)
    run = torch.compile(made, dynamic=False) if compiled else made
    return Program(run, noise, _peak(recorder.graph), outputs[0])


class _Recorder(TorchDispatchMode):
    """Writes down every operation on tensors.

    Args:
        given: what the recorded function is called with.
    """

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self.given, self.graph, self.constants = given, Graph(), dict[str, Tensor]()
        self.nodes = WeakTensorKeyDictionary()
        for i, x in enumerate(given):
            self.nodes[x] = self.graph.placeholder(f"given{i}")

    def record(self, function: Any) -> None:
        """Run a function of the given tensors, which returns a list of tensors and Nones."""
        with self:
            found = function(*self.given)
        self.graph.output([None if x is None else self._node(x) for x in found])

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what there is nothing of: to skip the compiler, torch would import it, which takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and write it down."""
        found = function(*args, **(kwargs or {}))
        node = self.graph.call_function(function, *tree_map_only(Tensor, self._node, (tuple(args), kwargs or {})))
        node.meta["bytes"] = _bytes(found)
        if isinstance(found, Tensor):
            self.nodes[found] = node
        elif isinstance(found, list | tuple):
            for i, part in enumerate(found):
                if isinstance(part, Tensor):
                    self.nodes[part] = self.graph.call_function(operator.getitem, (node, i))
        return found

    def _node(self, x: Tensor) -> Node:
        if x not in self.nodes:  # the model's own, and the same for all networks
            name = f"constant{len(self.constants)}"
            self.constants[name] = x
            self.nodes[x] = self.graph.get_attr(name)
        node: Node = self.nodes[x]
        return node


def _attributes(model: nn.Module) -> dict[str, Any]:
    """Which things a model keeps, but for what parameters and buffers hold: to be compared with those after it ran."""
    kept: dict[str, Any] = {}
    for place, module in model.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in PLAIN}
        own |= dict(module.named_buffers(recurse=False))
        kept |= {f"{place}.{name}".lstrip("."): _identity(value) for name, value in own.items()}
    return kept


PLAIN = frozenset(vars(nn.Module()))


def _identity(value: Any) -> Any:
    """What is equal as long as nobody has changed a value, nor a container of values."""
    if isinstance(value, dict):
        return [(key, _identity_of_item(item)) for key, item in value.items()]
    return [_identity_of_item(item) for item in value] if isinstance(value, list | tuple | set) else id(value)


def _identity_of_item(item: Any) -> int | str:
    # Recurrent layers keep their weights in a list, too, in which `functional_call` leaves the ones it puts in.
    return "tensor" if isinstance(item, Tensor | weakref.ref) else id(item)


def _tidy(graph: Graph) -> bool:
    """Take out what does nothing, and have random numbers drawn by row; returns whether there are any."""
    draws = []
    for node in reversed(list(graph.nodes)):  # the last of a sum has all of it
        if node.target is aten.add.Tensor and (found := _parts_of_one(node)):
            with graph.inserting_before(node):
                node.replace_all_uses_with(whole := graph.call_function(*found))
            whole.meta = node.meta
    for node in list(graph.nodes):
        if node.target in FREE or (node.target is aten.permute.default and node.args[1] == [*range(len(node.args[1]))]):
            node.replace_all_uses_with(node.args[0])
        elif isinstance(node.target, torch._ops.OpOverload) and TAG in node.target.tags:
            draws.append(node)
    if draws:
        last = [node for node in graph.nodes if node.op == "placeholder"][-1]
        with graph.inserting_after(last):
            noise = graph.placeholder("noise")
        for node in draws:
            with graph.inserting_before(node):
                drawn = graph.call_method("draw", (noise, node.target, *node.args), dict(node.kwargs))
            drawn.meta = node.meta
            node.replace_all_uses_with(drawn)
            graph.erase_node(node)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.is_impure() or node.op == "call_method")
    return bool(draws)


def _parts_of_one(node: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """What puts together a sum of gradients each of which is zero but for its own part of a tensor.

    Such is the gradient of what is taken apart, as queries, keys and values are: torch fills and adds up whole tensors.
    """
    parts: list[Any] = []
    sums = [node]
    while sums:
        for term in sums.pop().args:
            if not isinstance(term, Node):
                return None
            own = len(term.users) == 1
            (sums if own and term.target is aten.add.Tensor and len(term.args) == 2 else parts).append(term)
    kinds = {part.target for part in parts}
    if kinds == {aten.select_backward.default}:
        order = sorted(parts, key=lambda part: part.args[3])
        _, sizes, dim, _ = order[0].args
        whole = [part.args[3] for part in order] == [*range(sizes[dim])]
        join = aten.stack.default
    elif kinds == {aten.slice_backward.default}:
        order = sorted(parts, key=lambda part: part.args[3])
        _, sizes, dim, *_ = order[0].args
        ends = [0, *(min(part.args[4], sizes[dim]) for part in order)]
        whole = ends[:-1] == [part.args[3] for part in order] and ends[-1] == sizes[dim]
        whole = whole and all(part.args[5] == 1 for part in order)
        join = aten.cat.default
    else:
        return None
    alike = all(part.args[1:3] == (sizes, dim) for part in order)
    return (join, ([part.args[0] for part in order], dim)) if whole and alike else None


def _peak(graph: Graph) -> int:
    """How many bytes are held at most, with each tensor let go after the last use of it or of a view of it."""
    nodes = list(graph.nodes)
    home: dict[Node, Node] = {}  # whose memory a node is in
    for node in nodes:
        schema = getattr(node.target, "_schema", None)
        shares = node.target is operator.getitem or (
            schema is not None and any(result.alias_info is not None for result in schema.returns)
        )
        first = node.args[0] if node.args else None
        home[node] = home.get(first, first) if shares and isinstance(first, Node) else node
    last = {home[used]: i for i, node in enumerate(nodes) for used in node.all_input_nodes}
    held = most = 0
    ends: dict[int, int] = {}
    for i, node in enumerate(nodes):
        if home[node] is node and node.op != "placeholder" and node in last:
            size = node.meta.get("bytes", 0)
            held += size
            ends[last[node]] = ends.get(last[node], 0) + size
        most = max(most, held)
        held -= ends.get(i, 0)
    return most


def _bytes(value: Any) -> int:
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
