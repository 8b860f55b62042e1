"""Random numbers in a stack of networks: each network draws what it would draw alone.

A stack asks for the numbers of all its rows at once, `[rows, ...]`. Here each row gets those that its own seed's
generator gives for the shape of one network, so that the networks of one seed see the same noise, and a network's noise
does not depend on which others it is stacked with. All of them are drawn on the CPU, for networks on a GPU as well.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradprix.tasks.rng import Luck
from gradprix.utils.devices import CPU, placed

aten = torch.ops.aten
TAG = torch.Tag.nondeterministic_seeded
"""What torch marks operations with that draw random numbers."""
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
"""Operations whose numbers depend on a tensor's shape alone: one drawing serves all networks of a seed."""


class Drawing(TorchDispatchMode):
    """Lends torch's random operations a generator, for one network that is trained by itself.

    Numbers are dealt to the elements of a tensor in their order, wherever they are in memory, as in a stack.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what there is nothing of: to skip the compiler, torch would import it, which takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer random operations, and leave all others alone."""
        kwargs = kwargs or {}
        if TAG not in function.tags or kwargs.get("generator") is not None:
            return function(*args, **kwargs)
        if function in FILLS:
            drawn = placed(FILLS[function](_empty(args[0]), self.generator, *args[1:]), args[0].device)
            return args[0].copy_(drawn) if function._schema.is_mutable else drawn
        if function is aten.native_dropout.default:
            return _dropped(lambda x, fill: placed(fill(_empty(x), self.generator), x.device), *args)
        before = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        found, after = _on_cpu(function, args, kwargs), torch.get_rng_state()
        torch.set_rng_state(before)
        self.generator.set_state(after)  # last, for it may be torch's own
        return found


@contextlib.contextmanager
def lent(luck: Luck, device: torch.device) -> Iterator[None]:
    """Lend one network its random numbers, which are drawn on the CPU wherever it is."""
    with luck, contextlib.nullcontext() if device.type == "cpu" else Drawing(torch.default_generator):
        yield


def _empty(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format, device=CPU)


def _dropped(draw: Callable[[Tensor, Fill], Tensor], x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """Dropout as it is on a GPU, with a mask."""
    if train is False:
        return x, torch.ones_like(x, dtype=torch.bool)
    mask = draw(x, lambda empty, g: empty.bernoulli_(1 - p, generator=g))
    return x * mask / (1 - p), mask.bool()


def _on_cpu(function: Any, args: Any, kwargs: Any) -> Any:
    """What an operation answers on the CPU, put where its tensors are or where it is asked to make some."""
    device = kwargs.get("device") or next((x.device for x in tree_leaves(args) if isinstance(x, Tensor)), CPU)
    if torch.device(device).type == "cpu":
        return function(*args, **kwargs)
    copies, here = placed(args, CPU), {**kwargs, "device": CPU} if "device" in kwargs else kwargs
    found = function(*copies, **here)
    for argument, x, copy in zip(function._schema.arguments, args, copies, strict=False):
        if argument.is_write:
            x.copy_(copy)
            found = x if found is copy else found
    return placed(found, torch.device(device))


class NoiseError(NotImplementedError):
    """A random operation that cannot be divided into rows."""


class Noise:
    """Gives every row of a stack the random numbers of its own seed.

    Args:
        seeds: which generator is each row's.
        generators: one for each seed.
    """

    def __init__(self, seeds: Sequence[int], generators: Sequence[torch.Generator]) -> None:
        self.generators = generators
        self.choose(seeds)

    def choose(self, seeds: Sequence[int]) -> None:
        """Go on with other rows."""
        self.seeds = list(seeds)
        self.used = sorted(set(self.seeds))
        self.of_row = torch.tensor([self.used.index(seed) for seed in self.seeds])

    def draw(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """What a random operation on stacked tensors answers.

        Raises:
            NoiseError: for an operation whose numbers cannot be told apart by row.
        """
        if function is aten.native_dropout.default:
            return _dropped(self._fill, *args)
        if function in FILLS and self._stacked(args[0]):
            drawn = self._fill(args[0], lambda empty, g: FILLS[function](empty, g, *args[1:]))
            return args[0].copy_(drawn) if function._schema.is_mutable else drawn
        return self._row_by_row(function, args, kwargs)

    def _stacked(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(self.seeds)

    def _fill(self, like: Tensor, fill: Fill) -> Tensor:
        if not self._stacked(like):
            raise NoiseError("it draws random numbers that cannot be told apart by network")
        drawn = [fill(_empty(like[0]), self.generators[seed]) for seed in self.used]
        every: Tensor = placed(torch.stack(drawn), like.device)
        return every[placed(self.of_row, like.device)]

    def _row_by_row(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Run any operation for one row after the other, torch's own generator lent to each row's seed."""
        parts = [self._rows_of(arg) for arg in args]
        if function._schema.is_mutable or not any(part is not None for part in parts):
            raise NoiseError(f"it draws random numbers ({function}) that cannot be told apart by network")
        before = [self.generators[seed].get_state() for seed in self.used]
        results = []
        with torch.random.fork_rng(devices=[]):
            for row, at in enumerate(self.of_row.tolist()):
                torch.set_rng_state(before[at])
                one = [arg if part is None else part[row] for arg, part in zip(args, parts, strict=True)]
                results.append(_on_cpu(function, one, kwargs))
                self.generators[self.used[at]].set_state(torch.get_rng_state())
        if not all(isinstance(result, Tensor) for result in results):
            raise NoiseError(f"it draws random numbers ({function}) of more than one kind at once")
        return torch.stack(results)

    def _rows_of(self, value: Any) -> Sequence[Any] | None:
        """A value of each row, or None for what is the same for all."""
        if self._stacked(value):
            return list(value)
        if isinstance(value, list | tuple) and value and value[0] == len(self.seeds):  # the size of something to make
            return [list(value[1:])] * len(self.seeds)
        if isinstance(value, Tensor) and value.dim() > 0:
            raise NoiseError("it draws random numbers that cannot be told apart by network")
        return None
