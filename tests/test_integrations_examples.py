"""The examples of other libraries race."""

from pathlib import Path
from typing import Any

import pytest

import gradprix as gp

EXAMPLES = Path(__file__).parents[1] / "examples" / "integrations"
LIBRARIES = {
    "accelerate_loop": "accelerate",
    "bert": "transformers",
    "gcn": "torch_geometric",
    "gpt2": "transformers",
    "graphs": "torch_geometric",
    "lightning_loop": "lightning",
    "lightning_task": "lightning",
    "llama": "transformers",
    "lora": "peft",
    "skorch_loop": "skorch",
    "trainer_loop": "transformers",
}
DIRECTIONS = {"trainer_loop": "min"}
ONE_AT_A_TIME = {"graphs"}  # batches of graphs differ in shape
FEW: dict[str, Any] = {"optimizers": "adamw,nesterov", "trials": 1, "seeds": 6}
pytestmark = [
    pytest.mark.integrations,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),  # of the libraries
]


def test_every_example_is_tested() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.py")} == LIBRARIES.keys()


@pytest.mark.parametrize("name", LIBRARIES)
def test_an_example_races(name: str) -> None:
    pytest.importorskip(LIBRARIES[name], reason="scripts/test --integrations has the library")
    file = EXAMPLES / f"{name}.py"
    if name.endswith("_loop"):
        result = gp.race(f"{file}:train", direction=DIRECTIONS.get(name, "max"), **FEW)
    else:
        result = gp.race(str(file), epochs=1, **FEW)
        assert result.record.plan.mode.stacked == (name not in ONE_AT_A_TIME), result.record.plan.mode

    assert result.best.name in ("adamw", "nesterov")
