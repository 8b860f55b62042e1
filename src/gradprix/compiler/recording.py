"""Recording of a function of one model's tensors as a graph of simple operations."""

import contextlib
import operator
import weakref
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from .ir import UnsupportedError
from .lowering import decomposition

aten = torch.ops.aten
VIEWS_IN_PLACE = {
    aten.transpose_.default: aten.transpose.int,
    aten.t_.default: aten.t.default,
    aten.unsqueeze_.default: aten.unsqueeze.default,
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.squeeze_.dims: aten.squeeze.dims,
}
"""Maps operations that change the shape of a tensor in place to operations that return a view."""
UNSEEN = {
    *(Tensor.numpy, Tensor.tolist, Tensor.data_ptr, Tensor.__array__, Tensor.__dlpack__),
    Tensor.data.__set__,  # type: ignore[attr-defined]
}
"""Methods that read or replace a tensor's memory without an operation that could be recorded."""
RANDOM = torch.Tag.nondeterministic_seeded


@dataclass(frozen=True)
class Draw:
    """Random numbers that a recorded function draws.

    Args:
        function: torch's random operation.
        shape: shape of the result, for one model.
        strides: strides of the result. Operations that fill a tensor assign numbers in the order of its memory.
        dtype: type of the result.
        args: the arguments of the operation, without the tensor that it fills; tensors among them are constants.
        kwargs: its keyword arguments.
    """

    function: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Recording of a function's operations; operations without a lowering are decomposed.

    Args:
        function: takes the tensors of one model, and returns a list of tensors and Nones.
        given: the arguments of the function, which may compute gradients with respect to those that require them.
        fills: operations that fill a tensor with random numbers that depend only on its shape.

    Attributes:
        graph: the operations. Its output is the list of results and the list of the arguments' values at the end.
        given: the arguments.
        constants: other tensors that the function uses; `constant0` in the graph is the first.
        draws: the random numbers that the function draws, in order; each is a placeholder of the graph.
        present: for each result, True if it is a tensor, False if it is None.

    Raises:
        UnsupportedError: if the function uses an operation that row programs do not support.
    """

    def __init__(
        self, function: Callable[..., Sequence[Tensor | None]], given: Sequence[Tensor], fills: Collection[Any] = ()
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph, self.given = Graph(), list(given)
        self.constants: list[Tensor] = []
        self.draws: list[Draw] = []
        self._fills, self._nodes = fills, WeakTensorKeyDictionary()
        self._outside: dict[int, Tensor] = {}  # constants by memory address, kept alive here
        self._rng_state = torch.get_rng_state()
        self._tensors: defaultdict[int, list[weakref.ref[Tensor]]] = defaultdict(list)
        self._decomposing: list[Any] = []
        for i, x in enumerate(given):
            self._set_node(x, self.graph.placeholder(f"given{i}"))
        # Attention as plain operations: torch's fused kernels are opaque.
        with _without_onednn(), sdpa_kernel(SDPBackend.MATH), _WithoutUnseen(), self:
            results = function(*given)
        self._require_known_rng_state()
        self.present = [x is not None for x in results]
        self.graph.output(([None if x is None else self._node(x) for x in results], [self._node(x) for x in given]))

    @property
    def layouts(self) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each argument, random numbers last."""
        return [
            *((tuple(x.shape), x.dtype) for x in self.given),
            *((draw.shape, draw.dtype) for draw in self.draws),
        ]

    def equals(self, other: "Recording") -> bool:
        """Return True if another recording has the same operations, on the same constants."""
        constants = zip(self.constants, other.constants, strict=False)
        return (
            str(self.graph) == str(other.graph)
            and _comparable(self.draws) == _comparable(other.draws)
            and all(x.dtype is y.dtype and torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in constants)
        )

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and record an operation, or the operations of its decomposition."""
        kwargs = kwargs or {}
        if RANDOM in function.tags:
            return self._draw(function, args, kwargs)
        if torch.Tag.data_dependent_output in function.tags or _has_dynamic_shape(function, args):
            if all(self._is_constant(x) for x in tree_leaves(args) if isinstance(x, Tensor)):
                return function(*args, **kwargs)  # a number or another constant
            raise UnsupportedError(f"what depends on numbers of a tensor ({function})")
        if function in VIEWS_IN_PLACE and self._node(args[0]).op == "call_function":
            node = self.graph.call_function(VIEWS_IN_PLACE[function], (self._node(args[0]), *args[1:]), kwargs)
            result = function(*args, **kwargs)
            self._nodes[result], node.meta["dtype"] = node, result.dtype
            node.meta["constant"] = self._is_constant(args[0])
            return result
        if function._schema.is_mutable:
            return self._run_in_place(function, args, kwargs)
        if (simpler := decomposition(function)) is not None:
            result = self._decompose(function, simpler, args, kwargs)
            if result is not NotImplemented:
                return result
        result = function(*args, **kwargs)
        is_new = function is aten.lift_fresh.default  # applies to a new tensor of Python numbers, which may change
        if not is_new and any(result is x for x in args):  # such as a conversion to the dtype that the tensor has
            return result
        node = self.graph.call_function(function, *tree_map_only(Tensor, self._node, (tuple(args), dict(kwargs))))
        node.meta["constant"] = all(each.meta.get("constant") for each in node.all_input_nodes)
        if is_new:
            self._outside.pop(result.untyped_storage().data_ptr(), None)
        if isinstance(result, Tensor):
            self._set_node(result, node)
            node.meta["dtype"] = result.dtype
        elif isinstance(result, list | tuple):
            for i, part in enumerate(result):
                if isinstance(part, Tensor):
                    part_node = self.graph.call_function(operator.getitem, (node, i))
                    part_node.meta |= {"dtype": part.dtype, "constant": node.meta["constant"]}
                    self._set_node(part, part_node)
        return result

    def _draw(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """Run an operation that draws random numbers, and record its result as an argument."""
        others = args[1:] if function in self._fills else args
        leaves = tree_leaves((others, kwargs))
        varies = any(isinstance(x, Tensor) and not self._is_constant(x) for x in leaves)
        if varies or any(isinstance(x, torch.Generator) for x in leaves):
            raise UnsupportedError(f"random numbers that depend on others ({function})")
        self._require_known_rng_state()
        node = self.graph.placeholder(f"draw{len(self.draws)}")
        result: Tensor = function(*args, **kwargs)
        self._rng_state = torch.get_rng_state()
        others, kwargs = tree_map_only(Tensor, Tensor.clone, (tuple(others), kwargs))
        self.draws.append(Draw(function, tuple(result.shape), result.stride(), result.dtype, others, kwargs))
        if function._schema.is_mutable:
            self._replace_node(result, node)
        else:
            self._set_node(result, node)
        return result

    def _require_known_rng_state(self) -> None:
        """Raise `UnsupportedError` if the function has seeded torch's generator or restored an earlier state of it."""
        if not torch.equal(torch.get_rng_state(), self._rng_state):
            raise UnsupportedError("a state of the random number generator that is set")

    def _decompose(
        self, function: Any, simpler: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """Run the decomposition of an operation and record it.

        Returns:
            The result, or NotImplemented if the decomposition has an unsupported operation. This is no error yet,
            because the result may be unused.
        """
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
        """Run an in-place operation and record it as an operation that returns a new tensor.

        The changed tensor gets the node of the new tensor. Other tensors that share elements with the changed tensor
        have no node from then on, since their values change, too.
        """
        x: Tensor = args[0]
        if (out_of_place := out_of_place_version(function)) is None:
            raise UnsupportedError(str(function))
        self._node(x)  # registers a tensor that is unknown so far as a constant
        if x.untyped_storage().data_ptr() in self._outside:
            raise UnsupportedError("a tensor outside the function that is changed")
        with self:
            result = out_of_place(*args, **kwargs).to(x.dtype)
        self._replace_node(x, self._node(result))
        x.copy_(result)
        return x

    def _replace_node(self, x: Tensor, node: Node) -> None:
        """Set the node of a tensor that was changed in place, and remove those of other tensors that overlap it."""
        for reference in self._tensors[x.untyped_storage().data_ptr()]:
            other = reference()
            if other is not None and _overlap(x, other):
                self._nodes[other] = node if _layout(other) == _layout(x) else None

    def _set_node(self, x: Tensor, node: Node) -> None:
        self._nodes[x] = node
        self._tensors[x.untyped_storage().data_ptr()].append(weakref.ref(x))

    def _is_constant(self, x: Tensor) -> bool:
        """Return True if a tensor is computed from constants alone, so that its numbers are the same in every run."""
        return bool(self._node(x).meta.get("constant"))

    def _node(self, x: Tensor) -> Node:
        """Return the node of a tensor.

        Raises:
            UnsupportedError: if the tensor was changed through another tensor that shares elements with it.
        """
        if x not in self._nodes:
            self._set_node(x, self.graph.get_attr(f"constant{len(self.constants)}"))
            self._nodes[x].meta["constant"] = True
            self.constants.append(x.clone())
            self._outside[x.untyped_storage().data_ptr()] = x
        node: Node | None = self._nodes[x]
        if node is None:
            raise UnsupportedError("a tensor that was changed through a view")
        return node


def out_of_place_version(function: Any) -> Any:
    """Return the operation that computes the result of an in-place operation as a new tensor; None if there is none."""
    if function is aten.pow_.Scalar:
        return aten.pow.Tensor_Scalar  # `aten.pow.Scalar` has a number as its base
    name: str = function._schema.name.partition("::")[2]
    packet = getattr(aten, name.removesuffix("_"), None)
    if not name.endswith("_") or function.namespace != "aten" or packet is None:
        return None
    return getattr(packet, function._overloadname, None)


class _WithoutUnseen(TorchFunctionMode):
    """Mode in which the methods in `UNSEEN`, which a recording would miss, raise `UnsupportedError`."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch unless it is in `UNSEEN`."""
        if function in UNSEEN:
            raise UnsupportedError(f"access to the memory of a tensor ({function.__name__})")
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """Temporarily disable oneDNN, so that recurrent layers are recorded step by step and not as one operation."""
    # `torch.backends.mkldnn.flags` also sets options of GPUs, and warns where there is none.
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def _has_dynamic_shape(function: Any, args: Sequence[Any]) -> bool:
    """Return True if the shape of the result depends on the data; for indexing, this is the case for masks."""
    if function in (aten.index.Tensor, aten._unsafe_index.Tensor):
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    return torch.Tag.dynamic_output_shape in function.tags


def _comparable(draws: Sequence[Draw]) -> Any:
    """Return the draws with lists of numbers in place of tensors, which cannot be compared as a whole."""
    fields = [vars(draw) for draw in draws]
    return tree_map_only(Tensor, lambda x: (x.dtype, x.tolist()), fields)


def _layout(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.storage_offset()


def _overlap(x: Tensor, y: Tensor) -> bool:
    """Return True if two tensors with the same storage share elements."""
    if _layout(x) == _layout(y):
        return True
    size = x.untyped_storage().nbytes() // min(x.element_size(), y.element_size())
    taken = torch.zeros(size, dtype=torch.bool)
    taken.as_strided(*_layout(x)).fill_(True)
    return bool(taken.as_strided(*_layout(y)).any())
