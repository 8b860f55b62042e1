"""Writes the operations of a function down as a graph, and makes the graph short."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from .elementwise import compute_evenly, rounds_twice
from .reductions import ordered
from .rng import TAG

aten = torch.ops.aten
VIEWS = {aten.detach.default, aten.alias.default, aten.view.default, aten._unsafe_view.default, aten.permute.default}
VIEWS |= {aten.expand.default, aten.squeeze.dims, aten.slice.Tensor}
"""What may come to nothing: to the tensor that it was given, with the same shape and strides."""

MASKED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
"""Operations that depend on what is in their indices if these are masks."""
FREE = {aten._ctc_loss.default, aten._ctc_loss.Tensor}
"""Operations with an output whose shape depends on the data, which only their own backward takes."""
CHECKS = {aten._is_all_true.default, aten._is_any_true.default}
"""What torch's distributions read to refuse arguments: nothing else comes of it."""
NUMBERS = "it reads numbers out of tensors"
SHAPES = "the shape of a tensor depends on the data"


class Recorder(TorchDispatchMode):
    """Writes down every operation on tensors.

    Args:
        given: what the recorded function is called with.
    """

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self.given, self.graph, self.constants = given, Graph(), dict[str, Tensor]()
        self.nodes, self.empty = WeakTensorKeyDictionary(), dict[Node, Tensor]()
        for i, x in enumerate(given):
            self.nodes[x] = self.graph.placeholder(f"given{i}")
            self.nodes[x].meta |= {"layout": _layout(x), "varies": True}

    def record(self, function: Any) -> None:
        """Run a function of the given tensors, which returns a list of tensors and Nones."""
        with self:
            found = function(*self.given)
        self.graph.output([None if x is None else self._node(x) for x in found])
        for node, x in self.empty.items():
            if not _is_written(node):  # but by C++ itself, as lists of numbers are
                name = f"filled{len(self.constants)}"
                self.constants[name] = x
                with self.graph.inserting_before(node):
                    node.replace_all_uses_with(self.graph.get_attr(name))
                self.graph.erase_node(node)

    def equals(self, other: "Recorder") -> bool:
        """Return whether another recorder has written down the same operations on the same constants."""
        if str(self.graph) != str(other.graph):
            return False
        # Of an empty tensor that nothing is written into, some operations take the shape alone.
        names = [name for name in self.constants if not name.startswith("filled")]
        return all(_equal(self.constants[name], other.constants[name]) for name in names)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what there is nothing of: to skip the compiler, torch would import it, which takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and write it down."""
        kwargs = kwargs or {}
        self._look(function, args)
        if (ours := ordered(function, args, kwargs.get("dtype"))) is not None:
            with self:
                return ours(*args, **kwargs)
        if rounds_twice(function, args, kwargs):
            return compute_evenly(self._run, function, args, kwargs)
        return self._run(function, args, kwargs)

    def _run(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        found = function(*args, **kwargs)
        node = self.graph.call_function(function, *tree_map_only(Tensor, self._node, (tuple(args), kwargs)))
        node.meta["bytes"] = _bytes(found)
        node.meta["varies"] = any(each.meta.get("varies") for each in node.all_input_nodes)
        if isinstance(found, Tensor):
            self.nodes[found], node.meta["layout"] = node, _layout(found)
            if function is aten.empty.memory_format:
                self.empty[node] = found
        elif isinstance(found, list | tuple):
            node.meta["parts"] = len(found)
            for i, part in enumerate(found):
                if isinstance(part, Tensor):
                    self.nodes[part] = self.graph.call_function(operator.getitem, (node, i))
                    self.nodes[part].meta["varies"] = node.meta["varies"]
        return found

    def _look(self, function: Any, args: Any) -> None:
        """Refuse what is not the same operation whatever the numbers are, which `vmap` refuses by itself."""
        masks = function in MASKED and any(isinstance(x, Tensor) and x.dtype is torch.bool for x in args[1])
        shapes = masks or (torch.Tag.dynamic_output_shape in function.tags and function not in MASKED | FREE)
        if not shapes and torch.Tag.data_dependent_output not in function.tags:
            return
        known = [self.nodes[x] for x in args if isinstance(x, Tensor) and x in self.nodes]
        if any(node.meta.get("varies") and node.target not in CHECKS for node in known):
            raise ValueError(SHAPES if shapes else NUMBERS)

    def _node(self, x: Tensor) -> Node:
        if x not in self.nodes:  # the model's own, and the same for all networks
            name = f"constant{len(self.constants)}"
            self.constants[name] = x
            self.nodes[x] = self.graph.get_attr(name)
        node: Node = self.nodes[x]
        return node


def tidy(graph: Graph) -> bool:
    """Take out what does nothing, and have random numbers drawn by row; returns whether there are any."""
    draws = []
    for node in reversed(list(graph.nodes)):  # the last of a sum has all of it
        if node.target is aten.add.Tensor and (found := _parts_of_one(node)):
            with graph.inserting_before(node):
                node.replace_all_uses_with(whole := graph.call_function(*found))
            whole.meta = node.meta
    for node in list(graph.nodes):
        if node.target in VIEWS and node.meta["layout"] == node.args[0].meta.get("layout"):
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


def peak(graph: Graph) -> int:
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


def _is_written(node: Node) -> bool:
    """Return whether an operation writes into a tensor or into a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is not None and (
            schema.is_mutable or (any(r.alias_info for r in schema.returns) and _is_written(user))
        ):
            return True
    return False


def _equal(x: Tensor, y: Tensor) -> bool:
    return x is y or (x.dtype is y.dtype and x.shape == y.shape and torch.allclose(x, y, 0, 0, equal_nan=True))


def _layout(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.storage_offset()


def _bytes(value: Any) -> int:
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
