"""Division of a model's parameters between Muon, for the matrices of hidden layers, and AdamW."""

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

Override = Callable[[str, nn.Parameter], bool | None] | Mapping[str, bool]
"""Exceptions from the division: a function of name and parameter, or a dictionary of names with wildcards."""
EMBEDDING_NAME = re.compile(r"embed|(^|_)(emb|wte|wpe|pos|position|positions|positional|token)(_|$)")
"""Names of embeddings that are no `nn.Embedding`, such as `pos_embed` and `patch_embed.proj`."""
OUTPUT_NAMES = {"lm_head", "classifier", "qa_outputs", "score", "seq_relationship", "head", "head_dist"}
"""Names of output layers; a model without them has its last layer as output layer."""
CHILD_OUTPUT_NAMES = {"out", "output", "output_layer", "fc_out", "proj_out", "to_logits", "logits", "readout"}
"""Names of output layers that are direct children of the model; deeper, hidden layers have these names as well."""


def muon_groups(model: nn.Module, *, use_muon: Override | None = None, **given: Any) -> list[dict[str, Any]]:
    """Split the trainable parameters of a model into a group for Muon and a group for AdamW.

    Muon gets the weight matrices of hidden layers, and the kernels of convolutions. AdamW gets all parameters

    * with fewer than two dimensions, or that are matrices of a single row or column, such as biases;
    * of normalisation layers;
    * of embeddings, by the type or the name of their layer, also if an output layer has the same weights;
    * of the output layer: layers called `lm_head`, `classifier`, `head`, `score` or `qa_outputs`, children of the model
      called `out`, `output` or alike, the layer that `get_output_embeddings` of transformers returns, or else the last
      layer that the model registers;
    * with three or more dimensions outside convolutions, such as stacked experts, and complex ones.

    Args:
        model: the model. Parameters that layers share are listed once.
        use_muon: exceptions: a dictionary of names with wildcards, `{"first.*": False}`, or a function
            `use_muon(name, parameter)` that returns True, False, or None for no exception.
        **given: other hyperparameters for both groups.

    Returns:
        The groups that are not empty, with their key `use_muon`, for `MuonWithAuxAdam`. They contain parameter names.

    Raises:
        ValueError: if a name in `use_muon` matches no parameter.

    References:
        https://kellerjordan.github.io/posts/muon: embeddings and output layers train best by AdamW.

    Example:
        >>> from torch import nn
        >>> from gradprix import optim
        >>> model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 9))
        >>> [(group["use_muon"], [name for name, _ in group["params"]]) for group in optim.muon_groups(model)]
        [(True, ['1.weight']), (False, ['0.weight', '1.bias', '3.weight', '3.bias'])]
    """
    named = [(name, x) for name, x in model.named_parameters() if x.requires_grad]
    chosen = choose_muon(model, use_muon)
    candidates = [
        {"params": [pair for pair in named if chosen[pair[0]] is flag], "use_muon": flag, **given}
        for flag in (True, False)
    ]
    return [group for group in candidates if group["params"]]


def choose_muon(model: nn.Module, use_muon: Override | None = None) -> dict[str, bool]:
    """Return, for each trainable parameter by name, True if Muon steps it and False if AdamW does.

    See `muon_groups` for the arguments and errors.
    """
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for path, module in model.named_modules():
        for name, x in module.named_parameters(recurse=False):
            owners.setdefault(id(x), []).append((f"{path}.{name}".strip("."), module))
    outputs = {id(x) for layer in _output_layers(model) for x in layer.parameters(recurse=False)}
    named = {name: x for name, x in model.named_parameters() if x.requires_grad}
    chosen = {name: id(x) not in outputs and _is_hidden_matrix(x, owners[id(x)]) for name, x in named.items()}
    if isinstance(use_muon, Mapping):
        for pattern, flag in use_muon.items():
            names = [name for name in named if fnmatch(name, pattern)]
            if not names:
                raise ValueError(
                    f"use_muon: no trainable parameter is called {pattern!r}. See model.named_parameters()."
                )
            chosen |= dict.fromkeys(names, bool(flag))
    elif use_muon is not None:
        answers = {name: use_muon(name, x) for name, x in named.items()}
        chosen |= {name: bool(flag) for name, flag in answers.items() if flag is not None}
    return chosen


def _is_hidden_matrix(x: nn.Parameter, owners: list[tuple[str, nn.Module]]) -> bool:
    """Return True for a weight matrix or a kernel that belongs to neither an embedding nor a norm.

    Args:
        x: the parameter.
        owners: each layer that has the parameter, with the full name that the parameter has there.
    """
    if x.is_complex() or x.dim() < 2 or min(len(x), x.numel() // max(len(x), 1)) < 2:
        return False
    if x.dim() > 2 and not all(isinstance(layer, _ConvNd) for _, layer in owners):
        return False
    return not any(
        _is_embedding(name, layer) or _is_norm(layer) or "bias" in name.split(".")[-1] for name, layer in owners
    )


def _is_embedding(name: str, layer: nn.Module) -> bool:
    own_names = name.lower().split(".")[-3:]  # of the parameter, its layer, and the module around the layer
    return "embedding" in type(layer).__name__.lower() or any(EMBEDDING_NAME.search(own) for own in own_names)


def _is_norm(layer: nn.Module) -> bool:
    return "norm" in type(layer).__name__.lower()


def _output_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the output layers of a model: those that it declares, those with a usual name, or the last layer."""
    layers = {path: layer for path, layer in model.named_modules() if _has_matrix(layer)}
    getters = (getattr(module, "get_output_embeddings", None) for module in model.modules())
    declared = [get() for get in getters if callable(get)]
    named = []
    for path, _ in model.named_modules():
        if path.rpartition(".")[2] in OUTPUT_NAMES or path in CHILD_OUTPUT_NAMES:
            inside = [layer for below, layer in layers.items() if below == path or below.startswith(f"{path}.")]
            named += inside[-1:]  # a classifier of several layers ends by the output layer
    outputs = [layer for layer in (*declared, *named) if isinstance(layer, nn.Module)]
    yield from outputs or list(layers.values())[-1:]


def _has_matrix(layer: nn.Module) -> bool:
    return not _is_norm(layer) and any(x.dim() > 1 for x in layer.parameters(recurse=False))
