"""Schedule-Free, step by step against its authors' package: iterates, averages, and what the names mean."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from gradprix import optim, race, rules

schedulefree = pytest.importorskip("schedulefree", reason="the authors' package: pip install -e '.[dev]'")

SAME_NAMES = {
    "ScheduleFreeSGD": "SGDScheduleFree",
    "ScheduleFreeAdamW": "AdamWScheduleFreePaper",
    "AdamWScheduleFree": "AdamWScheduleFree",
}
SHARED: list[dict[str, Any]] = [
    {},
    {"lr": 0.05, "weight_decay": 0.1},
    {"lr": 0.05, "warmup_steps": 7},
    {"lr": 0.05, "warmup_steps": 7, "r": 1.0, "weight_lr_power": 0.0, "weight_decay": 0.3},
    {"lr": 0.0},
    {"foreach": False, "weight_decay": 0.1},
    {"foreach": True, "r": 0.5},
]
OWN: dict[str, list[dict[str, Any]]] = {
    "ScheduleFreeSGD": [{"momentum": 0.5}, {"momentum": 0.98, "warmup_steps": 3}],
    "ScheduleFreeAdamW": [{"betas": (0.5, 0.8), "eps": 1e-3}, {"betas": (0.98, 0.999)}],
    "AdamWScheduleFree": [{"betas": (0.5, 0.8), "eps": 1e-3}, {"betas": (0.98, 0.999)}],
}
TABLE = [pytest.param(name, given, id=f"{name}-{given}") for name, own in OWN.items() for given in (*SHARED, *own)]


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in ((3, 4), (5,), ())]


def give(params: list[nn.Parameter], t: int) -> None:
    generator = torch.Generator().manual_seed(100 + t)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64) * 10.0 ** (t % 3 - 1)


@pytest.mark.parametrize(("name", "given"), TABLE)
def test_iterates_and_averages_are_the_authors(name: str, given: dict[str, Any]) -> None:
    ours, theirs = parameters(), parameters()
    a = getattr(optim, name)(ours, **given)
    b = getattr(schedulefree, SAME_NAMES[name])(theirs, **given)
    a.train()
    b.train()
    for t in range(50):
        give(ours, t)
        give(theirs, t)
        a.step()
        b.step()  # which writes into the gradients
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)
            torch.testing.assert_close(a.state[p]["z"], b.state[q]["z"], rtol=1e-11, atol=1e-12)
        if t % 10 == 9:
            a.eval()
            b.eval()
            for p, q in zip(ours, theirs, strict=True):
                torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-11)
            a.train()
            b.train()


@pytest.mark.parametrize("name", SAME_NAMES)
def test_arguments_and_defaults_are_the_authors(name: str) -> None:
    ours = inspect.signature(getattr(optim, name)).parameters
    theirs = inspect.signature(getattr(schedulefree, SAME_NAMES[name])).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert all(ours[key].default == theirs[key].default for key in theirs if key != "foreach")


def test_the_two_forms_of_adamw_differ_and_are_one_option_apart() -> None:
    points = {}
    for key, make in {
        "paper": lambda p: optim.ScheduleFreeAdamW(p, lr=0.05),
        "today": lambda p: optim.AdamWScheduleFree(p, lr=0.05),
        "option": lambda p: optim.ScheduleFreeAdamW(p, lr=0.05, correct_second_moment=True),
        "off": lambda p: optim.AdamWScheduleFree(p, lr=0.05, correct_second_moment=False),
    }.items():
        params = parameters()
        optimizer = make(params)
        for t in range(30):
            give(params, t)
            optimizer.step()
        points[key] = torch.cat([p.detach().flatten() for p in params])
    assert torch.equal(points["today"], points["option"])
    assert torch.equal(points["paper"], points["off"])
    assert (points["today"] - points["paper"]).abs().max() > 1e-2


def test_a_checkpoint_keeps_its_form() -> None:
    for first, then in (("AdamWScheduleFree", "ScheduleFreeAdamW"), ("ScheduleFreeAdamW", "AdamWScheduleFree")):
        straight, resumed = parameters(), parameters()
        a, b = getattr(optim, first)(straight, lr=0.05), getattr(optim, then)(resumed, lr=0.05)
        for t in range(5):
            give(straight, t)
            a.step()
        for p, q in zip(resumed, straight, strict=True):
            p.data.copy_(q.data)
        b.load_state_dict(a.state_dict())
        for t in range(5, 10):
            give(straight, t)
            give(resumed, t)
            a.step()
            b.step()
        assert all(torch.equal(p, q) for p, q in zip(straight, resumed, strict=True))


def test_both_forms_race_by_name() -> None:
    paper, today = (race.ENTRIES[name] for name in ("schedule_free_adamw", "schedule_free_adamw-corrected"))
    assert paper.rule == today.rule
    assert optim.from_rule(rules.schedule_free_adamw) is optim.ScheduleFreeAdamW
    assert today.code(0.1) == "gradprix.optim.ScheduleFreeAdamW(params, lr=0.1, correct_second_moment=True)"
    assert (dict(paper.fixed), dict(today.fixed)) == ({}, {"correct_second_moment": True})


def train(make_optimizer: Any, seed: int) -> float:
    """Return a score, as a training loop does."""
    return 0.0


MINE = race.Entry("mine", rules.schedule_free_adamw, schedule="linear")
SCHEDULES = [
    ({"task": "digits"}, "warmup", "cosine"),
    ({"task": "digits", "schedule": "linear"}, "warmup", "linear"),
    ({"task": "digits", "schedule": "constant"}, "constant", "constant"),
    ({"task": train, "direction": "min"}, "its own", "its own"),
]


@pytest.mark.parametrize(("problem", "scheduled", "usual"), SCHEDULES)
def test_by_name_they_have_their_authors_schedule_where_there_is_one(
    problem: dict[str, Any], scheduled: str, usual: str
) -> None:
    names = ["schedule_free_adamw", "schedule_free(lion)", "clipped(schedule_free_sgd, norm=1)", "adamw", "ema(adamw)"]
    plan = race.make_plan(optimizers=names, **problem)
    schedules = [plan.final_trial(entry, {"lr": 0.1}, 0).schedule for entry in plan.entries]
    assert schedules == [scheduled] * 3 + [usual] * 2


def test_tuning_and_entries_of_users_keep_their_schedules() -> None:
    config = race.RaceConfig("digits", ["schedule_free_adamw"], tune="schedule", trials=2)
    assert race.make_tune_plan(config).default_point["schedule"] == "warmup"
    plan = race.make_plan("digits", [MINE, "adamw"], schedule="constant")
    assert plan.final_trial(plan.entries[0], {"lr": 0.1}, 0).schedule == "linear"
    with pytest.raises(ValueError, match="mine sets a schedule"):
        race.make_plan(train, [MINE, "adamw"], direction="min")
