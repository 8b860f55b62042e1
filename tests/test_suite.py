"""The same optimizers on several tasks: what their races say together."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from gradprix.cli import app
from gradprix.race import Pair, RaceRecord, Verdict, summed_up
from gradprix.race.record_json import to_json
from gradprix.race.suite_runner import TAUS, profile
from gradprix.show import first_choices, suite_page
from gradprix.stats.verdict import PairVerdict
from gradprix.text.suite import format_suite
from parsed_page import HOSTILE, ParsedPage
from records import make_record, replace_entry

NOISE = np.array([0.001 * x for x in (-3, -1, 0, 2, 1, -2, 3, 0, 1, -1, 2, -2, 1, 0, -1, 0)])


def raced(means: dict[str, float], *, margin: float = 0.01, higher: bool = True, relative: bool = False) -> RaceRecord:
    """Return the record of a race with these means, in which the best entry leads alone."""
    best = (max if higher else min)(means, key=lambda name: means[name])
    names, values = list(means), {name: mean + NOISE * (-1) ** i for i, (name, mean) in enumerate(means.items())}
    pair = Pair(names[0], names[1], 0.1, (0.05, 0.15), 0.001, PairVerdict.WINS, None)
    record = make_record(
        values,
        higher_is_better=higher,
        margin=margin,
        relative=relative,
        percent=False,
        verdict=Verdict((pair,), (best,)),
        edges={name: ("lr",) if name == "c" else ("beta1",) for name in names},
    )
    default = {**dict.fromkeys(means, 0.5), "c": None}
    return replace(
        record,
        budget=replace(record.budget, trials=19),
        efficiency=replace(record.efficiency, default=default, tuned=dict.fromkeys(means, 0.505)),
    )


def summarize(records: Mapping[str, RaceRecord]) -> dict[str, Any]:
    """Return the summary as the command line writes it."""
    summary = summed_up(records)
    return {"text": format_suite(summary), **to_json(summary)}


MEANS = {"one": {"a": 0.9, "b": 0.8, "c": 0.9}, "two": {"a": 0.5, "b": 0.55, "c": 0.545}}


def test_who_only_varies_too_much_does_not_lead() -> None:
    record = raced({"a": 0.9, "b": 0.8, "wild": 0.5})
    record = replace_entry(
        record, "wild", is_leader=True
    )  # nothing wins against it, but it is behind b, which a wins against
    found = summarize({"one": record})["tasks"]["one"]

    assert found["leads"] == ["a"]
    assert found["vague"] == ["wild"]


def test_regrets_are_in_margins_whichever_way_the_metric_runs() -> None:
    found = summarize({name: raced(means) for name, means in MEANS.items()})
    assert found["tasks"]["one"]["regrets"] == pytest.approx({"a": 0, "b": 10, "c": 0})
    assert found["tasks"]["two"]["regrets"] == pytest.approx({"a": 5, "b": 0, "c": 0.5})
    assert found["single"]["a"] == pytest.approx({"mean": 2.5, "most": 5})
    assert found["entries"] == ["c", "a", "b"], "the smallest mean regret first"
    assert found["tasks"]["one"]["pairs"] == [
        {"a": "a", "b": "b", "difference": 0.1, "ci95": [0.05, 0.15], "words": "wins"}
    ]
    loss = summarize({"loss": raced({"a": 2.0, "b": 2.6}, higher=False, margin=0.1, relative=True)})
    assert loss["tasks"]["loss"]["regrets"] == pytest.approx({"a": 0, "b": 3}), "a tenth of 2.0 is 0.2"


@pytest.mark.slow
def test_a_crossing_is_a_win_on_either_side_at_its_part_of_the_level() -> None:
    found = summarize({name: raced(means) for name, means in MEANS.items()})
    crossed = {(pair["a"], pair["b"]): (pair["a_wins"], pair["b_wins"]) for pair in found["crossings"]}
    assert crossed == {("a", "b"): (["one"], ["two"])}, "c is never behind a by more than the margin where a leads"
    assert "a wins against b on one, b against a on two." in found["text"]
    alone = summarize({"one": raced(MEANS["one"])})
    assert alone["crossings"] == []
    assert any(text.startswith("No rank reversals") for text in alone["text"])
    many = {f"one {i}": raced(MEANS["one"]) for i in range(2000)}
    few = {"one": raced(MEANS["one"]), "two": raced({"a": 0.5, "b": 0.5 + 0.011, "c": 0.5})}
    assert summarize(few)["crossings"], "a small difference, sure enough for two tasks"
    assert not summarize({**many, "two": few["two"]})["crossings"], "but not among two thousand"


def test_profiles_count_tasks_and_their_bands_hold_them() -> None:
    found = profile(["a", "b"], np.array([[0.0, 0.5, 3.0], [1.0, 0.0, 0.0]]))
    share = dict(zip(TAUS, found.entries["a"].share, strict=True))
    assert [share[tau] for tau in (0.0, 0.4, 0.5, 2.9, 3.0)] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])
    for each in found.entries.values():
        assert (np.array(each.low) <= each.share).all()
        assert (np.array(each.share) <= each.high).all()
    assert found.entries["a"].low[0] == 0
    assert found.entries["a"].high[0] == 1


def test_defaults_count_where_they_were_tried() -> None:
    found = summarize({"one": raced(MEANS["one"]), "two": raced(MEANS["two"], margin=0.001)})
    assert found["defaults"] == {"a": {"one": True, "two": False}, "b": {"one": True, "two": False}, "c": {}}
    (text,) = [text for text in found["text"] if "within the margin of the tuned one" in text]
    assert "a 1 of 2" in text
    assert "b 1 of 2" in text
    assert "c " not in text.split(":")[1]


def test_who_was_best_at_the_end_of_what_was_tried_is_told() -> None:
    found = summarize({"one": raced(MEANS["one"]), "two": raced({"a": 0.5, "b": 0.9, "c": 0.1})})
    assert any("edge of the grid" in text and text.endswith(": c on one and two.") for text in found["text"])
    assert [task["ends"] for task in found["tasks"].values()] == [["c"], ["c"]]
    assert not any("at the edge" in text for text in summarize({"one": raced({"a": 1.0, "b": 2.0})})["text"])


def test_one_task_is_not_called_tasks() -> None:
    assert "on 1 of 1 task." in summarize({"one": raced({"a": 1.0, "b": 2.0})})["text"][0]


def test_races_with_other_entries_are_no_suite() -> None:
    with pytest.raises(ValueError, match="the race on two has other entries"):
        summarize({"one": raced({"a": 1, "b": 2}), "two": raced({"a": 1, "c": 2})})


def test_the_page_says_it_all() -> None:
    page = suite_page(summarize({name: raced(means) for name, means in MEANS.items()}))
    for part in ("a wins against b on one", 'href="one/report.html"', 'id="regrets"', 'id="figure-profile"'):
        assert part in page
    assert len(page) < 200_000
    assert "plotly" not in page


@pytest.mark.parametrize("text", HOSTILE)
def test_names_in_the_page_are_escaped(text: str) -> None:
    harmless = text.translate(str.maketrans("<>\"'&{}", "++ij8ff"))  # as wide: long names are shortened
    page, plain = (ParsedPage(suite_page(summarize({name: raced({name: 0.9, "b": 0.8})}))) for name in (text, harmless))
    assert page.elements == plain.elements
    assert page.text.count(text) > 5


def test_a_suite_from_the_command_line_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["suite", "--tasks", "digits", "--optimizers", "adam,momentum", "--preset", "small", "--trials", "1"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found["tasks"]) == ["digits-small"]
    folder = tmp_path / "runs" / "suite"
    assert json.loads((folder / "suite.json").read_text()) == found
    assert (folder / "suite.html").exists()
    assert (folder / "digits-small" / "report.html").exists()
    again = CliRunner().invoke(app, words)
    assert json.loads((folder / "suite.json").read_text()) == found, "from the journal, its times too"
    assert "margins behind the best" in again.stdout
    assert CliRunner().invoke(app, ["suite", "--tasks", "digit"]).exit_code == 2


def test_what_to_try_first_is_what_the_suite_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "evidence.json"
    found = summarize({name: raced(means) for name, means in MEANS.items()})
    made = {"command": "a command", "machine": {"cpu": "a processor"}, "versions": {"torch": "2"}, "seconds": 120.0}
    file.write_text(json.dumps({**made, **found}))
    text, rows = first_choices("two", file)
    assert [row["entry"] for row in rows] == ["b", "c", "a"]
    assert [row["margins"] for row in rows] == pytest.approx([0, 0.5, 5])
    assert text[1] == "Use b, the only leader by test accuracy. Best learning rate at the edge of the search range: c."
    assert "19 trials + 16 held-out seeds each, learning rate only, 60 s (a processor, torch 2)" in text[2]
    with pytest.raises(ValueError, match="no problem in the suite is called 'three'"):
        first_choices("three", file)
    with pytest.raises(ValueError, match="no suite of all tasks"):
        first_choices("two", tmp_path / "none.json")
