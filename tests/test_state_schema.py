"""The state in memory: the keys, dtypes and entries that torch's class of the same name keeps."""

from typing import Any

import pytest
import torch

from gradprix import optim

COUNTED = "Adagrad RMSprop Adadelta Adam AdamW Adamax NAdam RAdam Rprop ASGD Adafactor".split()


def step_once(optimizer: torch.optim.Optimizer) -> Any:
    for group in optimizer.param_groups:
        for x in group["params"]:
            x.grad = torch.ones_like(x)
    optimizer.step()
    return optimizer.state


def parameters() -> list[torch.nn.Parameter]:
    """A dense matrix, which a kernel steps, and a number and a float16 vector, which the eager rule steps."""
    return [torch.nn.Parameter(x) for x in (torch.ones(2, 3), torch.ones(()), torch.ones(3).half())]


@pytest.mark.parametrize(
    ("name", "given"), [(name, {}) for name in COUNTED] + [(n, {"fused": True}) for n in ("Adagrad", "Adam", "AdamW")]
)
def test_step_has_the_dtype_that_torch_gives_it(name: str, given: dict[str, Any], default_dtype: torch.dtype) -> None:
    states = [step_once(getattr(module, name)(parameters(), **given)) for module in (torch.optim, optim)]
    theirs, ours = ([held["step"] for held in state.values()] for state in states)
    assert [(step.dtype, step.item(), step.shape) for step in ours] == [
        (step.dtype, step.item(), step.shape) for step in theirs
    ]


@pytest.mark.parametrize("given", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1}])
def test_sgd_keeps_a_buffer_or_nothing(given: dict[str, Any]) -> None:
    x = [torch.nn.Parameter(torch.ones(s)) for s in ((2, 3), ())]
    for fused in (None, False):
        state = step_once(optim.SGD(x, **given, fused=fused))
        expected = step_once(torch.optim.SGD(x, **given))
        assert {p: set(held) for p, held in state.items()} == {p: set(held) for p, held in expected.items()}
