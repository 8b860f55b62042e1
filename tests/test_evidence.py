"""The published suite: its summary follows from the records of its races, and everything else from the summary."""

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from gradprix import tasks
from gradprix.race import RaceRecord, published_entries
from gradprix.race.evidence import EVIDENCE, load_evidence, write_evidence
from gradprix.race.suite_record import SecondRace
from gradprix.text.suite_tables import choice_rows, entry_rows, left_out_rows, race_rows, regret_rows
from records import make_record

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import suite as study
from suite_records import FOLDER, SUFFIX, read_file, suite_machine, suite_records, write_file

SUITE = load_evidence()
BEYOND_TRIVIAL = 10.0
"""Margins by which every classic optimizer, tuned, must beat the best constant answer of every task."""
LARGEST_FILE = 300_000
"""Bytes that the record of a race may take."""


def test_it_is_of_every_task() -> None:
    assert list(SUITE.tasks) == list(tasks.ALL)
    assert SUITE.machine.cores == 2
    assert SUITE.seconds == pytest.approx(sum(task.seconds for task in SUITE.tasks.values()))


@pytest.mark.parametrize("name", tasks.ALL)
def test_a_race_is_of_the_task_as_it_is_now(name: str) -> None:
    task, own = SUITE.tasks[name], tasks.ALL[name]
    sign = 1 if own.metric.higher_is_better else -1

    assert task.chance_level == own.baseline
    assert task.metric.margin == own.metric.margin
    means = [sign * mean for mean in task.means.values()]
    assert max(means) - sign * task.chance_level >= BEYOND_TRIVIAL * task.margin
    best = max(task.means, key=lambda entry: sign * task.means[entry])
    assert task.regrets[best] == 0
    assert best in task.leaders
    assert task.recommended in (task.candidates or task.means)


def test_its_reversals_are_wins_on_both_sides() -> None:
    for each in SUITE.reversals:
        for winner, loser, names in ((each.a, each.b, each.a_wins), (each.b, each.a, each.b_wins)):
            assert names
            for name in names:
                verdicts = {(pair.a, pair.b): pair.verdict for pair in SUITE.tasks[name].pairs}
                assert verdicts[winner, loser] == "wins"
        if each.second_race is not None:
            assert each.second_race.task == each.weak_task


def test_a_summary_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_evidence(SUITE, tmp_path / "suite.json")
    assert load_evidence(tmp_path / "suite.json") == SUITE
    assert (tmp_path / "suite.json").read_bytes() == EVIDENCE.read_bytes()
    with pytest.raises(ValueError, match=r"python studies/suite\.py makes them"):
        load_evidence(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"tasks": 3}')
    with pytest.raises(ValueError, match="no summary of a suite"):
        load_evidence(tmp_path / "other.json")


def test_tables_have_a_row_for_each_task_or_entry() -> None:
    for rows in (choice_rows(SUITE), race_rows(SUITE), left_out_rows(SUITE)):
        assert [row[0] for row in rows] == list(SUITE.tasks)
    for rows in (entry_rows(SUITE), regret_rows(SUITE)):
        assert [row[0] for row in rows] == list(SUITE.entries)


@pytest.mark.parametrize("file", sorted(FOLDER.glob(f"*{SUFFIX}")), ids=lambda file: file.name)
def test_records_are_small_and_complete(file: Path, tmp_path: Path) -> None:
    record = read_file(file)
    assert file.stat().st_size <= LARGEST_FILE
    assert f"{record.task}{SUFFIX}" == file.name
    assert [entry.name for entry in record.entries] == published_entries(record.task)
    assert all(len(entry.final.values) == record.budget.seeds for entry in record.entries)
    assert all(len(record.curves[entry.name].train_loss) == record.budget.seeds for entry in record.entries)
    write_file(record, suite_machine(), tmp_path / file.name)
    assert gzip.decompress((tmp_path / file.name).read_bytes()) == gzip.decompress(file.read_bytes())


def test_a_record_keeps_all_but_pictures_and_the_last_digits_of_curves(tmp_path: Path) -> None:
    record = make_record({"a": [0.9, 0.8, 0.7, 0.85], "b": [0.5, 0.6, 0.4, 0.55]})
    curves = {name: replace(each, train_loss=((0.123456, 1e-9, np.inf),) * 4) for name, each in record.curves.items()}
    pictures = {"sample": {"a": "png"}}
    record = replace(record, curves=curves, artifacts=replace(record.artifacts, pictures=pictures))
    write_file(record, {"cores": 1}, tmp_path / "x.json.gz")
    again = read_file(tmp_path / "x.json.gz")
    assert again.curves["a"].train_loss[0] == (0.1235, 1e-9, np.inf)
    assert again.artifacts.pictures == {}
    assert replace(again, curves=curves, artifacts=record.artifacts).entries == record.entries
    assert again.tuning_runs == record.tuning_runs
    assert suite_machine(tmp_path) == {"cores": 1}
    write_file(record, {"cores": 2}, tmp_path / "y.json.gz")
    with pytest.raises(ValueError, match="races of one machine"):
        suite_machine(tmp_path)


def test_a_part_of_the_tasks_is_summarized_with_its_second_races(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"a": [0.9, 0.91, 0.92, 0.9, 0.91, 0.9, 0.92, 0.91], "b": [0.8, 0.79, 0.81, 0.8, 0.8, 0.79, 0.8, 0.81]}
    records = {
        "one": make_record(values, task="one"),
        "two": make_record({"a": values["b"], "b": values["a"]}, task="two"),
        "three": make_record(values, task="three"),
    }
    second = SecondRace(
        task="two", winner="b", loser="a", seed=1, seeds=8, difference=9.0, ci95=(7.0, 11.0), confirmed=True
    )
    monkeypatch.setattr(study, "suite_records", lambda: records)
    monkeypatch.setattr(study, "suite_machine", lambda: {"cores": 2, "cpu": "a processor", "system": "Linux"})
    for key, is_known in ((records["two"].key, True), ("another plan", False)):
        monkeypatch.setattr(study, "second_races", lambda key=key: {(key, "b", "a"): second})
        evidence = study.summarize(list(records))
        (reversal,) = evidence.reversals
        assert (reversal.weak_task, reversal.second_race) == ("two", second if is_known else None)
        assert reversal.is_confirmed is is_known
    assert evidence.seconds == sum(record.cost.seconds for record in records.values())
    assert list(study.summarize(["one", "two"]).tasks) == ["one", "two"]
    with pytest.raises(ValueError, match="the same versions"):
        study.summarize(["four"])


def test_second_races_are_repeated_if_the_plan_of_the_first_race_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    high, low = [0.9, 0.91, 0.92, 0.9, 0.91, 0.9, 0.92, 0.91], [0.8, 0.79, 0.81, 0.8, 0.8, 0.79, 0.8, 0.81]
    records = {name: make_record({"a": high, "b": low}, task=name) for name in ("one", "three")}
    records["two"] = make_record({"a": low, "b": high}, task="two")
    raced = []

    def race_again(record: RaceRecord, winner: str, loser: str, *_: Any) -> SecondRace:
        raced.append((record.key, winner, loser))
        numbers: dict[str, Any] = {"seeds": 8, "difference": 9.0, "ci95": (7.0, 11.0), "confirmed": True}
        return SecondRace(task=record.task, winner=winner, loser=loser, seed=1, **numbers)

    monkeypatch.setattr(study, "suite_records", lambda: records)
    monkeypatch.setattr(study, "race_again", race_again)
    monkeypatch.setattr(study, "SECOND_RACES", tmp_path / "second_races.json")
    for key in ("before", "before", "after"):
        records["two"] = replace(records["two"], key=key)
        study.confirm(list(records), tmp_path)
        assert list(study.second_races()) == [(key, "b", "a")]
    assert raced == [("before", "b", "a"), ("after", "b", "a")]


@pytest.mark.slow
def test_the_evidence_follows_from_the_records() -> None:
    if set(suite_records()) != set(tasks.ALL):
        pytest.skip("some races have no record yet")
    assert study.summarize(list(tasks.ALL)) == SUITE
    assert study.FIGURE.read_text() == study.draw_profile(SUITE)


def test_records_are_found_by_the_name_of_their_task() -> None:
    records = suite_records()
    assert set(records) == {file.name.removesuffix(SUFFIX) for file in FOLDER.glob(f"*{SUFFIX}")}
