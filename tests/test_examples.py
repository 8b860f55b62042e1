"""The examples run, and so do those that `gradprix new` writes."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import gradprix as gp
from gradprix.cli import app
from untimed import Untimed

EXAMPLES = Path(__file__).parents[1] / "examples"
FEW: dict[str, Any] = {"optimizers": "adam,minibatch", "trials": 1, "seeds": 6}


DRAWN = {"gan", "landscape", "own_rule", "pinn", "reinforcement", "tune_one"}
"""Scripts that save a figure with their own name."""
QUICK = ("landscape", "own_rule")
SCRIPTS = [*DRAWN, "cluster", "images", "optimizers", "table", "text"]
LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("table", "text")]


@pytest.mark.parametrize("name", ["images", *LONG])
def test_a_task_races(name: str) -> None:
    result = gp.race(str(EXAMPLES / f"{name}.py"), epochs=1, **FEW)
    assert result.record.plan.mode.stacked, result.record.plan.mode
    assert result.best.name in ("adam", "minibatch")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(SCRIPTS)]
)
def test_a_script_prints_and_draws(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "cluster":
        pytest.importorskip("ray")
    race, tune = gp.race, gp.tune
    few = {"trials": 1, "seeds": 6}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "svg")
    monkeypatch.setattr(gp, "race", lambda *args, **given: race(*args, **given | few))
    monkeypatch.setattr(gp, "tune", lambda *args, **given: tune(*args, **given | {"trials": 6, "seeds": 2}))

    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")

    assert capsys.readouterr().out
    assert {file.stem for file in tmp_path.glob("*.svg")} == DRAWN & {name}


def test_every_script_is_tested() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.py")} - {"train"} == set(SCRIPTS), "train.py is the tutorial's"


@pytest.mark.parametrize("names", [("muon", "decay", "sam"), ("lbfgs", "polyak", "sam")])
def test_optimizers_race(names: tuple[str, ...]) -> None:
    task = gp.tasks.digits.change(epochs=1)
    entries = [gp.tasks.registry.import_object(f"{EXAMPLES / 'optimizers.py'}:{name}") for name in names]
    result = gp.race(task, [*entries, "minibatch"], trials=1, seeds=6, engine=Untimed(2))
    assert not result.record.failed
    assert "muon" not in names or result.record.entry("muon").optimizer == "optimizers.make_muon"
    assert {entry.name: entry.gradients / entry.updates for entry in result.record.entries}["sam"] == 2


def test_a_training_loop_races() -> None:
    result = gp.race(f"{EXAMPLES / 'gan.py'}:train", direction="min", **FEW)
    assert result.record.plan.tested


@pytest.mark.sample(2)
@pytest.mark.parametrize("flags", [[], ["--loop"]], ids=["task", "loop"])
def test_what_new_writes_races(tmp_path: Path, flags: list[str]) -> None:
    file = tmp_path / f"{'loop' if flags else 'task'}_to_change.py"
    done = CliRunner().invoke(app, ["new", str(file), *flags])
    assert done.exit_code == 0, done.output
    assert f"gradprix race {file}" in done.output
    assert "FILE" not in file.read_text()
    again = CliRunner().invoke(app, ["new", str(file), *flags])
    assert again.exit_code == 2
    assert "already exists" in again.output
    result = gp.race(f"{file}:{'train' if flags else 'task'}", direction="max" if flags else None, **FEW)
    assert result.record.entries[0].final.mean > 0.5
