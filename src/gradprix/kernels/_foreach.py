"""Steps as a sequence of `torch._foreach_*` calls over many tensors, on any device.

Few calls are made however many tensors there are, and temporaries are bounded: tensors are processed in slices, and
large tensors in pieces.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from gradprix.rules.codegen import compile_function
from gradprix.rules.ops import FUNCTIONS

from ._eager import add_compensation
from ._foreach_code import ForeachCode
from ._hoisting import SplitRule
from ._launch import compute_dtype

TEMPORARY_BYTES = 64 * 2**20
"""Most memory of all temporaries of a step, unless the largest tensor takes more."""
COMPENSATED = 6
"""Number of temporaries while the rounding error is added to a half-precision parameter."""

Tensors = Sequence[Tensor]
LISTS = (list, tuple)
"""Types of lists of tensors; torch's functions return tuples."""
OPERATORS: dict[str, Callable[..., Any]] = {
    **{"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow},
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq},
    **{"!=": operator.ne, "neg": operator.neg},
}


@dataclass(frozen=True)
class ForeachFunction:
    """Elementwise part of a rule as a function that updates lists of tensors.

    Args:
        step: `step(x, g, *element_state, *constants)` updates parameters and state in place. The first arguments are
            lists of tensors of one dtype, constants are numbers or tensors without dimensions.
        temporaries: largest number of temporary lists that exist at the same time.
    """

    step: Callable[..., None]
    temporaries: int


@cache
def compile_foreach(split_rule: SplitRule, overwrite_gradients: bool = False) -> ForeachFunction:
    """Return the elementwise part of a rule as a function on lists of tensors.

    Args:
        split_rule: the rule, split under its options.
        overwrite_gradients: True if the lists of gradients are copies, which the function may overwrite.
    """
    code = ForeachCode(split_rule, overwrite_gradients)
    arguments = ("x", "g", *split_rule.tensors, *split_rule.constants)
    step = compile_function(f"{split_rule.rule}_foreach", arguments, [*code.lines, "return None"], CALLS)
    return ForeachFunction(step, code.temporaries)


class ForeachCall:
    """Reusable step of a set of tensors that have the same constants.

    Args:
        split_rule: the rule, split under its options.
        params: parameters of one floating-point dtype and device, updated in place.
        state: for each element state of the rule, the tensors of all parameters, in the dtype of computation.
        compensation: for half precision, the rounding error of each parameter, in the dtype of the parameter.
    """

    def __init__(
        self,
        split_rule: SplitRule,
        params: Tensors,
        state: Sequence[Tensors],
        compensation: Tensors | None = None,
    ) -> None:
        self.dtype = compute_dtype(params[0].dtype)
        function = compile_foreach(split_rule, overwrite_gradients=compensation is not None)
        self.function = function.step
        temporaries = function.temporaries
        if compensation is not None:  # the parameters and gradients of a slice are converted as well
            temporaries = max(temporaries + 2, COMPENSATED)
        largest = max(x.numel() for x in params)
        budget = max(TEMPORARY_BYTES // self.dtype.itemsize, largest)
        self.limit = max(1, budget // max(1, temporaries))
        columns = [
            self._pieces(column) for column in (params, *state, *([] if compensation is None else [compensation]))
        ]
        self.ranges = _ranges([x.numel() for x in columns[0]], self.limit)
        self.slices = [[column[part] for column in columns] for part in self.ranges]
        self.step = self._step_directly if compensation is None else self._step_in_full_precision

    def run(self, gradients: Tensors, constants: Sequence[Any]) -> None:
        """Step every tensor once.

        Args:
            gradients: gradients, of the shapes and dtype of the parameters; not modified.
            constants: constants of the rule, numbers or tensors without dimensions on the device of the parameters.
        """
        pieces = self._pieces(gradients)
        for part, stored in zip(self.ranges, self.slices, strict=True):
            self.step(pieces[part], stored, constants)

    def _pieces(self, tensors: Tensors) -> list[Tensor]:
        return [piece for tensor in tensors if tensor.numel() for piece in _cut(tensor, self.limit)]

    def _step_directly(self, gradients: list[Tensor], stored: list[list[Tensor]], constants: Sequence[Any]) -> None:
        params, *state = stored
        self.function(params, gradients, *state, *constants)

    def _step_in_full_precision(
        self, gradients: list[Tensor], stored: list[list[Tensor]], constants: Sequence[Any]
    ) -> None:
        params, *state, compensation = stored
        full, views = _convert(params, self.dtype)
        full.copy_(add_compensation(full, _convert(compensation, self.dtype)[0], params[0].dtype))
        self.function(views, _convert(gradients, self.dtype)[1], *state, *constants)
        torch._foreach_copy_(params, views)
        torch._foreach_sub_(views, _convert(params, self.dtype)[1])
        torch._foreach_copy_(compensation, views)


def _cut(tensor: Tensor, limit: int) -> Iterable[Tensor]:
    """Yield views of a tensor that have at most `limit` elements each; they depend on its shape alone."""
    if tensor.numel() <= limit:
        yield tensor
        return
    dim = next(dim for dim, size in enumerate(tensor.shape) if size > 1)
    count = -(-tensor.numel() // limit)
    for part in torch.split(tensor, max(1, tensor.shape[dim] // count), dim):
        yield from _cut(part, limit)


def _ranges(sizes: Sequence[int], limit: int) -> list[slice]:
    """Divide a list of tensors into ranges with at most `limit` elements in total, given the size of each tensor."""
    starts, total = list[int](), limit
    for i, size in enumerate(sizes):
        if total + size > limit:
            starts.append(i)
            total = 0
        total += size
    return [slice(start, stop) for start, stop in pairwise([*starts, len(sizes)])]


def _convert(tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Copy tensors to another dtype; return the flat tensor that holds all copies, and the copies as views of it."""
    sizes = [tensor.numel() for tensor in tensors]
    flat = torch.empty(sum(sizes), dtype=dtype, device=tensors[0].device)
    views = [part.view(tensor.shape) for part, tensor in zip(torch.split(flat, sizes), tensors, strict=True)]
    torch._foreach_copy_(views, list(tensors))
    return flat, views


def each(function: str, *operands: Any) -> list[Tensor]:
    """Apply a function of the rule language to one tensor after the other.

    Args:
        function: operator or function, by its name in trees.
        *operands: lists of tensors, and scalars.
    """
    apply = FUNCTIONS.get(function) or OPERATORS[function]
    count = next(len(operand) for operand in operands if isinstance(operand, LISTS))
    return [apply(*(o[i] if isinstance(o, LISTS) else o for o in operands)) for i in range(count)]


def choose(condition: Any, yes: Any, no: Any, owned: bool) -> Tensors:
    """Return one of two lists by a scalar condition.

    Args:
        condition: number, or tensor without dimensions.
        yes: list of tensors, or a scalar.
        no: list of tensors, or a scalar, not both.
        owned: True if the result may be one of the lists themselves, False if it must be a copy.
    """
    if isinstance(condition, Tensor):
        return each("where", condition, yes, no)
    chosen, other = (yes, no) if condition else (no, yes)
    if not isinstance(chosen, LISTS):
        return [torch.zeros_like(tensor).add_(chosen) for tensor in other]
    return chosen if owned else clone(chosen)


def clone(tensors: Tensors) -> Tensors:
    """Return copies of tensors; torch 2.6 has no foreach function for this."""
    return torch._foreach_clone(list(tensors)) if hasattr(torch, "_foreach_clone") else [x.clone() for x in tensors]


def _with_alpha(function: Callable[..., Any], other: Callable[..., Any], alpha: int) -> Callable[..., Any]:
    """Return a function that calls `function(a, b, alpha=alpha)` if `b` is a tensor, and otherwise `other(a, b)`.

    Without `alpha`, torch would read the value of the tensor, for which a step has to wait.
    """
    return lambda a, b: function(a, b, alpha=alpha) if isinstance(b, Tensor) else other(a, b)


def _with_lists(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a list and a list or scalar, which need not be a number but may be a tensor."""
    return lambda a, b: function(a, [b] * len(a) if isinstance(b, Tensor) else b)


CALLS: dict[str, Any] = {
    "add": _with_alpha(torch._foreach_add, torch._foreach_add, 1),
    "add_": _with_alpha(torch._foreach_add_, torch._foreach_add_, 1),
    "sub": _with_alpha(torch._foreach_add, torch._foreach_sub, -1),
    "sub_": _with_alpha(torch._foreach_add_, torch._foreach_sub_, -1),
    **{"mul": torch._foreach_mul, "mul_": torch._foreach_mul_, "div": torch._foreach_div, "div_": torch._foreach_div_},
    **{"neg": torch._foreach_neg, "neg_": torch._foreach_neg_, "abs": torch._foreach_abs, "abs_": torch._foreach_abs_},
    **{"sqrt": torch._foreach_sqrt, "sqrt_": torch._foreach_sqrt_},
    **{"sign": torch._foreach_sign, "sign_": torch._foreach_sign_},
    **{"pow": _with_lists(torch._foreach_pow), "pow_": _with_lists(torch._foreach_pow_)},
    "maximum": _with_lists(torch._foreach_clamp_min),
    "maximum_": _with_lists(torch._foreach_clamp_min_),
    "minimum": _with_lists(torch._foreach_clamp_max),
    "minimum_": _with_lists(torch._foreach_clamp_max_),
    **{"copy_": torch._foreach_copy_, "clone": clone, "each": each, "choose": choose},
}
"""Functions that generated code calls."""
