"""Compilation of a recorded function of one model's tensors as a row program."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.utils._pytree import tree_map_only

from gradprix.kernels import kernel_address

from . import concatenation, convolution, elementwise, lookup, normalization, pooling, reductions, resampling, views
from .assembly import CompiledProgram, Job
from .builder import Builder
from .elements import FUNCTIONS
from .ir import Program, UnsupportedError, Value
from .lowering import lower
from .recording import Recording

LOWERINGS = concatenation, convolution, elementwise, lookup, normalization, pooling, reductions, resampling, views
"""Modules that register their lowerings when they are imported."""
MAX_INSTRUCTIONS = 2_000
"""Maximum number of instructions of a program; compilation of more takes too long."""
MAX_OPERATIONS, MAX_SHARED_OPERATIONS = 24, 1
"""Maximum number of operations of an expression that is not stored: with one user, and with several users, each of
which computes the expression again."""


@dataclass(frozen=True)
class IndexedRows:
    """A stack of tensors many of whose rows are equal, such as the batches of models that share a seed.

    Args:
        distinct: the distinct rows, `[distinct, ...]`.
        index: for each row of the stack, the index of its tensor in `distinct`.
    """

    distinct: Tensor
    index: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the stack, `[rows, ...]`."""
        return len(self.index), *self.distinct.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        """The type of the elements."""
        return self.distinct.dtype

    @property
    def device(self) -> torch.device:
        """The device of the distinct rows."""
        return self.distinct.device

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> Tensor:
        """Return a copy of a row, which may be changed without changing equal ones."""
        return self.distinct[int(self.index[row])].clone()

    def expanded(self) -> Tensor:
        """Return the stack as a tensor, with a copy for each row."""
        return self.distinct[self.index]


class RowFunction:
    """A function of one model's tensors in machine code, applied to each row of stacked tensors.

    Args:
        recording: the function.
        timed: count the processor cycles of each instruction.

    Attributes:
        draws: the random numbers that each row draws; they are the function's last arguments.
        layouts: shape and type of each argument of a row.
        changed: for each argument, True if the function changes it in place.
        present: for each result, True if it is a tensor, False if it is None.

    Raises:
        UnsupportedError: if the function uses an operation that row programs do not support.
    """

    def __init__(self, recording: Recording, timed: bool = False) -> None:
        self.draws = recording.draws
        self.present = recording.present
        self.layouts = recording.layouts
        arguments, (_, after) = _arguments(recording.graph), _output(recording.graph)
        self.changed = [x is not y for x, y in zip(arguments, after, strict=False)] + [False] * len(self.draws)
        _share_equal_nodes(recording.graph)
        self.program = CompiledProgram(_lowered(recording), timed)

    def __call__(self, *args: Tensor | IndexedRows) -> list[Tensor | None]:
        """Return the stacked results for stacked arguments, whose tensors the function may change in place.

        Raises:
            IndexError: if an index is out of range.
            ValueError: if the arguments are not stacks of tensors like those that were recorded.
        """
        call = RowCall(self, args)
        if call.rows:
            self.program.kernel(call.job.address)
        return call.finish()

    def peak(self, rows: int) -> int:
        """Return the memory of a call in bytes, including its random numbers but not its other arguments."""
        draws = sum(prod(draw.shape) * draw.dtype.itemsize for draw in self.draws)
        return self.program.scratch_bytes + rows * (self.program.result_bytes + draws)


class RowCall:
    """A prepared call of a row function, whose kernel may run for one row at a time, with other work in between.

    Args:
        function: the function.
        args: its arguments.
        transient: indices of results that are needed only until the next row runs; all rows write them to the same
            memory.

    Attributes:
        function: the function.
        rows: number of rows.
        kernel_address: address of the kernel that runs rows of the job.
        job: the call of the program.
        results: the results.
    """

    def __init__(
        self, function: RowFunction, args: Sequence[Tensor | IndexedRows], transient: Collection[int] = ()
    ) -> None:
        self.function, self.rows = function, len(args[0])
        inputs: list[Tensor] = []
        places: list[Tensor | None] = []
        self._copies: list[tuple[Tensor, Tensor]] = []
        for x, (shape, dtype), changed in zip(args, function.layouts, function.changed, strict=True):
            if x.shape != (self.rows, *shape) or x.dtype is not dtype:
                raise ValueError(f"an argument is {x.dtype} {list(x.shape)}, not {dtype} {[self.rows, *shape]}.")
            if isinstance(x, IndexedRows) and not changed:
                inputs.append(x.distinct.contiguous())
                places.append(x.index)
                continue
            stacked = x.expanded() if isinstance(x, IndexedRows) else x  # rows change their own copies
            inputs.append(stacked.contiguous())
            places.append(None)
            if changed and inputs[-1] is not stacked:
                self._copies.append((stacked, inputs[-1]))
        present = [i for i, is_present in enumerate(function.present) if is_present]
        reused = [number for number, i in enumerate(present) if i in transient]
        self.job = Job(function.program, inputs, places, self.rows, reused)
        self.kernel_address = kernel_address(function.program.kernel)
        outputs = iter(self.job.outputs)
        self.results = [next(outputs) if present else None for present in function.present]

    def replace_last(self, args: Sequence[IndexedRows]) -> None:
        """Replace the last arguments by others of the same shapes; the function must not change them in place."""
        first = len(self.function.layouts) - len(args)
        for i, x in enumerate(args, start=first):
            self.job.replace_input(i, x.distinct.contiguous(), x.index)

    def finish(self) -> list[Tensor | None]:
        """Return the results after all rows have run.

        Raises:
            IndexError: if an index was out of range.
        """
        self.job.raise_error()
        for x, copy in self._copies:
            x.copy_(copy)
        return self.results


def _arguments(graph: Graph) -> list[Node]:
    """Return the nodes of the arguments, random numbers last."""
    return [node for node in graph.nodes if node.op == "placeholder"]


def _output(graph: Graph) -> tuple[list[Node | None], list[Node]]:
    """Return the nodes of the results and of the arguments' values at the end."""
    ((results, after),) = next(node.args for node in graph.nodes if node.op == "output")
    return results, after


def _lowered(recording: Recording) -> Program:
    builder, graph = Builder(), recording.graph
    arguments = _arguments(graph)
    values: dict[Node, Any] = {
        node: builder.input(shape, dtype) for node, (shape, dtype) in zip(arguments, recording.layouts, strict=True)
    }
    for node in graph.nodes:
        if node.op == "get_attr":
            values[node] = builder.constant(recording.constants[int(node.target.removeprefix("constant"))])
        elif node.op == "call_function":
            args, kwargs = tree_map_only(Node, values.__getitem__, (node.args, node.kwargs))
            result = lower(builder, node.target, args, kwargs, node.meta.get("dtype"))
            if isinstance(result, Value) and result.view is None and _is_worth_storing(result, len(node.users)):
                builder.compute(result)
            values[node] = result
    results, after = _output(graph)
    changed = [(values[x], values[y]) for x, y in zip(arguments, after, strict=False) if x is not y]
    copies = [(x.view, builder.copy(y)) for x, y in changed]  # copied first, since y may be another changed argument
    for x in results:
        if x is not None:
            builder.output(values[x])
    for view, copy in copies:
        builder.store(view, copy)
    if len(builder.program.instructions) > MAX_INSTRUCTIONS:
        raise UnsupportedError(f"{len(builder.program.instructions)} instructions")
    return builder.program


def _is_worth_storing(x: Value, users: int) -> bool:
    """Return True if an expression is large, or if it has several users and is expensive to compute again."""
    size = x.node.size
    return size > MAX_OPERATIONS or (users > 1 and (size > MAX_SHARED_OPERATIONS or x.node.op in FUNCTIONS))


def _share_equal_nodes(graph: Graph) -> None:
    """Merge equal operations on equal arguments and remove unused operations; no operation has side effects."""
    known: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            first = known.setdefault(f"{node.target} {node.args} {node.kwargs}", node)
            if first is not node:
                node.replace_all_uses_with(first)
    graph.eliminate_dead_code()
