"""Parameter groups with weight decay only where it is appropriate."""

from collections.abc import Collection
from fnmatch import fnmatch
from typing import Any

from torch import nn


def groups(
    model: nn.Module, weight_decay: float, *, no_decay: Collection[str] = (), **given: Any
) -> list[dict[str, Any]]:
    """Split the trainable parameters of a model into a group with weight decay and a group without.

    Weight decay pulls towards zero, which is sensible for matrices, but not for biases, nor for the scale of a
    normalisation layer, whose neutral value is one. The group without weight decay holds parameters with fewer than two
    dimensions, all parameters of normalisation layers, and those named in `no_decay`.

    Args:
        model: the model. Parameters shared between layers are listed once.
        weight_decay: weight decay of the first group; the second group has 0.
        no_decay: names of further parameters without weight decay, with wildcards: `("embed.*", "*.gate")`.
        **given: other hyperparameters for both groups.

    Returns:
        The parameter groups that are not empty. They contain parameter names, so that checkpoints are matched by name.

    Raises:
        ValueError: if a name in `no_decay` matches no parameter.
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
    candidates = [
        {"params": [pair for pair in named if decays(*pair) is part], "weight_decay": decay, **given}
        for part, decay in parts.items()
    ]
    return [group for group in candidates if group["params"]]
