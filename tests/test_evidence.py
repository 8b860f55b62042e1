"""The committed suite: what the project itself has raced, and what it is told from."""

import msgspec
import pytest

from gradprix import tasks
from gradprix.race.suite_record import SuiteSummary
from gradprix.race.suite_runner import ENTRIES_OF_A_SUITE
from gradprix.show import EVIDENCE, first_choices
from gradprix.show._evidence import evidence
from gradprix.text.suite import format_suite

BEYOND_TRIVIAL = 10.0
"""Margins by which every optimizer, tuned, must beat the best constant answer of every task."""
LONGEST = 90.0
"""Minutes that the whole suite may take on two cores."""
found = evidence()


def test_it_is_of_every_task_and_of_the_textbooks_family() -> None:
    assert EVIDENCE.is_file()
    assert list(found["tasks"]) == list(tasks.ALL)
    assert set(found["entries"]) == set(ENTRIES_OF_A_SUITE)
    assert found["seconds"] <= 60 * LONGEST
    assert found["machine"]["cores"] == 2


@pytest.mark.parametrize("name", tasks.ALL)
def test_every_optimizer_beats_the_trivial_answer(name: str) -> None:
    task, own = found["tasks"][name], tasks.ALL[name]
    turn = 1 if own.metric.higher_is_better else -1

    assert task["trivial"] == own.baseline
    assert task["metric"]["margin"] == own.metric.margin
    assert task["seeds"] == (own.seeds or 16)
    for entry, mean in task["means"].items():
        assert turn * (mean - own.baseline) >= BEYOND_TRIVIAL * task["margin"], entry


def test_what_it_says_follows_from_its_numbers() -> None:
    assert found["text"] == format_suite(msgspec.convert(found, SuiteSummary))
    best = {name: max(task["regrets"], key=lambda e, t=task: -t["regrets"][e]) for name, task in found["tasks"].items()}
    for name, task in found["tasks"].items():
        assert task["regrets"][best[name]] == 0.0
        assert best[name] in task["leads"]
        assert task["take"] in task["leads"]


def test_its_crossings_are_wins_on_both_sides() -> None:
    assert found["crossings"], "the docs would have to say plainly that there is none"
    for crossing in found["crossings"]:
        for winner, loser, where in (("a", "b", "a_wins"), ("b", "a", "b_wins")):
            assert crossing[where]
            for name in crossing[where]:
                words = {(p["a"], p["b"]): p["words"] for p in found["tasks"][name]["pairs"]}
                assert words[crossing[winner], crossing[loser]] == "wins"


@pytest.mark.parametrize("name", tasks.ALL)
def test_first_choices_are_told_from_it(name: str) -> None:
    text, rows = first_choices(name)

    assert rows[0]["margins"] == 0.0
    assert [row["entry"] for row in rows if row["leads"]]
    assert found["tasks"][name]["take"] in text[1]
