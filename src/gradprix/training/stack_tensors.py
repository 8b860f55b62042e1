"""Stacking of the parameters and buffers of several models."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from gradprix.utils.devices import placed


def stack_tensors(
    models: Mapping[int, nn.Module], seeds: Sequence[int], device: torch.device, needs_all: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the trained parameters and all other tensors of models, `[rows, ...]` each.

    Args:
        models: the models by seed. A function may define their class, so that each has a class of its own.
        seeds: the seed of each row.
        device: device of the results.
        needs_all: raise an error for what cannot be stacked: buffers, which are left out otherwise, and models of
            different classes.

    Raises:
        ValueError: if a model has no trainable parameters, or cannot be stacked.
    """
    rows = [models[seed] for seed in seeds]
    if needs_all:
        _check_classes(models.values())
        sparse = [name for name, x in rows[0].named_buffers() if x.layout is not torch.strided]
        if sparse:
            raise ValueError(f"its buffer {sparse[0]} is sparse, which torch cannot stack")
    trained = {name for name, parameter in rows[0].named_parameters() if parameter.requires_grad}
    if not trained:
        raise ValueError("the model has no parameter that can be trained")
    for row in rows:
        if trained != {name for name, parameter in row.named_parameters() if parameter.requires_grad}:
            raise ValueError("its model has other trained parameters with another seed")
    stacked = _stack([dict(row.named_parameters()) for row in rows])
    buffers = _stack([{name: x for name, x in row.named_buffers() if x.layout is torch.strided} for row in rows])
    parameters = {name: placed(x.clone(), device) for name, x in stacked.items() if name in trained}
    fixed = {name: x for name, x in stacked.items() if name not in trained}
    return parameters, placed({**fixed, **buffers}, device)


def _stack(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the tensors of each name."""
    stacked = {}
    for name, tensor in rows[0].items():
        if any(name not in row or row[name].shape != tensor.shape for row in rows):
            raise ValueError(f"{name} of its model has another shape with another seed, or does not exist")
        stacked[name] = torch.stack([row[name].detach() for row in rows])
    return stacked


def _check_classes(models: Iterable[nn.Module]) -> None:
    """Raise a ValueError if the classes of the models differ by more than being defined in several calls."""
    names = sorted({f"{type(model).__module__}.{type(model).__qualname__}" for model in models})
    if len(names) > 1:
        raise ValueError(f"its model is of another class with another seed: {' or '.join(names)}")
