"""Muon: matrices are stepped by the muon rule and all other parameters by AdamW, as in its author's code."""

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
"""Arguments of `Muon`, with the defaults of its author's code; `adamw_lr`, `betas` and `eps` are those of AdamW."""
TORCH = {"lr": 1e-3, "weight_decay": 0.1}
"""Defaults of torch, where they differ from those of the author's code."""
FLAG = "use_muon"
"""Key of a parameter group: True if Muon steps its parameters, False if AdamW does."""


class Muon(RuleOptimizer):
    """Orthogonalized momentum for matrices, and AdamW for all other parameters.

    Parameters with two or more dimensions are matrices: convolution kernels have one row per output channel. The author
    recommends AdamW for embeddings and the last layer as well: put them into a separate group with `use_muon=False`,
    whose `lr` is that of AdamW. A group with matrices and other parameters is split into two groups, so `param_groups`
    may be longer than the list that was passed.

    The step of a matrix is scaled by √max(1, rows / columns). For convolution kernels the author's code uses the height
    and width of the kernel instead, which differs if there are more output channels than weights per channel.

    Args:
        params: parameters, named parameters or groups.
        lr: learning rate of matrices.
        weight_decay: decoupled weight decay of all parameters.
        momentum: decay of the momentum buffer.
        nesterov: use Nesterov momentum.
        adamw_lr: learning rate of all other parameters.
        betas: betas of AdamW.
        eps: epsilon of AdamW.
        maximize: maximize instead of minimizing.
        fused: False to run AdamW without a compiled kernel.
        like: `"torch"` for the defaults of torch. Torch and the author's code orthogonalize in bfloat16, this class in
            the dtype of the parameter.
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
        """Add a parameter group; a group with matrices and other parameters is split into two.

        Args:
            param_group: parameter group. With the key `use_muon`, it is not split: True selects Muon for all of its
                parameters, False selects AdamW.

        Raises:
            ValueError: if `use_muon=True` and a parameter is not a matrix.
        """
        given = param_group["params"] if isinstance(param_group, dict) else None
        if given is None or isinstance(given, set):
            super().add_param_group(param_group)  # raises the error
        params = [given] if isinstance(given, Tensor) else list(given)
        matrices, others = [p for p in params if _uses_muon(p)], [p for p in params if not _uses_muon(p)]
        # An explicit `lr` is that of matrices, or that of AdamW if the group has `use_muon=False`.
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
        """Return the rule of a parameter group: Muon or AdamW."""
        return rules.muon if group[FLAG] else rules.adamw

    def values(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters of a parameter group under the names of its rule."""
        foreign = () if self.rule_of(group).betas else ("betas",)
        return super().values({name: value for name, value in group.items() if name not in foreign})


def _uses_muon(given: Any) -> bool:
    """Return True if a parameter, given as a tensor or a pair (name, tensor), is a matrix that Muon can step."""
    x = given[1] if isinstance(given, tuple) else given
    return isinstance(x, Tensor) and is_matrix(x)
