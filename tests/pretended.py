"""A device that is not the CPU, on a machine that has none: torch's "meta" with numbers in it.

A tensor that is put there computes on the CPU behind the scenes. What a GPU refuses is refused: tensors here and there
in one operation. What it draws at random by itself is of no seed, so that a number which was not drawn here and put
there shows. It knows nothing of how a GPU rounds, how fast it is, or what happens while nobody waits for it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
THERE = torch.device("meta")
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""These take indices from the CPU, as on a GPU, which waits for them."""
READS = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.nonzero.default, aten.equal.default}


class There(Tensor):
    """A tensor on the device: to torch one without numbers, which `held` has."""

    @staticmethod
    def __new__(cls, held: Tensor) -> "There":
        shell = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device=THERE)
        made = Tensor._make_subclass(cls, shell, held.requires_grad)
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{function} after the device was taken away")

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: "There") -> None:
        self.held = value.held

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.to("cpu").tolist()


class Gpu(TorchDispatchMode):
    """The device, while it is entered; it notes what was computed here and what there, and what waited for it."""

    def __init__(self) -> None:
        super().__init__()
        self.here, self.there, self.waits = set[Any](), set[Any](), set[Any]()
        self.luck = torch.Generator().manual_seed(0xC0FFEE)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip the compiler, torch would import it

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [x for x in tensors if isinstance(x, There)]
        to = kwargs.get("device") or (args[0] if function is aten.copy_.default else (there or [CPU])[0]).device
        if torch.device(to).type == "cpu" and not there:
            self.here.add(function)
            return function(*args, **kwargs)
        if function in INDEXED and isinstance(args[0], There):
            tensors = [x for x in tree_leaves(args[2:]) if isinstance(x, Tensor)]
        moves = "device" in kwargs or function is aten.copy_.default
        if not moves and any(not isinstance(x, There) for x in tensors if x.dim()):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found two devices ({function})")
        self.there.add(function)
        indices = tree_leaves(args[1]) if function in INDEXED else []
        if torch.device(to).type == "cpu" or function in READS or any(type(x) is Tensor for x in indices):
            self.waits.add(function)
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        wrapped = {id(x.held): x for x in there}
        args, kwargs = tree_map_only(There, lambda x: x.held, (args, kwargs))
        found = self._draw(function, args, kwargs) if DRAWS in function.tags else function(*args, **kwargs)
        if torch.device(to).type == "cpu":
            return found
        return tree_map_only(Tensor, lambda x: wrapped[id(x)] if id(x) in wrapped else There(x), found)

    def _draw(self, function: Any, args: Any, kwargs: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.luck.get_state())
            found = function(*args, **kwargs)
            self.luck.set_state(torch.get_rng_state())
        return found


CPU = torch.empty(0)
DRAWS = torch.Tag.nondeterministic_seeded


def _moved(to: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A module goes there with new parameters: put into the old ones, they would leave their numbers behind."""

    def moved(*args: Any) -> nn.Module:
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            return to(*args)
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)

    return moved


@contextmanager
def pretended(patch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """Have torch see the device."""
    patch.setattr(torch.accelerator, "is_available", lambda: True)
    patch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: THERE)
    patch.setattr(torch.accelerator, "device_count", lambda: 1)
    patch.setattr(torch.accelerator, "synchronize", lambda device: None)
    about = SimpleNamespace(get_device_name=lambda name: "Pretended", mem_get_info=lambda name: (1e9, 2e9))
    patch.setattr(torch, "get_device_module", lambda name=None: torch.cpu if name == "cpu" else about)
    patch.setattr(nn.Module, "to", _moved(nn.Module.to))
    with Gpu() as gpu:
        yield gpu
