"""What is finished stays finished: killed races, full disks, two races at once, other plans and versions."""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import gradprix as gp
from gradprix import tasks
from gradprix.cli import app
from gradprix.executors import executor
from gradprix.race import (
    BusyError,
    Journal,
    JournalError,
    Local,
    NoAnalysisLeftError,
    OtherRaceError,
    TaskError,
    make_plan,
    run,
)
from gradprix.race.record_json import to_json
from gradprix.stats.alpha_spending import ANALYSIS_SEEDS, cumulative_level, next_level
from gradprix.training.provenance import provenance
from untimed import Untimed

SMALL: dict[str, Any] = {"optimizers": "adam,momentum", "trials": 2, "seeds": 6, "epochs": 1}


class Counting(Untimed):
    """Counts the networks it trains."""

    def __init__(self) -> None:
        super().__init__(1)
        self.ran = 0

    def run(self, *args: Any) -> Any:
        for lane, outcomes in super().run(*args):
            self.ran += len(lane)
            yield lane, outcomes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished race, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    run(make_plan("digits", **SMALL), folder, Counting())
    return folder


@pytest.fixture
def raced(finished: Path, tmp_path: Path) -> Path:
    """A finished race of a test's own."""
    return Path(shutil.copytree(finished, tmp_path / "raced"))


def content(folder: Path) -> dict[str, Any]:
    """A record, without what it took."""
    record: dict[str, Any] = to_json(gp.load(folder).record)
    for clock in ("seconds", "step_seconds"):
        record["cost"].pop(clock)
    return record


# Another plan


def test_another_plan_uses_every_network_that_is_the_same(raced: Path) -> None:
    more = {**SMALL, "optimizers": "adam,momentum,minibatch"}
    result = run(make_plan("digits", **more), raced, third := Counting())
    assert (third.ran, result.reused) == (12, 24)
    alone = run(make_plan("digits", **more), raced / "alone", Counting())
    assert result.record.entries == alone.record.entries

    said = CliRunner().invoke(app, ["race", "digits", "--out", str(raced), *flags(more)])
    assert "36 of 36 training runs were already finished" in said.output


def test_a_reader_leaves_no_files(raced: Path) -> None:
    before = {file.name: file.read_bytes() for file in raced.iterdir() if file.is_file()}
    gp.load(raced)
    assert {file.name: file.read_bytes() for file in raced.iterdir() if file.is_file()} == before
    with Journal(raced):
        gp.load(raced)
        assert (raced / "race.db-wal").exists(), "another process writes"
    with Journal(raced, to_read=True) as journal, pytest.raises(JournalError, match="readonly"):
        journal.write("record", None)


def flags(given: dict[str, Any]) -> list[str]:
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def test_an_unfinished_plan_leaves_the_old_answer_until_it_has_its_own(raced: Path) -> None:
    before = gp.load(raced).record

    class Stops(Local):
        def run(self, *_: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make_plan("digits", **{**SMALL, "epochs": 2}), raced, Stops(1))
    assert gp.load(raced).record == before
    assert run(make_plan("digits", **{**SMALL, "epochs": 2}), raced, Counting()).record.plan.epochs == 2
    assert gp.load(raced).record.plan.epochs == 2


@pytest.mark.parametrize("change", ["task", "compile"])
def test_another_task_or_form_in_the_same_folder_is_refused(raced: Path, change: str) -> None:
    task = tasks.digits.change(baseline=0.2) if change == "task" else tasks.digits
    other = make_plan(task, **SMALL, compile=change != "task")
    with pytest.raises(OtherRaceError, match=r"another (task|execution mode) \(digits\)"):
        run(other, raced, Counting())
    assert content(raced)["task"] == "digits", "what is there stays"


def test_networks_of_other_versions_are_trained_again(raced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "provenance", lambda gpu: "torch 99")
    result = run(make_plan("digits", **SMALL), raced, engine := Counting())
    assert (engine.ran, result.reused) == (24, 0)
    assert "torch" in provenance()


def test_networks_whose_loss_at_the_start_was_not_noted_are_used(raced: Path) -> None:
    started = gp.load(raced).record
    with contextlib.closing(sqlite3.connect(raced / "race.db")) as database, database:
        for key, outcome in database.execute("SELECT key, outcome FROM trials").fetchall():
            older = json.dumps({name: value for name, value in json.loads(outcome).items() if name != "start"})
            database.execute("UPDATE trials SET outcome = ? WHERE key = ?", (older, key))
    result = run(make_plan("digits", **SMALL), raced, engine := Counting())
    assert (engine.ran, result.reused) == (0, 24)
    assert started.initial_loss is not None
    assert result.record.initial_loss is None


# Looks


def test_looks_share_the_chance_of_a_false_word() -> None:
    levels = [0.035, 0.01, 0.025, 0.025, 0.04, 0.04, 0.05, 0.05]
    assert [cumulative_level(n) for n in (6, 8, 9, 16, 17, 32, 64, 300)] == levels
    assert cumulative_level(6) >= 2**-5, "six seeds can tell something"
    assert cumulative_level(8) >= 2**-7
    taken: list[tuple[int, float]] = []
    for seeds in ANALYSIS_SEEDS:
        taken.append((seeds, next_level(taken, seeds)))
    assert [level for _, level in taken] == pytest.approx([0.01, 0.015, 0.015, 0.01])
    assert next_level(taken, 32) == taken[2][1], "the same analysis again is no new one"
    assert next_level([], 64) == 0.05, "a single analysis spends all at once"
    with pytest.raises(
        NoAnalysisLeftError, match=r"analysed with 8, 16 seeds.* next interim analysis is with 32 seeds \(--seeds 32\)"
    ):
        next_level(taken[:2], 12)
    with pytest.raises(NoAnalysisLeftError, match="There is none after that"):
        next_level(taken, 100)


def test_more_seeds_are_an_interim_analysis_that_is_saved(raced: Path) -> None:
    assert gp.load(raced).record.verdict.interim_analyses == ((6, 0.035),)
    with pytest.raises(NoAnalysisLeftError, match="analysed with 6 seeds"):
        run(make_plan("digits", **{**SMALL, "seeds": 8}), raced, Counting())
    more = run(make_plan("digits", **{**SMALL, "seeds": 17}), raced, Counting())
    assert more.record.verdict.interim_analyses == ((6, 0.035), (17, pytest.approx(0.005)))
    assert more.reused == 24
    refused = CliRunner().invoke(app, ["race", "digits", "--out", str(raced), *flags({**SMALL, "seeds": 9})])
    assert refused.exit_code == 2
    assert "gradprix: this race was analysed with 6, 17 seeds" in refused.output


# Two races, a full disk, a kill


def test_a_second_race_in_a_folder_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(BusyError, match=rf"another race is running in .* \(process {os.getpid()}\)"):
        Journal(tmp_path)
    Journal(tmp_path).__exit__()


def test_a_full_disk_loses_nothing_that_is_finished(tmp_path: Path, finished: Path) -> None:
    plan = make_plan("digits", **SMALL)
    with Journal(tmp_path / "full") as journal:
        pages = journal.database.execute("PRAGMA page_count").fetchone()[0]

    class Full(Journal):
        def __init__(self, *args: Any, **given: Any) -> None:
            super().__init__(*args, **given)
            self.database.execute(f"PRAGMA max_page_count = {pages + 4}")

    from gradprix.race import protocol

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "Journal", Full)
        with pytest.raises(JournalError, match=r"database or disk is full.*saved.*--out"):
            run(make_plan("digits", **{**SMALL, "trials": 12}), tmp_path / "full", Counting())
    run(plan, tmp_path / "full", Counting())
    assert content(tmp_path / "full") == content(finished)


RACE = (
    "import sys; from gradprix.cli import main; sys.argv = 'gradprix race digits --optimizers adam,momentum,adagrad "
    "--trials {trials} --seeds 6 --epochs {epochs} --out {out} --processes {processes}'.split(); main()"
)


def count_trials(folder: Path) -> int:
    """Return the number of trials in a journal that another process may be writing."""
    place = f"{(folder / 'race.db').as_uri()}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(place, uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM trials").fetchone()[0])
    return 0


def outcomes(folder: Path) -> dict[str, str]:
    """Return the outcomes in a journal by the keys of their trials, as they are written."""
    with contextlib.closing(sqlite3.connect(folder / "race.db")) as database:
        return dict(database.execute("SELECT key, outcome FROM trials"))


def kill_again_and_again(tmp_path: Path, times: int, trials: int, epochs: int, longest: float) -> None:
    plan = make_plan("digits", "adam,momentum,adagrad", trials=trials, seeds=6, epochs=epochs)
    run(plan, tmp_path / "whole", Local(2))
    folder, luck, killed = tmp_path / "killed", random.Random(0), 0
    folder.mkdir()
    for turn in range(times):
        given = {"trials": trials, "epochs": epochs, "out": folder, "processes": 1 + turn % 3}
        command = [sys.executable, "-c", RACE.format(**given)]
        before, devnull = count_trials(folder), subprocess.DEVNULL
        race = subprocess.Popen(command, stdout=devnull, stderr=devnull, start_new_session=True)
        while race.poll() is None and count_trials(folder) == before:
            time.sleep(0.02)
        time.sleep(luck.uniform(0.0, longest))
        if race.poll() is None:
            killed += 1
            os.killpg(race.pid, signal.SIGKILL)  # with its workers, as when the machine goes down
        race.wait()
        with contextlib.closing(sqlite3.connect(folder / "race.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert killed > times // 4
    run(plan, folder, Local(3))
    assert content(folder) == content(tmp_path / "whole")
    assert outcomes(folder) == outcomes(tmp_path / "whole"), "to the bit, with any number of processes"


def test_a_race_that_is_killed_again_and_again_ends_as_one_left_alone(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, times=2, trials=4, epochs=10, longest=0.3)


@pytest.mark.slow
def test_a_race_that_is_killed_twenty_times_ends_as_one_left_alone(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, times=20, trials=19, epochs=40, longest=3.0)


# Tables


def test_a_result_is_data_frames(finished: Path) -> None:
    result = gp.load(finished)
    assert list(result.verdict.columns) == ["a", "b", "difference", "low", "high", "p", "verdict", "more_seeds"]
    assert len(result.verdict) == 1
    assert list(result.entries["entry"]) == [result.verdict["a"][0], result.verdict["b"][0]]
    assert len(result.trials) == 4
    assert {"entry", "lr", "seed", "loss", "metric"} <= set(result.trials.columns)
    assert len(result.finals) == 12
    means = result.finals.groupby("entry")["metric"].mean()
    assert means["adam"] == pytest.approx(result.entries.set_index("entry")["mean"]["adam"])
    assert set(result.curves["seed"]) == set(range(6))
    assert "gradprix-cell" in result._repr_html_()
    assert json.dumps(result.to_dict())


@pytest.mark.parametrize("form", ["csv", "latex", "parquet"])
def test_a_race_is_exported(raced: Path, form: str) -> None:
    needs = {"parquet": "pyarrow"}.get(form)
    done = CliRunner().invoke(app, ["export", str(raced), "--to", form, "--out", str(raced / "tables")])
    try:
        needs and __import__(needs)
    except ImportError:
        assert done.exit_code == 2
        assert f"{form} needs {needs}: pip install {needs}" in done.output
    else:
        assert done.exit_code == 0, done.output
        assert len(list((raced / "tables").iterdir())) == (2 if form == "latex" else 5)
    assert CliRunner().invoke(app, ["export", str(raced / "nowhere")]).exit_code == 2


# Refusals


def test_what_is_refused_changes_nothing(raced: Path) -> None:
    before = gp.load(raced).record
    seven = {**SMALL, "seeds": 7}
    baseline = {**SMALL, "baseline": "adam"}
    for given, error in ((baseline, OtherRaceError), (seven, NoAnalysisLeftError)):
        with pytest.raises(error):
            run(make_plan("digits", **given), raced, Counting())
        assert gp.load(raced).record == before


def test_an_optimizer_that_joins_later_is_looked_at_too(raced: Path) -> None:
    class Broken(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            raise RuntimeError("not today")

    more = [*SMALL["optimizers"].split(","), gp.Entry("broken", Broken)]
    with pytest.raises(
        TaskError, match="'broken' on task 'digits' cannot be raced: RuntimeError: not today \\(test_journal.py, line"
    ):
        run(make_plan("digits", **{**SMALL, "optimizers": more}), raced, Counting())
    assert gp.load(raced).record.plan.entries[0].name == "adam", "what was there is there"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"optimizers": "adam,momentum"}, "another optimizers"),
        ({"margin": 0.1}, "another margin"),
        ({"baseline": "adam"}, "another baseline"),
    ],
)
def test_what_is_compared_is_fixed_once_it_was_looked_at(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    three = {**SMALL, "optimizers": "adam,momentum,minibatch"}
    run(make_plan("digits", **three), tmp_path, Counting())
    with pytest.raises(OtherRaceError, match=says):
        run(make_plan("digits", **{**three, **change}), tmp_path, Counting())
    more = {**three, "optimizers": "adam,momentum,minibatch,nadam"}
    assert run(make_plan("digits", **more), tmp_path, Counting()).reused == 36
