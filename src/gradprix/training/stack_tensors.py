"""Stacking of the parameters and buffers of several models."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import stack_module_state

from gradprix.utils.devices import placed


def stack_tensors(
    models: Mapping[int, nn.Module], seeds: Sequence[int], device: torch.device, needs_all: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the trained parameters and all other tensors of models, `[rows, ...]` each.

    Args:
        models: the models by seed.
        seeds: the seed of each row.
        device: device of the results.
        needs_all: raise an error for buffers that cannot be stacked, instead of leaving them out.

    Raises:
        ValueError: if a model has no trainable parameters, or cannot be stacked.
    """
    model = models[seeds[0]]
    buffers_by_name = model.named_buffers(remove_duplicate=False)
    sparse = [name for name, x in buffers_by_name if x.layout is not torch.strided]
    if sparse and needs_all:
        raise ValueError(f"its buffer {sparse[0]} is sparse, which torch cannot stack")
    with _without_buffers(models.values(), sparse):
        stacked, buffers = stack_module_state([models[seed] for seed in seeds])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ValueError("the model has no parameter that can be trained")
    parameters = {name: placed(x.detach().clone(), device) for name, x in stacked.items() if name in trained}
    fixed = {name: x.detach() for name, x in stacked.items() if name not in trained}
    return parameters, placed({**fixed, **buffers}, device)


@contextlib.contextmanager
def _without_buffers(models: Iterable[nn.Module], names: Sequence[str]) -> Iterator[None]:
    """Temporarily remove the buffers with these names from models."""
    removed = []
    for model in models:
        for name in names:
            path, _, last = name.rpartition(".")
            buffers = model.get_submodule(path)._buffers
            if last in buffers:  # a module may have several names
                removed.append((buffers, last, buffers.pop(last)))
    try:
        yield
    finally:
        for buffers, last, buffer in removed:
            buffers[last] = buffer
