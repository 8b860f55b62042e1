"""Progress of a running race, as other processes read it from files beside the journal."""

import json

import pytest

from gradprix.executors.local import Local
from gradprix.race import make_plan, run
from gradprix.race.journal import Journal
from gradprix.race.live_files import FOLDER, LiveFiles, LiveProgress, TaskProgress, read_progress
from gradprix.tasks import digits
from gradprix.training import train_stack
from gradprix.training.trial import Outcome


def test_a_race_shows_steps_and_runs_while_it_is_running_and_leaves_no_file(tmp_path):
    plan, seen = make_plan("digits", "adam,momentum", preset="small", trials=4, seeds=6), []

    def watch(*_):
        seen.append(read_progress(tmp_path / "race"))

    run(plan, tmp_path / "race", Local(2), watch)
    phases = list(dict.fromkeys(progress.phase for progress in seen if progress is not None))
    assert any(phase.startswith("Checking") for phase in phases)
    assert "tuning" in phases
    done = [progress.finished_runs for progress in seen if progress is not None]
    assert done == sorted(done)
    assert not (tmp_path / "race" / FOLDER).exists()
    assert read_progress(tmp_path / "race") is None


def test_curves_of_running_trials_are_the_beginning_of_those_of_their_outcomes(tmp_path, monkeypatch):
    plan = make_plan("digits", "adam,momentum", preset="small", trials=4, seeds=6)
    trials = [plan.careful_trial(entry, 0) for entry in plan.entries]
    now = iter(range(0, 1000))
    monkeypatch.setattr("gradprix.training.live_curves.time.monotonic", lambda: next(now))
    outcomes = train_stack(digits, trials, live=tmp_path / "curves.json")
    saved = json.loads((tmp_path / "curves.json").read_text())
    assert {run["key"] for run in saved} == {trial.key for trial in trials}
    for run_ in saved:
        outcome = next(o for t, o in zip(trials, outcomes, strict=True) if t.key == run_["key"])
        curve = [tuple(point) for point in run_["curve"]]
        assert curve
        assert curve == outcome.curve[: len(curve)]


def test_training_goes_on_where_files_cannot_be_written(tmp_path):
    plan = make_plan("digits", "adam,momentum", preset="small", trials=4, seeds=6)
    trials = [plan.careful_trial(entry, 0) for entry in plan.entries]
    (outcome, _) = train_stack(digits, trials, live=tmp_path / "missing" / "curves.json")
    assert isinstance(outcome, Outcome)
    with LiveFiles(tmp_path / "missing") as live:
        live.update("tuning", 1.0, 10)


@pytest.mark.parametrize("content", [b"", b"{", b'{"phase": 1}'])
def test_a_damaged_file_is_no_progress(tmp_path, content):
    with Journal(tmp_path) as _, LiveFiles(tmp_path) as live:
        (live.folder / "progress.json").write_bytes(content)
        assert read_progress(tmp_path) is None


def test_remaining_time_follows_from_the_runs_since_the_race_was_resumed(tmp_path, monkeypatch):
    now = iter([0.0, 0.0, 10.0, 10.0])
    monkeypatch.setattr("gradprix.race.live_files.time.monotonic", lambda: next(now))
    with LiveFiles(tmp_path) as live:
        live.update("tuning", 50.0, 100)
        assert read_progress(tmp_path).seconds_left is None
        live.update("final", 60.0, 100)
        assert read_progress(tmp_path).seconds_left == pytest.approx(40.0)


def test_progress_on_several_tasks_is_that_of_all_together():
    seen = []
    progress = TaskProgress(30, seen.append)
    first, second = progress.watch_task("digits"), progress.watch_task("tailed")
    first(LiveProgress("checking the task", is_slow=True))
    first(LiveProgress("tuning", 4.5, 10))
    second(LiveProgress("final", 2.0, 20))
    first(LiveProgress("final", 10.0, 10))
    assert seen[0].is_slow, "the preparation of the first task, as it is"
    assert [(each.phase, each.finished_runs, each.total_runs) for each in seen[1:]] == [
        ("digits: Tuning", 4.5, 30),
        ("tailed: Final runs", 6.5, 30),
        ("digits: Final runs", 12.0, 30),
    ]
