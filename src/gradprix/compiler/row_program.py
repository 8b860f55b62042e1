"""Recording and compilation of a function of one model's tensors as a row program."""

import contextlib
import operator
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from . import convolution, elementwise, indexing, pooling, reductions, views
from .assembly import CompiledProgram
from .builder import Builder
from .elements import FUNCTIONS
from .ir import Program, UnsupportedError, Value
from .lowering import decomposition, lower

aten = torch.ops.aten
LOWERINGS = convolution, elementwise, indexing, pooling, reductions, views
"""Modules that register their lowerings when they are imported."""
LONGEST = 2_000
"""Most instructions of a program, since code for more takes too long to make."""
LARGEST, CHEAP = 24, 1
"""Most operations of an expression that is not stored: with one user, and with several, which compute it again."""
VIEWS_IN_PLACE = {
    aten.transpose_.default: aten.transpose.int,
    aten.t_.default: aten.t.default,
    aten.unsqueeze_.default: aten.unsqueeze.default,
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.squeeze_.dims: aten.squeeze.dims,
}
"""Operations that change the shape of a tensor, not its elements, with those that return a view."""
RANDOM = torch.Tag.nondeterministic_seeded


class _Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that records operations, decomposed as far as they have no lowering."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph, self.nodes = Graph(), WeakTensorKeyDictionary()
        self.constants: list[Tensor] = []
        self._tensors: defaultdict[int, list[weakref.ref[Tensor]]] = defaultdict(list)
        self._decomposing: list[Any] = []
        for i, x in enumerate(given):
            self._set_node(x, self.graph.placeholder(f"given{i}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and record an operation, or the simpler ones that it consists of."""
        kwargs = kwargs or {}
        if RANDOM in function.tags:
            raise UnsupportedError(f"random numbers ({function})")
        if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(function.tags):
            raise UnsupportedError(f"what depends on numbers of a tensor ({function})")
        if function in VIEWS_IN_PLACE and self._node(args[0]).op == "call_function":
            node = self.graph.call_function(VIEWS_IN_PLACE[function], (self._node(args[0]), *args[1:]), kwargs)
            result = function(*args, **kwargs)
            self.nodes[result], node.meta["dtype"] = node, result.dtype
            return result
        if function._schema.is_mutable:
            return self._run_in_place(function, args, kwargs)
        if (simpler := decomposition(function)) is not None:
            result = self._decompose(function, simpler, args, kwargs)
            if result is not NotImplemented:
                return result
        result = function(*args, **kwargs)
        node = self.graph.call_function(function, *tree_map_only(Tensor, self._node, (tuple(args), dict(kwargs))))
        if isinstance(result, Tensor):
            self._set_node(result, node)
            node.meta["dtype"] = result.dtype
        elif isinstance(result, list | tuple):
            for i, part in enumerate(result):
                if isinstance(part, Tensor):
                    self._set_node(part, self.graph.call_function(operator.getitem, (node, i)))
        return result

    def _decompose(
        self, function: Any, simpler: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """Run and record simpler operations; NotImplemented if they cannot be recorded: the result may be unused."""
        if function in self._decomposing:
            raise UnsupportedError(str(function))
        self._decomposing.append(function)
        try:
            with self:
                return simpler(*args, **kwargs)
        except UnsupportedError:
            return NotImplemented
        finally:
            self._decomposing.pop()

    def _run_in_place(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """Run an operation in place, recorded as one that returns a new tensor, which takes the tensor's place.

        Other tensors that share memory with it have no node from now on, for their values change too.
        """
        name: str = function._schema.name.partition("::")[2]
        x: Tensor = args[0]
        packet = getattr(aten, name.removesuffix("_"), None)
        if (
            not name.endswith("_")
            or function.namespace != "aten"
            or packet is None
            or not hasattr(packet, function._overloadname)
        ):
            raise UnsupportedError(str(function))
        if self._node(x).op == "get_attr":
            raise UnsupportedError("a tensor outside the function that is changed")
        with self:
            result = getattr(packet, function._overloadname)(*args, **kwargs).to(x.dtype)
        node = self._node(result)
        storage = x.untyped_storage()
        for reference in self._tensors[storage.data_ptr()]:
            other = reference()
            if other is not None and _overlap(x, other):
                self.nodes[other] = node if _layout(other) == _layout(x) else None
        x.copy_(result)
        return x

    def _set_node(self, x: Tensor, node: Node) -> None:
        self.nodes[x] = node
        self._tensors[x.untyped_storage().data_ptr()].append(weakref.ref(x))

    def _node(self, x: Tensor) -> Node:
        """Return the node of a tensor.

        Raises:
            UnsupportedError: if an operation in place on a part of it, or on what it is a part of, has changed it.
        """
        if x not in self.nodes:
            self._set_node(x, self.graph.get_attr(f"constant{len(self.constants)}"))
            self.constants.append(x.clone())
        node: Node | None = self.nodes[x]
        if node is None:
            raise UnsupportedError("a tensor that was changed through a view")
        return node


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """Let torch compute recurrent layers step by step, so that they are recorded so, and not as a whole."""
    # `torch.backends.mkldnn.flags` also sets options of GPUs, and warns where there is none.
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def _layout(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.storage_offset()


def _overlap(x: Tensor, y: Tensor) -> bool:
    """Return True if two tensors on one storage share elements."""
    if _layout(x) == _layout(y):
        return True
    size = x.untyped_storage().nbytes() // min(x.element_size(), y.element_size())
    taken = torch.zeros(size, dtype=torch.bool)
    taken.as_strided(*_layout(x)).fill_(True)
    return bool(taken.as_strided(*_layout(y)).any())


class RowFunction:
    """A function of one model's tensors in machine code, applied to each row of stacked tensors.

    Args:
        function: takes the tensors of one row, and returns a list of tensors and Nones.
        given: tensors of the shapes of a row; the recorded function differentiates by those that require gradients.
        timed: count the processor cycles of each instruction.

    Raises:
        UnsupportedError: if the function uses an operation that row programs do not have.
    """

    def __init__(
        self, function: Callable[..., Sequence[Tensor | None]], given: Sequence[Tensor], timed: bool = False
    ) -> None:
        mode = _Recording(given)
        # Attention as plain operations: torch's fused kernels are opaque.
        with _without_onednn(), sdpa_kernel(SDPBackend.MATH), mode:
            results = function(*given)
        self._present = [x is not None for x in results]
        self._layouts = [(x.shape, x.dtype) for x in given]
        after = [mode._node(x) for x in given]
        self._changed = [node.op != "placeholder" for node in after]
        mode.graph.output(([None if x is None else mode._node(x) for x in results], after))
        _share_equal_nodes(mode.graph)
        self.program = CompiledProgram(_lowered(mode, given), timed)

    def __call__(self, *args: Tensor) -> list[Tensor | None]:
        """Return the stacked results for stacked arguments, which the function may change in place.

        Raises:
            IndexError: if an index is out of range.
            ValueError: if the arguments are not stacks of tensors like those that were recorded.
        """
        rows = len(args[0])
        for x, (shape, dtype) in zip(args, self._layouts, strict=True):
            if x.shape != (rows, *shape) or x.dtype is not dtype:
                raise ValueError(f"an argument is {x.dtype} {list(x.shape)}, not {dtype} {[rows, *shape]}.")
        contiguous = [x.contiguous() for x in args]
        results = iter(self.program(contiguous))
        for x, copy, changed in zip(args, contiguous, self._changed, strict=True):
            if changed and copy is not x:
                x.copy_(copy)
        return [next(results) if present else None for present in self._present]

    def peak(self, rows: int) -> int:
        """Return the bytes that a call takes besides its arguments."""
        return self.program.scratch_bytes + rows * self.program.result_bytes


def _lowered(mode: _Recording, given: Sequence[Tensor]) -> Program:
    builder = Builder()
    values: dict[Node, Any] = {}
    arguments: list[Node] = []
    for node in mode.graph.nodes:
        if node.op == "placeholder":
            x = given[len(arguments)]
            values[node] = builder.input(tuple(x.shape), x.dtype)
            arguments.append(node)
        elif node.op == "get_attr":
            values[node] = builder.constant(mode.constants[int(node.target.removeprefix("constant"))])
        elif node.op == "output":
            results, after = node.args[0]
            changed = [(values[x], values[y]) for x, y in zip(arguments, after, strict=True) if x is not y]
            copies = [(x.view, builder.copy(y)) for x, y in changed]  # they may be other arguments that change
            for x in results:
                if x is not None:
                    builder.output(values[x])
            for view, copy in copies:
                builder.store(view, copy)
        else:
            args, kwargs = tree_map_only(Node, values.__getitem__, (node.args, node.kwargs))
            result = lower(builder, node.target, args, kwargs, node.meta.get("dtype"))
            if isinstance(result, Value) and result.view is None and _is_worth_storing(result, len(node.users)):
                builder.compute(result)
            values[node] = result
    if len(builder.program.instructions) > LONGEST:
        raise UnsupportedError(f"{len(builder.program.instructions)} instructions")
    return builder.program


def _is_worth_storing(x: Value, users: int) -> bool:
    size = x.node.size
    return size > LARGEST or (users > 1 and (size > CHEAP or x.node.op in FUNCTIONS))


def _share_equal_nodes(graph: Graph) -> None:
    """Let equal operations on equal arguments be computed once, and remove unused ones: none has side effects."""
    known: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            first = known.setdefault(f"{node.target} {node.args} {node.kwargs}", node)
            if first is not node:
                node.replace_all_uses_with(first)
    graph.eliminate_dead_code()
