"""Pages of races: form, processes, list, progress and notes."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradprix import cli

pytest.importorskip("flask", reason="the app needs Flask: pip install 'gradprix[app]'")

from gradprix.app.race_list import rows
from gradprix.app.race_processes import STOP_PATIENCE, Races
from gradprix.app.race_progress import progress, race_state
from gradprix.app.race_request import RaceRequest, RequestError, read_request
from gradprix.app.race_runs import RunReader, find_entry
from gradprix.app.server import make
from gradprix.race import RaceConfig, make_plan, make_tune_plan
from gradprix.race.journal import DATABASE, Journal
from gradprix.race.live_files import LiveFiles
from parsed_page import ParsedPage
from saved_races import NAMES, save_races

HERE = {"Host": "127.0.0.1:8050"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with finished races, and with one that was stopped."""
    return save_races(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(
    ("fields", "names", "message"),
    [
        ({}, ["adam"], {"names": "at least two"}),
        ({}, [], {"names": "at least two"}),
        ({}, ["adam", "../x"], {"names": "Unknown optimizer: ../x"}),
        ({"task": "mine.py"}, NAMES, {"task": "no task 'mine.py'"}),
        ({"size": "huge"}, NAMES, {"size": "small, default, large"}),
        ({"trials": "many"}, NAMES, {"trials": "'many' is not a whole number from 2 to 300"}),
        ({"trials": "1"}, NAMES, {"trials": "from 2 to 300"}),
        ({"seeds": "5", "trials": "301"}, NAMES, {"seeds": "from 6 to 300", "trials": "from 2 to 300"}),
    ],
)
def test_an_error_in_the_form_is_said_in_words_with_the_range(fields, names, message):
    with pytest.raises(RequestError) as error:
        read_request(fields, names)
    assert error.value.messages.keys() == message.keys()
    for name, text in message.items():
        assert text in error.value.messages[name]


def test_a_request_is_the_arguments_of_the_command_and_can_be_saved():
    request = read_request({"task": "mnist", "size": "default", "trials": " 8 ", "seeds": ""}, ["adam", "gd", "adam"])
    assert request == RaceRequest("mnist", ("adam", "gd"), "default", 8, None)
    assert request.arguments == ["mnist", "--optimizers", "adam,gd", "--preset", "default", "--trials", "8"]
    assert RaceRequest.from_json(request.to_json()) == request
    with pytest.raises(RequestError):
        RaceRequest.from_json(request.to_json().replace("mnist", "mine.py"))


@pytest.mark.parametrize("name", ["../etc", "..", "/etc", "", "nothing"])
def test_only_saved_races_have_a_folder(runs, name):
    assert Races(runs).folder(name) is None
    assert make(Races(runs)).test_client().get(f"/races/{name}/progress", headers=HERE).status_code in (308, 404)


def test_the_list_has_date_state_and_result(runs):
    found = {row.name: row for row in rows(Races(runs))}
    assert found.keys() == {"digits-small", "shorter", "stopped"}
    finished, stopped = found["digits-small"], found["stopped"]
    assert (finished.state, stopped.state) == ("finished", "stopped")
    assert finished.summary.startswith("Use ")
    assert stopped.summary.endswith("of up to 33 training runs")
    assert [name for name, _ in finished.entries] == NAMES
    assert len(finished.date) == len("2026-11-30 12:00")
    page = make(Races(runs)).test_client().get("/races", headers=HERE).text
    for text in (finished.summary[:20], finished.date, 'href="/races/stopped"'):
        assert text in page


@pytest.mark.parametrize("name", ["digits-small", "stopped"])
def test_progress_has_every_entry_and_its_runs(runs, name):
    found = progress(Races(runs), name, runs / name, RunReader(runs / name))
    assert found["state"] == ("finished" if name == "digits-small" else "stopped")
    assert {entry["name"] for entry in found["entries"]} == set(NAMES)
    is_finished = name == "digits-small"
    assert all((entry["final_runs"] == 6) == is_finished for entry in found["entries"])
    assert all("±" in entry["final"] for entry in found["entries"]) == is_finished
    assert {curve["kind"] for curve in found["curves"]} <= {"best", "mean", "faint"}
    assert found["leader"].split()[0] == found["entries"][0]["name"]
    # Each run has a point; those with a quarter of the examples are left out.
    assert sum(point["is_final"] for point in found["points"]) == (18 if is_finished else 0)


def test_runs_are_read_from_the_journal_once(runs):
    reader = RunReader(runs / "digits-small")
    first = progress(Races(runs), "digits-small", runs / "digits-small", reader)
    last = reader.last_row
    assert progress(Races(runs), "digits-small", runs / "digits-small", reader) == first
    assert reader.last_row == last > 0


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("digits-small", "UPDATE about SET value = 'nothing' WHERE name = 'record'"),
        ("digits-small", "UPDATE about SET value = '[1]' WHERE name = 'record'"),
        ("digits-small", "UPDATE about SET value = '{}' WHERE name = 'plan'"),
        ("stopped", "UPDATE about SET value = '[]' WHERE name = 'plan'"),
        ("stopped", "UPDATE about SET value = 'nothing' WHERE name = 'plan'"),
        ("stopped", "UPDATE trials SET outcome = 'nothing'"),
        ("stopped", "DROP TABLE trials"),
    ],
)
def test_a_damaged_race_leaves_the_others_readable(runs, tmp_path, name, damage):
    shutil.copytree(runs, tmp_path / "runs")
    with closing(sqlite3.connect(tmp_path / "runs" / name / DATABASE)) as database, database:
        database.execute(damage)
    client = make(Races(tmp_path / "runs")).test_client()
    for path in ("/races", f"/races/{name}", f"/races/{name}/progress", "/races/shorter"):
        assert client.get(path, headers=HERE).status_code == 200, path
    assert 'href="/races/shorter"' in client.get("/races", headers=HERE).text
    assert client.get(f"/races/compare?a={name}&b=shorter", headers=HERE).status_code in (200, 404)


def test_files_that_are_no_text_leave_the_races_readable(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs" / "stopped" / "note.txt").write_bytes(b"\xff note")
    (tmp_path / "runs" / "stopped" / "request.json").write_text("[]")
    if sys.platform == "linux":
        folder = tmp_path / "runs" / os.fsdecode(b"bytes\xff")
        shutil.copytree(runs / "shorter", folder)
    client = make(Races(tmp_path / "runs")).test_client()
    for path in ("/races", "/races/stopped"):
        assert " note" in client.get(path, headers=HERE).text
    assert client.post("/races/stopped/resume", headers=HERE).status_code == 404


def test_a_race_that_was_deleted_and_began_anew_is_read_anew(runs, tmp_path):
    shutil.copytree(runs / "stopped", tmp_path / "race")
    plan = make_plan("digits", NAMES, preset="small", trials=4, seeds=7).description
    reader = RunReader(tmp_path / "race")
    before = reader.read(plan["entries"], plan["epochs"])
    with closing(sqlite3.connect(tmp_path / "race" / DATABASE)) as database, database:
        rows = database.execute("SELECT * FROM trials ORDER BY rowid DESC").fetchall()
        database.execute("DELETE FROM trials")
        database.executemany("INSERT INTO trials VALUES (?, ?, ?, ?)", rows[:5])
    assert reader.read(plan["entries"], plan["epochs"]) != before
    assert len(reader.finished) == 5


def test_a_trial_belongs_to_the_entry_with_its_settings():
    plan = make_plan("digits", ["adam", "amsgrad", "momentum", "nesterov", "minibatch", "gd", "sgd", "muon-original"])
    entries = plan.description["entries"]
    for entry in plan.entries:
        for share in (0.0, 1.0):
            point = {name: axis.from_unit(share) for name, axis in entry.space.items()}
            assert find_entry(plan.tuning_trial(entry, point, 0).identity, entries) == entry.name


def test_a_race_of_another_process_is_watched_until_it_ends(tmp_path):
    races = Races(tmp_path)
    with Journal(tmp_path / "elsewhere") as journal, LiveFiles(tmp_path / "elsewhere") as live:
        plan = make_plan("digits", NAMES, preset="small", trials=4, seeds=6)
        journal.write("plan", plan.description)
        journal.write("fitted", {"x": 1})  # something worth saving
        live.update("tuning", 3.0, 45)
        found = progress(races, "elsewhere", tmp_path / "elsewhere", RunReader(tmp_path / "elsewhere"))
        assert (found["state"], found["phase"], found["total_runs"]) == ("running elsewhere", "Tuning", 45)
        assert found["counts"] == "3 of up to 45 training runs"
        os.utime(tmp_path / "elsewhere" / "live", (1, 1))  # as if this process had the number of one that was killed
        assert race_state(races, "elsewhere", tmp_path / "elsewhere") == "stopped"
    found = progress(races, "elsewhere", tmp_path / "elsewhere", RunReader(tmp_path / "elsewhere"))
    assert (found["state"], found["phase"], found["counts"]) == ("stopped", "", "")


def test_saved_races_are_compared_by_the_command_and_the_app(runs, tmp_path):
    folders, page = [str(runs / "digits-small"), str(runs / "shorter")], tmp_path / "page.html"
    answer = CliRunner().invoke(cli.app, ["compare", *folders, "--out", str(page)])
    assert answer.exit_code == 0, answer.output
    assert "Epochs" in answer.output
    assert "different numbers of examples" in answer.output
    assert f"Page: {page}" in answer.output
    assert "Settings that differ" in page.read_text()
    client = make(Races(runs)).test_client()
    for query, status, text in (
        ("a=digits-small&b=shorter", 200, "Settings that differ"),
        ("race=digits-small&race=shorter", 200, "Settings that differ"),
        ("a=digits-small", 404, "at least two races, not 1"),
        ("a=digits-small&b=stopped", 404, "is not finished"),
        ("a=digits-small&b=../x", 404, "There is no race"),
    ):
        found = client.get(f"/races/compare?{query}", headers=HERE)
        assert (found.status_code, text in found.text) == (status, True), query
    refused = CliRunner().invoke(cli.app, ["compare", folders[0], str(runs / "stopped")])
    assert refused.exit_code == 2
    assert "is not finished" in refused.stderr


def test_a_race_that_was_stopped_before_it_began_leaves_its_name_and_tuning_is_no_race(tmp_path, monkeypatch):
    monkeypatch.setattr(Races, "_command", sleeper)
    races = Races(tmp_path)
    try:
        for _ in range(2):
            assert races.start(RaceRequest()) == "digits-small"
            (tmp_path / "digits-small" / "live").mkdir()
            races.stop("digits-small")
            assert not (tmp_path / "digits-small" / "live").exists()
            assert [row.state for row in rows(races)] == ["stopped"]
    finally:
        races.close()
    with Journal(tmp_path / "tuned") as journal:
        journal.write("plan", make_tune_plan(RaceConfig("digits", "adam", preset="small")).description)
        journal.write("fitted", {"x": 1})  # something worth saving
    assert races.names() == ["tuned"]
    assert rows(Races(tmp_path)) == []
    page = ParsedPage(make(Races(tmp_path)).test_client().get("/races", headers=HERE).text)
    assert "Not listed, because tuning one optimizer is no race: tuned." in page.text


def test_selected_races_are_compared_from_the_older_to_the_newer(runs):
    os.utime(runs / "shorter" / DATABASE, (1, 1))
    client = make(Races(runs)).test_client()
    for query, title in (
        ("race=digits-small&race=shorter", "shorter and digits-small"),
        ("a=digits-small&b=shorter", "digits-small and shorter"),
    ):
        assert f"<h1>{title}</h1>" in client.get(f"/races/compare?{query}", headers=HERE).text


def test_each_figure_of_a_report_can_be_saved(runs):
    client = make(Races(runs)).test_client()
    paths = re.findall(r'href="([^"]+/figures/[^"]+)"', client.get("/races/shorter", headers=HERE).text)
    assert {"/races/shorter/figures/ranking.png", "/races/shorter/figures/curves.svg"} <= set(paths)
    answer = client.get("/races/shorter/figures/ranking.png", headers=HERE)
    assert answer.data.startswith(b"\x89PNG")
    assert answer.headers["Content-Disposition"] == "attachment; filename=shorter-ranking.png"
    for name in ("shorter/figures/ranking.gif", "shorter/figures/nothing.png", "stopped/figures/ranking.png"):
        assert client.get(f"/races/{name}", headers=HERE).status_code == 404


def test_a_note_is_saved_beside_the_race_and_shown(runs):
    client = make(Races(runs)).test_client()
    answer = client.post("/races/stopped/note", data={"note": " <b>too short</b> "}, headers=HERE)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/races/stopped")
    assert "&lt;b&gt;too short&lt;/b&gt;" in client.get("/races", headers=HERE).text
    assert "&lt;b&gt;too short&lt;/b&gt;" in client.get("/races/stopped", headers=HERE).text
    client.post("/races/stopped/note", data={"note": ""}, headers=HERE)
    assert not (runs / "stopped" / "note.txt").exists()
    assert client.post("/races/nothing/note", data={"note": "x"}, headers=HERE).status_code == 404


def test_a_race_can_be_resumed_only_if_the_app_started_it(runs):
    client = make(Races(runs)).test_client()
    assert client.post("/races/stopped/resume", headers=HERE).status_code == 404
    assert 'data-possible="false"' in client.get("/races/stopped", headers=HERE).text


def test_the_page_of_an_unknown_race_says_so(runs):
    answer = make(Races(runs)).test_client().get("/races/nothing", headers=HERE)
    assert answer.status_code == 404
    assert "There is no race “nothing”" in answer.text


def sleeper(self: Races, request: RaceRequest, name: str) -> list[str]:
    """Command of a race that ignores requests to stop."""
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    return [sys.executable, "-c", code]


def test_of_races_that_are_asked_for_at_once_one_is_started_and_stops_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Races, "_command", sleeper)
    races, said = Races(tmp_path), []

    def start() -> None:
        try:
            said.append(races.start(RaceRequest()))
        except ValueError as error:
            said.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert said.count("digits-small") == 1
        assert sum("race is running" in each for each in said) == 4
        assert races.is_running("digits-small")
        assert races.request("digits-small") == RaceRequest()
        time.sleep(0.3)  # until it ignores the signal
        began = time.monotonic()
        races.stop("digits-small")
        assert time.monotonic() - began < STOP_PATIENCE + 1
    finally:
        races.close()
    assert not races.is_running("digits-small")
    assert races.process("digits-small").error == ""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")
@pytest.mark.parametrize("name", ["SIGTERM", *(pytest.param(n, marks=pytest.mark.slow) for n in ("SIGHUP", "SIGINT"))])
def test_no_race_outlives_the_app(tmp_path: Path, name: str) -> None:
    program = (
        "import sys, threading, time\n"
        "from gradprix.app import Races, serve\n"
        "from gradprix.app.race_request import RaceRequest\n"
        "Races._command = lambda *_: [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "made = []\n"
        "init = Races.__init__\n"
        "Races.__init__ = lambda self, *a, **k: (init(self, *a, **k), made.append(self))[0]\n"
        "def ready(address):\n"
        "    made[0].start(RaceRequest())\n"
        "    print(next(iter(made[0].started.values())).process.pid, flush=True)\n"
        f"serve(0, open_browser=False, runs=__import__('pathlib').Path({str(tmp_path)!r}), ready=ready)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as app_:
        assert app_.stdout is not None
        try:
            race = int(app_.stdout.readline())
            app_.send_signal(getattr(signal, name))
            app_.wait(timeout=60)
            with pytest.raises(ProcessLookupError):
                os.kill(race, 0)
        finally:
            app_.kill()
