"""Records of races: JSON form, earlier versions, and sentences made from codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import gradprix as gp
from gradprix.race import Journal, JournalError, RaceRecord, Result
from gradprix.race.diagnosis_record import Finding
from gradprix.race.record_json import RecordError, read_record, to_json
from gradprix.race.run_records import FailedRun, Rerun
from gradprix.show._sections import format_command
from gradprix.stats.recommendation import RecommendationReason
from gradprix.stats.verdict import PairVerdict
from gradprix.text.answer import format_answer
from gradprix.text.diagnosis import SENTENCES
from gradprix.text.execution import format_execution_mode
from gradprix.text.recommendation import PHRASES
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause
from gradprix.training.trial import FailureKind
from records import make_record

VERSION_1: dict[str, Any] = json.loads((Path(__file__).parent / "recordings" / "records_version_1.json").read_text())
"""Two races as version 1 saved them: of a task (baseline, divergence, artifacts, diagnosis), and of a training loop."""


def read_version_1(name: str) -> RaceRecord:
    return read_record(VERSION_1[name]["record"], VERSION_1[name]["form"])


def text_of(record: RaceRecord) -> str:
    """Return the JSON text: NaN differs from itself, its text does not."""
    return json.dumps(to_json(record))


@pytest.mark.parametrize("name", ["task", "loop"])
def test_a_record_is_read_as_it_was_written(name: str) -> None:
    record = read_version_1(name)
    failed = FailedRun(entry="adam", learning_rate=0.1, seed=1, error="OSError: no", kind=FailureKind.WORKER_LOST)
    rerun = Rerun(entry="adam", seed=6, same=False, metric=0.5, again=None)
    record = replace(record, failed=(failed,), reruns=(rerun,))
    again = read_record(json.loads(text_of(record)))
    assert text_of(again) == text_of(record)
    assert again.entries == record.entries
    assert again.diagnosis == record.diagnosis
    assert (again.failed, again.reruns) == ((failed,), (rerun,))


def test_a_record_of_version_1_gets_codes_in_place_of_sentences() -> None:
    record, old = read_version_1("task"), VERSION_1["task"]["record"]
    assert record.verdict.reason is RecommendationReason.BASELINE_UNBEATEN
    assert {pair.verdict for pair in record.verdict.pairs} == {PairVerdict.WINS}
    assert record.plan.mode == ExecutionMode()
    assert record.diagnosis is not None
    findings = {
        name: [m.finding for m in entry.measurements if m.finding] for name, entry in record.diagnosis.entries.items()
    }
    assert findings == {"adam": [], "momentum": [Finding.STEPS_SHORT], "wild": [Finding.DIVERGED]}
    assert "--epochs 1 --batch-size" in format_command(record), "a whole number stays one"
    run = record.tuning_runs["adam"][0]
    assert run.point == {"lr": old["tried"]["adam"][0]["lr"]}
    assert run.loss == old["tried"]["adam"][0]["loss"]

    loop = read_version_1("loop")
    assert loop.plan.mode.stack_rejection == Rejection(RejectionCause.FAILS, message=VERSION_1["loop"]["form"]["why"])
    assert loop.reruns
    assert all(rerun.same for rerun in loop.reruns)


SENTENCES_OF_A_VERDICT = ("text", "protocol", "why")


@pytest.mark.parametrize("name", ["task", "loop"])
def test_numbers_of_a_version_1_record_stay_under_their_json_keys(name: str) -> None:
    old, new = VERSION_1[name]["record"], Result(read_version_1(name)).to_dict()
    added = ("bound", "tolerance", "gradients")
    assert all(entry[key] is None for entry in new["entries"] for key in added)
    assert [{key: entry[key] for key in entry if key not in added} for entry in new["entries"]] == old["entries"]
    assert new["cost"] == old["cost"]
    assert new["budget"] == old["budget"]
    assert {key: new["verdict"][key] for key in old["verdict"] if key not in SENTENCES_OF_A_VERDICT} == {
        key: value for key, value in old["verdict"].items() if key not in SENTENCES_OF_A_VERDICT
    }


def test_a_record_of_a_newer_version_or_a_damaged_one_is_refused() -> None:
    data = to_json(make_record({"a": [0.1, 0.2], "b": [0.3, 0.5]}))
    with pytest.raises(RecordError, match=r"its record has version 4.*Update gradprix"):
        read_record({**data, "schema": 4})
    with pytest.raises(RecordError, match=r"cannot be read \(.*entries.*Run the command that began the race again"):
        read_record({**data, "entries": 1})
    with pytest.raises(RecordError, match="of version 1, cannot be read"):
        read_record({"task": "digits"})


def test_a_saved_race_of_a_newer_version_says_what_to_do(tmp_path: Path) -> None:
    data = to_json(make_record({"a": [0.1, 0.2], "b": [0.3, 0.5]}))
    with Journal(tmp_path) as journal:
        journal.write("record", {**data, "schema": 99})
        journal.write("fitted", 1)  # keeps the file
    with pytest.raises(JournalError, match=r"cannot be opened: its record has version 99.*Update gradprix"):
        gp.load(tmp_path)


def test_every_code_has_a_sentence() -> None:
    assert PHRASES.keys() == set(RecommendationReason)
    assert SENTENCES.keys() == set(Finding)
    for cause in RejectionCause:
        for device in ("", "cuda"):
            rejection = Rejection(cause, 2.5, 9, "it fails", device)
            mode = ExecutionMode(bool(device), **{f"{'device' if device else 'stack'}_rejection": rejection})
            assert format_execution_mode(mode).endswith(".")


def test_a_loaded_race_says_the_same_as_before_it_was_saved(tmp_path: Path) -> None:
    saved = gp.race("digits", "adam,momentum", trials=2, seeds=6, epochs=1, processes=1, out=tmp_path)
    loaded = gp.load(tmp_path)
    assert format_answer(loaded.record) == saved.text
    assert loaded.to_dict() == saved.to_dict()
    assert loaded.record.entries == saved.record.entries
