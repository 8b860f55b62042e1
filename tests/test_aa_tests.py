"""Committed studies of whole races: A/A tests, repetitions, and ends of the tolerance; the README quotes them."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FEWEST_TASKS = 3


def read(name: str) -> dict[str, Any]:
    study = json.loads((ROOT / "studies" / f"{name}.json").read_text())
    assert len(study["tasks"]) == FEWEST_TASKS
    return study


def test_few_races_make_a_false_claim_about_a_copy() -> None:
    study = read("aa_tests")
    races = [row for rows in study["tasks"].values() for row in rows]
    assert len(races) >= 48
    assert sum(bool(row["false"]) for row in races) <= 0.06 * len(races)
    for row in races:
        assert all(a.partition("~")[0] == b.partition("~")[0] for a, b in row["false"])


def test_the_usual_way_makes_many() -> None:
    usual = read("aa_tests")["usual"]
    assert sum(len(row["significant"]) for row in usual) > 0.2 * 10 * len(usual)


def test_repeated_races_confirm_their_answers() -> None:
    tasks = read("repetitions")["tasks"]
    assert [len(task["races"]) for task in tasks.values()] == [8, 4, 4]
    digits, *others = tasks.values()
    assert digits["mean regret"] <= 0.001, "a tenth of a point"
    assert all(task["mean regret in margins"] <= 0.2 for task in others)
    assert sum(task["false bounds"] for task in tasks.values()) <= 1
    assert not any(task["wrong claims"] for task in tasks.values())
    assert digits["median seeds"] <= 32


@pytest.mark.parametrize("name", ["digits", "charlm", "diamonds"])
def test_the_summaries_follow_from_the_races(name: str) -> None:
    task = read("repetitions")["tasks"][name]
    regrets = [row["regret"] for row in task["races"]]
    assert task["mean regret"] == pytest.approx(sum(regrets) / len(regrets))
    assert task["false bounds"] == sum(row["bound is false"] for row in task["races"])
    ends = read("tolerance_ends")["tasks"][name]
    assert ends["beyond"] == sum(row["behind"] > 1.5 for row in ends["rows"])
