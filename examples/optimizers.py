"""Optimizers that need more than parameters.  python examples/optimizers.py

On the command line:

    gradprix race digits --optimizers examples/optimizers.py:muon,adamw
"""

import torch
from torch import nn

import gradprix as gp


def make_muon(
    model: nn.Module, lr: float, weight_decay: float = 0.01
) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices, and AdamW for all other parameters."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    hidden = [layer.weight for layer in layers[:-1]]
    others = [
        x for x in model.parameters() if all(x is not matrix for matrix in hidden)
    ]
    return [
        torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(others, lr=0.1 * lr, weight_decay=weight_decay),
    ]


class LinearDecay(torch.optim.SGD):
    """SGD that lets its learning rate fall to zero over all steps of a run."""

    def __init__(self, params, total_steps: int, lr: float = 0.1) -> None:
        super().__init__(params, lr, momentum=0.9)
        self.left = self.total_steps = total_steps

    def step(self, closure=None):
        loss = super().step(closure)
        self.left -= 1
        for group in self.param_groups:
            group["lr"] *= self.left / (self.left + 1)
        return loss


class PolyakStep(torch.optim.Optimizer):
    """Gradient descent with the loss over the squared gradient norm as step size.

    It is at most 0.1. Polyak 1969, doi:10.1016/0041-5553(69)90035-4.
    """

    def __init__(self, params) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure):
        loss = closure()
        params = [x for group in self.param_groups for x in group["params"]]
        size = loss / sum(x.grad.square().sum() for x in params)
        for x in params:
            x.sub_(min(float(size), 0.1) * x.grad)
        return loss


muon = gp.Entry("muon", make_muon, space={"lr": gp.log(1e-3, 1)})
decay = gp.Entry("linear decay", LinearDecay, schedule="constant")
lbfgs = gp.Entry(
    "lbfgs", torch.optim.LBFGS, {"max_iter": 4}, space={"lr": gp.log(1e-2, 1)}
)
polyak = gp.Entry("polyak", PolyakStep, space={})
sam = gp.Entry(
    "sam",
    torch.optim.SGD,
    {"momentum": 0.9},
    space={"lr": gp.log(1e-3, 1)},
    sam_rho=0.05,
)

if __name__ == "__main__":
    task = gp.tasks.digits.change(epochs=8)
    few = {"trials": 10, "seeds": 8}
    print(gp.race(task, [muon, decay, sam, "adamw"], out="runs/muon", **few))
    print(gp.race(task, [lbfgs, polyak, sam, "adamw"], out="runs/lbfgs", **few))
