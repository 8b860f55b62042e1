"""Wrong parameters, groups and state dicts raise what torch raises."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from gradprix import optim

NAMES = "SGD Adagrad RMSprop Adadelta Adam AdamW Adamax NAdam RAdam Rprop ASGD Adafactor".split()
A, B = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
Make = Callable[..., torch.optim.Optimizer]

WRONG: dict[str, Callable[[Make], Any]] = {
    # The parameters
    "None": lambda make: make(None),
    "nothing": lambda make: make(),
    "a tensor": lambda make: make(A),
    "a number": lambda make: make(3),
    "a string": lambda make: make("weights"),
    "a model": lambda make: make(nn.Linear(2, 2)),
    "an empty list": lambda make: make([]),
    "an empty generator": lambda make: make(x for x in ()),
    "numbers": lambda make: make([1, 2]),
    "None in a list": lambda make: make([None]),
    "a list in a list": lambda make: make([[A]]),
    "a dict": lambda make: make({"params": [A]}),
    "no leaf": lambda make: make([A * 2]),
    "twice": lambda make: make([A, A]),
    "named twice": lambda make: make([("a", A), ("a", B)]),
    "some named": lambda make: make([("a", A), B]),
    "a tuple of one": lambda make: make([(A,)]),
    # The groups
    "a group of nothing": lambda make: make([{"params": []}]),
    "a group of None": lambda make: make([{"params": None}]),
    "a group of a string": lambda make: make([{"params": "ab"}]),
    "a group of a set": lambda make: make([{"params": {A, B}}]),
    "a group without parameters": lambda make: make([{"lr": 0.1}]),
    "a group, then a tensor": lambda make: make([{"params": [A]}, B]),
    "a tensor, then a group": lambda make: make([A, {"params": [B]}]),
    "in two groups": lambda make: make([{"params": [A]}, {"params": [A]}]),
    "names in one group": lambda make: make([{"params": [A]}, {"params": [("b", B)]}]),
    "add a tensor": lambda make: make([A]).add_param_group(B),
    "add None": lambda make: make([A]).add_param_group(None),
    "add a list": lambda make: make([A]).add_param_group([B]),
    "add a known parameter": lambda make: make([A]).add_param_group({"params": A}),
    "add without parameters": lambda make: make([A]).add_param_group({}),
    # The arguments
    "lr of two": lambda make: make([A], lr=torch.ones(2)),
    "lr is negative": lambda make: make([A], lr=-1.0),
    "lr is None": lambda make: make([A], lr=None),
    "lr is a string": lambda make: make([A], lr="0.1"),
    "decay is negative": lambda make: make([A], weight_decay=-1.0),
    "unknown": lambda make: make([A], rate=0.1),
    "too many": lambda make: make([A], *[0.1] * 30),
    # The state dicts
    "load None": lambda make: make([A]).load_state_dict(None),
    "load nothing": lambda make: make([A]).load_state_dict({}),
    "load no state": lambda make: make([A]).load_state_dict({"param_groups": make([A]).state_dict()["param_groups"]}),
    "load a number for groups": lambda make: make([A]).load_state_dict({"state": {}, "param_groups": 3}),
    "load groups without parameters": lambda make: make([A]).load_state_dict({"state": {}, "param_groups": [{}]}),
    "load more groups": lambda make: make([A]).load_state_dict(make([{"params": [A]}, {"params": [B]}]).state_dict()),
    "load more parameters": lambda make: make([A]).load_state_dict(make([A, B]).state_dict()),
}
FINE = ["a group of nothing", "named twice"]
"""What torch accepts."""


def raised(wrong: Callable[[Make], Any], make: Make) -> type[BaseException] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            wrong(make)
        except Exception as error:
            return type(error)
    return None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", WRONG)
def test_the_error_is_torchs(name: str, what: str) -> None:
    expected = raised(WRONG[what], getattr(torch.optim, name))
    if (name, what) == ("Rprop", "decay is negative"):
        expected = ValueError  # torch's Rprop has no weight decay
    assert (expected is None) == (what in FINE)
    assert raised(WRONG[what], getattr(optim, name)) is expected


@pytest.mark.parametrize("name", ["Lion", "LAMB", "ScheduleFreeSGD", "ADOPT", "Muon"])
@pytest.mark.parametrize("what", WRONG)
def test_classes_that_torch_lacks_raise_the_same(name: str, what: str) -> None:
    make = partial(optim.Muon, like="torch") if name == "Muon" else getattr(optim, name)
    assert raised(WRONG[what], make) is raised(WRONG[what], torch.optim.Adam)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "AdamW"])
@pytest.mark.parametrize("also", ["foreach", "differentiable"])
def test_two_implementations_at_once_are_refused(name: str, also: str) -> None:
    for module in (torch.optim, optim):
        with pytest.raises(RuntimeError):
            getattr(module, name)([A], **{"fused": True, also: True})
