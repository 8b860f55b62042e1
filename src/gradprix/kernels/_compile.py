"""Compiles generated kernels to machine code, and keeps that on disk for the next process.

Numba compiles; loading needs LLVM alone, so that a process which finds its kernels on disk never imports Numba.
"""

import ctypes
import hashlib
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gradprix.utils.files import cache_folder, write_atomically

from ._hoisting import Split
from ._kernel_source import kernel_source

Kernel = Callable[[int], None]
"""A C function of the address of a job (see `kernel_source`); called from Python, it lets other threads run."""
PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_int64)
ENTRY = "gradprix_kernel"
CALLED = {"sqrt", "sqrtf"}
"""What a kernel may call of the C library: all else, above all Python and Numba, would be missing when it is loaded."""
LOADED: list[Any] = []
"""What holds the machine code of loaded kernels, for as long as the process lives."""


@cache
def kernel(split: Split, stored: str) -> Kernel | None:
    """The compiled kernel of a split rule, or None, with one warning, where compiling does not work."""
    try:
        return loaded(split.rule, kernel_source(split, stored))
    except Exception as error:  # whatever is wrong with a compiler, the eager rule is right
        _warn(f"{type(error).__name__}: {error}")
        return None


@cache
def _warn(problem: str) -> None:
    warnings.warn(
        f"gradprix: optimizers run eagerly, which is slower, because Numba failed ({problem.splitlines()[0]}).",
        RuntimeWarning,
        stacklevel=2,
    )


def loaded(name: str, text: str) -> Kernel:
    """Compile a kernel's source, or load what is kept on disk of it.

    Args:
        name: of the file that keeps it.
        text: a Python module that defines `kernel`, as `kernel_source` writes it.
    """
    return _loaded(_machine_code(name, text))


def _machine_code(name: str, text: str) -> bytes:
    """An object file, from disk where it is kept."""
    import llvmlite.binding as llvm

    made_for = [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    made_by = [version(package) for package in ("numba", "llvmlite")]
    digest = hashlib.sha256("\n".join([*made_for, *made_by, text]).encode()).hexdigest()
    folder = cache_folder()
    file = None if folder is None else folder / f"{name}_{digest[:24]}.o"
    kept = None if file is None else _read(file)
    if kept is not None:
        return kept
    made = _compiled(text)
    if file is not None:
        with suppress(OSError):  # a full disk: it is compiled for this process alone
            write_atomically(file, hashlib.sha256(made).digest() + made)
    return made


def _compiled(text: str) -> bytes:
    """An object file with one function, `void gradprix_kernel(int64_t job)`, from the source of a kernel."""
    import llvmlite.binding as llvm

    module = types.ModuleType("kernel")
    exec(compile(text, "<kernel>", "exec"), vars(module))
    made = module.kernel
    # Numba's own entry reports Python exceptions, and needs Python and Numba for it. A kernel raises none.
    inside = made.native_name.removeprefix("cfunc.")
    entry = f"""
define void @{ENTRY}(i64 %job) {{
  %result = alloca ptr
  %error = alloca ptr
  %status = call i32 @{inside}(ptr %result, ptr %error, i64 %job)
  ret void
}}
"""
    code = llvm.parse_assembly(made.inspect_llvm() + entry)
    for function in code.functions:
        if not function.is_declaration and function.name != ENTRY:
            function.linkage = "internal"
    machine = _machine(llvm)
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(code, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    needed = {f.name for f in code.functions if f.is_declaration and not f.name.startswith("llvm.")}
    if needed - CALLED:
        raise RuntimeError(f"the kernel calls {', '.join(sorted(needed - CALLED))}")
    machine_code: bytes = machine.emit_object(code)
    return machine_code


def _loaded(machine_code: bytes) -> Kernel:
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(llvm))
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    LOADED.append(engine)
    return PROTOTYPE(engine.get_function_address(ENTRY))


def _machine(llvm: Any) -> Any:
    """This machine, as LLVM's target."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True)


def _read(file: Path) -> bytes | None:
    """What a file keeps, or None if it is missing or not what was written."""
    try:
        digest, kept = file.read_bytes()[:32], file.read_bytes()[32:]
    except OSError:
        return None
    return kept if hashlib.sha256(kept).digest() == digest else None
