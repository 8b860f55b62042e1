"""Which parameters decay."""

import pytest
import torch
from torch import nn

from gradprix import optim


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.GroupNorm(1, 2)
        self.out = nn.Linear(4, 10)
        self.out.weight = self.embed.weight  # tied
        self.gate = nn.Parameter(torch.ones(()))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def names(groups: list[dict]) -> list[list[str]]:
    return [[name for name, _ in group["params"]] for group in groups]


def test_biases_and_norms_do_not_decay() -> None:
    made = optim.groups(Net(), 0.1, lr=0.5)

    assert names(made) == [
        ["embed.weight", "conv.weight"],
        ["gate", "conv.bias", "norm.weight", "norm.bias", "out.bias"],
    ]
    assert [group["weight_decay"] for group in made] == [0.1, 0.0]
    assert [group["lr"] for group in made] == [0.5, 0.5]


def test_more_can_be_named() -> None:
    assert names(optim.groups(Net(), 0.1, no_decay=["embed.*"]))[0] == ["conv.weight"]
    with pytest.raises(ValueError, match="no trainable parameter is called 'embedding"):
        optim.groups(Net(), 0.1, no_decay=["embedding.*"])


def test_an_optimizer_takes_them_and_decays_accordingly() -> None:
    model = Net()
    optimizer = optim.AdamW(optim.groups(model, 0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = model.conv.weight.detach().clone()
    optimizer.step()

    assert torch.allclose(model.conv.weight, before * 0.95)
    assert (model.norm.weight == 1).all()
    assert optimizer.param_groups[0]["param_names"] == ["embed.weight", "conv.weight"]


def test_a_model_of_biases_alone_has_one_group() -> None:
    assert len(optim.groups(nn.BatchNorm1d(3), 0.1)) == 1
