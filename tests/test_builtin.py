"""Built-in tasks by name and preset, and what a task says of its trained networks besides the metric."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp
from gradprix import tasks
from gradprix.race import TaskError, make_plan
from gradprix.race.validate_task import validate_task
from gradprix.show import report
from gradprix.tasks.registry import MAKERS, PRESETS
from gradprix.training.artifacts import encode_artifacts

BUDGET: dict[str, Any] = {"optimizers": "adam,momentum", "trials": 1, "seeds": 6, "epochs": 1}


def after(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
    """What is known by other ways, so that it can be compared."""
    outputs = network(inputs)
    answers = {f"<{i}>": str(int(outputs[i].argmax())) for i in range(2)}
    return {"loss": functional.cross_entropy(outputs, targets), "first": inputs[0].reshape(8, 8), "answers": answers}


def test_every_task_has_every_preset() -> None:
    for name in MAKERS:
        for preset in PRESETS:
            task = tasks.built_in(name, preset)
            assert task.name == (name if preset == "default" else f"{name}-{preset}")
            assert task.about
            assert tasks.built_in(task.name).epochs == task.epochs, "the name alone says the preset"


def test_a_preset_has_a_budget_of_its_own_that_can_be_overruled() -> None:
    small, default = make_plan("digits", preset="small"), make_plan("digits")
    assert (small.trials, small.seeds, small.task.epochs) == (6, 6, 5)
    assert (default.trials, default.seeds, default.task.epochs) == (26, 32, 20)
    assert make_plan("digits", preset="small", trials=3).trials == 3
    few = tasks.digits.change(entries=("adam", "nadam"))
    assert [entry.name for entry in make_plan(few).entries] == ["adam", "nadam"]
    assert [entry.name for entry in make_plan(few, bracket="data").entries] == ["gd", "sgd", "minibatch"]
    assert [entry.name for entry in make_plan(few, "adagrad,adam").entries] == ["adagrad", "adam"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tasks.built_in("digits", "tiny"), "no preset is called 'tiny'"),
        (lambda: tasks.built_in("digit"), "Did you mean digits"),
        (lambda: tasks.find("digits", path="x.csv"), "takes no copy of its data"),
        (lambda: tasks.find("mine.py:task", preset="small"), "are for built-in tasks"),
        (lambda: make_plan(tasks.digits, preset="small"), "given by its name"),
    ],
)
def test_presets_and_copies_are_for_built_in_tasks(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_what_a_task_says_of_its_networks_is_of_the_trained_ones(tmp_path: Path) -> None:
    result = gp.race(tasks.digits.change(after=after), **BUDGET, out=tmp_path)

    found = result.record.artifacts
    losses = {entry.name: entry.losses for entry in result.record.entries}
    assert {name: pytest.approx(values, rel=1e-5) for name, values in losses.items()} == found.numbers["loss"]
    assert set(found.texts["answers"]["adam"]) == {"<0>", "<1>"}
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(found.pictures["first"]["momentum"]))))
    assert picture.shape == (8, 8)
    assert picture.max() > 200, "ink"
    again = gp.race(tasks.digits.change(after=after), **BUDGET, out=tmp_path)
    assert again.record.artifacts == found, "from the journal"

    page = report(result.record)
    assert 'id="after"' in page
    assert "&lt;0&gt;" in page
    assert f"data:image/png;base64,{found.pictures['first']['adam']}" in page
    assert 'id="after"' not in report(gp.race("digits", **BUDGET).record)


def test_what_it_may_say_is_numbers_pictures_and_texts() -> None:
    artifacts = encode_artifacts(
        {"n": np.float32(0.5), "t": torch.tensor(2), "rgb": np.zeros((4, 6, 3), np.uint8), "s": {1: "one"}}
    )
    assert artifacts["numbers"] == {"n": 0.5, "t": 2.0}
    assert artifacts["texts"] == {"s": {"1": "one"}}
    assert Image.open(io.BytesIO(base64.b64decode(artifacts["pictures"]["rgb"]))).size == (6, 4)
    with pytest.raises(TypeError, match="after: words is a str: give a number, a picture"):
        encode_artifacts({"words": "many"})


def fails(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
    raise KeyError("x")


def test_what_fails_at_the_end_is_found_out_before_the_race() -> None:
    with pytest.raises(TaskError, match="its after fails: 'x'"):
        validate_task(tasks.digits.change(after=fails))
