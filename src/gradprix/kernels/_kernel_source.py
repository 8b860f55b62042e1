"""Source code of fused kernels: one pass over the elements of many tensors, generated from the tree of a rule.

A kernel does the arithmetic of the eager rule in the same order and with the same rounding (no contraction into fused
multiply-adds, no reassociation), so its results equal those of the eager rule bitwise, except for square roots: a
kernel's are correctly rounded, whereas torch's come from MKL on some processors and are not always correctly rounded.
"""

import platform
from pathlib import Path

from gradprix.rules.ir import Call, Choice, Hyper, Name, Node, Number, Reduction

from ._hoisting import SplitRule

COMPARISONS = {"<", "<=", ">", ">=", "==", "!="}
PRODUCTS: dict[float, str] = {2: "({0} * {0})", 3: "({0} * {0} * {0})"}
"""Powers that torch computes as products."""
PARTS = Path(__file__).with_name("_numba_runtime.py")
REDUCTION_PARTS = Path(__file__).with_name("_numba_reductions.py")


def kernel_source(split_rule: SplitRule, stored: str, k: int = 0) -> str:
    """Return the source of a module whose `kernel` Numba compiles to a C function `void kernel(int64_t job)`.

    `job` is the address of five 64-bit integers: the next chunk, the number of chunks, and the addresses of
    chunks `[chunks, 4]`, pointers `[tensors, arrays]` and constants `[rows, constants]`. A chunk is (tensor, start,
    length, row): a range of elements of a tensor, and the row of its constants; the pointers of a tensor are the
    addresses of parameter, gradient, state and (for bfloat16) compensation. A call processes chunks until none are
    left, so any number of threads may call it concurrently with the same job.

    For a rule with reductions, there are three more: the addresses of numbers `[tensors, columns]`, of the first block
    of each tensor, and of sums `[blocks, totals]`, see `sum_in_blocks`.

    Args:
        split_rule: the rule, split under its options.
        stored: dtype of parameters and gradients: `"float32"`, `"float64"` or `"bfloat16"`. With bfloat16, the state is
            float32.
        k: index of the pass.
    """
    half = stored == "bfloat16"
    wide = "float32" if half else stored
    totals = split_rule.passes[k].totals
    arguments = ", ".join([*(f"{name}_all" for name in _arrays(split_rule, half)), *_numbers(split_rule)])
    lines = [
        f"F = np.{wide}",
        f"at_wide = pointer_to(types.{wide})",
        "at_half = pointer_to(types.uint16)",
        "at_long = pointer_to(types.int64)",
        "at_double = pointer_to(types.float64)",
        *([f"scratch = doubles_on_stack(BLOCK * {len(totals)})"] if totals else []),
        "",
        "",
        '@njit(error_model="numpy")',
        f"def chunk({arguments}{', terms' if totals else ''}):",
        "    for i in range(x_all.size):",
        *(f"        {line}" for line in _body(split_rule, half, k)),
        "",
        "",
        *_kernel(split_rule, stored, k, arguments),
    ]
    header = f'"""Made by gradprix from the rule {split_rule.rule}, for {stored}."""\n'
    parts = [PARTS.read_text("utf-8"), *([REDUCTION_PARTS.read_text("utf-8")] if totals else [])]
    return "\n".join([header, *parts, "", *lines, ""])


def _arrays(split_rule: SplitRule, half: bool) -> list[str]:
    """Return the names of the arrays of a tensor, in the order of their pointers."""
    return ["x", "g", *split_rule.tensors] + ["low"] * half


def _numbers(split_rule: SplitRule) -> tuple[str, ...]:
    """Return the names of the numbers that elementwise code uses."""
    return split_rule.constants + split_rule.columns


def _kernel(split_rule: SplitRule, stored: str, k: int, arguments: str) -> list[str]:
    """Return the source lines of the kernel of a pass, which calls `chunk` with the given arguments."""
    half, columns, totals = stored == "bfloat16", split_rule.columns, split_rule.passes[k].totals
    arrays = _arrays(split_rule, half)
    narrow = {"x", "g", "low"} if half else set()
    lines = [
        '@cfunc("void(int64)", error_model="numpy")',
        "def kernel(job_at):",
        f"    job = carray(at_long(job_at), {8 if columns else 5})",
        "    count, chunks = job[1], at_long(job[2])",
        "    pointers, constants = at_long(job[3]), at_double(job[4])",
        *(["    numbers, first_blocks = at_double(job[5]), at_long(job[6])"] if columns else []),
        *(["    terms = scratch()"] if totals else []),
    ]
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
    lines += ["    before = control()", "    set_control(np.uint32(before | FLUSH))"] * x86
    lines += [
        "    while True:",
        "        j = take(job_at)",
        "        if j >= count:",
        "            break",
        "        n, s, size, r = chunks[4 * j], chunks[4 * j + 1], chunks[4 * j + 2], chunks[4 * j + 3]",
    ]
    open_arrays = []
    for i, name in enumerate(arrays):
        at, width = ("at_half", 2) if name in narrow else ("at_wide", 8 if stored == "float64" else 4)
        open_arrays.append(f"{name}_all = carray({at}(pointers[{len(arrays)} * n + {i}] + {width} * s), size)")
    width = len(split_rule.constants)
    prepare = [f"{name} = F(constants[{width} * r + {i}])" for i, name in enumerate(split_rule.constants)]
    prepare += [f"{name} = F(numbers[{len(columns)} * n + {i}])" for i, name in enumerate(columns)]
    if totals:  # block by block
        step = [*open_arrays, f"at_sums = job[7] + {8 * len(split_rule.totals)} * (first_blocks[n] + s // BLOCK)"]
        step += ["sums = at_double(at_sums)", f"chunk({arguments}, terms)"]  # which is inlined only if it is small
        columns_of_totals = map(split_rule.totals.index, totals)
        step += [f"sums[{column}] = sum_block(terms, BLOCK * {i}, size)" for i, column in enumerate(columns_of_totals)]
        step += ["s += BLOCK"]
        loop = ["stop = s + size", "while s < stop:", "    size = min(BLOCK, stop - s)"]
        lines += [f"        {line}" for line in [*prepare, *loop, *(f"    {line}" for line in step)]]
    else:
        lines += [f"        {line}" for line in [*open_arrays, *prepare, f"chunk({arguments})"]]
    return lines + ["    set_control(before)"] * x86


def _body(split_rule: SplitRule, half: bool, k: int) -> list[str]:
    """Return the loop body of a pass: load, compute and store one element."""
    lines = ["x_ = x_all[i]", "g_ = g_all[i]"]
    if half:
        # A residual above half an ulp is stale: the parameter was overwritten.
        lines = ["x_, low_, g_ = up(x_all[i]), up(low_all[i]), up(g_all[i])"]
        lines.append("x_ = x_ + low_ if abs(low_) <= abs(x_) * F(0.00390625) else x_")
    lines += [f"{name}_ = {name}_all[i]" for name in split_rule.tensors]
    numbers = {*_numbers(split_rule)}
    lines += [f"{name}_ = {number_source(value, numbers)}" for name, value in split_rule.passes[k].elements]
    terms = enumerate(split_rule.passes[k].totals)
    lines += [f"terms[BLOCK * {i} + i] = np.float64({total.name}_)" for i, total in terms]
    if k < len(split_rule.passes) - 1:
        return lines
    changed = {name for name, _ in split_rule.elements}  # state such as the initial parameter may never change
    lines += [f"{name}_all[i] = {name}_" for name in split_rule.tensors if name in changed]
    if half:
        # The parameter is stored as the sum of two bfloat16 numbers; the model uses the first.
        return [*lines, "x_all[i] = down(x_)", "low_all[i] = down(x_ - up(x_all[i]))"]
    return [*lines, "x_all[i] = x_"]


def stage_source(split_rule: SplitRule, k: int) -> str:
    """Return the source of a module whose `kernel` computes the numbers of tensors before pass `k`.

    `job` is the address of eight 64-bit integers: the first and the last group to process, the latter excluded, and the
    addresses of the first tensor of each group, the row of each tensor, constants, numbers, first blocks and sums; see
    `kernel_source`. The tensors of a group are adjacent.

    Args:
        split_rule: the rule, split under its options.
        k: index of the stage; the last one also updates the scalar state.
    """
    totals, columns = split_rule.passes[k - 1].totals if k else (), split_rule.columns
    width, place = len(columns), {name: i for i, name in enumerate(columns)}
    names = {*split_rule.constants, *columns}
    assignments = [f"{name} = {number_source(value, names)}" for name, value in split_rule.stages[k]]
    stores = [(name, name) for name, _ in split_rule.stages[k]]
    stores += split_rule.held.values() if k == len(split_rule.passes) else ()
    computed = {name for name, _ in split_rule.stages[k]}
    lines = [
        "F = np.float64",
        "at_long = pointer_to(types.int64)",
        "at_double = pointer_to(types.float64)",
        "",
        "",
        '@cfunc("void(int64)", error_model="numpy")',
        "def kernel(job_at):",
        "    job = carray(at_long(job_at), 8)",
        "    first_tensors, rows = at_long(job[2]), at_long(job[3])",
        "    constants, numbers = at_double(job[4]), at_double(job[5])",
        "    first_blocks, sums = at_long(job[6]), at_double(job[7])",
        "    for group in range(job[0], job[1]):",
        "        first, stop = first_tensors[group], first_tensors[group + 1]",
    ]
    for total in totals:
        i, place_of_total = split_rule.totals.index(total), f"numbers[{width} * n + {place[total.name]}]"
        blocks = f"sums, {len(split_rule.totals)}, {i}, first_blocks[n], first_blocks[n + 1]"
        lines += ["        for n in range(first, stop):", f"            {place_of_total} = sum_blocks({blocks})"]
        if total.over == "group":
            lines += ["        whole = 0.0", "        for n in range(first, stop):"]
            lines += [f"            whole += {place_of_total}", "        for n in range(first, stop):"]
            lines += [f"            {place_of_total} = whole"]
    body = ["r = rows[n]"]
    body += [
        f"{name} = constants[{len(split_rule.constants)} * r + {i}]" for i, name in enumerate(split_rule.constants)
    ]
    body += [f"{name} = numbers[{width} * n + {i}]" for name, i in place.items() if name not in computed]
    body += [*assignments, *(f"numbers[{width} * n + {place[name]}] = F({value})" for name, value in stores)]
    lines += ["        for n in range(first, stop):", *(f"            {line}" for line in body)]
    header = f'"""Made by gradprix from the rule {split_rule.rule}: stage {k} of its numbers."""\n'
    return "\n".join([header, PARTS.read_text("utf-8"), REDUCTION_PARTS.read_text("utf-8"), "", *lines, ""])


def number_source(node: Node, constants: set[str]) -> str:
    """Return a node as source code for Numba, with all numbers of one type."""

    def write(node: Node) -> str:
        match node:
            case Number(value):
                return f"F({value!r})"
            case Name(name):
                return name if name in constants else f"{name}_"
            case Call("**", (base, Number(exponent))) if exponent in PRODUCTS:
                return PRODUCTS[exponent].format(write(base))
            case Call("where", (condition, yes, no)):
                test = write(condition)
                if not (isinstance(condition, Call) and condition.function in COMPARISONS):
                    test = f"({test} != F(0))"
                return f"({write(yes)} if {test} else {write(no)})"
            case Call("clip", (value, low, high)):
                return write(Call("minimum", (Call("maximum", (value, low)), high)))
            case Call("maximum" | "minimum" as function, (left, right)):
                a, b = write(left), write(right)
                sign = ">=" if function == "maximum" else "<="
                return f"({a} if ({a} {sign} {b}) | ({a} != {a}) else {b})"  # propagates NaN, as in torch
            case Call("sign", (value,)):
                return f"(F({write(value)} > F(0)) - F({write(value)} < F(0)))"
            case Call("abs", (value,)):
                return f"abs({write(value)})"
            case Call("sqrt", (value,)):
                return f"math.sqrt({write(value)})"
            case Call("neg", (value,)):
                return f"(-{write(value)})"
            case Call(operator, (left, right)):
                return f"({write(left)} {operator} {write(right)})"
            case Hyper() | Choice() | Call() | Reduction():
                raise ValueError(f"{node} is not of one element: fold and split the rule first")

    return write(node)
