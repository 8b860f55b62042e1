"""Machine code of row programs: a function for each distinct instruction, and one that calls them for each row."""

import ctypes
import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor

from gradprix.kernels import load_module, vector_width

from .builder import DTYPES
from .elements import Places
from .emitter import LONG, POINTER, SIZES, TYPES, Emitter
from .ir import (
    Buffer,
    CheckIndex,
    Instruction,
    Multiply,
    Node,
    Program,
    Reduce,
    ScatterAdd,
    Store,
    View,
    reads,
    writes,
)
from .loop_order import normalize
from .loops import emit_check, emit_scatter_add, emit_store
from .matmul import Product
from .memory import ALIGN, allocate
from .reduction_loops import emit_reduce

TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}
HEADER = 5
"""Number of 64-bit words of a job before its table of buffers: the first row, the end of the range of rows, and the
addresses of scratch memory, status and cycle counters."""
Kernels = dict[Any, ir.Function]
"""Maps the key of an instruction (see `_Call`) to its function."""
ENTRY = 3
"""Number of words of a buffer in the table: its address, the bytes of a row, and the address of the rows' indices."""


class CompiledProgram:
    """A program in machine code; several threads may run it at the same time.

    Args:
        program: the instructions.
        timed: count the processor cycles of each instruction in `cycles`.

    Attributes:
        tables: the buffers in the table of a job: arguments, results and constants.
        scratch_bytes: size of the memory for intermediate values; all rows use the same memory.
        kernel: function that runs the job at an address.

    Raises:
        RuntimeError: if this processor lacks an instruction that the program needs.
    """

    def __init__(self, program: Program, timed: bool = False) -> None:
        self.program, self.width = program, vector_width()
        self.cycles = torch.zeros(len(program.instructions) * timed, dtype=torch.int64)
        self._offsets, self.scratch_bytes = allocate(program)
        self.tables = [*program.inputs, *program.outputs, *(buffer for buffer, _ in program.constants)]
        self._calls = [_Call(normalize(instruction)) for instruction in program.instructions]
        self.kernel = load_module("row_program", self._key(), self._module)

    @property
    def result_bytes(self) -> int:
        """Size in bytes of the program's outputs for one row, that is, for one of the stacked models."""
        return sum(buffer.size * SIZES[buffer.dtype] for buffer in self.program.outputs)

    def __call__(self, inputs: Sequence[Tensor], places: Sequence[Tensor | None], rows: int) -> list[Tensor]:
        """Run the program for each row of stacked, contiguous tensors and return the stacked results.

        Args:
            inputs: the arguments.
            places: for each argument, the index of each row's tensor, `[rows]`; None if row i uses the tensor at i.
            rows: number of rows.

        Raises:
            IndexError: if an index is out of range. The results of other rows, and arguments that the program changes
                in place, are valid nevertheless.
        """
        job = Job(self, inputs, places, rows)
        if rows:
            self.kernel(job.address)
        job.raise_error()
        return job.outputs

    def _key(self) -> str:
        """Return a text that determines the machine code: the compiler's sources, the calls and their buffers."""
        place: dict[Buffer, tuple[str, int]] = {buffer: ("table", i) for i, buffer in enumerate(self.tables)}
        place |= {buffer: ("scratch", offset) for buffer, offset in self._offsets.items()}
        calls = [call.place(place) for call in self._calls]
        return "\n".join([_sources(), str(self.width), str(len(self.tables)), str(len(self.cycles)), *map(repr, calls)])

    def _module(self) -> str:
        module = ir.Module("row_program")
        module.triple = ""
        kernels: Kernels = {}
        main = ir.Function(module, ir.FunctionType(ir.VoidType(), [LONG]), "gradprix_kernel")
        e = Emitter(main, self.width)
        job = e.b.inttoptr(main.args[0], POINTER)
        words = [e.load(job, i, LONG) for i in range(HEADER + ENTRY * len(self.tables))]
        scratch, status, cycles = (e.b.inttoptr(word, POINTER) for word in words[2:HEADER])
        table = [words[i : i + ENTRY] for i in range(HEADER, len(words), ENTRY)]
        with e.loop(words[0], words[1]) as row:
            address: dict[Buffer, Any] = {}
            for buffer, (start, step, index) in zip(self.tables, table, strict=True):
                place = e.load(e.b.inttoptr(index, POINTER), row, LONG)
                address[buffer] = e.b.inttoptr(e.b.add(start, e.b.mul(place, step)), POINTER)
            for buffer, offset in self._offsets.items():
                address[buffer] = e.address(scratch, offset, ir.IntType(8))
            for i, call in enumerate(self._calls):
                before = e.cycles() if len(self.cycles) else None
                call.emit_call(e, kernels, address, status)
                if before is not None:
                    spent = e.b.sub(e.cycles(), before)
                    e.store(e.b.add(e.load(cycles, i, LONG), spent), cycles, i, LONG)
        e.close()
        return str(module)


class Job:
    """A call of a program, with the memory that it uses.

    Args:
        program: the program.
        inputs: stacked, contiguous arguments.
        places: for each argument, the index of each row's tensor, `[rows]`; None if row i uses the tensor at i.
        rows: number of rows.
        transient: indices of results that are needed only until the next row runs; all rows write them to the same
            memory.

    Attributes:
        outputs: the results, stacked except for transient ones, which have one row.
        address: address of the job's words. The first two words are the first row and the end of the range of rows.
    """

    def __init__(
        self,
        program: CompiledProgram,
        inputs: Sequence[Tensor],
        places: Sequence[Tensor | None],
        rows: int,
        transient: Collection[int] = (),
    ) -> None:
        buffers, constants = program.program.outputs, [x for _, x in program.program.constants]
        self.outputs = [
            torch.empty((1 if i in transient else rows, *shape), dtype=TORCH_DTYPES[buffer.dtype])
            for i, (buffer, shape) in enumerate(zip(buffers, program.program.output_shapes, strict=True))
        ]
        self._status = ctypes.c_int64(0)
        in_order, scratch = torch.arange(rows), torch.empty(program.scratch_bytes + ALIGN, dtype=torch.uint8)
        start = -(-scratch.data_ptr() // ALIGN) * ALIGN
        words = [0, rows, start, ctypes.addressof(self._status), program.cycles.data_ptr()]
        shared = {*constants, *(x for i, x in enumerate(self.outputs) if i in transient)}
        for buffer, x, index in zip_longest(program.tables, [*inputs, *self.outputs, *constants], places):
            step = 0 if x in shared else buffer.size * SIZES[buffer.dtype]
            words += [x.data_ptr(), step, (in_order if index is None else index).data_ptr()]
        self._words = (ctypes.c_int64 * len(words))(*words)
        self._used, self._count = [*inputs, *places, *constants, in_order, scratch], len(inputs)
        self.address = ctypes.addressof(self._words)

    def replace_input(self, i: int, x: Tensor, place: Tensor | None) -> None:
        """Replace an argument by a tensor of the same shape.

        Args:
            i: index of the argument.
            x: the new tensor, contiguous.
            place: the index of each row's tensor; unchanged when None.
        """
        word = HEADER + ENTRY * i
        self._words[word], self._used[i] = x.data_ptr(), x
        if place is not None:
            self._words[word + 2], self._used[self._count + i] = place.data_ptr(), place

    def raise_error(self) -> None:
        """Raise `IndexError` if an index was out of range."""
        if self._status.value:
            raise IndexError("an index is out of range")


@cache
def _sources() -> str:
    """Return a hash of this package's source files, which determine the generated code."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class _Call:
    """Call of the function that executes an instruction.

    Instructions with equal keys differ only in the location of their buffers, and share a function.
    """

    def __init__(self, instruction: Instruction) -> None:
        self.instruction = instruction
        self.views = list(dict.fromkeys([*writes(instruction), *reads(instruction)]))
        self.starts: dict[Buffer, int] = {}
        for view in self.views:
            if view.buffer is not None:
                self.starts.setdefault(view.buffer, view.offset)
        self.numbers = {buffer: i for i, buffer in enumerate(self.starts)}
        self.key = self._key(instruction)

    def _key(self, x: Any) -> Any:
        match x:
            case View(buffer, shape, strides, offset):
                if buffer is None:
                    return "positions", shape, strides, offset
                return self.numbers[buffer], buffer.dtype, shape, strides, offset - self.starts[buffer]
            case Node():
                return x.op, x.dtype, repr(x.number), self._key(x.view), *map(self._key, x.args)
            case Store() | Reduce() | Multiply() | ScatterAdd() | CheckIndex():
                return type(x).__name__, *map(self._key, vars(x).values())
        return x

    def place(self, places: Mapping[Buffer, Any]) -> Any:
        """Return the key of the function and the location of each buffer, which determine the call."""
        return self.key, [(places[buffer], start) for buffer, start in self.starts.items()]

    def emit_call(self, e: Emitter, kernels: Kernels, address: Mapping[Buffer, Any], status: Any) -> None:
        """Emit the call, and the function unless `kernels` contains one with the same key."""
        if self.key not in kernels:
            kernels[self.key] = self._emit_function(e.function.module, f"kernel{len(kernels)}", e.width)
        args = [
            e.address(address[buffer], start, TYPES[buffer.dtype]) if start else address[buffer]
            for buffer, start in self.starts.items()
        ]
        e.b.call(kernels[self.key], [*args, status])

    def _emit_function(self, module: ir.Module, name: str, width: int) -> ir.Function:
        kind = ir.FunctionType(ir.VoidType(), [POINTER] * (len(self.starts) + 1))
        function = ir.Function(module, kind, name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        for arg in function.args:
            arg.add_attribute("noalias")
        e = Emitter(function, width)
        places: Places = {
            view: (function.args[self.numbers[view.buffer]], view.offset - self.starts[view.buffer])
            for view in self.views
            if view.buffer is not None
        }
        x = self.instruction
        match x:
            case Store():
                emit_store(e, x, places)
            case Reduce():
                emit_reduce(e, x, places)
            case ScatterAdd():
                emit_scatter_add(e, x, places)
            case CheckIndex():
                emit_check(e, x, places, function.args[-1])
            case Multiply(out, left, right):
                a, b, c = (
                    e.address(base, start, TYPES["float32"])
                    for base, start in (places[view] for view in (left, right, out))
                )
                Product.from_instruction(x).emit(e, a, b, c)
        e.close()
        return function
