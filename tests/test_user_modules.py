"""Tasks in files: whatever the file is called and wherever it is, and always what it holds now."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gradprix as gp
from gradprix.race import make_plan

TASK = """
import torch
from torch import nn
import gradprix as gp

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))

def accuracy(outputs, targets):
    return (outputs.argmax(-1) == targets).double().mean()

def data():
    return gp.Data(X, (X.sum(1) > 0).long())

def build(name="mine"):
    return gp.Task(name, lambda: nn.Linear(4, 2), nn.functional.cross_entropy,
                   gp.Metric("accuracy", accuracy, True, 0.01), 0.5, data, batch_size=8, epochs=1)

task = build()
"""
LOOP = """
import torch
import helpers
from helpers import LEVEL

def train(make_optimizer, seed):
    weight = torch.nn.Parameter(torch.randn(2))
    optimizer = make_optimizer([weight])
    for _ in range(2):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
        yield {"valid": 10 * helpers.level() + LEVEL + weight.detach().tanh().mean() / 10}
"""
HELPERS = """
LEVEL = 1

def level():
    return LEVEL
"""
FEW: dict[str, Any] = {"trials": 1, "seeds": 6, "direction": "max", "processes": 1}


@pytest.fixture(autouse=True)
def _imports_as_before() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path


def level(result: Any) -> int:
    """By what the loop of a race was written: twice the digit that its helpers have."""
    return round(result.record.entries[0].final.mean)


@pytest.mark.parametrize(
    "name",
    [
        "iris.v2.py",
        "my task.py",
        "my-task.py",
        "2nd.py",
        "größe.py",
        "random.py",
        "numpy.py",
        "datasets.py",
        "class.py",
    ],
)
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TASK)
    assert make_plan(str(tmp_path / name), "adam,sgd").task.name == "mine"
    assert make_plan(f"{tmp_path / name}:build", "adam,sgd").task.name == "mine"
    import random

    assert random.random() < 1


def test_a_file_that_fails_in_a_library_as_it_is_loaded_is_told_its_own_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import json\nsettings = json.loads('{')\n")
    with pytest.raises(ValueError, match=r"fails while loading: JSONDecodeError: .* \(.*mine.py:2\)"):
        make_plan(f"{file}:task", "adam,sgd")


@pytest.mark.parametrize("name", ["torch.py", pytest.param("iris.v2.py", marks=pytest.mark.slow)])
def test_the_command_races_a_file_of_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TASK)
    (tmp_path / "random.py").write_text("raise RuntimeError('a file of the user for no one')")
    words = ["race", name, "--optimizers", "adam,minibatch", "--trials", "1", "--seeds", "6", "--json"]
    command = [sys.executable, "-m", "gradprix", *words, "--processes", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["task"] == "mine"


def test_links_lead_to_files_and_to_their_neighbours(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "versions" / "v3.py").write_text(f"import beside_target, beside_link\n{TASK}")
    (tmp_path / "versions" / "beside_target.py").write_text("")
    (tmp_path / "links" / "beside_link.py").write_text("")
    (tmp_path / "links" / "current.py").symlink_to("../versions/v3.py")
    (tmp_path / "folder").symlink_to("links")
    plans = [make_plan(str(tmp_path / folder / "current.py"), "adam,sgd") for folder in ("links", "folder")]
    assert [plan.task.name for plan in plans] == ["mine", "mine"]
    assert plans[0].task.fingerprint == plans[1].task.fingerprint


def test_files_of_one_name_in_two_folders_are_two_and_so_are_their_helpers(tmp_path: Path) -> None:
    functions = []
    for folder, value in (("a", 1), ("b", 2), ("a", 1)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "own.py").write_text(LOOP)
        (tmp_path / folder / "helpers.py").write_text(HELPERS.replace("1", str(value)))
        functions.append(make_plan(f"{tmp_path / folder / 'own.py'}:train", direction="max").task)
    assert functions[0].name == functions[1].name == "own"
    assert functions[0].fingerprint == functions[2].fingerprint != functions[1].fingerprint


@pytest.mark.parametrize("name", [pytest.param("own.py", marks=pytest.mark.slow), "my own.v2.py"])
def test_a_file_or_a_helper_that_is_edited_is_never_stale(tmp_path: Path, name: str) -> None:
    file, helpers = tmp_path / name, tmp_path / "helpers.py"
    file.write_text(LOOP)
    helpers.write_text(HELPERS)
    for each in (file, helpers):
        os.utime(each, (1_000_000_000, 1_000_000_000))
    first = make_plan(f"{file}:train", direction="max").task
    assert level(gp.race(f"{file}:train", "adam,minibatch", **FEW)) == 11
    same = make_plan(f"{file}:train", direction="max").task
    assert same.train is first.train

    helpers.write_text(HELPERS.replace("1", "2"))  # of the same size, in the same second
    os.utime(helpers, (1_000_000_000, 1_000_000_000))
    assert level(gp.race(f"{file}:train", "adam,minibatch", **FEW)) == 22
    assert level(gp.race(first.train, "adam,minibatch", **FEW)) == 11, "what is left of the earlier version works on"

    file.write_text(LOOP.replace("10 *", "20 *"))
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert level(gp.race(f"{file}:train", "adam,minibatch", **FEW)) == 42


def test_a_module_by_its_name_and_one_imported_before_are_not_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("SIZE = 7\n")
    (package / "tasks.py").write_text(f"from .part import SIZE\n{TASK.replace('batch_size=8', 'batch_size=SIZE')}")
    assert make_plan("my_package.tasks:task", "adam,sgd").task.batch_size == 7
    (package / "part.py").write_text("SIZE = 9\n")
    assert make_plan("my_package.tasks:build", "adam,sgd").task.batch_size == 9

    (tmp_path / "once.py").write_text(TASK)
    import once  # type: ignore[import-not-found]

    (tmp_path / "once.py").write_text(TASK.replace("batch_size=8", "batch_size=4"))
    assert make_plan("once.py", "adam,sgd").task.batch_size == 4
    assert once.task.batch_size == 8


def test_a_file_that_no_longer_loads_says_so_and_does_again_when_it_is_mended(tmp_path: Path) -> None:
    file = tmp_path / "mended.py"
    file.write_text(TASK)
    before = make_plan(str(file), "adam,sgd").task
    file.write_text("task = build()")
    with pytest.raises(ValueError, match="build"):
        make_plan(str(file), "adam,sgd")
    file.write_text(TASK)
    assert make_plan(str(file), "adam,sgd").task.fingerprint == before.fingerprint


def test_an_optimizer_in_a_file_is_the_one_that_was_read(tmp_path: Path) -> None:
    file = tmp_path / "optimizers.v1.py"
    text = "import torch\n\nclass Mine(torch.optim.SGD):\n    def step(self, closure=None):\n        super().step()\n"
    file.write_text(text)
    first = make_plan("digits", f"adam,{file}:Mine").entries[1]
    described = first.rule.describe({})
    file.write_text(text.replace("super().step()", "super().step(closure)"))
    second = make_plan("digits", f"adam,{file}:Mine").entries[1]
    assert first.rule.describe({}) == described != second.rule.describe({})


def test_a_relative_import_needs_the_name_of_a_module(tmp_path: Path) -> None:
    package = tmp_path / "experiments"
    package.mkdir()
    (package / "mine.py").write_text("from .parts import task\n")
    with pytest.raises(ValueError, match=r"relative import.*Name it as a module.*: experiments\.mine:task\."):
        gp.race(f"{package / 'mine.py'}")
