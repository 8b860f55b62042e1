"""Loggers: every run of a race is in the tracker once, with its hyperparameters, curves and phase, and the verdict."""

import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock

import gradprix as gp
from command_line import gradprix
from gradprix.integrations.loggers import Logger, Loggers, TrainingRun, make_loggers
from gradprix.integrations.loggers.training_run import describe_run
from gradprix.race import Result, make_plan, make_tune_plan, run, run_tuning
from gradprix.race.config import RaceConfig
from gradprix.training.trial import Outcome
from untimed import Untimed

SMALL: dict[str, Any] = {"optimizers": "adam,momentum", "trials": 2, "seeds": 6, "epochs": 2}
RUNS = {"tuning": 4, "final": 12, "quarter": 8}
"""Number of runs of the race `SMALL` in each phase."""
EPOCHS = {"tuning": 2, "final": 2, "quarter": 1}


def race(folder: Path, *log: str | Logger, **changes: Any) -> Result:
    return run(make_plan("digits", **{**SMALL, **changes}), folder, Untimed(1), loggers=make_loggers(log))


class Recorder(Logger):
    """Logger that keeps what it receives."""

    def __init__(self, fail: str = "") -> None:
        super().__init__()
        self.runs: list[TrainingRun] = []
        self.results: list[Any] = []
        self.fail = fail

    def on_run_end(self, run: TrainingRun) -> None:
        if self.fail:
            raise OSError(28, self.fail)
        self.runs.append(run)

    def on_race_end(self, result: Any) -> None:
        self.results.append(result)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    folder, recorder = tmp_path_factory.mktemp("race"), Recorder()
    race(folder, "csv", recorder)
    return folder, recorder


def test_a_logger_receives_each_run_once_and_the_result(raced: tuple[Path, Recorder]) -> None:
    folder, recorder = raced
    assert Counter(each.phase for each in recorder.runs) == RUNS
    assert len({each.id for each in recorder.runs}) == len(recorder.runs)
    assert not any(each.is_reused for each in recorder.runs)
    record = gp.load(folder).record
    assert recorder.results[0].text == gp.load(folder).text
    for entry in record.entries:
        runs = [each for each in recorder.runs if each.entry == entry.name]
        finals = {each.hyperparameters["seed"]: each for each in runs if each.phase == "final"}
        assert [finals[seed].test["test/accuracy"] for seed in sorted(finals)] == list(entry.final.values)
        assert all(each.hyperparameters["lr"] == entry.tuned["lr"] for each in finals.values())
        for seed, each in enumerate(finals[seed] for seed in sorted(finals)):
            curves = record.curves[entry.name]
            assert [point["examples"] for point in each.curve] == list(curves.examples)
            assert [point["train/loss"] for point in each.curve] == list(curves.train_loss[seed])
            assert [point["valid/accuracy"] for point in each.curve] == list(curves.valid_metric[seed])
        tuning = [each for each in runs if each.phase == "tuning"]
        assert [each.hyperparameters["lr"] for each in tuning] == [
            x.learning_rate for x in record.tuning_runs[entry.name]
        ]
        assert all(not each.test for each in tuning)


def test_a_run_has_the_options_of_its_training_and_a_metric_that_is_called_loss(tmp_path: Path) -> None:
    metric = gp.Metric("loss", lambda outputs, targets: 0.0, higher_is_better=False, margin=0.1)
    task = gp.tasks.digits.change(metric=metric, ema=0.9, clip_norm=2.0)
    plan = make_plan(task, "adam,momentum", tune="clip_norm", trials=12, seeds=6)
    trial = plan.final_trial(plan.entries[0], {"lr": 0.1, "clip_norm": 0.5}, 0)
    outcome = Outcome([(32, 4.0, 3.0, 2.0)], 1.5, 1.0, None, after={"numbers": {"loss (EMA)": 0.5, "norm": 7.0}})
    run = describe_run(plan, "final", trial, outcome, False)
    assert run.hyperparameters["clip_norm"] == 0.5
    assert run.curve == [{"epoch": 1, "examples": 32, "train/loss": 4.0, "valid/loss": 3.0, "valid/loss_metric": 2.0}]
    assert run.test == {"test/loss": 1.5, "test/loss_metric": 1.0, "test/loss_EMA": 0.5, "test/norm": 7.0}
    logger = gp.integrations.loggers.CSV()
    logger.root = tmp_path
    logger.on_race_start(plan)
    logger.on_run_end(run)
    (row,) = pd.read_csv(tmp_path / "runs.csv").to_dict("records")
    assert {name: row[name] for name in run.last if name != "test/norm"} == {
        name: value for name, value in run.last.items() if name != "test/norm"
    }


def test_csv_files_have_runs_curves_and_result(raced: tuple[Path, Recorder]) -> None:
    folder, recorder = raced
    runs, curves = pd.read_csv(folder / "csv" / "runs.csv"), pd.read_csv(folder / "csv" / "curves.csv")
    assert Counter(runs["phase"]) == RUNS
    assert list(runs["id"]) == [each.id for each in recorder.runs]
    assert runs["valid/loss"].tolist() == [each.last["valid/loss"] for each in recorder.runs]
    assert runs["test/accuracy"].notna().tolist() == [each.phase != "tuning" for each in recorder.runs]
    assert json.loads(runs["hyperparameters"][0])["beta1"] == 0.9
    lengths = curves.groupby("id").size()
    assert all(lengths[each.id] == len(each.curve) == EPOCHS[each.phase] for each in recorder.runs)
    ranking = pd.read_csv(folder / "csv" / "ranking.csv")
    assert ranking["entry"].tolist() == gp.load(folder).entries["entry"].tolist()
    assert (folder / "csv" / "answer.txt").read_text() == gp.load(folder).text + "\n"


def test_a_resumed_race_is_logged_once_with_what_was_missing(raced: tuple[Path, Recorder], tmp_path: Path) -> None:
    first, again = Recorder(), Recorder()
    race(tmp_path, first)
    result = race(tmp_path, again, "csv")  # the runs of the first call as well
    assert result.reused == len(again.runs) == len(first.runs)
    assert all(each.is_reused for each in again.runs)
    assert {each.id for each in again.runs} == {each.id for each in first.runs}
    runs, curves = tmp_path / "csv" / "runs.csv", tmp_path / "csv" / "curves.csv"
    complete = [pd.read_csv(file).sort_values(["id"], kind="stable", ignore_index=True) for file in (runs, curves)]
    # A race that was killed while it wrote: a curve without its run, and half a line.
    runs.write_text("".join(runs.read_text().splitlines(keepends=True)[:-3]))
    curves.write_text(curves.read_text()[:-7])
    race(tmp_path, "csv")
    for file, before in zip((runs, curves), complete, strict=True):
        after = pd.read_csv(file).sort_values(["id"], kind="stable", ignore_index=True)
        pd.testing.assert_frame_equal(after, before)


def test_a_logger_that_fails_does_not_end_the_race(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = Recorder()
    result = race(tmp_path, Recorder("No space left on device"), good)
    assert result.record.verdict.recommended in ("adam", "momentum")
    assert (len(good.runs), len(good.results)) == (sum(RUNS.values()), 1)
    warnings = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "Recorder failed" in warnings[0]
    assert "No space left on device" in warnings[0]


def test_an_error_ends_the_race_without_waiting_for_its_loggers(tmp_path: Path) -> None:
    class Slow(Recorder):
        def on_run_end(self, run: TrainingRun) -> None:
            time.sleep(0.2)
            super().on_run_end(run)

    class Stops(Untimed):
        def run(self, *args: Any) -> Any:
            yield next(iter(super().run(*args)))
            raise KeyboardInterrupt

    slow = Slow()
    with pytest.raises(KeyboardInterrupt):
        run(make_plan("digits", **SMALL), tmp_path, Stops(1), loggers=[slow])
    assert len(slow.runs) < 4
    assert not slow.results


def test_runs_that_diverge_are_marked(tmp_path: Path) -> None:
    recorder = Recorder()
    entry = gp.Entry("wild", gp.optim.SGD, space={"lr": gp.log(1e30, 1e32)})
    race(tmp_path, recorder, "csv", optimizers=[entry, "adam"])
    wild = [each for each in recorder.runs if each.entry == "wild"]
    assert wild
    assert all(each.tags["diverged"] == str(each.diverged) and each.diverged for each in wild)
    assert all(math.isfinite(value) for each in wild for point in each.curve for value in point.values())
    runs = pd.read_csv(tmp_path / "csv" / "runs.csv")
    assert set(runs.loc[runs["diverged"].notna(), "entry"]) == {"wild"}


def test_tuning_one_optimizer_is_logged(tmp_path: Path) -> None:
    recorder = Recorder()
    plan = make_tune_plan(RaceConfig("digits", "adam", trials=2, seeds=6, epochs=1))
    result = run_tuning(plan, tmp_path, Untimed(1), loggers=make_loggers([recorder, "csv"]))
    assert Counter(each.phase for each in recorder.runs)["tuning"] == 2
    ranking = pd.read_csv(tmp_path / "csv" / "ranking.csv")
    assert set(ranking["entry"]) == {"adam", "adam at its default settings"}
    assert ranking["mean"].max() == max(result.record.final.mean, result.record.default.final.mean)


def test_unknown_loggers_are_refused() -> None:
    with pytest.raises(ValueError, match="log = 'tensorbord': there is no such logger. Give one of tensorboard, wandb"):
        make_loggers(["csv", "tensorbord"])
    with pytest.raises(TypeError, match=r"log = 3: give one of .* a subclass of gp.integrations.loggers.Logger"):
        make_loggers([3])  # type: ignore[list-item]


def test_the_command_line_logs(tmp_path: Path) -> None:
    small = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    done = gradprix("race", "digits", *small, "--log", "csv", "--json", folder=tmp_path)
    assert json.loads(done.stdout)["task"] == "digits"
    assert f"CSV: {Path('runs', 'digits', 'csv', 'runs.csv')}" in done.stderr
    runs = pd.read_csv(tmp_path / "runs" / "digits" / "csv" / "runs.csv")
    assert {phase: sum(runs["phase"] == phase) for phase in RUNS} == RUNS
    assert "there is no such logger" in gradprix("race", "digits", "--log", "paper", folder=tmp_path, code=2).stderr


# Killed races


def kill_and_resume(folder: Path, log: str) -> None:
    """Kill a race when some runs are finished, then resume it to its end."""
    command = [sys.executable, "-W", "ignore", "-m", "gradprix", "race", "digits", "--log", log, "--out", str(folder)]
    command += [word for name, value in SMALL.items() for word in (f"--{name}", str(value))] + ["--processes", "1"]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while first.poll() is None and not any((folder / log).rglob("*run*")):
            time.sleep(0.01)
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    subprocess.run(command, check=True, capture_output=True)


def test_a_killed_race_is_logged_once(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, "csv")
    runs = pd.read_csv(tmp_path / "csv" / "runs.csv")
    curves = pd.read_csv(tmp_path / "csv" / "curves.csv")
    assert {phase: sum(runs["phase"] == phase) for phase in RUNS} == RUNS
    assert runs["id"].is_unique
    assert not curves.duplicated(["id", "epoch"]).any()
    assert (tmp_path / "csv" / "answer.txt").exists()


# Trackers, read by their own libraries

needs_library = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]


class TestTensorBoard:
    pytestmark = needs_library

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        pytest.importorskip("tensorboard")
        folder = tmp_path_factory.mktemp("killed")
        kill_and_resume(folder, "tensorboard")
        return folder

    def test_each_run_is_there_once(self, folder: Path) -> None:
        files = list((folder / "tensorboard").rglob("events.out.tfevents.*"))
        assert Counter(file.parent.parent.name for file in files) == {**RUNS, "tensorboard": 1}
        assert len({file.parent for file in files}) == len(files)
        assert not (folder / "tensorboard.partial").exists()

    def test_runs_have_curves_and_hyperparameters(self, folder: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        recorder = Recorder()
        race(folder, recorder)
        for each in recorder.runs:
            (path,) = (folder / "tensorboard" / each.phase).glob(f"*{each.id[:8]}")
            events = EventAccumulator(str(path)).Reload()
            for name in ("train/loss", "valid/loss", "valid/accuracy"):
                values = pytest.approx([point[name] for point in each.curve])
                assert [event.value for event in events.Scalars(name)] == values
                assert [event.step for event in events.Scalars(name)] == list(range(1, len(each.curve) + 1))
                examples = [event.step for event in events.Scalars(f"{name}_by_examples")]
                assert examples == [point["examples"] for point in each.curve]
            for name, value in each.test.items():
                assert [event.value for event in events.Scalars(name)] == [pytest.approx(value)]
            content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
            shown = HParamsPluginData.FromString(content).session_start_info.hparams
            assert shown["lr"].number_value == pytest.approx(each.hyperparameters["lr"])
            assert shown["phase"].string_value == each.phase

    def test_the_verdict_is_text(self, folder: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder / "tensorboard" / "verdict")).Reload()
        (answer,) = (event.tensor_proto.string_val[0].decode() for event in events.Tensors("answer/text_summary"))
        result = gp.load(folder)
        assert result.text.splitlines()[0] in answer
        assert all(f"| {name} |" in answer for name in result.entries["entry"])


def test_races_that_share_a_folder_have_folders_of_their_own(tmp_path: Path) -> None:
    class Shared(Recorder):
        folder_per_task = True

    roots = []
    for kind, folder in ((Shared, tmp_path), (Recorder, tmp_path), (Shared, None)):
        logger = kind()
        logger.folder = folder
        for name in ("one", "two"):
            Loggers([logger], make_plan(gp.tasks.digits.change(name=name), "adam,momentum"), tmp_path / "race")
            roots.append(logger.root)
    log = tmp_path / "race" / "log"
    assert roots == [tmp_path / "one", tmp_path / "two", tmp_path, tmp_path, log, log]


class TestMLflow:
    pytestmark = needs_library

    def test_races_that_start_together_share_a_database(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("mlflow")
        pytest.importorskip("sqlalchemy")
        from mlflow.tracking import MlflowClient

        database = tmp_path / "mlflow.db"
        logger = gp.integrations.loggers.MLflow(tmp_path, uri=f"sqlite:///{database}")
        plan = make_plan("digits", "adam,momentum")
        thread = threading.Thread(target=logger.on_race_start, args=[plan])
        with FileLock(f"{database}.lock"):  # of another race, which creates the tables
            thread.start()
            thread.join(2)
            assert thread.is_alive()
            assert not database.exists()
        thread.join()
        client = MlflowClient(f"sqlite:///{database}")
        find = MlflowClient.get_experiment_by_name
        found = iter([None, find(client, "digits")])  # created by another race in the meantime
        monkeypatch.setattr(MlflowClient, "get_experiment_by_name", lambda *_: next(found))
        logger.on_race_start(plan)
        assert len(client.search_runs([find(client, "digits").experiment_id])) == 1

    def test_runs_and_verdict(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("mlflow")
        pytest.importorskip("sqlalchemy")
        from mlflow.tracking import MlflowClient

        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        kill_and_resume(tmp_path, "mlflow")
        recorder = Recorder()
        result = race(tmp_path, recorder)
        client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db")
        experiment = client.get_experiment_by_name("digits")
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        (parent,) = (each for each in runs if "gradprix.race" in each.data.tags)
        children = {each.data.tags["gradprix.run"]: each for each in runs if "gradprix.run" in each.data.tags}
        assert len(children) == len(runs) - 1 == len(recorder.runs)
        for each in recorder.runs:
            stored = children[each.id]
            assert stored.info.status == "FINISHED"
            assert stored.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert float(stored.data.params["lr"]) == each.hyperparameters["lr"]
            assert stored.data.params["phase"] == each.phase
            assert {name: stored.data.metrics[name] for name in each.last} == each.last
            history = client.get_metric_history(stored.info.run_id, "train/loss")
            assert [(point.step, point.value) for point in history] == [
                (epoch, point["train/loss"]) for epoch, point in enumerate(each.curve, start=1)
            ]
        assert parent.info.status == "FINISHED"
        assert parent.data.tags["recommended"] == result.best.name
        assert parent.data.metrics[f"mean/{result.best.name}"] == result.record.means[result.best.name]
        assert result.text.splitlines()[0] in parent.data.tags["mlflow.note.content"]
        (tmp_path / "downloaded").mkdir()
        answer = client.download_artifacts(parent.info.run_id, "answer.txt", str(tmp_path / "downloaded"))
        assert Path(answer).read_text() == f"{result.text}\n"


def records(file: Path) -> Iterator[Any]:
    """Yield the messages in the file of an offline run: a log in LevelDB's format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, size = file.read_bytes(), 1 << 15
    position, message = 7, b""
    while position + 7 <= len(content):
        if size - position % size < 7:
            position += size - position % size
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        message += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or last part
            yield Record.FromString(message)
            message = b""


class TestWandB:
    pytestmark = needs_library

    def test_offline_runs_and_verdict(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("wandb")
        monkeypatch.delenv("WANDB_MODE", raising=False)
        kill_and_resume(tmp_path, "wandb")
        recorder = Recorder()
        result = race(tmp_path, recorder)
        logs = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
        files = {file.stem.rpartition("-")[2]: file for file in logs}
        assert len(files) == len(list((tmp_path / "wandb").glob("offline-run-*"))) == len(recorder.runs) + 1
        for each in recorder.runs:
            stored = list(records(files[each.id]))
            (begin,) = (record.run for record in stored if record.WhichOneof("record_type") == "run")
            config = {item.key: json.loads(item.value_json) for item in begin.config.update}
            assert (begin.project, begin.job_type, begin.display_name) == ("gradprix-digits", each.phase, each.name)
            assert config["lr"] == each.hyperparameters["lr"]
            history = [
                {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                for record in stored
                if record.WhichOneof("record_type") == "history"
            ]
            assert [
                {name: point[name] for name in curve} for point, curve in zip(history, each.curve, strict=True)
            ] == (each.curve)
        verdict = files["verdict"]
        (begin,) = (record.run for record in records(verdict) if record.WhichOneof("record_type") == "run")
        assert begin.notes == result.text
        summary = {
            item.key or item.nested_key[0]: json.loads(item.value_json)
            for record in records(verdict)
            if record.WhichOneof("record_type") == "summary"
            for item in record.summary.update
        }
        assert summary["recommended"] == result.best.name
        assert list((verdict.parent / "files").rglob("ranking*.json"))


class TestOptuna:
    pytestmark = needs_library

    def test_two_numbers_are_a_choice_and_a_range_is_one(self, tmp_path: Path) -> None:
        optuna = pytest.importorskip("optuna")
        space = {"lr": gp.log(1e-3, 1e-1), "momentum": gp.choice(0.5, 0.9), "weight_decay": gp.log(1e-5, 1e-2)}
        entries = [gp.Entry("mine", gp.optim.SGD, space=space), "adam"]
        studies = gp.integrations.optuna.studies(race(tmp_path, optimizers=entries, trials=12, epochs=1))
        found = studies["mine"].trials[0].distributions
        assert found["momentum"] == optuna.distributions.CategoricalDistribution([0.5, 0.9])
        assert all(isinstance(found[name], optuna.distributions.FloatDistribution) for name in ("lr", "weight_decay"))

    def test_studies_have_the_tuning_runs(self, raced: tuple[Path, Recorder]) -> None:
        optuna = pytest.importorskip("optuna")
        result = gp.load(raced[0])
        studies = gp.integrations.optuna.studies(result)
        assert list(studies) == ["adam", "momentum"]
        for name, study in studies.items():
            runs = result.record.tuning_runs[name]
            assert [trial.params for trial in study.trials] == [run.point for run in runs]
            assert [trial.value for trial in study.trials] == [run.metric for run in runs]
            assert study.best_value == max(run.metric for run in runs)
            (distribution,) = study.trials[0].distributions.values()
            assert distribution.log
            assert isinstance(distribution, optuna.distributions.FloatDistribution)
        study.optimize(
            lambda trial: trial.suggest_float("lr", distribution.low, distribution.high, log=True), n_trials=1
        )

    def test_diverged_runs_failed(self, tmp_path: Path) -> None:
        optuna = pytest.importorskip("optuna")
        space = {"lr": gp.log(1e30, 1e32), "momentum": gp.choice(0.5, 0.9, 0.0)}
        result = race(tmp_path, optimizers=[gp.Entry("wild", gp.optim.SGD, space=space), "adam"], trials=6)
        studies = gp.integrations.optuna.studies(result)
        fail, complete = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE
        diverged = [run.diverged is not None for run in result.record.tuning_runs["wild"]]
        assert any(diverged)
        assert [trial.state for trial in studies["wild"].trials] == [fail if each else complete for each in diverged]
        assert {trial.state for trial in studies["adam"].trials} == {complete}
