"""The script for whoever has a GPU, without one: on the CPU, and on a device that is only pretended."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradprix import rules
from pretended import There, pretended

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_a_dry_run_executes_every_part_and_writes_nothing() -> None:
    before = sorted(BENCHMARKS.iterdir())
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", "--device", "cpu"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()[:-1]} == {"steps", "stacks", "times", "races"}
    assert "0 failed" in done.stdout.splitlines()[-1]
    assert "skipped" not in done.stdout
    assert [file for file in sorted(BENCHMARKS.iterdir()) if file.suffix == ".json"] == [
        file for file in before if file.suffix == ".json"
    ]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do() -> None:
    done = subprocess.run([sys.executable, BENCHMARKS / "gpu.py"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert "torch finds no GPU" in done.stderr


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


@pytest.mark.parametrize("rule", [rules.adamw, rules.nadam, rules.lion], ids=lambda rule: rule.name)
def test_steps_and_captured_steps_on_a_pretended_device(
    script: Any, rule: rules.Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradprix.optim._foreach_batch.PLAIN_TYPES", {nn.Parameter, Tensor, There})
    with pretended(monkeypatch):
        for row in (
            script.compare_steps(torch.device("meta"), rule, torch.float32),
            script.compare_captured(torch.device("meta"), rule),
        ):
            assert row["passed"]
            assert row["difference"] < 1e-5


def test_training_on_a_pretended_device(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended(monkeypatch):
        run = script.Run(torch.device("meta"), is_tiny=True)
        row = script.compare_training(run, *script.MODES["mlp"])
    assert row["passed"]
    assert row["reproducible"]


def test_a_step_that_is_wrong_and_an_error_are_reported(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = script.trained

    def wrong(device: torch.device, rule: rules.Rule, dtype: torch.dtype, **given: Any) -> Any:
        if rule is rules.sgd:
            raise RuntimeError("it is broken")
        params = right(device, rule, dtype, **given)
        return [x * 1.1 for x in params] if given.get("foreach") else params

    monkeypatch.setattr(script, "trained", wrong)
    run = script.Run(torch.device("cpu"), is_tiny=True)
    run.run_part("steps")
    rows = {row["label"]: row for row in run.rows}
    assert rows["sgd float32"]["error"] == "RuntimeError: it is broken"
    assert rows["adagrad float32"]["passed"] is False
