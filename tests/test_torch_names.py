"""The names of torch.optim under gradprix.optim: modules, classes, and what `isinstance` says of an optimizer."""

import copy
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from gradprix import optim

MODULES = [m.name for m in pkgutil.iter_modules(torch.optim.__path__) if not m.name.startswith("_")]
SHARED = "SGD Adagrad RMSprop Adadelta Adam AdamW Adamax NAdam RAdam Rprop ASGD Adafactor".split()


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(3))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_torch_has_the_same_names_here_and_our_classes(name: str) -> None:
    theirs = importlib.import_module(f"torch.optim.{name}")
    ours = importlib.import_module(f"gradprix.optim.{name}")
    for public in theirs.__all__:
        expected = getattr(optim, public) if public in SHARED else getattr(theirs, public)
        assert getattr(ours, public) is expected
    assert ours.Optimizer is torch.optim.Optimizer if hasattr(theirs, "Optimizer") else True
    assert getattr(optim, name) is ours, "as an attribute, once it is imported"
    with pytest.raises(AttributeError):
        _ = ours.no_such_name


def test_each_way_to_import() -> None:
    code = """
import gradprix.optim.adam
import gradprix.optim.lr_scheduler as by_alias
from gradprix.optim import lr_scheduler, sgd
from gradprix.optim.adamw import AdamW, adamw
from gradprix.optim.nadam import *
from gradprix.optim.optimizer import Optimizer, required
from gradprix.optim.swa_utils import AveragedModel
from gradprix import optim
import torch
assert gradprix.optim.adam.Adam is optim.Adam and adamw.__module__ == "torch.optim.adamw"
assert by_alias is lr_scheduler is optim.lr_scheduler is torch.optim.lr_scheduler
assert sgd.SGD is optim.SGD and AdamW is optim.AdamW and NAdam is optim.NAdam
assert optim.lr_scheduler.OneCycleLR is torch.optim.lr_scheduler.OneCycleLR
assert Optimizer is torch.optim.Optimizer and AveragedModel is torch.optim.swa_utils.AveragedModel
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("name", ["adam", "sgd", "lr_scheduler"])
def test_a_module_can_be_reloaded_and_read(name: str) -> None:
    module = importlib.import_module(f"gradprix.optim.{name}")
    if name != "lr_scheduler":  # which is torch's: reloading would make its classes anew
        assert importlib.reload(module) is module
        assert module.__all__ if hasattr(module, "__all__") else True
    assert "torch" in inspect.getsource(module)


@pytest.mark.parametrize("name", SHARED)
def test_an_optimizer_is_an_instance_of_torchs_class(name: str) -> None:
    ours, theirs = getattr(optim, name), getattr(torch.optim, name)
    optimizer = ours([parameter()], lr=0.1)
    for known in (theirs, torch.optim.Optimizer, optim.RuleOptimizer):
        assert isinstance(optimizer, known)
    # The classes of both families are related alike: in torch, AdamW is an Adam.
    for other in SHARED:
        assert issubclass(ours, getattr(optim, other)) == issubclass(theirs, getattr(torch.optim, other))
        assert issubclass(ours, getattr(torch.optim, other)) == issubclass(theirs, getattr(torch.optim, other))
    assert optim.from_rule(ours.rule) is ours


@pytest.mark.parametrize("name", SHARED)
def test_neither_torchs_constructor_nor_its_step_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("torch's own")

    for method in ("__init__", "step", "_init_group"):
        monkeypatch.setattr(getattr(torch.optim, name), method, refuse)
    x = parameter()
    optimizer = getattr(optim, name)([x], lr=0.1)
    x.grad = torch.ones_like(x)
    optimizer.step()
    assert not torch.equal(x, torch.ones(3))


@pytest.mark.parametrize("name", SHARED)
def test_copies_and_pickles_step_on(name: str) -> None:
    x = parameter()
    optimizer = getattr(optim, name)([x], lr=0.1)
    for _ in range(2):
        x.grad = torch.full_like(x, 0.3)
        optimizer.step()
    stepped = []
    for twin in (optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        y = twin.param_groups[0]["params"][0]
        y.grad = torch.full_like(y, 0.3)
        twin.step()
        stepped.append([y.detach(), *(value for _, value in sorted(twin.state[y].items()))])
    for copied in stepped[1:]:
        assert all(torch.equal(value, expected) for value, expected in zip(copied, stepped[0], strict=True))


def test_a_class_derived_with_another_constructor_and_step() -> None:
    class Halved(optim.AdamW):
        def __init__(self, params: Any, lr: float = 0.2) -> None:
            super().__init__(params, lr=lr / 2, weight_decay=0.0)
            self.steps = 0

        def step(self, closure: Any = None) -> Any:
            self.steps += 1
            return super().step(closure)

    x, y = parameter(), parameter()
    ours, theirs = Halved([x]), torch.optim.AdamW([y], lr=0.1, weight_decay=0.0)
    for optimizer, z in ((ours, x), (theirs, y)):
        z.grad = torch.ones_like(z)
        optimizer.step()
    torch.testing.assert_close(x, y)
    assert ours.steps == 1
    assert isinstance(ours, torch.optim.Adam)


def test_adagrad_shares_its_state_from_the_start() -> None:
    x = [parameter(), nn.Parameter(torch.ones(2, dtype=torch.complex64)), nn.Parameter(torch.ones(2).bfloat16())]
    made = [module.Adagrad(x, initial_accumulator_value=0.5) for module in (torch.optim, optim)]
    made[1].share_memory()
    for p in x:
        theirs, ours = (optimizer.state[p] for optimizer in made)
        assert theirs.keys() == ours.keys() == {"step", "sum"}
        torch.testing.assert_close(ours["sum"].to(p.dtype), theirs["sum"])
        assert ours["sum"].is_shared()
        assert ours["step"] == 0


@pytest.mark.parametrize("decoupled", [True, False])
def test_a_group_of_adamw_may_say_how_its_decay_acts(decoupled: bool) -> None:
    found = []
    for module in (torch.optim, optim):
        x, y = parameter(), parameter()
        groups = [{"params": [x], "decoupled_weight_decay": decoupled}, {"params": [y]}]
        optimizer = module.AdamW(groups, lr=0.1, weight_decay=0.5)
        for t in range(3):
            x.grad, y.grad = torch.full_like(x, 0.1 + t), torch.full_like(y, 0.1 + t)
            optimizer.step()
        found.append(torch.cat([x, y]).detach())
    torch.testing.assert_close(*found)
