"""Parameter groups that decay what should be decayed."""

from collections.abc import Collection
from fnmatch import fnmatch
from typing import Any

from torch import nn


def groups(
    model: nn.Module, weight_decay: float, *, no_decay: Collection[str] = (), **given: Any
) -> list[dict[str, Any]]:
    """A model's trainable parameters in two groups: weights that decay, and biases and norms that do not.

    Decay pulls towards zero. That is a sensible start for a matrix and none for a bias, or for the scale of a
    normalisation, whose neutral value is one. What does not decay: parameters with fewer than two dimensions, all
    parameters of normalisation layers, and those named in `no_decay`.

    Args:
        model: the model. Parameters it shares between layers are listed once.
        weight_decay: for the first group; the second has 0.
        no_decay: further names that do not decay, with `*` as in file names: `("embed.*", "*.gate")`.
        **given: other hyperparameters for both groups.

    Returns:
        Groups for an optimizer, with the parameters' names, so that checkpoints match by name; empty ones left out.

    Raises:
        ValueError: when a name in `no_decay` fits no parameter.
    """
    norms = {
        id(parameter)
        for layer in model.modules()
        if "norm" in type(layer).__name__.lower()
        for parameter in layer.parameters(recurse=False)
    }
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for pattern in no_decay:
        if not any(fnmatch(name, pattern) for name, _ in named):
            raise ValueError(f"no_decay: no trainable parameter is called {pattern!r}. See model.named_parameters().")

    def decays(name: str, parameter: nn.Parameter) -> bool:
        plain = parameter.dim() < 2 or id(parameter) in norms
        return not plain and not any(fnmatch(name, pattern) for pattern in no_decay)

    parts = {True: weight_decay, False: 0.0}
    made = [
        {"params": [pair for pair in named if decays(*pair) is part], "weight_decay": decay, **given}
        for part, decay in parts.items()
    ]
    return [group for group in made if group["params"]]
