"""Races on what a user has: a task in a file, a training loop, more than a learning rate to tune."""

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

import gradprix as gp
from command_line import gradprix
from gradprix import tasks
from gradprix.cli import app
from gradprix.race import ENTRIES, TaskError, make_plan
from gradprix.race.plan import Plan
from gradprix.rules import choice, log, one_minus
from gradprix.tasks.loop import Loop, make_loop
from gradprix.training.loop_runner import run_loop
from gradprix.training.trial import Trial
from gradprix.tuning.tuner import Score

FEW: dict[str, Any] = {"trials": 4, "seeds": 6, "processes": 2}
FILE = """
import torch
from torch import nn
import gradprix as gp

def data():
    x = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    return gp.Data(x, (x.sum(1) > 0).long())

def accuracy(output, target):
    return (output.argmax(-1) == target).double().mean()

task = gp.Task("mine", lambda: nn.Linear(4, 2), nn.functional.cross_entropy,
               gp.Metric("accuracy", accuracy, True, 0.01), 0.5, data, batch_size=8, epochs=2)

def make():
    return task

number = 3
"""


def train(make_optimizer: Callable[..., Any], seed: int, epochs: int = 3) -> Iterator[dict[str, Any]]:
    """A plain loop, as anybody writes one."""
    x = torch.randn(60, 4)
    y = x @ torch.tensor([1.0, -2.0, 0.5, 3.0])
    net = nn.Linear(4, 1)
    optimizer = make_optimizer(net.parameters())
    for _ in range(epochs):
        for i in range(0, 40, 8):
            optimizer.zero_grad()
            loss = functional.mse_loss(net(x[i : i + 8])[:, 0], y[i : i + 8])
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            errors = (net(x)[:, 0] - y).square()
        yield {"train": loss.item(), "valid": errors[40:50].mean(), "test": errors[50:].mean()}


def silent(make_optimizer: Callable[..., Any], seed: int) -> Iterator[dict[str, float]]:
    """Without test examples."""
    for point in train(make_optimizer, seed):
        yield {"valid": float(point["valid"])}


def once(make_optimizer: Callable[..., Any], seed: int) -> dict[str, float]:
    """Returns instead of yielding."""
    return list(silent(make_optimizer, seed))[-1]


def trial(name: str = "adam", lr: float = 0.1, seed: int = 3) -> Trial:
    entry = ENTRIES[name]
    return Trial(entry.rule, entry.values(lr), seed, 0, 0, "its own", True)


# Training loops


@pytest.mark.parametrize(("name", "make"), [("adam", torch.optim.Adam), ("momentum", torch.optim.SGD)])
def test_a_loop_runs_as_by_itself_with_torchs_optimizer(name: str, make: Any) -> None:
    given = {"momentum": 0.9} if name == "momentum" else {}
    torch.manual_seed(3)
    expected = list(train(lambda params: make(params, lr=0.01, **given), 3))

    outcome = run_loop(make_loop(train, "min"), trial(name, 0.01))
    assert [point[3] for point in outcome.curve] == pytest.approx([float(p["valid"]) for p in expected], rel=1e-5)
    assert [point[1] for point in outcome.curve] == pytest.approx([p["train"] for p in expected], rel=1e-5)
    assert outcome.test_metric == pytest.approx(float(expected[-1]["test"]), rel=1e-5)


def test_a_loop_is_raced_like_any_task_and_repeats_to_the_bit() -> None:
    results = [gp.race(train, "adam,minibatch,momentum", direction="min", **{**FEW, "processes": n}) for n in (1, 2)]
    first, second = ([entry.final.values for entry in r.record.entries] for r in results)
    assert first == second
    record = results[0].record
    assert record.plan.metric.relative
    assert record.plan.tested
    assert record.cost.examples is None
    assert [len(values) for values in first] == [6] * 3
    assert record.plan.tunes_learning_rate_only
    assert record.plan.schedule == "its own"


@pytest.mark.parametrize("own", [silent, once])
def test_without_test_examples_the_answer_says_what_the_score_is_worth(own: Any, tmp_path: Path) -> None:
    result = gp.race(own, "adam,minibatch", direction="min", out=tmp_path, **FEW)
    assert not result.record.plan.tested
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "it flatters" in done.output
    assert "it flatters all entries" in (tmp_path / "report.html").read_text()


def test_a_loop_that_comes_to_no_numbers_has_diverged() -> None:
    def fails(make_optimizer: Callable[..., Any], seed: int) -> Iterator[dict[str, Any]]:
        for point in train(make_optimizer, seed):
            if not torch.isfinite(point["valid"]):
                raise ValueError("input contains NaN")
            yield point

    for own in (train, fails):
        outcome = run_loop(make_loop(own, "min"), trial("minibatch", 1e30))
        assert outcome.diverged is not None
        assert outcome.test_metric is None
        assert outcome.valid_loss == float("inf")


def bad(how: str) -> Callable[..., Any]:
    def own(make_optimizer: Callable[..., Any], seed: int) -> Any:
        optimizer = make_optimizer(nn.Linear(2, 1).parameters()) if how != "no optimizer" else None
        match how:
            case "raises":
                raise RuntimeError("no such file")
            case "raises in torch":
                nn.Linear(2, 1)(torch.ones(3))
            case "nothing":
                return iter(())
            case "number":
                return 3.0
            case "no valid":
                return [{"test": 1.0}]
            case "text":
                return [{"valid": "good"}]
        assert optimizer is None
        return [{"valid": 1.0}]

    return own


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("raises", r"own failed with adam, lr = .*: RuntimeError: no such file \(.*test_own.py:\d+\)"),
        ("raises in torch", r"own failed with adam, lr = .*: RuntimeError: mat1 .* \(.*test_own.py:\d+\)"),
        ("nothing", "own yields nothing"),
        ("number", "own returns 3.0: it must yield"),
        ("no valid", '"valid"'),
        ("text", "own yields valid = 'good': it must be a number"),
        ("no optimizer", r"never calls make_optimizer\(params\)"),
    ],
)
def test_a_loop_that_cannot_be_raced_says_why(how: str, says: str) -> None:
    with pytest.raises(TaskError, match=says):
        gp.race(bad(how), "adam,minibatch", direction="min", **FEW)


def learns(make_optimizer: Callable[..., Any], seed: int, how: str = "") -> Iterator[dict[str, Any]]:
    """A loop that is right but for one thing."""
    if how == "its own seed":
        torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3))
    optimizer = make_optimizer([{"params": [weight], "lr": 0.1}] if how == "a rate in a group" else [weight])
    if how == "a rate":
        optimizer = make_optimizer([weight], lr=0.1)
    for epoch in range(4):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
        value = (weight.detach() ** 2).sum().item()
        yield {"valid": 0.5 if how == "a score of its own" else value, **({"test": value} if epoch == 3 else {})}
        if how == "it stops when it likes" and value < 1.0:
            return


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("its own seed", "two seeds"),
        ("a rate", "gives make_optimizer a lr of its own"),
        ("a rate in a group", "gives make_optimizer a lr of its own"),
    ],
)
def test_a_loop_that_makes_a_race_senseless_is_refused(how: str, says: str) -> None:
    with pytest.raises(TaskError, match=says):
        gp.race(partial(learns, how=how), "adam,minibatch", direction="min", **FEW)


def test_a_loop_is_judged_by_its_last_words() -> None:
    result = gp.race(learns, "adam,minibatch", direction="min", **FEW)
    assert result.record.task == "learns"
    assert result.record.plan.tested, "test comes with the last epoch alone"
    early = gp.race(partial(learns, how="it stops when it likes"), "adam,minibatch", direction="min", **FEW)
    assert not early.record.plan.tested, "some runs ended without"
    for curve in early.record.curves.values():
        assert {len(values) for values in curve.valid_loss} == {len(curve.examples)}


def test_weights_that_are_no_numbers_have_diverged_whatever_the_score_says() -> None:
    outcome = run_loop(make_loop(partial(learns, how="a score of its own"), "min"), trial("minibatch", 1e30))
    assert outcome.diverged is not None


def test_a_loop_called_train_is_named_after_its_file() -> None:
    assert make_loop(train, "min").name == __name__.rpartition(".")[2]
    assert make_loop(partial(learns, how="x"), "min").name == "learns"


def test_a_loop_called_train_of_a_script_is_named_after_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "loop.py"
    script.write_text("def train(make_optimizer, seed):\n    yield {'valid': 0.0}\n")
    names = runpy.run_path(str(script), run_name="__main__")
    monkeypatch.delattr("__main__.__file__", raising=False)  # as in a notebook
    in_notebook = make_loop(names["train"], "min")
    monkeypatch.setattr("__main__.__file__", str(script), raising=False)
    in_script = make_loop(names["train"], "min")
    assert (in_notebook.name, in_script.name) == ("train", "loop")
    assert in_notebook.fingerprint == in_script.fingerprint, "saved training runs are found"
    assert in_script.fingerprint == Loop("train", names["train"], in_script.metric).fingerprint


# Tasks in files


def test_a_task_of_ones_own_is_found_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_task.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for place in ("my_task.py", "my_task.py:task", "my_task:make", str(tmp_path / "my_task.py:make")):
        assert make_plan(place, "adam,sgd").task.name == "mine"


def test_the_command_line_races_a_task_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(FILE)
    command = "race my_task.py --optimizers adam,minibatch --trials 2 --seeds 6 --json --out here"
    done = gradprix(*command.split(), folder=tmp_path)
    assert json.loads(done.stdout)["task"] == "mine"
    assert (tmp_path / "here" / "report.html").exists()


@pytest.mark.parametrize(
    ("task", "given", "error", "says"),
    [
        ("digit", {}, ValueError, "no task is called 'digit'. Did you mean digits?"),
        ("nowhere.py", {}, ValueError, "nowhere.py:task: there is no file nowhere.py"),
        ("json:nothing", {}, ValueError, "json has no nothing"),
        ("no_such_module:task", {}, ValueError, "No module named 'no_such_module'"),
        (3, {}, TypeError, "3 is a int: give a gp.Task"),
        (lambda: 3, {}, TypeError, "is a int: give"),
        (train, {}, ValueError, r'direction="max" \(--direction max\)'),
        (train, {"direction": "up"}, ValueError, 'say "max" if higher values of'),
        (train, {"direction": "max", "epochs": 3}, ValueError, "epochs is for tasks"),
        (train, {"direction": "max", "optimizers": "gd,adam"}, ValueError, "gd has a batch size of its own"),
        ("digits", {"direction": "max"}, ValueError, "direction is for training loops"),
        ("digits", {"tune": "beta"}, ValueError, "no hyperparameter .* is called 'beta'"),
    ],
)
def test_what_cannot_be_raced_on_says_why(task: Any, given: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make_plan(task, **given)


# More than a learning rate


def test_each_optimizer_tunes_what_it_has() -> None:
    tune = "beta1,momentum,weight_decay,batch_size,schedule"
    plan = make_plan("digits", "adam,momentum,minibatch,adagrad", tune=tune)
    spaces = {entry.name: list(entry.space) for entry in plan.entries}
    both = ["weight_decay", "batch_size", "schedule"]
    assert spaces == {
        "adam": ["lr", "beta1", *both],
        "momentum": ["lr", "momentum", *both],
        "minibatch": ["lr", *both],
        "adagrad": ["lr", *both],
    }
    assert plan.entries[1].fixed == {}


def points(plan: Plan, entry: Any, loss: Callable[[dict[str, Any]], float]) -> tuple[Any, list[Any]]:
    tuner, requests = plan.tuner(entry), []
    while not tuner.is_done:
        requests += tuner.ask()
        tuner.tell([Score(loss(dict(point)), loss(dict(point))) for point, _ in tuner.ask()])
    return tuner.result, requests


@pytest.mark.parametrize("trials", [1, 2, 7, 10, 19, 60])
def test_several_dimensions_are_searched_in_exactly_as_many_trials(trials: int) -> None:
    plan = make_plan("digits", "adam,momentum", tune=["beta1", "batch_size"], trials=trials)
    found, asked = points(plan, plan.entries[0], lambda p: abs(p["beta1"] - 0.95) + abs(p["lr"] - 0.01))
    assert len(asked) == len(set(asked)) == trials
    assert dict(asked[0][0]) == {"lr": 0.001, "beta1": 0.9, "batch_size": 32}, "the default comes first"
    assert (found.point, 0) in asked
    again, same = points(plan, plan.entries[0], lambda p: abs(p["beta1"] - 0.95) + abs(p["lr"] - 0.01))
    assert (again, same) == (found, asked)


def test_a_hyperparameter_without_a_default_starts_in_the_middle() -> None:
    def sgd(params: Any, lr: float, mu: float) -> torch.optim.SGD:
        return torch.optim.SGD(params, lr=lr, momentum=mu)

    entry = gp.Entry("sgd", sgd, space={"lr": log(0.001, 1), "mu": log(0.5, 0.98)})
    plan = make_plan("digits", [entry, "adam"])
    first, *_ = plan.tuner(entry).ask()
    assert dict(first.point) == pytest.approx({"lr": 0.0316, "mu": 0.7}, rel=0.01)


def test_a_search_comes_near_the_best_point() -> None:
    plan = make_plan("digits", "adam,momentum", tune="beta1", trials=60)

    def loss(p: dict[str, Any]) -> float:
        return float(torch.tensor([p["lr"] / 3e-3, (1 - p["beta1"]) / 0.05]).log10().square().sum())

    found, _ = points(plan, plan.entries[0], loss)
    assert loss(dict(found.point)) < 0.05


def test_a_best_value_at_an_end_is_told() -> None:
    plan = make_plan("digits", "adam,momentum", tune="beta1", trials=60)
    found, _ = points(plan, plan.entries[0], lambda p: 1 - p["beta1"] + abs(p["lr"] - 3e-3))
    assert found.edges == ("beta1",)


def test_spaces_with_too_few_points_say_so() -> None:
    entry = gp.Entry("few", gp.rules.adam, space={"lr": choice(0.1, 0.2), "beta1": choice(0.8, 0.9)})
    with pytest.raises(ValueError, match="fewer different points than there are trials"):
        Plan(tasks.digits, (entry, ENTRIES["sgd"]), 6)


def test_batch_size_and_schedule_are_tuned_at_equal_examples() -> None:
    result = gp.race("digits", "adam,momentum", tune="batch_size,schedule", epochs=1, **FEW)
    tried = [run for runs in result.record.tuning_runs.values() for run in runs]
    assert len({run.point["batch_size"] for run in tried}) > 1
    assert len({run.point["schedule"] for run in tried}) > 1
    entry = result.record.entries[0]
    assert entry.batch_size == entry.tuned["batch_size"]
    assert result.best.schedule in ("cosine", "linear", "constant", "warmup")
    assert result.record.plan.tune == ("lr", "batch_size", "schedule")


@pytest.mark.parametrize(
    ("axis", "low", "middle", "high"),
    [(log(1e-4, 1e-2), 1e-4, 1e-3, 1e-2), (one_minus(1e-3, 0.1), 0.9, 0.99, 0.999), (choice(8, 16, 32), 8, 16, 32)],
)
def test_ranges(axis: Any, low: float, middle: float, high: float) -> None:
    assert [axis.from_unit(share) for share in (0.0, 0.5, 1.0)] == [low, middle, high]
    assert axis.to_unit(middle) == pytest.approx(0.5)


@pytest.mark.parametrize("make", [lambda: one_minus(0.5, 0.1), lambda: one_minus(0, 0.1), lambda: choice(1, 1)])
def test_ranges_that_are_none_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="give two"):
        make()
