from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gradprix.executors.local import Local
from gradprix.race import make_plan, preflight
from gradprix.race.preflight import preflight as run_preflight
from gradprix.tasks import Data, digits
from gradprix.training import FirstStep
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause

pytestmark = pytest.mark.remembered
STACKED = ExecutionMode(widest=33)


class Check:
    """Replaces the check of a plan: counts the calls."""

    def __init__(self) -> None:
        self.calls, self.mode = 0, STACKED

    def __call__(self, *_: Any) -> ExecutionMode:
        self.calls += 1
        return self.mode


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Check:
    """The check of plans on this machine, whose cache folder is empty."""
    replacement = Check()
    monkeypatch.setenv("GRADPRIX_CACHE", str(tmp_path))
    monkeypatch.setattr(preflight, "check", replacement)
    monkeypatch.setattr(preflight, "first_step", lambda plan: FirstStep(1, 1e-3, 1e-3, 1.0, 1.0, 1.0))
    monkeypatch.setattr(Local, "call", lambda self, function, *args: function(*args))
    monkeypatch.setattr(Local, "warm_up", lambda self, *args: None)
    return replacement


def modes(*plans: Any, engine: Callable[[], Local] = Local) -> list[ExecutionMode]:
    """Return the mode of each plan, each on an executor of its own, as in processes of their own."""
    return [run_preflight(plan, engine()) for plan in plans]


def test_a_plan_is_checked_once(check: Check) -> None:
    plan = make_plan(digits, "adamw,nesterov")
    assert modes(plan, plan, make_plan(digits, "adamw,nesterov", trials=7, seeds=9, seed=3)) == [STACKED] * 3
    assert check.calls == 1


@pytest.mark.parametrize(
    "change",
    [
        {"optimizers": "adamw,nesterov,lion"},
        {"optimizers": "adamw,lion"},
        {"batch_size": 16},
        {"epochs": 3},
        {"schedule": "constant"},
        {"tune": "batch_size"},
        {"tune": "weight_decay"},
        {"compile": True},
        {"task": digits.change(loss=lambda output, target: torch.nn.functional.cross_entropy(output, target) * 2)},
        {"task": digits.change(model=lambda: torch.nn.Linear(64, 10))},
        {"task": digits.change(clip_norm=1.0)},
        {"task": digits.change(accumulate=2)},
        {"task": digits.change(groups="no_decay_norms")},
        {"task": digits.change(ema=0.9)},
        {"task": digits.change(autocast=torch.bfloat16)},
    ],
    ids=(
        "optimizers fewer batch_size epochs schedule tunes_batch_size tunes_decay compile loss model clip_norm "
        "accumulate groups ema autocast"
    ).split(),
)
def test_another_plan_is_checked(check: Check, change: dict[str, Any]) -> None:
    first = {"task": digits, "optimizers": "adamw,nesterov"}
    modes(make_plan(**first), make_plan(**first | change))
    assert check.calls == 2


@pytest.mark.parametrize(
    "mode",
    [
        ExecutionMode(False, stack_rejection=Rejection(RejectionCause.SLOWER, 1.5)),
        ExecutionMode(False, stack_rejection=Rejection(RejectionCause.SLOW_STEP, 1.5)),
        ExecutionMode(device_rejection=Rejection(RejectionCause.SLOWER, 1.5, device="cuda")),
        ExecutionMode(compiled=True),
    ],
    ids="slower slow_step device compiled".split(),
)
def test_a_mode_that_depends_on_times_or_devices_is_checked_again(check: Check, mode: ExecutionMode) -> None:
    check.mode = mode
    plan = make_plan(digits, "adamw,nesterov")
    assert modes(plan, plan) == [mode] * 2
    assert check.calls == 2


class Augmented(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.randn(64), i % 10


def test_examples_that_are_read_on_demand_are_checked_again(check: Check) -> None:
    plan = make_plan(digits.change(data=lambda: Data.from_dataset(Augmented())), "adamw,nesterov")
    modes(plan, plan)
    assert check.calls == 2


def test_another_memory_limit_is_checked(check: Check) -> None:
    plan = make_plan(digits, "adamw,nesterov")
    modes(plan)
    modes(plan, engine=lambda: Local(memory=1.0))
    assert check.calls == 2


def test_an_unreadable_record_is_replaced(check: Check, tmp_path: Path) -> None:
    plan = make_plan(digits, "adamw,nesterov")
    modes(plan)
    for file in (tmp_path / "gradprix" / "checked").iterdir():
        file.write_text("{")
    assert modes(plan, plan) == [STACKED] * 2
    assert check.calls == 2


def test_without_a_cache_folder_every_plan_is_checked(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPRIX_CACHE", "/dev/null/nowhere")
    plan = make_plan(digits, "adamw,nesterov")
    modes(plan, plan)
    assert check.calls == 2
