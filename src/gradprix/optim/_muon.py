"""Muon: torch's class for matrices alone, and a class for whole models that steps all other parameters by AdamW."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gradprix import rules

from ._eager_step import is_matrix
from ._muon_groups import muon_groups
from ._optimizer import TORCH_ONLY, RuleOptimizer

NEWTON_SCHULZ: dict[str, Any] = {
    "ns_coefficients": tuple(rules.muon.hyperparameters[name] for name in ("ns_a", "ns_b", "ns_c")),
    "eps": 1e-7,
    "ns_steps": 5,
}
"""Arguments of the iteration that orthogonalizes a matrix, with torch's names and defaults."""
SHARED = {"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True}
ADAMW = {"adamw_lr": None, "betas": (0.9, 0.95), "adamw_eps": 1e-8}
"""Arguments of AdamW, with the defaults of Liu et al. 2025; without `adamw_lr`, its learning rate is `lr`."""
OPTIONS = {"maximize": False, "fused": TORCH_ONLY["fused"]}
FLAG = "use_muon"
"""Key of a parameter group: True if Muon steps its parameters, False if AdamW does."""
ADJUSTMENTS = ("original", "match_rms_adamw")


def _signature(arguments: Mapping[str, Any], annotation: Any = inspect.Parameter.empty) -> inspect.Signature:
    either, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("params", either, annotation=annotation)]
    parameters += [inspect.Parameter(name, either, default=value) for name, value in arguments.items()]
    parameters += [inspect.Parameter(name, keyword, default=value) for name, value in {**OPTIONS, "like": None}.items()]
    return inspect.Signature(parameters)


class _MuonHyperparameters:
    """Conversion of torch's arguments to the hyperparameters of the rule."""

    rule: ClassVar[rules.Rule] = rules.muon
    _options: ClassVar[tuple[str, ...]] = tuple(OPTIONS)
    defaults: dict[str, Any]

    def values(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters of a parameter group under the names of its rule."""
        values = {**self.defaults, **group}  # groups of checkpoints of older versions lack arguments
        coefficients, adjustment = values.pop("ns_coefficients"), values.pop("adjust_lr_fn")
        if group.get(FLAG, True):
            values.pop("betas", None)
            values |= dict(zip(("ns_a", "ns_b", "ns_c"), map(float, coefficients), strict=True))
            values["match_rms_adamw"] = adjustment == "match_rms_adamw"
        else:
            values["eps"] = values["adamw_eps"]
        hyperparameters: dict[str, Any] = super().values(values)  # type: ignore[misc]
        return hyperparameters


def _check_iteration(group: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments of the iteration that torch refuses as well."""
    if group["adjust_lr_fn"] not in (None, *ADJUSTMENTS):
        raise ValueError(
            f"Adjust learning rate function {group['adjust_lr_fn']} is not supported: give one of "
            f"{', '.join(map(repr, ADJUSTMENTS))}, or None for the first."
        )
    if len(group["ns_coefficients"]) != 3:
        raise ValueError(f"ns_coefficients = {group['ns_coefficients']}: it must be a tuple of exactly 3 values.")


class Muon(_MuonHyperparameters, RuleOptimizer, torch.optim.Muon):
    """Orthogonalized momentum for matrices: a drop-in replacement for `torch.optim.Muon`.

    Its numbers are those of torch, including the Newton-Schulz iteration in bfloat16, on the CPU to the bit. Matrices
    of one shape are stepped together. Use `MuonWithAuxAdam` for a whole model.

    Args:
        params: matrices, as parameters, named parameters or groups.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        momentum: decay of the momentum buffer.
        nesterov: use Nesterov momentum.
        ns_coefficients: coefficients of the Newton-Schulz iteration.
        eps: lower bound of the norm by which a matrix is divided.
        ns_steps: number of steps of the iteration, below 100.
        adjust_lr_fn: `"original"` (the default, also None) multiplies the learning rate of an m × n matrix by
            √max(1, m / n), `"match_rms_adamw"` by 0.2 √max(m, n).
        maximize: maximize instead of minimizing.
        fused: without effect.
        like: `"torch"`, or `"author"` for the defaults of its author's `SingleDeviceMuon`, `lr=0.02` and no weight
            decay; it also steps kernels of convolutions, as matrices with one row per output channel.

    Raises:
        ValueError: if a parameter is not a matrix, or an argument is outside its range.
    """

    __signature__ = _signature({**SHARED, **NEWTON_SCHULZ, "adjust_lr_fn": None})
    _flattens = False
    """True if parameters with more than two dimensions are stepped as matrices."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._flattens = kwargs.get("like") == "author"
        if former := sorted({"adamw_lr", "betas"} & kwargs.keys()):
            raise TypeError(
                f"optim.Muon has no {former[0]}: like torch's class, it steps matrices alone. "
                "optim.MuonWithAuxAdam(model) steps all other parameters by AdamW."
            )
        super().__init__(*args, **kwargs)
        given = self.__signature__.bind(*args, **kwargs).arguments
        if {"lr", "weight_decay"} - given.keys() and given.get("like") is None:
            warnings.warn(
                "gradprix.optim.Muon now has the defaults of torch.optim.Muon, lr=0.001 and weight_decay=0.1; it had "
                "lr=0.02 and weight_decay=0. Give both, or like='torch' or like='author', to choose without this "
                "warning.",
                stacklevel=2,
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_flattens": self._flattens}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group of matrices.

        Raises:
            ValueError: if a parameter is not a matrix, or a value is outside its range.
        """
        if isinstance(param_group, dict) and FLAG in param_group:
            raise ValueError(f"optim.Muon: a group has {FLAG}, which MuonWithAuxAdam understands. Use that class.")
        super().add_param_group(param_group)
        try:
            _check_iteration(self.param_groups[-1])
            for x in self.param_groups[-1]["params"]:
                if not (is_matrix(x) if self._flattens else x.dim() == 2):
                    raise ValueError(
                        f"Muon only supports 2D parameters whereas we found a parameter with size: {x.size()}. "
                        "optim.MuonWithAuxAdam(model) steps all parameters of a model, and those that are not for Muon "
                        "by AdamW."
                    )
        except ValueError:
            self.param_groups.pop()
            raise


class MuonWithAuxAdam(_MuonHyperparameters, RuleOptimizer):
    """Muon for the matrices of a model's hidden layers, and AdamW for all other parameters.

    Given a model, `muon_groups` decides which parameters are for Muon. Given groups, their key `use_muon` does. A group
    without it, or a plain list of parameters, is split by shape, which leaves embeddings and output layers to Muon.

    By default, the step of a matrix has the root mean square of AdamW's steps (`adjust_lr_fn="match_rms_adamw"`), so
    that `lr` serves both. With `adjust_lr_fn="original"`, tune `adamw_lr` as well.

    Args:
        params: the model, parameter groups, or parameters.
        lr: learning rate.
        weight_decay: decoupled weight decay of all parameters.
        momentum: decay of the momentum buffer.
        nesterov: use Nesterov momentum.
        adamw_lr: learning rate of AdamW; None for `lr`.
        betas: betas of AdamW.
        adamw_eps: epsilon of AdamW.
        ns_coefficients: as in `Muon`.
        eps: as in `Muon`.
        ns_steps: as in `Muon`.
        adjust_lr_fn: as in `Muon`.
        maximize: maximize instead of minimizing.
        fused: False to run AdamW without a compiled kernel.
        like: `"author"` for the defaults of the author's class of this name: `lr=0.02`, `adamw_lr=3e-4`, no weight
            decay, and the original adjustment of the learning rate.

    References:
        Liu et al. 2025, arXiv:2502.16982, for the defaults; https://github.com/KellerJordan/Muon for the name.

    Example:
        >>> from torch import nn
        >>> from gradprix import optim
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = optim.MuonWithAuxAdam(model, lr=1e-3)
        >>> [(group["use_muon"], group["param_names"]) for group in optimizer.param_groups]
        [(True, ['0.weight']), (False, ['0.bias', '2.weight', '2.bias'])]
    """

    rule: ClassVar[rules.Rule] = rules.muon
    # Races give a model to classes that are annotated so.
    __signature__ = _signature({**SHARED, **ADAMW, **NEWTON_SCHULZ, "adjust_lr_fn": "match_rms_adamw"}, nn.Module)

    def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(muon_groups(params) if isinstance(params, nn.Module) else params, *args, **kwargs)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; a group with matrices and other parameters is split into two.

        Args:
            param_group: parameter group. With the key `use_muon`, it is not split: True selects Muon for all of its
                parameters, False selects AdamW, and its `lr` is that of AdamW.

        Raises:
            ValueError: if `use_muon=True` and a parameter is not a matrix, or a value is outside its range.
        """
        given = param_group["params"] if isinstance(param_group, dict) else None
        if given is None or isinstance(given, set):
            super().add_param_group(param_group)  # raises the error
        params = [given] if isinstance(given, Tensor) else list(given)
        _check_iteration({**self.defaults, **param_group})
        matrices, others = [p for p in params if _is_matrix(p)], [p for p in params if not _is_matrix(p)]
        if FLAG in param_group:
            if param_group[FLAG] and others:
                raise ValueError(f"{FLAG}=True: the group has a parameter that is no matrix of real numbers.")
            own = {} if param_group[FLAG] or "lr" in param_group else {"lr": self._adamw_lr(param_group)}
            super().add_param_group({**param_group, **own, "params": params})
            return
        if matrices:
            warnings.warn(
                "MuonWithAuxAdam got parameters without their model, so that Muon steps all matrices. Embeddings and "
                "output layers train better by AdamW: give the model, or optim.muon_groups(model).",
                stacklevel=4,
            )
            super().add_param_group({**param_group, "params": matrices, FLAG: True})
        if others or not matrices:
            super().add_param_group({**param_group, "params": others, FLAG: False, "lr": self._adamw_lr(param_group)})

    def _adamw_lr(self, group: Mapping[str, Any]) -> Any:
        """Return AdamW's learning rate for a group, which is `lr` if there is no `adamw_lr`."""
        adamw_lr = group.get("adamw_lr", self.defaults["adamw_lr"])
        return group.get("lr", self.defaults["lr"]) if adamw_lr is None else adamw_lr

    def rule_of(self, group: Mapping[str, Any]) -> rules.Rule:
        """Return the rule of a parameter group: Muon or AdamW."""
        return rules.muon if group[FLAG] else rules.adamw


def _is_matrix(given: Any) -> bool:
    """Return True if a parameter, given as a tensor or a pair (name, tensor), is a matrix that Muon can step."""
    x = given[1] if isinstance(given, tuple) else given
    return isinstance(x, Tensor) and is_matrix(x)
