"""Several optimizers of one model as one optimizer."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch


class CombinedOptimizer(torch.optim.Optimizer):
    """Several optimizers, each of some of a model's parameters, that step together.

    Its parameter groups are those of the optimizers, and its state is that of all of them, so that learning-rate
    schedulers and checkpoints need no special case.

    Args:
        optimizers: the optimizers; no parameter may be in two of them.

    Raises:
        ValueError: if a parameter is in two optimizers.

    Example:
        >>> from torch import nn
        >>> hidden, output = nn.Linear(4, 8, bias=False), nn.Linear(8, 2)
        >>> muon = torch.optim.Muon(hidden.parameters(), lr=0.02)
        >>> optimizer = CombinedOptimizer([muon, torch.optim.AdamW(output.parameters(), lr=0.003)])
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.02, 0.003]
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = list(optimizers)
        state = {x: values for each in self.optimizers for x, values in each.state.items()}
        super().__init__([group for each in self.optimizers for group in each.param_groups], {})
        self.state = defaultdict(dict, state)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one step of every optimizer, after one evaluation of the closure, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for each in self.optimizers:
            each.step()
        return loss

    def train(self) -> None:
        """Call `train` of the optimizers that have it, such as Schedule-Free ones."""
        self._call("train")

    def eval(self) -> None:
        """Call `eval` of the optimizers that have it, such as Schedule-Free ones."""
        self._call("eval")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state and the groups of all optimizers."""
        super().load_state_dict(state_dict)
        self._share()

    def _call(self, name: str) -> None:
        for each in self.optimizers:
            if callable(method := getattr(each, name, None)):
                method()

    def _share(self) -> None:
        """Give the optimizers the groups and the state of this one."""
        groups = iter(self.param_groups)
        for each in self.optimizers:
            each.param_groups = [next(groups) for _ in each.param_groups]
            each.state = self.state
