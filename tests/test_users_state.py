"""Tensors that a user puts into an optimizer's state are the user's: every step changes them in place, as in torch."""

import math
import multiprocessing
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradprix import optim

GIVEN: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adam": {"amsgrad": True},
    **{name: {} for name in ("Adagrad", "Adadelta", "AdamW", "Adamax", "NAdam", "RAdam", "Lion", "Adan", "AdEMAMix")},
    **{name: {} for name in ("ADOPT", "LAMB", "ScheduleFreeSGD", "ScheduleFreeAdamW")},
}


def as_it_is(value: Tensor) -> Tensor:
    return value.clone()


def shared(value: Tensor) -> Tensor:
    return value.clone().share_memory_()


def map_concurrently(value: Tensor) -> Tensor:
    """A view of memory that has other things in it."""
    base = torch.zeros(value.numel() + 7, dtype=value.dtype)
    return base[3 : 3 + value.numel()].view(value.shape).copy_(value)


def with_gaps(value: Tensor) -> Tensor:
    return torch.zeros(*value.shape, 2, dtype=value.dtype)[..., 0].copy_(value)


def wider(value: Tensor) -> Tensor:
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


def whole_steps(value: Tensor) -> Tensor:
    return value.long() if value.dim() == 0 and value == value.round() == 2 else value.clone()


def half(value: Tensor) -> Tensor:
    return value.bfloat16() if value.dim() and not value.is_complex() else value.clone()


def given_state(name: str, dtype: torch.dtype, change: Any, eager: bool = False) -> tuple[Any, Any, dict[str, Tensor]]:
    """An optimizer two steps old with its tensors replaced by others, its parameter and those tensors."""
    p = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4).to(dtype))
    optimizer = getattr(optim, name)([p], lr=0.01, **GIVEN[name])
    if eager:
        optimizer.param_groups[0]["fused"] = False
    for _ in range(2):
        step(optimizer, p)
    own = {key: change(value) for key, value in optimizer.state[p].items() if key != "compensation"}
    optimizer.state[p].update(own)
    return optimizer, p, own


def step(optimizer: Any, p: nn.Parameter) -> None:
    p.grad = torch.ones_like(p)
    optimizer.step()


@pytest.mark.sample(7)
@pytest.mark.parametrize("eager", [False, True], ids=["fused", "eager"])
@pytest.mark.parametrize(
    ("dtype", "change"),
    [
        *((torch.float32, change) for change in (as_it_is, shared, map_concurrently, with_gaps, wider, whole_steps)),
        *((dtype, shared) for dtype in (torch.bfloat16, torch.float16, torch.complex64)),
        (torch.bfloat16, half),
    ],
)
@pytest.mark.parametrize("name", GIVEN)
def test_tensors_stay_where_they_are(name: str, dtype: torch.dtype, change: Any, eager: bool) -> None:
    optimizer, p, own = given_state(name, dtype, change, eager)
    facts = {key: (value.data_ptr(), value.dtype, value.is_shared()) for key, value in own.items()}
    twin, q, _ = given_state(name, dtype, as_it_is)
    for _ in range(3):
        step(optimizer, p)
        step(twin, q)
    for key, value in own.items():
        assert optimizer.state[p][key] is value
        assert (value.data_ptr(), value.dtype, value.is_shared()) == facts[key]
        ours, theirs = value.to(torch.complex128), twin.state[q][key].to(torch.complex128)
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=1e-3)
    torch.testing.assert_close(p, q, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("name", GIVEN)
def test_tensors_that_were_loaded_stay_where_they_are(name: str) -> None:
    optimizer, p, _ = given_state(name, torch.float32, as_it_is)
    optimizer.load_state_dict(optimizer.state_dict())
    loaded = dict(optimizer.state[p])
    places = {key: value.data_ptr() for key, value in loaded.items()}
    before = {key: value.clone() for key, value in loaded.items()}
    step(optimizer, p)
    assert all(optimizer.state[p][key] is value for key, value in loaded.items())
    assert {key: value.data_ptr() for key, value in loaded.items()} == places
    assert all(not torch.equal(value, before[key]) for key, value in loaded.items() if key == "step")


def test_counts_that_are_read_and_written_one_at_a_time_are_those_of_torch() -> None:
    found = []
    for module in (torch.optim, optim):
        params = [nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(4)]
        optimizer = module.NAdam(params, lr=0.1)
        for i, p in enumerate(params):
            averages = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            count = torch.tensor(float(i), dtype=[torch.float32, torch.float64][i % 2])
            optimizer.state[p] = {"step": count, "mu_product": torch.tensor(0.9**i, dtype=torch.float64), **averages}
        for t in range(5):
            for p in params:
                p.grad = torch.full_like(p, t - 1.5)
            optimizer.step()
        found.append([*(p.detach() for p in params), *(optimizer.state[p]["step"] for p in params)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def add_to(count: Tensor, by: float) -> None:
    count += by


def test_another_process_steps_count_is_seen_by_the_next_step() -> None:
    found = []
    for module in (torch.optim, optim):
        p = nn.Parameter(torch.ones(3))
        optimizer = module.Adam([p], lr=0.1)
        step(optimizer, p)
        optimizer.state[p]["step"].share_memory_()
        count = optimizer.state[p]["step"]
        step(optimizer, p)
        worker = multiprocessing.get_context("spawn").Process(target=add_to, args=(count, 10))
        worker.start()
        worker.join()
        p.grad = torch.full((3,), -0.3)
        optimizer.step()
        assert (count.item(), optimizer.state[p]["step"] is count) == (13, True)
        found.append(p.detach())
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


EVERY = [n for n in optim.__all__ if n not in ("from_rule", "groups", "muon_groups", "of", "RuleOptimizer")]


def arguments(name: str, params: list[nn.Parameter]) -> dict[str, Any]:
    """Return arguments of a class such that float32 shows its first steps, with groups for Muon and AdamW."""
    if name == "MuonWithAuxAdam":
        flags = {flag: [p for p in params if (p.dim() > 1) is flag] for flag in (True, False)}
        return {"params": [{"params": some, "use_muon": flag} for flag, some in flags.items()], "lr": 0.01}
    if name == "Muon":
        return {"params": params, "lr": 0.01, "weight_decay": 0.1}
    return {"params": params, "lr": 1.0 if name == "DoG" else 0.01}  # the first steps of DoG are lr * 1e-6 long


@pytest.mark.parametrize("eager", [False, True], ids=["fused", "eager"])
@pytest.mark.parametrize("name", EVERY)
def test_parameters_without_elements_or_dimensions(name: str, eager: bool) -> None:
    shapes = ((3, 3), (0, 10), (3, 0), (), (0,), (2,), (4, 0, 2))
    shapes = tuple(s for s in shapes if len(s) == 2) if name == "Muon" else shapes  # like torch's, of matrices alone
    params = [nn.Parameter(torch.ones(s)) for s in shapes]
    optimizer = getattr(optim, name)(**arguments(name, params))
    for group in optimizer.param_groups if eager else []:
        group["fused"] = False
    for _ in range(3):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    for p in params:
        assert p.isfinite().all()
        assert not p.numel() or not torch.equal(p, torch.ones_like(p))
    alone = [nn.Parameter(torch.empty(0, 10))]
    optimizer = getattr(optim, name)(**arguments(name, alone))
    alone[0].grad = torch.empty(0, 10)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert all(math.isfinite(x) for group in optimizer.param_groups for x in group.values() if isinstance(x, float))
