"""Random numbers in a stack of models: each model draws the numbers that it would draw alone.

A stack requests the numbers of all rows at once, `[rows, ...]`. Each row gets the numbers that its own seed's generator
gives for the shape of one model, so models of one seed see the same noise, whatever other models are in the stack. All
numbers are drawn on the CPU, also for models on a GPU.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradprix.compiler import Draw, IndexedRows
from gradprix.tasks.rng import RngState
from gradprix.utils.devices import CPU, placed

aten = torch.ops.aten
TAG = torch.Tag.nondeterministic_seeded
"""Torch's tag of operations that draw random numbers."""
Fill = Callable[..., Any]

FILLS: dict[Any, Fill] = {
    aten.rand_like.default: lambda empty, g: empty.uniform_(generator=g),
    aten.randn_like.default: lambda empty, g: empty.normal_(generator=g),
    aten.bernoulli.p: lambda empty, g, p: empty.bernoulli_(p, generator=g),
    aten.bernoulli_.float: lambda empty, g, p=0.5: empty.bernoulli_(p, generator=g),
    aten.uniform_.default: lambda empty, g, low=0.0, high=1.0: empty.uniform_(low, high, generator=g),
    aten.normal_.default: lambda empty, g, mean=0.0, std=1.0: empty.normal_(mean, std, generator=g),
    aten.exponential_.default: lambda empty, g, rate=1.0: empty.exponential_(rate, generator=g),
}
"""Random operations whose numbers depend only on a tensor's shape, with functions that fill an empty tensor. One draw
serves all models of a seed."""


class SequentialRngMode(TorchDispatchMode):
    """Dispatch mode in which torch's random operations use a given generator, for a model that is trained by itself.

    As in a stack, numbers are assigned to elements in the order of the tensor's memory.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # no dynamo frames exist here; skipping dynamo would import it, which takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run random operations with the generator, and all others unchanged."""
        kwargs = kwargs or {}
        if TAG not in function.tags or kwargs.get("generator") is not None:
            return function(*args, **kwargs)
        if function in FILLS:
            drawn = placed(FILLS[function](_empty_like(args[0]), self.generator, *args[1:]), args[0].device)
            return args[0].copy_(drawn) if function._schema.is_mutable else drawn
        if function is aten.native_dropout.default:
            return _apply_dropout(lambda x, fill: placed(fill(_empty_like(x), self.generator), x.device), *args)
        state_before = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        result, state_after = _run_on_cpu(function, args, kwargs), torch.get_rng_state()
        torch.set_rng_state(state_before)
        self.generator.set_state(state_after)  # last, since it may be torch's default generator
        return result


@contextlib.contextmanager
def use_rng_state(rng_state: RngState, device: torch.device) -> Iterator[None]:
    """Temporarily install an RNG state as the global one; random numbers are drawn on the CPU, whatever the device."""
    with rng_state, contextlib.nullcontext() if device.type == "cpu" else SequentialRngMode(torch.default_generator):
        yield


def _empty_like(like: Tensor) -> Tensor:
    """Return an empty tensor on the CPU with the shape and the memory layout of another."""
    return torch.empty_like(like, device=CPU)


def _apply_dropout(
    draw: Callable[[Tensor, Fill], Tensor], x: Tensor, p: float, train: bool | None
) -> tuple[Tensor, Tensor]:
    """Return the result and the mask of dropout, computed as torch does on a GPU.

    Args:
        draw: creates a tensor like its first argument and fills it with its second argument.
        x: the input.
        p: probability of setting an element to zero.
        train: apply dropout unless False.
    """
    if train is False:
        return x, torch.ones_like(x, dtype=torch.bool)
    mask = draw(x, lambda empty, g: empty.bernoulli_(1 - p, generator=g))
    return x * mask / (1 - p), mask.bool()


def _run_on_cpu(function: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the CPU and move the result to the requested device.

    The requested device is the argument `device` of the operation, or else the device of its first tensor.
    """
    device = kwargs.get("device") or next((x.device for x in tree_leaves(args) if isinstance(x, Tensor)), CPU)
    if torch.device(device).type == "cpu":
        return function(*args, **kwargs)
    copies, cpu_kwargs = placed(args, CPU), {**kwargs, "device": CPU} if "device" in kwargs else kwargs
    result = function(*copies, **cpu_kwargs)
    for argument, x, copy in zip(function._schema.arguments, args, copies, strict=False):
        if argument.is_write:
            x.copy_(copy)
            result = x if result is copy else result
    return placed(result, torch.device(device))


class NoiseError(NotImplementedError):
    """Raised for a random operation whose numbers cannot be drawn for each row separately."""


class StackedRng:
    """Random number source of a stack: each row draws from its own seed's generator.

    Args:
        seeds: for each row, the index of its generator in `generators`.
        generators: one generator per seed.
    """

    def __init__(self, seeds: Sequence[int], generators: Sequence[torch.Generator]) -> None:
        self.generators = generators
        self.select_seeds(seeds)

    def select_seeds(self, seeds: Sequence[int]) -> None:
        """Set the rows of the stack: `seeds` is, for each row, the index of its generator."""
        self.seeds = list(seeds)
        self.used = sorted(set(self.seeds))
        self.generator_index = torch.tensor([self.used.index(seed) for seed in self.seeds])

    def states(self) -> list[Tensor]:
        """Return the state of each generator."""
        return [generator.get_state() for generator in self.generators]

    def restore(self, states: Sequence[Tensor]) -> None:
        """Return to earlier states, so that the numbers drawn since then are drawn again."""
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)

    def draw(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a random operation on stacked tensors.

        Raises:
            NoiseError: if the numbers cannot be drawn for each row separately.
        """
        if function is aten.native_dropout.default:
            return _apply_dropout(self._fill, *args)
        if function in FILLS and self._is_stacked(args[0]):
            drawn = self._fill(args[0], lambda empty, g: FILLS[function](empty, g, *args[1:]))
            return args[0].copy_(drawn) if function._schema.is_mutable else drawn
        return self._row_by_row(function, args, kwargs)

    def draw_all(self, draws: Sequence[Draw]) -> list[IndexedRows]:
        """Return the random numbers that a step draws, for all rows."""
        return [self._draw_for_each(draw) for draw in draws]

    def _draw_for_each(self, draw: Draw) -> IndexedRows:

        def numbers(generator: torch.Generator) -> Tensor:
            empty = torch.empty_strided(draw.shape, draw.strides, dtype=draw.dtype)
            filled = [empty] if draw.function in FILLS else []
            with SequentialRngMode(generator):
                result: Tensor = draw.function(*filled, *draw.args, **draw.kwargs)
            return result.contiguous()

        return IndexedRows(torch.stack([numbers(self.generators[seed]) for seed in self.used]), self.generator_index)

    def _is_stacked(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(self.seeds)

    def _fill(self, like: Tensor, fill: Fill) -> Tensor:
        if not self._is_stacked(like):
            raise NoiseError("it draws random numbers that networks in a stack would share")
        draws = [fill(_empty_like(like[0]), self.generators[seed]).contiguous() for seed in self.used]
        stacked_draws: Tensor = placed(torch.stack(draws), like.device)
        return stacked_draws[placed(self.generator_index, like.device)]

    def _row_by_row(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation row by row, with torch's default generator set to the state of each row's generator."""
        parts = [self._rows_of(arg) for arg in args]
        if function._schema.is_mutable or not any(part is not None for part in parts):
            name = function._schema.name.partition("::")[2].rstrip("_")
            raise NoiseError(f"it draws random numbers (torch.{name}) that networks in a stack would share")
        states = [self.generators[seed].get_state() for seed in self.used]
        results = []
        with torch.random.fork_rng(devices=[]):
            for row, index in enumerate(self.generator_index.tolist()):
                torch.set_rng_state(states[index])
                row_args = [arg if part is None else part[row] for arg, part in zip(args, parts, strict=True)]
                results.append(_run_on_cpu(function, row_args, kwargs))
                self.generators[self.used[index]].set_state(torch.get_rng_state())
        if not all(isinstance(result, Tensor) for result in results):
            name = function._schema.name.partition("::")[2].rstrip("_")
            raise NoiseError(f"an operation draws several kinds of random numbers at once (torch.{name})")
        return torch.stack(results)

    def _rows_of(self, value: Any) -> Sequence[Any] | None:
        """Return an argument's value for each row, or None if all rows share the argument."""
        if self._is_stacked(value):
            return list(value)
        if isinstance(value, list | tuple) and value and value[0] == len(self.seeds):  # the size of a tensor to create
            return [list(value[1:])] * len(self.seeds)
        if isinstance(value, Tensor) and value.dim() > 0:
            raise NoiseError("it draws random numbers that networks in a stack would share")
        return None
