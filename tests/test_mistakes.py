"""What a user gets wrong on the command line: exit code 2, one message that says what to do, nothing left behind."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradprix.cli import app

TASK = """
import gradprix as gp
import torch
from torch import nn

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()

def score(outputs, targets):
    return (outputs.argmax(-1) == targets).double().mean()

task = gp.Task(
    name="mine",
    model=lambda: nn.Linear(4, 2),
    loss=nn.functional.cross_entropy,
    metric=gp.Metric("accuracy", score, higher_is_better=True, margin=0.01),
    baseline=0.5,
    data=lambda: gp.Data(X, Y),
    batch_size=8,
    epochs=2,
)
"""
LOOP = """
import torch

def train(make_optimizer, seed):
    model = torch.nn.Linear(2, 1)
    optimizer = make_optimizer(model.parameters())
    yield {"valid": 0.5}
"""
CHANGED = {
    "unready.py": ("task = gp.Task(", "task = gp.Tusk("),
    "syntax.py": ("import torch", "import torch as"),
    "missing.py": ("import torch", "import tourch"),
    "noname.py": ('name="mine"', 'label="mine"'),
    "epochs.py": ("epochs=2", "epochs=0"),
    "baseline.py": ("baseline=0.5", "baseline=float('nan')"),
    "shapes.py": ("nn.Linear(4, 2)", "nn.Linear(5, 2)"),
    "weights.py": ("lambda: nn.Linear(4, 2)", "lambda: torch.manual_seed(0) and nn.Linear(4, 2)"),
    "nothing.py": ("nn.Linear(4, 2)", "nn.Identity()"),
    "detached.py": ("loss=nn.functional.cross_entropy", "loss=lambda o, t: torch.tensor(1.0)"),
    "each.py": ("loss=nn.functional.cross_entropy", "loss=nn.CrossEntropyLoss(reduction='none')"),
    "lossnan.py": ("gp.Data(X, Y)", "gp.Data(X * float('inf'), Y)"),
    "empty.py": ("gp.Data(X, Y)", "gp.Data(X[:0], Y[:0])"),
    "unequal.py": ("gp.Data(X, Y)", "gp.Data(X, Y[:50])"),
    "words.py": ("gp.Data(X, Y)", "gp.Data(['a', 'b'] * 30, Y)"),
    "leaks.py": ("gp.Data(X, Y)", "gp.Data(torch.cat([X, X]), torch.cat([Y, Y]), test=torch.arange(60, 120))"),
    "nofile.py": ("gp.Data(X, Y)", "gp.Data(torch.load('x.pt'), Y)"),
    "metric.py": ("(outputs.argmax(-1) == targets)", "(outputs.argmax(-1) == targets[:3])"),
    "function.py": ("task = gp.Task(", "def task():\n    return 3\nother = gp.Task("),
}
LOOPS = {
    "yields.py": ('{"valid": 0.5}', '{"score": 0.5}'),
    "silent.py": ('yield {"valid": 0.5}', "return iter(())"),
    "unused.py": ("optimizer = make_optimizer(model.parameters())", "pass"),
    "fails.py": ("yield", "open('x.csv'); yield"),
    "spoken.py": ("0.5", "'much'"),
    "arguments.py": ("make_optimizer, seed", "make_optimizer"),
}
OPTIMIZER = """
import torch

NUMBER = 3

class Nothing:
    pass

class Broken(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        raise RuntimeError("not today")
"""
SMALL = "--optimizers adam,momentum --trials 1 --seeds 6"
MISTAKES = {
    # What to do
    "race": "Missing argument",
    "win": "No such command",
    "list rules": "optimizers",
    "race digit": "no task is called 'digit'. Did you mean digits?",
    "race digits --trails 3": "No such option",
    "race digits --trials many": "Invalid value for '--trials'",
    "race digits --trials 0": "trials = 0",
    "race digits --trials 301": "at most 300 trials",
    "race digits --seeds 5": "with fewer than 6 seeds",
    "race digits --seed -1": "seed = -1",
    "race digits --epochs 0": "epochs = 0",
    "race digits --batch-size 0": "batch_size = 0",
    "race digits --schedule sine": "'sine' is not one of",
    "race digits --margin -1": "margin = -1",
    "race digits --minutes 0": "minutes = 0",
    "race digits --minutes 0.001": "even 3 optimizers",
    "race digits --processes 0": "processes = 0",
    "race digits --memory 0": "memory = 0",
    f"race digits --memory 0.01 {SMALL}": "Give that much",
    "race digits --direction max": "direction is for training loops",
    "race digits --bracket all": "'all' is not one of",
    "race digits --bracket data --optimizers adam,adamw": "not both",
    "race digits --optimizers adam": "two optimizers, not 1",
    "race digits --optimizers adam,adam": "entered more than once",
    "race digits --optimizers adam,addam": "Did you mean adam",
    "race digits --optimizers adam,nosuchopt": "more. Your own is file.py:NAME; `gradprix list optimizers` has all.",
    "race digits --optimizers adam,optimizer.py:Missing": "Missing",
    "race digits --optimizers adam,optimizer.py:Brokn": "has no Brokn. Did you mean Broken?",
    "race digits --optimizers adam,optimizer.py": "name the optimizer in it, as optimizer.py:NAME. There is Broken.",
    "suite --entry nowhere.py": "there is no file nowhere.py",
    "suite --entry optimizer.py:Broken,adam": "give one optimizer",
    "suite --entry optimizer.py:NUMBER": "optimizer.py:NUMBER: 3 is neither a gp.rule nor a subclass",
    "race digits --optimizers adam,optimizer.py:Nothing": "neither a gp.rule nor a subclass",
    "race digits --optimizers adam,optimizer.py:Broken --trials 1 --seeds 6": "not today",
    "race digits --tune momentums": "momentums",
    "race digits --optimizers adam,adamw --tune momentum": "momentum",
    "race digits --baseline addam": "Did you mean adam",
    "race digits --baseline all": "must be one of",
    "tune task.py": "Missing option '--optimizer'",
    "tune digits --optimizer adam,adamw": "this tunes one optimizer",
    "tune digits --optimizer addam": "Did you mean adam",
    "tune digits --optimizer adam --tune momentum": "momentum",
    "tune digits --optimizer adam --seeds 3": "seeds = 3",
    # Where it is
    "tune nowhere.py --optimizer adam": "nowhere.py",
    "race nowhere.py": "nowhere.py",
    "race task.py:tusk": "tusk",
    "race syntax.py": "syntax.py",
    "race missing.py": "tourch",
    "race unready.py": "Tusk",
    "race noname.py": "label",
    "race epochs.py": "epochs = 0",
    "race baseline.py": "baseline = nan",
    "race function.py": "give a gp.Task",
    "race no.package:task": "no",
    f"race task.py --out file {SMALL}": "file",
    "report nowhere": "holds no race",
    "export nowhere": "holds no race",
    "new task.py": "already exists",
    "new notes.txt": "end in .py",
    "new no/where.py": "no",
    # What it does
    "tune shapes.py --optimizer adam": "its model fails on a batch",
    "race shapes.py": "its model fails on a batch",
    "race weights.py": "same initial weights",
    "race nothing.py": "no trainable parameter",
    "race detached.py": "does not depend on the weights",
    "race each.py": "Reduce it to a scalar",
    "race lossnan.py": "the loss of a batch at initialization is",
    "race empty.py": "there are 0 examples",
    "race unequal.py": "60 inputs but 50 targets",
    "race words.py": "give numbers",
    "race leaks.py": "also training examples",
    "race nofile.py": "x.pt",
    "race metric.py": "its metric fails",
    "race loop.py:train": "have no known direction",
    "race arguments.py:train --direction max": "make_optimizer",
    "race yields.py:train --direction max": "must be a mapping",
    "race silent.py:train --direction max": "yields nothing",
    "race unused.py:train --direction max": "never calls make_optimizer",
    "race fails.py:train --direction max": "x.csv",
    "race spoken.py:train --direction max": "must be a number",
    "race loop.py:train --direction max --epochs 3": "sets it itself",
}


WITH_COMMANDS = {"race digits --minutes 0.001"}
"""Mistakes whose message is followed by lines with commands that can be run instead."""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder with everything that is wrong, so that worker processes can be kept."""
    place, before = tmp_path_factory.mktemp("mistakes"), Path.cwd()
    for whole, changes in ((TASK, CHANGED), (LOOP, LOOPS)):
        for name, (old, new) in changes.items():
            assert old in whole, name
            (place / name).write_text(whole.replace(old, new))
    for name, text in (("task.py", TASK), ("loop.py", LOOP), ("optimizer.py", OPTIMIZER), ("file", "")):
        (place / name).write_text(text)
    os.chdir(place)
    yield place
    os.chdir(before)


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_message_and_leaves_nothing(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradprix.race.progress_display.REPORT_AFTER", 3600.0)  # a slow machine says what it is at, too
    before = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    done = CliRunner().invoke(app, shlex.split(command))

    assert done.exit_code == 2, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    assert done.stdout == ""
    said = " ".join(done.stderr.replace("│", " ").split())
    assert MISTAKES[command] in said
    if said.startswith("gradprix: "):
        _, *others = done.stderr.strip().splitlines()
        assert bool(others) == (command in WITH_COMMANDS), "one line, unless commands follow"
        assert not others or any(" gradprix race digits " in line for line in others)
    else:
        assert said.startswith("Usage: "), "or the command line's own help"
    assert {path for path in folder.rglob("*") if "__pycache__" not in path.parts} == before


def test_there_are_enough_mistakes() -> None:
    assert len(MISTAKES) >= 40
