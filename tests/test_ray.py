"""Races on a Ray cluster of three machines, which here are three nodes on one."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

import gradprix as gp
from gradprix import cli, engines
from gradprix.executors import ray_cluster, ray_init
from gradprix.executors.ray_cluster import Resources
from gradprix.executors.ray_init import ray_here
from gradprix.executors.serialization import call, folders, packed
from gradprix.race import EngineError, LiveProgress, Local, TaskError, make_plan, run, suite, suite_plans
from gradprix.training.provenance import versions
from gradprix.training.trial import FailureKind

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray, once imported, takes 127.0.0.1 as it is
try:
    ray = ray_here()
except EngineError:
    pytest.skip("for clusters: pip install 'gradprix[ray]'", allow_module_level=True)

from ray.cluster_utils import Cluster

HOME = {"node_ip_address": "127.0.0.1", "num_cpus": 1, "object_store_memory": 100_000_000}
SMALL: dict[str, Any] = {"optimizers": "adam,momentum,adagrad", "trials": 4, "seeds": 6, "epochs": 60}
QUICK: dict[str, Any] = {"optimizers": "adam,momentum", "trials": 2, "seeds": 6, "epochs": 2}
TAKEN = "SELECT key, trial, outcome, made FROM trials ORDER BY key"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three machines of one core each."""
    made = Cluster(initialize_head=True, head_node_args={**HOME, "include_dashboard": False})
    for _ in range(2):
        made.add_node(**HOME)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def alone() -> Iterator[None]:
    """Whatever joins a cluster leaves it again."""
    ray.shutdown()
    yield
    ray.shutdown()


def kept(folder: Path) -> dict[str, Any]:
    """What a journal holds, but for clocks and machine: its networks, and its record."""
    with contextlib.closing(sqlite3.connect(folder / "race.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = database.execute(TAKEN).fetchall()
        about = {name: json.loads(value) for name, value in database.execute("SELECT name, value FROM about")}
    for clock in ("seconds", "step_seconds", "process"):
        about.pop(clock)
    about["record"]["cost"] = {k: v for k, v in about["record"]["cost"].items() if not k.endswith("seconds")}
    return {"trials": rows, **about}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the race leaves behind on this machine alone."""
    folder = tmp_path_factory.mktemp("local")
    run(make_plan("digits", **SMALL), folder, Local(2))
    return kept(folder)


def test_a_race_on_a_cluster_leaves_the_same_behind(cluster: Cluster, tmp_path: Path, alone: None) -> None:
    heard: list[str] = []
    engine, plan = engines.Ray(cluster.address), make_plan("digits", **QUICK)
    run(plan, tmp_path / "there", engine, lambda progress: heard.append(progress.workers))
    run(plan, tmp_path / "here", Local(2))

    assert kept(tmp_path / "there") == kept(tmp_path / "here")
    assert any(said.startswith(" on 3 workers, ") for said in heard)
    assert engine.workers == 3


@pytest.mark.slow
def test_a_machine_that_is_lost_changes_nothing(
    cluster: Cluster, local: dict[str, Any], tmp_path: Path, alone: None, capfd: pytest.CaptureFixture[str]
) -> None:
    machine, heard = cluster.add_node(**HOME), []
    engine = engines.Ray(cluster.address)

    def watch(progress: LiveProgress) -> None:
        heard.append(progress.workers)
        if machine in cluster.worker_nodes and len(under_way()) == 4:
            cluster.remove_node(machine, allow_graceful=False)  # with what it was at

    run(make_plan("digits", **SMALL), tmp_path, engine, watch)

    assert machine not in cluster.worker_nodes, "it was lost in the middle"
    assert kept(tmp_path) == local
    assert engine.scheduler.lost > 0
    assert any(said.endswith(" lost") for said in heard)
    until(lambda: engine.workers == 3)
    assert capfd.readouterr().out == "", "a result may be printed there"


def command(cluster: Cluster, out: Path, *more: str, **changed: Any) -> list[str]:
    words = {**SMALL, "engine": "ray", "address": cluster.address, "out": out, **changed}
    flags = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    return [sys.executable, "-c", f"{hears}from gradprix.cli import main; main()", "race", "digits", *flags, *more]


def begun(folder: Path) -> int:
    """Networks in a journal that somebody else is writing."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(folder / "race.db")) as database:
        return int(database.execute("SELECT count(*) FROM trials").fetchone()[0])
    return 0


def under_way() -> list[psutil.Process]:
    """Processes on any machine of the cluster that train networks."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may be gone by now
            if "ray::run_stack" in " ".join(process.cmdline()):
                found.append(process)
    return found


def until(what: Any, seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.02)
    assert found, "it never happened"
    return found


@pytest.mark.slow
def test_a_driver_that_is_killed_is_followed_by_another(
    cluster: Cluster, local: dict[str, Any], tmp_path: Path, alone: None
) -> None:
    first = subprocess.Popen(command(cluster, tmp_path), start_new_session=True)
    until(lambda: begun(tmp_path))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = begun(tmp_path)
    until(lambda: not under_way())
    done = subprocess.run(command(cluster, tmp_path), capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    assert 0 < before < 30
    assert f"{before} of 30 training runs were already finished." in done.stderr
    assert kept(tmp_path) == local


@pytest.mark.slow
def test_ctrl_c_leaves_a_whole_journal_and_nobody_at_work(cluster: Cluster, tmp_path: Path, alone: None) -> None:
    race = subprocess.Popen(command(cluster, tmp_path, epochs=300), stderr=subprocess.PIPE, text=True)
    until(lambda: under_way())
    race.send_signal(signal.SIGINT)
    _, said = race.communicate(timeout=60)

    assert race.returncode == 130, said
    assert "saved" in said
    until(lambda: not under_way(), 20)
    assert not (tmp_path / "race.db").exists() or kept_whole(tmp_path)


def kept_whole(folder: Path) -> bool:
    with contextlib.closing(sqlite3.connect(folder / "race.db")) as database:
        return bool(database.execute("PRAGMA integrity_check").fetchone() == ("ok",))


@pytest.mark.slow
def test_a_race_begun_here_is_finished_there_and_the_other_way_round(
    cluster: Cluster, local: dict[str, Any], tmp_path: Path, alone: None
) -> None:
    for place, other in (("a", Local(2)), ("b", engines.Ray(cluster.address))):
        run(make_plan("digits", **{**SMALL, "optimizers": "adam,momentum"}), tmp_path / place, other)
    for place, other in (("a", engines.Ray(cluster.address)), ("b", Local(2))):
        result = run(make_plan("digits", **SMALL), tmp_path / place, other)
        assert result.reused == 20
        assert kept(tmp_path / place)["trials"] == local["trials"]
        assert kept(tmp_path / place)["record"]["verdict"] == local["record"]["verdict"]


OWN = """
import os
import gradprix as gp
from helpers.parts import ROWS, network
import torch

def data():
    rows = torch.tensor(ROWS)  # which only the driver's own helper knows
    return gp.Data(rows[:, :2], (rows[:, 0] > rows[:, 1]).long(), stratify=True)

def accuracy(outputs, targets):
    if outputs.isnan().any():
        raise FloatingPointError("the metric met a number that is none")
    return (outputs.argmax(1) == targets).float().mean()

task = gp.Task("own", network, torch.nn.functional.cross_entropy, gp.Metric("accuracy", accuracy, True, 0.01), 0.5,
               data, 16, 2)

class Choosy(torch.optim.SGD):
    steps = 0

    def step(self):
        self.steps += 1
        if self.defaults["lr"] > 0.05 and self.steps == 15:
            raise RuntimeError("this rate is too large for me")
        super().step()

class Odd(Exception):
    def __init__(self, one, other):  # what pickle makes of it cannot be read again
        super().__init__(f"{one} {other}")

class Never(torch.optim.SGD):
    steps = 0

    def step(self):
        self.steps += 1
        if self.steps == 15:
            raise Odd("nothing", "works")
        super().step()

def kills(make_optimizer, seed):
    model = network()
    optimizer = make_optimizer(model.parameters())
    if optimizer.param_groups[0]["lr"] > 0.05:
        os.kill(os.getpid(), 9)
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model(torch.rand(64, 2)), torch.zeros(64).long())
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        yield {"valid": -float(loss), "test": -float(loss)}

def never(make_optimizer, seed):
    make_optimizer(network().parameters())
    yield {"valid": torch.rand(()).item()}
    raise RuntimeError("nobody knows me")

def train(make_optimizer, seed):
    model = network()
    optimizer = make_optimizer(model.parameters())
    if optimizer.param_groups[0]["lr"] > 0.5 and seed > 5000:
        raise RuntimeError("this rate is too large for me")
    inputs, targets = torch.rand(64, 2), torch.zeros(64).long()
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        yield {"valid": -float(loss), "test": -float(loss)}
"""
PARTS = """
import torch
ROWS = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)).tolist()
network = lambda: torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of somebody's own, which is on no worker's path."""
    (tmp_path / "project" / "helpers").mkdir(parents=True)
    (tmp_path / "project" / "racing_own.py").write_text(OWN)
    (tmp_path / "project" / "helpers" / "parts.py").write_text(PARTS)
    (tmp_path / "project" / "helpers" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path / "project" / "racing_own.py"
    for name in set(sys.modules) - before:
        if name == "racing_own" or name.startswith("helpers"):
            del sys.modules[name]


def test_code_of_ones_own_reaches_the_workers(cluster: Cluster, own: Path, alone: None) -> None:
    few: dict[str, Any] = {"optimizers": "adam,momentum", "trials": 2, "seeds": 6}
    plan = make_plan(f"{own}:task", **few)
    assert folders(plan.task) == [own.parent]
    engine = engines.Ray(cluster.address)  # of both races, for its workers import torch
    there = run(plan, None, engine)
    here = run(plan, None, Local(1))
    assert there.record.curves == here.record.curves
    loop = gp.race(f"{own}:train", direction="max", engine=engine, **few)
    assert loop.record.plan.loop


@pytest.mark.slow
def test_workers_that_are_killed_are_replaced(
    cluster: Cluster, local: dict[str, Any], tmp_path: Path, alone: None
) -> None:
    killed: list[int] = []

    def watch(progress: LiveProgress) -> None:
        if len(killed) < 2 and (busy := under_way()):
            busy[0].kill()
            killed.append(busy[0].pid)

    run(make_plan("digits", **SMALL), tmp_path, engine := engines.Ray(cluster.address), watch)
    assert engine.scheduler.lost >= 2
    assert kept(tmp_path) == local


@pytest.mark.parametrize("where", ["here", pytest.param("there", marks=pytest.mark.slow)])
def test_networks_that_cannot_be_trained_are_told_and_the_race_goes_on(
    where: str, cluster: Cluster, own: Path, tmp_path: Path, alone: None
) -> None:
    engine = Local(2) if where == "here" else engines.Ray(cluster.address)
    who, out = f"adam,{own}:Choosy", tmp_path / "race"
    result = gp.race(f"{own}:task", who, trials=6, seeds=6, out=out, engine=engine)

    failed = result.record.failed
    assert failed
    assert {each.error for each in failed} == {"RuntimeError: this rate is too large for me"}
    assert all(each.learning_rate > 0.05 for each in failed)
    tried = result.record.tuning_runs
    assert [run.learning_rate > 0.05 for run in tried[failed[0].entry]] == [
        run.error is not None for run in tried[failed[0].entry]
    ]
    assert not any(run.error is not None for run in tried["adam"]), "no other was taken with them"
    assert gp.load(out).record.failed == failed
    assert "could not be trained and count as diverged" in CliRunner().invoke(cli.app, ["report", str(out)]).output
    assert "this rate is too large for me" in (out / "report.html").read_text()
    again = gp.race(f"{own}:task", who, trials=6, seeds=6, out=out, engine=engine)
    assert again.record.failed == failed, "the same command tries it again"


@pytest.mark.parametrize("where", ["here", pytest.param("there", marks=pytest.mark.slow)])
def test_an_optimizer_that_never_works_is_last_and_the_race_is_told(
    where: str, cluster: Cluster, own: Path, alone: None
) -> None:
    engine = Local(2) if where == "here" else engines.Ray(cluster.address)
    record = gp.race(f"{own}:task", f"adam,{own}:Never", trials=3, seeds=6, engine=engine).record

    (lost,) = {each.entry for each in record.failed}
    assert len(record.failed) == 9
    assert {each.error for each in record.failed} == {"RuntimeError: Odd: nothing works"}
    assert record.cost.step_seconds[lost] is None
    assert record.verdict.recommended == "adam"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", pytest.param("there", marks=pytest.mark.slow)])
def test_a_network_that_kills_its_worker_takes_no_other_with_it(
    where: str, cluster: Cluster, own: Path, alone: None
) -> None:
    engine = Local(2) if where == "here" else engines.Ray(cluster.address)
    record = gp.race(f"{own}:kills", "adam,momentum", direction="max", trials=4, seeds=6, engine=engine).record

    tried = [run for runs in record.tuning_runs.values() for run in runs]
    assert [run.learning_rate > 0.05 for run in tried] == [run.error is not None for run in tried]
    assert 0 < len(record.failed) < len(tried)
    assert {each.kind for each in record.failed} == {FailureKind.WORKER_LOST}


@pytest.mark.slow
def test_a_race_that_fails_altogether_ends_with_its_error(cluster: Cluster, own: Path, alone: None) -> None:
    for engine in (Local(2), engines.Ray(cluster.address)):
        with pytest.raises(TaskError, match="nobody knows me"):
            gp.race(f"{own}:never", "adam,momentum", direction="max", trials=6, seeds=6, engine=engine)


def said(*words: str) -> str:
    """What the command line says when it ends with exit code 2."""
    done = CliRunner().invoke(cli.app, ["race", "digits", *words])
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    return done.stderr


def test_where_there_is_no_ray_or_no_cluster_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, alone: None, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(ray_init, "ANSWERS", 3.0)
        assert f"no Ray cluster answers at 127.0.0.1:{port}. Start one" in said(
            "--engine", "ray", "--address", f"127.0.0.1:{port}"
        )
    assert "no Ray cluster answers at 127.0.0.1:1." in said("--engine", "ray", "--address", "127.0.0.1:1")
    assert "it must be HOST:PORT" in said("--engine", "ray", "--address", "127.0.0.1")
    assert "give the cluster's own address" in said("--engine", "ray", "--address", "ray://127.0.0.1:10001")
    assert "address = 127.0.0.1:1: this option is for a Ray cluster" in said("--address", "127.0.0.1:1")
    assert "gpus = 1.0: this option is for a Ray cluster" in said("--gpus", "1")
    assert "needs more than 0 CPUs" in said("--engine", "ray", "--cpus", "0")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert said("--engine", "ray") == "gradprix: Ray is not installed: pip install 'gradprix[ray]'.\n"


def test_a_machine_with_other_versions_takes_no_part() -> None:
    sent, problems = packed(sorted, ([2, 1],))
    assert not problems
    assert call(sent, {}, [], versions()) == [1, 2]
    with pytest.raises(EngineError, match=r"a machine of the cluster has .*, and this one gradprix 0,"):
        call(sent, {}, [], "gradprix 0, torch 2, numpy 2")


@pytest.mark.slow
def test_a_machine_that_joins_with_other_versions_ends_the_race(
    cluster: Cluster, tmp_path: Path, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(progress: LiveProgress) -> None:
        if progress.finished_runs >= 2:  # as all machines would see it who had other versions from now on
            monkeypatch.setattr(ray_cluster, "versions", lambda: "gradprix 0, torch 2, numpy 2")

    plan, engine = make_plan("digits", "adam,momentum", trials=2, seeds=6, epochs=1), engines.Ray(cluster.address)
    with pytest.raises(EngineError, match="Install the same"):
        run(plan, tmp_path / "race", engine, watch)
    monkeypatch.undo()
    assert run(plan, tmp_path / "race", engine).reused >= 2


def test_a_lane_that_fits_nowhere_is_refused(cluster: Cluster, alone: None) -> None:
    with pytest.raises(EngineError, match=r"no machine of the cluster has 1 CPUs, 2 GPUs for a stack; the largest has"):
        gp.race("digits", "adam,momentum", trials=2, seeds=6, engine=engines.Ray(cluster.address, gpus=2))
    greedy = gp.tasks.digits.change(needs={"cpus": 3, "memory": 32})
    with pytest.raises(EngineError, match=r"has 3 CPUs, 64 GB for a stack"):
        gp.race(greedy, "adam,momentum", trials=2, seeds=6, engine=engines.Ray(cluster.address, memory=64))
    with pytest.raises(ValueError, match="needs: cores is none of cpus, gpus and memory"):
        gp.tasks.digits.change(needs={"cores": 3})
    assert Resources(cpus=2, gpus=0.5).room({"CPU": 16, "GPU": 2}) == 4
    assert Resources(cpus=0.1).room({"CPU": 0.3}) == 3
    assert Resources(memory=4).room({"CPU": 16, "memory": 13e9}) == 3


@pytest.mark.slow
def test_a_suite_runs_side_by_side_and_finds_the_same(cluster: Cluster, tmp_path: Path, alone: None) -> None:
    plans = suite_plans("digits,tailed", "adam,momentum", preset="small")
    engine, both = engines.Ray(cluster.address), threading.Barrier(2, timeout=60)
    assert len(set(engine.map_concurrently(lambda plan: both.wait(), plans))) == 2, "neither waits for the other to end"
    there = suite(plans, tmp_path / "there", engine)
    here = suite(plans, tmp_path / "here", Local(2))
    for summary in (there, here):
        for task in summary["tasks"].values():
            task.pop("seconds")
    assert there == here


@pytest.mark.slow
def test_of_races_side_by_side_one_that_fails_ends_all(cluster: Cluster, own: Path, alone: None) -> None:
    engine = engines.Ray(cluster.address)
    plans = [
        make_plan("digits", "adam,momentum", trials=6, seeds=6, epochs=300),
        make_plan(f"{own}:never", "adam,momentum", direction="max", trials=6, seeds=6),
    ]
    with pytest.raises(TaskError, match="nobody knows me"):
        engine.map_concurrently(lambda plan: run(plan, None, engine), plans)
    until(lambda: not under_way(), 20)
    assert engine.scheduler.groups == engine.scheduler.running == []
    assert engine.map_concurrently(lambda plan: plan.seeds, plans) == [6, 6], "it can be used again"
    assert run(make_plan("digits", "adam,momentum", trials=1, seeds=6, epochs=1), None, engine).record
