"""What a checkpoint may hold: keys of others, what older versions of torch and of this package wrote, other dtypes."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from gradprix import optim

NAMES = "SGD Adagrad RMSprop Adadelta Adam AdamW Adamax NAdam RAdam Rprop ASGD Adafactor".split()
EVERY = [*NAMES, "Lion", "LAMB", "ScheduleFreeAdamW", "Muon"]
LATER = {"maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"}
"""The keys of groups that older versions of torch did not write."""


def trained(module: Any, name: str, steps: int = 3, dtype: torch.dtype = torch.float64, **given: Any) -> Any:
    x = nn.Parameter(torch.ones(2, 2, dtype=dtype))
    optimizer = getattr(module, name)([x], **{"lr": 0.1, **given})
    train(optimizer, x, 0, steps)
    return optimizer, x


def train(optimizer: Any, x: nn.Parameter, first: int, last: int) -> torch.Tensor:
    for t in range(first, last):
        x.grad = torch.full_like(x, 0.3) + t * torch.eye(2, dtype=x.dtype)
        optimizer.step()
    return x.detach()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("stepped", [True, False])
def test_what_stands_beside_the_parameters_is_carried_along(name: str, stepped: bool) -> None:
    optimizer, _ = trained(optim, name, steps=2 * stepped)
    fresh, _ = trained(optim, name, steps=1)
    beside = {"global_step": 7, "note": "warm", "averages": {"loss": torch.ones(2)}, ("a", 1): None, "list": [1, 2]}
    if not stepped and name == "Adagrad":
        fresh, _ = trained(optim, name, steps=0)
    optimizer.state.update(beside)
    packed = copy.deepcopy(optimizer.state_dict())
    fresh.load_state_dict(packed)
    for state in (packed["state"], fresh.state, fresh.state_dict()["state"]):
        assert {key: value for key, value in state.items() if key in ("global_step", "note", ("a", 1), "list")} == {
            key: value for key, value in beside.items() if key != "averages"
        }
        assert torch.equal(state["averages"]["loss"], torch.ones(2))


@pytest.mark.parametrize("name", NAMES)
def test_keys_of_a_users_own_in_a_parameters_state_are_carried_along(name: str) -> None:
    for a, b in ((optim, optim), (torch.optim, optim), (optim, torch.optim)):
        optimizer, x = trained(a, name, momentum=0.9) if name == "SGD" else trained(a, name)
        optimizer.state[x].update(ema=torch.full((2, 2), 0.25, dtype=torch.float64), more={"k": [1, 2]})
        other, y = trained(b, name)
        other.load_state_dict(optimizer.state_dict())
        assert other.state[y]["more"] == {"k": [1, 2]}
        assert torch.equal(other.state[y]["ema"], torch.full((2, 2), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Adafactor"])  # which torch does not complete
@pytest.mark.parametrize("counted", [float, int, torch.tensor], ids=["float", "int", "tensor"])
def test_a_checkpoint_of_an_older_torch_is_completed_as_torch_does(name: str, counted: Any) -> None:
    saved, x = trained(torch.optim, name, **({"momentum": 0.9} if name == "SGD" else {}))
    packed = copy.deepcopy(saved.state_dict())
    for group in packed["param_groups"]:
        for key in LATER & group.keys():
            del group[key]
    for held in packed["state"].values():
        for key in {"step", "mu_product"} & held.keys():
            held[key] = counted(held[key].item()) if key == "step" or counted is not int else held[key].item()
    found = []
    for module in (torch.optim, optim):
        given = {"maximize": True} if name != "Adadelta" else {}  # what the checkpoint does not say is off
        optimizer, y = trained(module, name, steps=1, **given)
        y.data.copy_(x.data)
        optimizer.load_state_dict(copy.deepcopy(packed))
        train(optimizer, y, 3, 6)
        kinds = {key: value.shape for key, value in optimizer.state[y].items()}
        found.append((y.detach(), optimizer.state_dict()["param_groups"], kinds))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=1e-6)  # torch's mu_product is in float32
    assert found[1][1:] == found[0][1:]


def older(optimizer: Any, x: nn.Parameter, name: str) -> dict[str, Any]:
    """Return a state dict as this package's first version wrote it."""
    packed = copy.deepcopy(optimizer.state_dict())
    exact = packed.pop("gradprix", {}).get(0, {})
    for group in packed["param_groups"]:
        group.setdefault("fused", None)
        if name == "AdamW":
            del group["decoupled_weight_decay"]
    held = packed["state"].setdefault(0, {})
    held.setdefault("step", torch.tensor(3.0))
    if name == "RMSprop":
        held["gradprix_square_avg"] = exact.get("square_avg", held["square_avg"].clone())
    return packed


@pytest.mark.parametrize(
    ("name", "given"),
    [*((name, {}) for name in NAMES), ("SGD", {"momentum": 0.9, "dampening": 0.5}), ("RMSprop", {"centered": True})],
)
def test_a_checkpoint_of_an_older_gradprix_goes_on_to_the_bit(name: str, given: dict[str, Any]) -> None:
    optimizer, x = trained(optim, name, **given)
    packed = older(optimizer, x, name)
    other, y = trained(optim, name, steps=1)
    y.data.copy_(x.data)
    other.load_state_dict(packed)
    assert torch.equal(train(other, y, 3, 6), train(optimizer, x, 3, 6))
    theirs, _ = trained(torch.optim, name, **given)
    ours = other.state_dict()
    assert {number: set(held) for number, held in ours["state"].items() if held} == {
        number: set(held) for number, held in theirs.state_dict()["state"].items()
    }
    assert [set(group) for group in ours["param_groups"]] == [set(group) for group in theirs.param_groups]


def test_centered_rmsprop_has_torchs_keys_and_loses_nothing() -> None:
    # The variance is tiny beside the mean: what is recomputed from torch's raw second moment has lost its digits.
    x = nn.Parameter(torch.zeros(2, 2))
    optimizer = optim.RMSprop([x], centered=True)
    for t in range(400):
        x.grad = 1 + 1e-4 * torch.randn(2, 2, generator=torch.Generator().manual_seed(t))
        optimizer.step()
    packed = copy.deepcopy(optimizer.state_dict())
    theirs = torch.optim.RMSprop([nn.Parameter(torch.zeros(2, 2))], centered=True)
    theirs.load_state_dict(packed)
    assert set(packed["state"][0]) == {"step", "square_avg", "grad_avg"} == set(theirs.state_dict()["state"][0])
    fresh = optim.RMSprop([x], centered=True)
    fresh.load_state_dict(packed)
    assert torch.equal(fresh.state[x]["square_avg"], optimizer.state[x]["square_avg"])
    # What torch changed since counts, not the digits kept beside it.
    packed["state"][0]["square_avg"] *= 2
    fresh.load_state_dict(packed)
    torch.testing.assert_close(fresh.state_dict()["state"][0]["square_avg"], packed["state"][0]["square_avg"])


@pytest.mark.parametrize("name", [*NAMES, "Lion", "ScheduleFreeAdamW"])
@pytest.mark.parametrize("flattened", [True, False])
def test_bfloat16_goes_through_distributed_checkpoints(name: str, flattened: bool) -> None:
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(flatten_optimizer_state_dict=flattened)
    sources = (optim, torch.optim) if name in NAMES else (optim,)
    for a, b in [(a, b) for a in sources for b in sources if optim in (a, b)]:
        models = [nn.Linear(3, 2, dtype=torch.bfloat16) for _ in range(2)]
        first, second = (getattr(o, name)(m.parameters(), lr=0.01) for o, m in zip((a, b), models, strict=True))
        for model, optimizer in zip(models, (first, second), strict=True):
            model(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
            optimizer.step()
        packed = copy.deepcopy(get_optimizer_state_dict(models[0], first, options=options))
        set_optimizer_state_dict(models[1], second, packed, options=options)
        models[1](torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
        second.step()
        for x, y in zip(models[0].parameters(), models[1].parameters(), strict=True):
            assert torch.isfinite(y).all()
            held = {key: value for key, value in second.state[y].items() if key == "step"}
            assert all(int(step) == int(first.state[x]["step"]) + 1 for step in held.values())


@pytest.mark.parametrize("target", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_state_of_another_dtype_takes_the_parameters(name: str, target: torch.dtype) -> None:
    optimizer, _ = trained(torch.optim, name, **({"momentum": 0.9} if name == "SGD" else {}))  # in float64
    found = []
    for module in (torch.optim, optim):
        other, y = trained(module, name, steps=0, dtype=target)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(other, y, 3, 5)
        wide = {key: value.dtype for key, value in other.state[y].items() if value.dim() and key != "compensation"}
        found.append((y.detach(), wide))
    loose = {"rtol": 2e-2, "atol": 2e-2} if target is torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found[1][0], found[0][0], **loose)
    if target is torch.float32:
        assert found[1][1] == found[0][1]
    else:
        assert set(found[1][1].values()) == {torch.float32}


DECOUPLED = {"weight_decay": 0.3, "decoupled_weight_decay": True}
SWITCHES: list[tuple[str, dict[str, Any]]] = [
    *(("Adam", given) for given in ({"amsgrad": True}, {"maximize": True}, {"betas": (0.5, 0.5), "eps": 1e-2})),
    *((name, DECOUPLED) for name in ("Adam", "NAdam", "RAdam")),
    *((name, {"maximize": True, "weight_decay": 0.1}) for name in ("Adagrad", "Adadelta", "Adamax", "RAdam")),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
]


@pytest.mark.parametrize(("name", "switch"), SWITCHES)
@pytest.mark.parametrize("on", [True, False])
def test_an_option_that_the_checkpoint_switches_is_obeyed_and_saved(
    name: str, switch: dict[str, Any], on: bool
) -> None:
    there, here = ({**switch}, {"weight_decay": 0.3}) if on else ({"weight_decay": 0.3}, {**switch})
    expected = None
    for a, b in ((a, b) for a in (torch.optim, optim) for b in (torch.optim, optim)):
        saved, x = trained(a, name, **there)
        optimizer, y = trained(b, name, steps=2, **here)
        y.data.copy_(x.data)
        optimizer.load_state_dict(copy.deepcopy(saved.state_dict()))
        found = train(optimizer, y, 3, 6), optimizer.state_dict()["param_groups"]
        expected = expected or found
        tolerance = 1e-6 if name == "NAdam" else 1e-12  # torch's mu_product is in float32
        torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=tolerance)
        assert found[1] == expected[1]


def test_names_that_occur_twice_are_matched_in_order() -> None:
    found = []
    for module in (torch.optim, optim):
        x = [nn.Parameter(torch.full((2,), float(i))) for i in range(3)]
        first = module.Adam(list(zip("abb", x, strict=True)), lr=0.1)
        for i, p in enumerate(x):
            p.grad = torch.full_like(p, 0.1 * (i + 1))
        first.step()
        second = module.Adam(list(zip("bab", x, strict=True)), lr=0.1)
        second.load_state_dict(first.state_dict())
        found.append([second.state[p]["exp_avg"] for p in x])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
