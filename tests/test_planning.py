"""What planning a race costs: how many models, steps, examples and bytes it takes before anything is trained."""

import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradprix as gp
from gradprix.race import LiveProgress, Local, estimate, fit_to_budget, loop_check, make_plan, measure_cost, progress
from gradprix.race.budget import fit
from gradprix.race.cost import Cost
from gradprix.training import first_step
from gradprix.training.autotune import StackLayout
from gradprix.training.execution_mode import RejectionCause


class Here(Local):
    """Asks this process, so that what it does can be counted."""

    def call_workers(self, count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        return [function(*args) for _ in range(count)]


class Counted:
    """Makes models, and counts them, those alive at once, and their forward passes."""

    def __init__(self, seconds: float, make: Callable[[], nn.Module]) -> None:
        self.seconds, self.make = seconds, make
        self.made = self.forwards = self.most = 0
        self.alive: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def __call__(self) -> nn.Module:
        model = self.make()
        model.register_forward_hook(self.passed)
        self.alive.add(model)
        self.made += 1
        self.most = max(self.most, len(self.alive))
        return model

    def passed(self, *_: Any) -> None:
        self.forwards += 1
        time.sleep(self.seconds)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(-1) == targets).double().mean()


def task(model: Callable[[], nn.Module], data: Callable[[], gp.Data], **more: Any) -> gp.Task:
    metric = gp.Metric("accuracy", accuracy, higher_is_better=True, margin=0.01)
    given = {"batch_size": 16, "epochs": 1, "baseline": 0.5, **more}
    return gp.Task(name="slow", model=model, loss=nn.functional.cross_entropy, metric=metric, data=data, **given)


def examples(count: int = 400, width: int = 4) -> gp.Data:
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    return gp.Data(x, (x[:, 0] > 0).long())


def test_a_slow_model_is_tried_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_step, "SLOW", 0.3)
    model = Counted(0.35, lambda: nn.Linear(4, 2))
    plan = make_plan(task(model, examples))
    heard: list[str] = []
    engine = Here(1)
    cost = measure_cost(plan, engine, lambda progress: heard.append(progress.phase))
    ((_, form),) = engine.checked.values()
    assert len(plan.entries) == 10
    assert not form.stacked
    assert form.stack_rejection.cause is RejectionCause.SLOW_STEP
    assert model.made <= 9
    assert model.forwards <= 14
    assert len(heard) >= 3, "it says what it does"
    assert cost.network >= 0.35
    assert cost.shape == StackLayout(1, 1)
    runs, steps = plan.runs, 15
    assert estimate(plan, cost) > runs * steps * 0.35


def test_a_large_model_is_never_held_many_times() -> None:
    model = Counted(0, lambda: nn.Sequential(nn.Linear(4, 200_000), nn.ReLU(), nn.Linear(200_000, 2)))
    plan = make_plan(task(model, examples))
    engine = Here(1, memory=1.0)
    measure_cost(plan, engine)
    ((_, form),) = engine.checked.values()
    assert not form.stacked
    assert form.stack_rejection.cause is RejectionCause.MEMORY
    assert model.most <= 4
    assert model.made <= 16


def test_a_model_that_has_no_room_at_all_is_refused() -> None:
    model = Counted(0, lambda: nn.Sequential(nn.Linear(4, 200_000), nn.ReLU(), nn.Linear(200_000, 2)))
    with pytest.raises(gp.race.MemoryTooSmallError, match="one network of task 'slow' takes about"):
        measure_cost(make_plan(task(model, examples)), Here(1, memory=0.45))


class Read:
    """A dataset that is other each time it is read, and counts how often that is."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.reads = seconds, 0

    def __len__(self) -> int:
        return 5_000

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        self.reads += 1
        time.sleep(self.seconds)
        return torch.randn(4), number % 2


def test_of_a_slow_dataset_few_examples_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_step, "SLOW", 0.5)
    data = Read(0.02)
    plan = make_plan(task(lambda: nn.Linear(4, 2), lambda: gp.Data.from_dataset(data), batch_size=32))
    cost = measure_cost(plan, Here(1))
    assert data.reads <= 600
    assert cost.network >= 32 * 0.02
    assert cost.evaluation >= 0.9 * 0.02 * len(plan.task.loaded.split(0).valid)


def test_examples_are_loaded_once_whatever_is_tried() -> None:
    loads = []

    def data() -> gp.Data:
        loads.append(1)
        return examples()

    cost = Cost(0.0, step=1e-3, network=1e-2, evaluation=1e-2, shape=StackLayout(1, 1))
    plan = make_plan(task(lambda: nn.Linear(4, 2), data, epochs=16))
    assert fit(plan, 1.0, cost).left_out
    assert len(loads) == 1


def test_a_slow_loop_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_check, "MAX_EPOCH_SECONDS", 0.3)
    steps: list[int] = []

    def train(make_optimizer: Any, seed: int) -> Iterator[dict[str, float]]:
        model = nn.Linear(4, 1)
        optimizer = make_optimizer(model.parameters())
        for _ in range(100_000):
            model(torch.ones(4)).sum().backward()
            optimizer.step()
            steps.append(seed)
            time.sleep(0.01)
        yield {"valid": 0.5}

    plan = make_plan(train, direction="max")
    with pytest.raises(ValueError, match="take more than"):
        fit_to_budget(plan, 0.5, Here(1), None)
    assert 0 < len(steps) < 200


def test_a_slow_loop_that_does_the_same_under_two_seeds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_check, "MAX_EPOCH_SECONDS", 0.2)

    def train(make_optimizer: Any, seed: int) -> Iterator[dict[str, float]]:
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        optimizer = make_optimizer(model.parameters())
        for _ in range(100_000):
            model(torch.ones(4)).sum().backward()
            optimizer.step()
            time.sleep(0.01)
        yield {"valid": 0.5}

    with pytest.raises(gp.race.TaskError, match="two seeds"):
        measure_cost(make_plan(train, direction="max"), Here(1))


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0])
def test_a_slow_model_gets_a_part_of_an_epoch(seconds: float) -> None:
    cost = Cost(start=10.0, step=0.0, network=seconds, evaluation=seconds, shape=StackLayout(1, 2))
    plan = make_plan(task(lambda: nn.Linear(4, 2), lambda: examples(2_000)))
    made = fit(plan, 12, cost)
    assert estimate(made, cost) <= 0.9 * 12 * 60
    assert estimate(made, cost) > 0.6 * 12 * 60, "the time is used"
    assert 0 < made.task.epochs < 1
    assert made.examples is not None
    assert made.examples % 16 == 0, "whole batches"
    assert made.updates(made.entries[0]) == made.examples // 16 >= 8
    assert "epochs" in [omission.part for omission in made.left_out]
    with pytest.raises(ValueError, match=r"even 2 optimizers with 6 trials and 6 seeds take about .* minutes here"):
        fit(plan, 12, Cost(10.0, 0.0, 100.0, 10.0, StackLayout(1, 2)))


def test_two_optimizers_race_where_an_epoch_has_few_steps() -> None:
    cost = Cost(start=10.0, step=0.0, network=1.0, evaluation=2.0, shape=StackLayout(1, 2))
    plan = make_plan(task(lambda: nn.Linear(4, 2), lambda: examples(200)))  # 8 steps, of which none can be left out
    for minutes, trials in ((4, 10), (2.8, 6)):
        made = fit(plan, minutes, cost)
        assert (len(made.entries), made.trials, made.task.epochs) == (2, trials, 1)
        assert estimate(made, cost) <= 0.9 * minutes * 60


def test_a_race_of_a_part_of_an_epoch() -> None:
    few = {"optimizers": "adam,momentum", "trials": 1, "seeds": 6, "processes": 1}
    of = task(lambda: nn.Linear(4, 2), examples)
    record = gp.race(of.change(epochs=0.25), **few).record
    assert record.plan.examples == 60
    assert {entry.updates for entry in record.entries} == {4}
    whole = gp.race(of, **few).record
    assert whole.plan.examples == 240
    with pytest.raises(ValueError, match="epochs = 1.5: it must be a whole number"):
        of.change(epochs=1.5)


def test_a_preparation_that_takes_long_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(0.05) as watch:
        watch(LiveProgress("Checking"))
        time.sleep(0.5)
        watch(LiveProgress("Measuring"))
        watch(LiveProgress("Timing a slow model", is_slow=True))
        time.sleep(0.3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["Checking ...", "Timing a slow model ..."]
    with progress(60) as watch:
        watch(LiveProgress("Checking"))
    assert capsys.readouterr().err == ""


BIG = """
import gradprix as gp
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(256, 320), nn.Linear(320, 256)
        layer = nn.TransformerEncoderLayer(320, 8, 1280, 0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 8, enable_nested_tensor=False)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.body(self.embed(x), mask=mask, is_causal=True))

def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())

def data():
    x = torch.randint(0, 256, (2000, 65), generator=torch.Generator().manual_seed(0))
    return gp.Data(x[:, :-1], x[:, 1:])

metric = gp.Metric("loss", loss, False, margin=0.02, relative=True)
task = gp.Task("big", Model, loss, metric, 5.6, data, batch_size=32, epochs=1)
"""


@pytest.mark.slow
def test_a_plan_for_ten_million_parameters_is_made_in_a_minute_or_two(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(BIG)
    command = [sys.executable, "-m", "gradprix", "race", "task.py", "--minutes", "15", "--plan"]
    started, first, lines = time.perf_counter(), 0.0, []
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    ) as planned:
        assert planned.stdout is not None
        for line in planned.stdout:
            first = first or time.perf_counter() - started
            lines.append(line)
    assert planned.returncode == 0, "".join(lines)
    assert first < 30
    assert time.perf_counter() - started < 150
    assert any("To fit the time it does without" in line for line in lines)
