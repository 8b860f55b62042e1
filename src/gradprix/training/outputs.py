"""Outputs of a model over several evaluation batches, combined into one output for the metric.

A model may return any nested structure of tuples, dictionaries and dataclasses. Its leaves are combined one by one:

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
"""Non-tensor leaves that a metric may use."""


@dataclass(frozen=True)
class Output:
    """Output of one model for one batch.

    Args:
        leaves: its tensors and other values.
        build: rebuilds the output from other leaves.
    """

    leaves: list[Any]
    build: Callable[[Sequence[Any]], Any]

    @classmethod
    def from_value(cls, value: Any) -> Self:
        """Split an output into its leaves.

        Tuples, lists, dictionaries, dataclasses and torch's pytree types are containers; other objects are leaves.
        """
        nodes, spec = tree_flatten(value)
        leaves: list[Any] = []
        nested: list[tuple[type, int, Callable[[Sequence[Any]], Any]] | None] = []  # no tensors: traced steps store it
        for node in nodes:
            if (named_parts := _named_parts(node)) is None:
                leaves.append(node)
                nested.append(None)
            else:
                inner = cls.from_value(named_parts)
                leaves += inner.leaves
                nested.append((type(node), len(inner.leaves), inner.build))

        def build(parts: Sequence[Any]) -> Any:
            rest = iter(parts)
            nodes = []
            for each in nested:
                if each is None:
                    nodes.append(next(rest))
                else:
                    node_type, count, build_inner = each
                    nodes.append(_with_fields(node_type, build_inner([next(rest) for _ in range(count)])))
            return tree_unflatten(nodes, spec)

        return cls(leaves, build)

    def usable(self) -> Self:
        """Return the output for use in metrics: tensors are detached, unsupported values become `WithheldOutput`."""
        return type(self)([_usable_leaf(leaf) for leaf in self.leaves], self.build)


@dataclass(frozen=True)
class CombinedOutput:
    """Outputs of one model for several batches, combined into one.

    Args:
        leaves: concatenated tensors, shared values and means.
        build: rebuilds the output from other leaves.
        examples: number of examples.
        per_example: for each leaf, True if it is a tensor with entries for each example, which was concatenated.
        batches: the value of each batch; empty unless shapes may differ between batches (`ragged_outputs.py`).
    """

    leaves: list[Any]
    build: Callable[[Sequence[Any]], Any]
    examples: int
    per_example: list[bool]
    batches: Sequence[Any] = ()

    @property
    def whole(self) -> Any:
        """The output for all examples."""
        return self.build(self.leaves)

    def part(self, examples: slice) -> Any:
        """Return the output for a subset of the examples; means over whole batches are withheld."""
        chosen = []
        for leaf, per_example in zip(self.leaves, self.per_example, strict=True):
            if per_example:
                leaf = leaf.unflatten(0, (self.examples, -1))[examples].flatten(0, 1)
            elif isinstance(leaf, Tensor | float | list):
                leaf = WithheldOutput("a value of whole batches cannot be had for some of their examples.")
            chosen.append(leaf)
        return self.build(chosen)


def combine(outputs: Sequence[Output], sizes: Sequence[int]) -> CombinedOutput:
    """Combine the outputs of evaluation batches.

    Args:
        outputs: one per batch.
        sizes: number of examples of each batch.
    """
    leaves: list[Any] = []
    per_example: list[bool] = []
    for parts in zip(*(output.leaves for output in outputs), strict=True):
        per_example.append(_is_per_example(parts, sizes))
        leaves.append(torch.cat(parts) if per_example[-1] else _combine_leaf(parts, sizes))
    return CombinedOutput(leaves, outputs[0].build, sum(sizes), per_example)


class NotCombinedError(TypeError):
    """Error raised by a metric that uses a part of a model's output that cannot be combined over batches."""


class WithheldOutput:
    """Placeholder for a part of a model's output that a metric cannot use; using it raises a `NotCombinedError`.

    Args:
        why: the message of the error.
    """

    def __init__(self, why: str) -> None:
        self.__dict__["why"] = why

    def refuse(self, *_: Any, **__: Any) -> Any:
        """Raise a `NotCombinedError` with the message."""
        raise NotCombinedError(self.__dict__["why"])

    __array__ = __bool__ = __call__ = __contains__ = __float__ = __getattr__ = __getitem__ = __int__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = refuse
    __iter__ = __len__ = __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __abs__ = __pow__ = __matmul__ = refuse
    __eq__ = __ne__ = __torch_function__ = refuse
    __hash__ = object.__hash__


def _usable_leaf(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
        return leaf.detach()
    if isinstance(leaf, (*CONSTANTS, WithheldOutput)):
        return leaf
    kind = f"{leaf.layout} tensor" if isinstance(leaf, Tensor) else type(leaf).__name__
    return WithheldOutput(
        f"the model's output has a {kind}, of which batches cannot be put together: return tensors [batch, ...] in a "
        "tuple, a dictionary or a dataclass."
    )


def _is_per_example(parts: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Return True if all parts are tensors with the same number of entries per example and the same shape and dtype."""
    if not all(isinstance(x, Tensor) and x.dim() > 0 for x in parts):
        return False
    shapes = {(len(x) / size, x.shape[1:], x.dtype) for x, size in zip(parts, sizes, strict=True)}
    return len(shapes) == 1 and len(parts[0]) > 0 and len(parts[0]) % sizes[0] == 0


def _combine_leaf(parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    if all(_equal(parts[0], part) for part in parts[1:]):
        return parts[0]
    if all(isinstance(x, int | float) or (isinstance(x, Tensor) and x.dim() == 0) for x in parts):
        values = torch.stack([torch.as_tensor(x, dtype=torch.float64) for x in parts])
        return values @ torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    if not all(isinstance(x, Tensor) for x in parts):
        return WithheldOutput("the model's output has a value that differs from batch to batch and is no number.")
    shapes = list(dict.fromkeys(f"{tuple(x.shape)} for {size}" for x, size in zip(parts, sizes, strict=True)))
    return WithheldOutput(
        f"the model's output has a tensor of the shape {' and '.join(shapes[:2])} examples, so that batches cannot be "
        "put together: its first dimension must be the batch."
    )


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, WithheldOutput):
        return isinstance(second, WithheldOutput)
    return type(first) is type(second) and bool(first == second)


def _named_parts(value: Any) -> dict[str, Any] | None:
    """Return the fields of a container that torch's pytree does not know: a dataclass, namespace or kind of dictionary.

    Returns:
        The fields by name, or None if the value is not such a container.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    if isinstance(value, dict):
        return dict(value)
    return vars(value) if isinstance(value, SimpleNamespace) else None


def _with_fields(node_type: Any, values: dict[str, Any]) -> Any:
    """Return a container of a type with these fields, made without calling its constructor."""
    result = node_type.__new__(node_type)
    items = next((base for base in (OrderedDict, dict) if issubclass(node_type, base)), None)
    for name, value in values.items():
        if items is None or is_dataclass(node_type):
            object.__setattr__(result, name, value)
        if items is not None and not (is_dataclass(node_type) and value is None):  # as in transformers' ModelOutput
            items.__setitem__(result, name, value)
    return result
