"""Muon: a router that gives matrices to the muon rule and everything else to AdamW, as its author's code does."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradprix import rules

from ._eager_step import is_matrix
from ._optimizer import TORCH_ONLY, RuleOptimizer

ARGUMENTS: dict[str, Any] = {
    "lr": 2e-2,
    "weight_decay": 0.0,
    "momentum": 0.95,
    "nesterov": True,
    "adamw_lr": 3e-4,
    "betas": (0.9, 0.95),
    "eps": 1e-10,
    "maximize": False,
    "fused": TORCH_ONLY["fused"],
}
"""What it takes, with its author's defaults. `adamw_lr`, `betas` and `eps` are of AdamW."""
TORCH = {"lr": 1e-3, "weight_decay": 0.1}
"""Where torch's defaults differ."""
FLAG = "use_muon"


class Muon(RuleOptimizer):
    """Momentum, made nearly orthogonal, for matrices; AdamW for all other parameters.

    A parameter of two dimensions or more is a matrix: the kernel of a convolution has a row for each output. Its author
    advises AdamW for embeddings and for the last layer, too: give them in a group of their own with `use_muon=False`,
    in which `lr` is AdamW's. A group that holds both kinds becomes two, so `param_groups` may be longer than given.

    The step of a matrix is scaled by √max(1, rows / columns). For the kernel of a convolution the author's code takes
    the kernel's height and width there, so that the two differ where it has more outputs than weights for each.

    Args:
        params: parameters, named parameters or groups.
        lr: the learning rate of matrices.
        weight_decay: the decoupled weight decay of all.
        momentum: how much of the mean of past gradients is kept.
        nesterov: whether momentum looks one step ahead.
        adamw_lr: the learning rate of what is no matrix.
        betas: AdamW's.
        eps: AdamW's.
        maximize: climb instead of descending.
        fused: False to step what AdamW steps without a compiled kernel.
        like: `"torch"` for the defaults of torch's class. Both it and the author's code iterate in bfloat16; this class
            in the dtype of the parameter.
    """

    rule = rules.muon
    _options = ()
    __signature__ = inspect.Signature(
        [
            inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *(
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value)
                for name, value in ARGUMENTS.items()
            ),
            inspect.Parameter("like", inspect.Parameter.KEYWORD_ONLY, default=None),
        ]
    )

    def __init__(self, *args: Any, like: str | None = None, **kwargs: Any) -> None:
        if like not in (None, "torch"):
            raise ValueError(f"like={like!r}: Muon is its author's here. Leave out like, or give like='torch'.")
        if like == "torch":
            given = self.__signature__.bind(*args, **kwargs).arguments
            args, kwargs = (), {**TORCH, **given}
        super().__init__(*args, **kwargs)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; one that holds both matrices and others becomes two.

        Args:
            param_group: as for any optimizer, with `use_muon` when its parameters are all for one rule.

        Raises:
            ValueError: for `use_muon=True` with a parameter that is no matrix.
        """
        given = param_group["params"] if isinstance(param_group, dict) else None
        if given is None or isinstance(given, set):
            super().add_param_group(param_group)  # which says what is wrong with it
        params = [given] if isinstance(given, Tensor) else list(given)
        matrices, others = [p for p in params if _goes_to_muon(p)], [p for p in params if not _goes_to_muon(p)]
        # An explicit `lr` is of matrices, and where a group says that it has none, of AdamW.
        adamw = {**param_group, FLAG: False, "lr": param_group.get("adamw_lr", self.defaults["adamw_lr"])}
        if FLAG not in param_group:
            if matrices or not others:
                super().add_param_group({**param_group, "params": matrices, FLAG: True})
            if others:
                super().add_param_group({**adamw, "params": others})
        elif not param_group[FLAG]:
            super().add_param_group({**adamw, **param_group, "params": params})
        elif others:
            raise ValueError(f"Muon: a group with {FLAG}=True has a parameter that is no matrix of real numbers.")
        else:
            super().add_param_group({**param_group, "params": params})

    def rule_of(self, group: Mapping[str, Any]) -> rules.Rule:
        """The muon rule or AdamW."""
        return rules.muon if group[FLAG] else rules.adamw

    def values(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """A group's hyperparameters by the names of what steps it."""
        foreign = () if self.rule_of(group).betas else ("betas",)
        return super().values({name: value for name, value in group.items() if name not in foreign})


def _goes_to_muon(given: Any) -> bool:
    """Whether a parameter, or a name with one, is a matrix."""
    x = given[1] if isinstance(given, tuple) else given
    return isinstance(x, Tensor) and is_matrix(x)
