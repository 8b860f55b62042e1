"""Outputs of a model over several evaluation batches, combined into one output for the metric.

A model may return any nest of tuples, dictionaries and dataclasses. Its leaves are combined one by one:

* tensors whose first dimension is the batch, or the same multiple of it in every batch, are concatenated;
* a value that is equal in every batch (`None`, a string, a constant) is kept;
* other numbers (0-d tensors, floats, integers) become their mean, weighted by the examples of each batch;
* everything else (hidden states `[layers, batch, features]`, caches) is withheld: using it raises an error.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

CONSTANTS = (type(None), bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device, torch.Size)
"""Leaves that are no tensors and that a metric may use."""


@dataclass(frozen=True)
class Output:
    """The output of one model for one batch.

    Args:
        leaves: its tensors and other values.
        build: returns the output with other leaves in their places.
    """

    leaves: list[Any]
    build: Callable[[Sequence[Any]], Any]

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the parts of an output: of tuples, lists, dictionaries, dataclasses and what torch's pytree knows."""
        tops, spec = tree_flatten(value)
        leaves: list[Any] = []
        nested: list[tuple[type, int, Callable[[Sequence[Any]], Any]] | None] = []  # no tensor: programs keep it
        for top in tops:
            if (named := _fields(top)) is None:
                leaves.append(top)
                nested.append(None)
            else:
                inner = cls.of(named)
                leaves += inner.leaves
                nested.append((type(top), len(inner.leaves), inner.build))

        def build(parts: Sequence[Any]) -> Any:
            rest = iter(parts)
            tops = []
            for each in nested:
                if each is None:
                    tops.append(next(rest))
                else:
                    of_type, count, build_inner = each
                    tops.append(_with_fields(of_type, build_inner([next(rest) for _ in range(count)])))
            return tree_unflatten(tops, spec)

        return cls(leaves, build)

    def usable(self) -> Self:
        """Return the output with its tensors detached and everything withheld that batches do not have in common."""
        return type(self)([_usable(leaf) for leaf in self.leaves], self.build)


@dataclass(frozen=True)
class Combined:
    """The outputs of one model for several batches as one output.

    Args:
        leaves: concatenated tensors, kept and averaged values.
        build: returns the output with other leaves in their places.
        examples: the number of examples.
        per_example: for each leaf whether it is concatenated.
    """

    leaves: list[Any]
    build: Callable[[Sequence[Any]], Any]
    examples: int
    per_example: list[bool]

    @property
    def whole(self) -> Any:
        """The output for all examples."""
        return self.build(self.leaves)

    def part(self, examples: slice) -> Any:
        """The output for some of the examples; means over batches are withheld."""
        chosen = []
        for leaf, per_example in zip(self.leaves, self.per_example, strict=True):
            if per_example:
                leaf = leaf.unflatten(0, (self.examples, -1))[examples].flatten(0, 1)
            elif isinstance(leaf, Tensor | float):
                leaf = Withheld("a value of whole batches cannot be had for some of their examples.")
            chosen.append(leaf)
        return self.build(chosen)


def combine(outputs: Sequence[Output], sizes: Sequence[int]) -> Combined:
    """Combine the outputs of evaluation batches.

    Args:
        outputs: of each batch.
        sizes: the number of examples of each batch.
    """
    leaves: list[Any] = []
    per_example: list[bool] = []
    for parts in zip(*(output.leaves for output in outputs), strict=True):
        per_example.append(_is_per_example(parts, sizes))
        leaves.append(torch.cat(parts) if per_example[-1] else _combined(parts, sizes))
    return Combined(leaves, outputs[0].build, sum(sizes), per_example)


class Withheld:
    """A part of a model's output that a metric cannot use; using it raises a TypeError that says why.

    Args:
        why: what the error says.
    """

    def __init__(self, why: str) -> None:
        self.__dict__["why"] = why

    def refuse(self, *_: Any, **__: Any) -> Any:
        """Raise the error."""
        raise TypeError(self.__dict__["why"])

    __array__ = __bool__ = __call__ = __contains__ = __float__ = __getattr__ = __getitem__ = __int__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = refuse
    __iter__ = __len__ = __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __abs__ = __pow__ = __matmul__ = refuse
    __eq__ = __ne__ = __torch_function__ = refuse
    __hash__ = object.__hash__


def _usable(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
        return leaf.detach()
    if isinstance(leaf, (*CONSTANTS, Withheld)):
        return leaf
    kind = f"{leaf.layout} tensor" if isinstance(leaf, Tensor) else type(leaf).__name__
    return Withheld(
        f"the model's output has a {kind}, of which batches cannot be put together: return tensors [batch, ...] in a "
        "tuple, a dictionary or a dataclass."
    )


def _is_per_example(parts: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Whether all parts are tensors with as many entries for each example, of the same shape and dtype."""
    if not all(isinstance(x, Tensor) and x.dim() > 0 for x in parts):
        return False
    shapes = {(len(x) / size, x.shape[1:], x.dtype) for x, size in zip(parts, sizes, strict=True)}
    return len(shapes) == 1 and len(parts[0]) > 0 and len(parts[0]) % sizes[0] == 0


def _combined(parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    if all(_equal(parts[0], part) for part in parts[1:]):
        return parts[0]
    if all(isinstance(x, int | float) or (isinstance(x, Tensor) and x.dim() == 0) for x in parts):
        values = torch.stack([torch.as_tensor(x, dtype=torch.float64) for x in parts])
        return values @ torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    if not all(isinstance(x, Tensor) for x in parts):
        return Withheld("the model's output has a value that differs from batch to batch and is no number.")
    shapes = list(dict.fromkeys(f"{tuple(x.shape)} for {size}" for x, size in zip(parts, sizes, strict=True)))
    return Withheld(
        f"the model's output has a tensor of the shape {' and '.join(shapes[:2])} examples, so that batches cannot be "
        "put together: its first dimension must be the batch."
    )


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, Withheld):
        return isinstance(second, Withheld)
    return type(first) is type(second) and bool(first == second)


def _fields(value: Any) -> dict[str, Any] | None:
    """The named parts of what torch's pytree does not open: dataclasses, namespaces and dictionaries of other types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    if isinstance(value, dict):
        return dict(value)
    return vars(value) if isinstance(value, SimpleNamespace) else None


def _with_fields(of_type: Any, values: dict[str, Any]) -> Any:
    made = of_type.__new__(of_type)
    items = next((each for each in (OrderedDict, dict) if issubclass(of_type, each)), None)
    for name, value in values.items():
        if items is None or is_dataclass(of_type):
            object.__setattr__(made, name, value)
        if items is not None and not (is_dataclass(of_type) and value is None):  # as transformers' outputs leave it out
            items.__setitem__(made, name, value)
    return made
