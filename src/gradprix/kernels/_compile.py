"""Compilation of generated kernels to machine code, with a cache on disk.

Compilation uses Numba; loading needs LLVM only, so a process whose kernels are cached never imports Numba.
"""

import ctypes
import hashlib
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gradprix.utils.files import cache_folder, write_atomically

from ._hoisting import SplitRule
from ._kernel_source import kernel_source, stage_source

Kernel = Callable[[int], None]
"""C function that takes the address of a job (see `kernel_source`); calls from Python release the GIL."""
PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_int64)
ENTRY = "gradprix_kernel"
CALLED = {"sqrt", "sqrtf"}
"""C functions that a kernel may call. Functions of Python and Numba are not available when a kernel is loaded."""
LOADED: list[Any] = []
"""Execution engines of loaded kernels, which must not be garbage-collected."""


@dataclass(frozen=True)
class KernelSequence:
    """Kernels of a rule with reductions.

    Args:
        stages: kernels that compute numbers before each pass and after the last; None if there is nothing to compute.
        passes: kernels of the passes over the elements.
    """

    stages: tuple[Kernel | None, ...]
    passes: tuple[Kernel, ...]


@cache
def compile_kernel(split_rule: SplitRule, stored: str) -> Kernel | KernelSequence | None:
    """Return the compiled kernel of a split rule.

    Args:
        split_rule: the rule, split under its options.
        stored: dtype of parameters and gradients, see `kernel_source`.

    Returns:
        The kernel, or several kernels for a rule with reductions. None if compilation fails; this is reported by one
        warning.
    """
    try:
        passes = tuple(
            load_kernel(split_rule.rule, kernel_source(split_rule, stored, k)) for k in range(len(split_rule.passes))
        )
        if not split_rule.columns:
            return passes[0]
        last = len(split_rule.passes)
        stages = tuple(
            load_kernel(split_rule.rule, stage_source(split_rule, k))
            if split_rule.stages[k] or (k and split_rule.passes[k - 1].totals) or (k == last and split_rule.held)
            else None
            for k in range(last + 1)
        )
        return KernelSequence(stages, passes)
    except Exception as error:  # any compiler failure: the eager rule still works
        _warn(f"{type(error).__name__}: {error}")
        return None


@cache
def _warn(problem: str) -> None:
    warnings.warn(
        f"gradprix: optimizers run eagerly, which is slower, because Numba failed ({problem.splitlines()[0]}).",
        RuntimeWarning,
        stacklevel=2,
    )


def load_kernel(name: str, text: str) -> Kernel:
    """Return a kernel, compiled from source or loaded from the cache.

    Args:
        name: prefix of the cache file.
        text: source of a Python module that defines `kernel`, as returned by `kernel_source`.
    """
    return _load(_machine_code(name, text, lambda: _compile(text)))


def load_sums(name: str, text: str) -> Kernel | None:
    """Return a kernel that adds numbers, as `load_kernel` does; if it cannot be compiled, warn and return None."""
    try:
        return load_kernel(name, text)
    except Exception as error:  # any compiler failure: the caller adds with torch
        first = str(error).partition("\n")[0]
        message = f"gradprix: sums take longer, because Numba failed ({type(error).__name__}: {first})."
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return None


def load_module(name: str, key: str, write: Callable[[], str]) -> Kernel:
    """Return a kernel from LLVM code that defines it as `gradprix_kernel`, compiled or loaded from the cache.

    Args:
        name: prefix of the cache file.
        key: text that determines the code and identifies the kernel in the cache.
        write: returns the code; called only if the kernel is not in the cache.
    """
    return _load(_machine_code(name, key, lambda: _compile_llvm(write())))


def vector_width() -> int:
    """Return the number of float32 elements in a vector, which determines the order of sums.

    A processor with shorter registers uses several registers for a vector.
    """
    return 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8


def _machine_code(name: str, key: str, compile_code: Callable[[], bytes]) -> bytes:
    """Return the object code of a kernel, from the cache if possible."""
    import llvmlite.binding as llvm

    host = [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    compilers = [version(package) for package in ("numba", "llvmlite")]
    digest = hashlib.sha256("\n".join([*host, *compilers, key]).encode()).hexdigest()
    folder = cache_folder()
    file = None if folder is None else folder / f"{name}_{digest[:24]}.o"
    cached = None if file is None else _read_cached(file)
    if cached is not None:
        return cached
    code = compile_code()
    if file is not None:
        with suppress(OSError):  # full disk: compile for this process only
            write_atomically(file, hashlib.sha256(code).digest() + code)
    return code


def _compile(text: str) -> bytes:
    """Compile the source of a module to object code with one function, `void gradprix_kernel(int64_t job)`."""
    import llvmlite.binding as llvm

    module = types.ModuleType("kernel")
    exec(compile(text, "<kernel>", "exec"), vars(module))
    compiled = module.kernel
    # Numba's entry point handles Python exceptions, which needs Python and Numba. Kernels raise none.
    inner = compiled.native_name.removeprefix("cfunc.")
    entry = f"""
define void @{ENTRY}(i64 %job) {{
  %result = alloca ptr
  %error = alloca ptr
  %status = call i32 @{inner}(ptr %result, ptr %error, i64 %job)
  ret void
}}
"""
    code = llvm.parse_assembly(compiled.inspect_llvm() + entry)
    for function in code.functions:
        if not function.is_declaration and function.name != ENTRY:
            function.linkage = "internal"
    machine = _target_machine(llvm)
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(code, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return _object_code(code, machine)


def _compile_llvm(text: str) -> bytes:
    """Compile LLVM code to object code."""
    import llvmlite.binding as llvm

    code, machine = llvm.parse_assembly(text), _target_machine(llvm)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(code, builder)
    return _object_code(code, machine)


def _object_code(code: Any, machine: Any) -> bytes:
    """Return the object code of a module.

    Raises:
        RuntimeError: if the module calls functions other than those in `CALLED`.
    """
    called = {f.name for f in code.functions if f.is_declaration and not f.name.startswith("llvm.")}
    if called - CALLED:
        raise RuntimeError(f"the kernel calls {', '.join(sorted(called - CALLED))}")
    machine_code: bytes = machine.emit_object(code)
    return machine_code


def _load(machine_code: bytes) -> Kernel:
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine(llvm))
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    LOADED.append(engine)
    return PROTOTYPE(engine.get_function_address(ENTRY))


def _target_machine(llvm: Any) -> Any:
    """Return the LLVM target machine of the host."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True)


def _read_cached(file: Path) -> bytes | None:
    """Return the content of a cache file, or None if it is missing or corrupt."""
    try:
        digest, content = file.read_bytes()[:32], file.read_bytes()[32:]
    except OSError:
        return None
    return content if hashlib.sha256(content).digest() == digest else None
