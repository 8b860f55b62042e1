"""Recording of a function's tensor operations as a graph, and simplification of the graph."""

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
"""Operations that are removed if they return their input with the same shape and strides."""

MASKED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
"""Operations whose output shape depends on the data if an index is a boolean mask."""
INTERNAL_SHAPES = {aten._ctc_loss.default, aten._ctc_loss.Tensor}
"""Operations with an output of data-dependent shape, which is used only in their own backward pass."""
CHECKS = {aten._is_all_true.default, aten._is_any_true.default}
"""Operations that torch's distributions use only to validate arguments."""
NUMBERS = "it reads numbers out of tensors"
SHAPES = "the shape of a tensor depends on the data"


class Recorder(TorchDispatchMode):
    """Dispatch mode that records every operation on tensors.

    Args:
        given: the arguments of the recorded function.
    """

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self.given, self.graph, self.constants = given, Graph(), dict[str, Tensor]()
        self.nodes, self.empty = WeakTensorKeyDictionary(), dict[Node, Tensor]()
        for i, x in enumerate(given):
            self.nodes[x] = self.graph.placeholder(f"given{i}")
            self.nodes[x].meta |= {"layout": _layout(x), "varies": True}

    def record(self, function: Any) -> None:
        """Record a call of a function, which takes the given tensors and returns a list of tensors and Nones."""
        with self:
            results = function(*self.given)
        self.graph.output([None if x is None else self._node(x) for x in results])
        for node, x in self.empty.items():
            if not _is_written(node):  # C++ code fills the tensor without an operation, as for lists of numbers
                name = f"filled{len(self.constants)}"
                self.constants[name] = x
                with self.graph.inserting_before(node):
                    node.replace_all_uses_with(self.graph.get_attr(name))
                self.graph.erase_node(node)

    def equals(self, other: "Recorder") -> bool:
        """Return True if another recorder holds the same operations on the same constants."""
        if str(self.graph) != str(other.graph):
            return False
        # Some operations use only the shape of an empty tensor that is never written.
        names = [name for name in self.constants if not name.startswith("filled")]
        return all(_equal(self.constants[name], other.constants[name]) for name in names)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # no dynamo frames exist here; skipping dynamo would import it, which takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and record an operation."""
        kwargs = kwargs or {}
        self._refuse_data_dependence(function, args)
        if (replacement := ordered(function, args, kwargs.get("dtype"))) is not None:
            with self:
                return replacement(*args, **kwargs)
        if rounds_twice(function, args, kwargs):
            return compute_evenly(self._run, function, args, kwargs)
        return self._run(function, args, kwargs)

    def _run(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        result = function(*args, **kwargs)
        node = self.graph.call_function(function, *tree_map_only(Tensor, self._node, (tuple(args), kwargs)))
        node.meta["bytes"] = _bytes(result)
        node.meta["varies"] = any(each.meta.get("varies") for each in node.all_input_nodes)
        if isinstance(result, Tensor):
            self.nodes[result], node.meta["layout"] = node, _layout(result)
            if function is aten.empty.memory_format:
                self.empty[node] = result
        elif isinstance(result, list | tuple):
            node.meta["parts"] = len(result)
            for i, part in enumerate(result):
                if isinstance(part, Tensor):
                    self.nodes[part] = self.graph.call_function(operator.getitem, (node, i))
                    self.nodes[part].meta["varies"] = node.meta["varies"]
        return result

    def _refuse_data_dependence(self, function: Any, args: Any) -> None:
        """Raise `ValueError` if the shape or Python value that an operation returns depends on the data of a row."""
        masks = function in MASKED and any(isinstance(x, Tensor) and x.dtype is torch.bool for x in args[1])
        shapes = masks or (torch.Tag.dynamic_output_shape in function.tags and function not in MASKED | INTERNAL_SHAPES)
        if not shapes and torch.Tag.data_dependent_output not in function.tags:
            return
        inputs = [self.nodes[x] for x in args if isinstance(x, Tensor) and x in self.nodes]
        if any(node.meta.get("varies") and node.target not in CHECKS for node in inputs):
            raise ValueError(SHAPES if shapes else NUMBERS)

    def _node(self, x: Tensor) -> Node:
        if x not in self.nodes:  # a constant of the model, shared by all rows
            name = f"constant{len(self.constants)}"
            self.constants[name] = x
            self.nodes[x] = self.graph.get_attr(name)
        node: Node = self.nodes[x]
        return node


def simplify(graph: Graph) -> bool:
    """Simplify a graph in place: remove operations without effect and draw random numbers for each row separately.

    Returns:
        True if the graph draws random numbers. Its last argument is then their source.
    """
    draws = []
    for node in reversed(list(graph.nodes)):  # in reverse, since the last addition contains all terms of a sum
        if node.target is aten.add.Tensor and (joined := _join_disjoint_gradients(node)):
            with graph.inserting_before(node):
                node.replace_all_uses_with(concatenation := graph.call_function(*joined))
            concatenation.meta = node.meta
    for node in list(graph.nodes):
        if node.target in VIEWS and node.meta["layout"] == node.args[0].meta.get("layout"):
            node.replace_all_uses_with(node.args[0])
        elif isinstance(node.target, torch._ops.OpOverload) and TAG in node.target.tags:
            draws.append(node)
    if draws:
        last_input = [node for node in graph.nodes if node.op == "placeholder"][-1]
        with graph.inserting_after(last_input):
            noise = graph.placeholder("noise")
        for node in draws:
            with graph.inserting_before(node):
                drawn = graph.call_method("draw", (noise, node.target, *node.args), dict(node.kwargs))
            drawn.meta = node.meta
            node.replace_all_uses_with(drawn)
            graph.erase_node(node)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.is_impure() or node.op == "call_method")
    return bool(draws)


def _join_disjoint_gradients(node: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """Return the concatenation that is equivalent to a sum of zero-padded gradients.

    If a model splits a tensor, for example into queries, keys and values, torch pads the gradient of each part with
    zeros and adds up the padded tensors.

    Returns:
        The function and arguments of the concatenation; None if the node is not such a sum.
    """
    parts: list[Any] = []
    sums = [node]
    while sums:
        for term in sums.pop().args:
            if not isinstance(term, Node):
                return None
            is_unshared = len(term.users) == 1
            (sums if is_unshared and term.target is aten.add.Tensor and len(term.args) == 2 else parts).append(term)
    kinds = {part.target for part in parts}
    if kinds == {aten.select_backward.default}:
        order = sorted(parts, key=lambda part: part.args[3])
        _, sizes, dim, _ = order[0].args
        is_complete = [part.args[3] for part in order] == [*range(sizes[dim])]
        join = aten.stack.default
    elif kinds == {aten.slice_backward.default}:
        order = sorted(parts, key=lambda part: part.args[3])
        _, sizes, dim, *_ = order[0].args
        ends = [0, *(min(part.args[4], sizes[dim]) for part in order)]
        is_complete = ends[:-1] == [part.args[3] for part in order] and ends[-1] == sizes[dim]
        is_complete = is_complete and all(part.args[5] == 1 for part in order)
        join = aten.cat.default
    else:
        return None
    same_dim = all(part.args[1:3] == (sizes, dim) for part in order)
    return (join, ([part.args[0] for part in order], dim)) if is_complete and same_dim else None


def peak(graph: Graph) -> int:
    """Return the peak memory in bytes if each tensor is freed after the last use of it or of a view of it."""
    nodes = list(graph.nodes)
    storage: dict[Node, Node] = {}  # the node that owns a node's memory
    for node in nodes:
        schema = getattr(node.target, "_schema", None)
        is_view = node.target is operator.getitem or (
            schema is not None and any(result.alias_info is not None for result in schema.returns)
        )
        first = node.args[0] if node.args else None
        storage[node] = storage.get(first, first) if is_view and isinstance(first, Node) else node
    last_use = {storage[used]: i for i, node in enumerate(nodes) for used in node.all_input_nodes}
    allocated = peak_bytes = 0
    freed: dict[int, int] = {}
    for i, node in enumerate(nodes):
        if storage[node] is node and node.op != "placeholder" and node in last_use:
            size = node.meta.get("bytes", 0)
            allocated += size
            freed[last_use[node]] = freed.get(last_use[node], 0) + size
        peak_bytes = max(peak_bytes, allocated)
        allocated -= freed.get(i, 0)
    return peak_bytes


def _is_written(node: Node) -> bool:
    """Return True if an operation writes into the tensor of a node, or into a view of that tensor."""
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
