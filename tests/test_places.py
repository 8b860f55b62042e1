"""A race runs wherever Python does: scripts without a guard, threads, distributed launchers, notebooks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import gradprix as gp
from sklearn.datasets import load_iris
from torch import nn

iris = load_iris()
task = gp.Task(
    name="iris",
    model=lambda: nn.Linear(4, 3),
    loss=nn.functional.cross_entropy,
    metric=gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01, percent=True),
    baseline=1 / 3,
    data=lambda: gp.Data(iris.data, iris.target, stratify=True),
    batch_size=16,
    epochs=2,
)
print("imported once")
result = gp.race(task, "adamw,nesterov", trials=3, seeds=6)
print(sorted(result.record.means))
"""
THREAD = """
import runpy, sys, threading

thread = threading.Thread(target=runpy.run_path, args=(sys.argv[1],))
thread.start()
thread.join()
"""
CLASS_IN_FUNCTION = """
from torch import Tensor, nn

CLASSES = 3


def unchanged(function):
    return function


def make_model():
    class Model(nn.Module):
        outputs: int = CLASSES

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, self.outputs)

        @unchanged
        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    return Model()
"""
ANSWER = "['adamw', 'nesterov']"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    return file


def run(folder: Path, *arguments: str) -> list[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_script_without_a_guard(script: Path, tmp_path: Path) -> None:
    assert run(tmp_path, str(script)) == ["imported once", ANSWER]


def test_a_class_in_a_function_uses_global_names_in_its_body(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    model = "    model=lambda: nn.Linear(4, 3),\n"
    assert model in SCRIPT
    file.write_text(CLASS_IN_FUNCTION + SCRIPT.replace(model, "    model=make_model,\n"))
    assert run(tmp_path, str(file)) == ["imported once", ANSWER]


def test_a_thread(script: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "-c", THREAD, str(script)) == ["imported once", ANSWER]


@pytest.mark.slow
def test_a_distributed_launcher(script: Path, tmp_path: Path) -> None:
    lines = run(tmp_path, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", str(script))
    assert sorted(lines) == sorted(["imported once", ANSWER] * 2)


@pytest.mark.integrations
def test_a_notebook_with_live_progress(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(SCRIPT), nbformat.v4.new_code_cell("result")]
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    cells = client.execute().cells
    race, shown = ([output.output_type for output in cell.outputs] for cell in cells)
    assert "display_data" in race  # the progress bar
    assert shown == ["execute_result"]
    assert "text/html" in cells[1].outputs[0].data
