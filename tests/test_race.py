"""A race from plan to record, on disk and from the command line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gradprix as gp
from command_line import gradprix
from gradprix import tasks
from gradprix.race import Journal, Local, Plan, RaceConfig, Result, TaskError, entries, judge, make_plan, run, twin
from gradprix.race.efficiency import examples_to_target, expected_best, probability_best
from gradprix.race.record_json import to_json
from untimed import Untimed

SMALL: dict[str, Any] = {"optimizers": "adam,momentum,minibatch", "trials": 4, "seeds": 6, "epochs": 1}
FLAGS = ["--optimizers", "adam,momentum,minibatch", "--trials", "4", "--seeds", "6", "--epochs", "1"]


@pytest.fixture(scope="module")
def small() -> Result:
    return gp.race("digits", **SMALL, processes=1)


def numbers(result: Result) -> dict[str, Any]:
    """Everything but what a clock says."""
    return {key: value for key, value in to_json(result.record).items() if key != "cost"}


def test_the_same_race_gives_the_same_numbers(small: Result) -> None:
    assert numbers(gp.race("digits", **SMALL, processes=1)) == numbers(small)


def test_two_processes_give_the_same_numbers(small: Result) -> None:
    assert numbers(gp.race("digits", **SMALL, processes=2)) == numbers(small)


def test_another_seed_gives_another_race(small: Result) -> None:
    other = gp.race("digits", **SMALL, processes=1, seed=1).record

    assert {run.seed for runs in other.tuning_runs.values() for run in runs} == {11_000}
    assert other.entries[0].final.values != small.record.entries[0].final.values


def test_tuning_seeds_are_never_final_seeds() -> None:
    plan = make_plan("digits", trials=300, seeds=300)
    lucky = [twin(entry, 89) for entry in plan.entries]
    rate = {"lr": 0.1}
    tuning = {plan.tuning_trial(entry, rate, seed).seed for entry in [*plan.entries, *lucky] for seed in range(98)}
    final = {plan.final_trial(entry, rate, seed).seed for entry in plan.entries for seed in range(300)}

    assert not tuning & final


def test_every_run_sees_the_same_examples_and_every_entry_gets_the_same_trials(small: Result) -> None:
    record = small.record

    assert [entry.tuning.trials for entry in record.entries] == [4, 4, 4]
    assert [len(entry.final.values) for entry in record.entries] == [6, 6, 6]
    examples = 3 * ((4 + 6) * 1077 + 4 * 256)  # four runs of each have a quarter of them
    assert record.cost.examples == examples or record.equal_time, "more only in equal time, which is a matter of timing"
    assert all(curve.examples == (1077,) for curve in record.curves.values())


def test_the_json_has_the_promised_form(small: Result) -> None:
    made = json.loads(json.dumps(small.to_dict(), allow_nan=False))

    assert list(made) == [
        "task",
        "out",
        "report",
        "budget",
        "entries",
        "verdict",
        "cost",
        "failed",
        "budget_sensitivity",
    ]
    assert set(made["budget"]) >= {"trials", "seeds", "examples"}
    for entry in made["entries"]:
        assert set(entry) >= {"name", "optimizer", "batch_size", "tuned", "tuning", "final"}
        assert set(entry["tuning"]) >= {"trials", "diverged", "at_edge"}
        assert set(entry["final"]) >= {"metric", "values", "mean", "ci95", "diverged"}
        assert entry["final"]["ci95"][0] <= entry["final"]["mean"] <= entry["final"]["ci95"][1]
    assert set(made["verdict"]) >= {"best", "take", "text", "pairs"}
    assert made["verdict"]["take"] in made["verdict"]["best"]
    assert len(made["verdict"]["pairs"]) == 3
    assert set(made["verdict"]["pairs"][0]) >= {"a", "b", "difference", "ci95", "p", "words"}
    assert {"reason", "why", "protocol"} <= set(made["verdict"])
    assert set(made["cost"]) >= {"trials", "examples", "seconds"}


def test_the_winner_is_made_ready_to_train(small: Result) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = small.best.make(model.parameters())

    assert type(optimizer).__name__ == small.best.optimizer
    assert optimizer.param_groups[0]["lr"] == small.best.arguments["lr"]
    made = eval(small.best.code, {"gradprix": gp, "params": model.parameters()})
    assert made.defaults == optimizer.defaults


def test_a_finished_trial_is_not_run_again(tmp_path: Path, small: Result) -> None:
    plan = make_plan("digits", **SMALL)

    class Interrupted(Untimed):
        """Stops after so many lanes."""

        def __init__(self, lanes: int) -> None:
            super().__init__(1)
            self.left, self.ran = lanes, 0

        def run(self, *args: Any) -> Any:
            for lane, outcomes in super().run(*args):
                if self.left == 0:
                    raise KeyboardInterrupt
                self.left -= 1
                self.ran += len(lane)
                yield lane, outcomes

    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path, first := Interrupted(1))
    result = run(plan, tmp_path, second := Interrupted(99))
    again = run(plan, tmp_path, third := Interrupted(0))

    assert first.ran + second.ran == plan.runs
    assert third.ran == 0
    assert numbers(result) == numbers(again) == numbers(small)
    assert numbers(gp.load(tmp_path)) == numbers(small)


@pytest.mark.parametrize("broken", ["a file for a folder", "no database"])
def test_a_folder_that_cannot_hold_a_race_is_refused(tmp_path: Path, broken: str) -> None:
    place = tmp_path / "race.db" if broken == "no database" else tmp_path
    if broken == "no database":
        place.write_text("not a database, though it is long enough to be taken for one" * 9)
        refused = gradprix("report", str(tmp_path), folder=tmp_path, code=2)
        assert "cannot hold a race" in refused.stderr
        place = tmp_path
    else:
        place = tmp_path / "file"
        place.write_text("")
    refused = gradprix("race", "digits", *FLAGS, "--out", str(place), folder=tmp_path, code=2)
    assert "cannot hold a race" in refused.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": lambda: torch.nn.Linear(3, 10)}, "cannot be raced: "),
        ({"model": torch.nn.Identity}, "no trainable parameter"),
        ({"loss": lambda o, t: torch.nn.functional.cross_entropy(o, t, reduction="none")}, r"shape \(32,\)"),
        ({"metric": replace(tasks.digits.metric, score=lambda o, t: float("nan"))}, "not a finite number"),
    ],
)
def test_a_task_that_does_not_work_is_found_out_at_once(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        gp.race(tasks.digits.change(**change), **SMALL)


def test_a_changed_task_is_another_task(tmp_path: Path) -> None:
    def times(factor: float) -> tasks.Task:
        return tasks.digits.change(loss=lambda o, t: factor * torch.nn.functional.cross_entropy(o, t))

    assert times(1.0).fingerprint == times(1.0).fingerprint != times(2.0).fingerprint
    first = gp.race(times(1.0), **SMALL, processes=2)
    assert gp.race(times(1e-3), **SMALL, processes=2).record.curves != first.record.curves


def test_a_folder_without_a_finished_race_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no race"):
        gp.load(tmp_path)
    with Journal(tmp_path) as journal:
        journal.write("fitted", {"what was chosen": "to fit a time"})
    with pytest.raises(ValueError, match="is not finished"):
        gp.load(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "digit"}, "no task is called 'digit'. Did you mean digits?"),
        ({"task": "xyz"}, "There are: digits, mnist, "),
        ({"optimizers": "adm,sgd"}, "no optimizer is called 'adm'. Did you mean .*adam"),
        ({"optimizers": "adam"}, "two optimizers, not 1"),
        ({"optimizers": "adam,adam"}, "adam: entered more than once"),
        ({"optimizers": "all,adam"}, "adam: entered more than once"),
        ({"optimizers": ""}, "two optimizers, not 0"),
        ({"optimizers": "adam,sgd", "bracket": "data"}, "not both"),
        ({"seeds": 301}, "seeds = 301: a race has at most 300 seeds"),
        ({"bracket": "rule"}, "no bracket is called 'rule'. Did you mean rules?"),
        ({"trials": 0}, "trials = 0: each optimizer needs 1"),
        ({"seeds": 5}, "seeds = 5: with fewer than 6 seeds no difference can be significant"),
        ({"epochs": 0}, "epochs = 0: it must be 1 or more"),
        ({"batch_size": -1}, "batch_size = -1: it must be 1 or more"),
        ({"schedule": "step"}, "schedule = 'step': it must be one of cosine, linear, constant"),
        ({"margin": -0.1}, "margin = -0.1: the smallest difference that matters must be 0 or more"),
        ({"margin": float("nan")}, "margin = nan: the smallest difference that matters"),
        ({"seed": -1}, "seed = -1: the base seed must be from 0"),
    ],
)
def test_impossible_plans_are_refused_with_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(**{"task": "digits", **given})


def test_a_configuration_and_its_fields_make_the_same_plan() -> None:
    fields: dict[str, Any] = {"tune": "beta1", "trials": 7, "epochs": 3, "margin": 0.1, "baseline": "adam", "seed": 4}
    config = RaceConfig("digits", "adam,momentum", minutes=1.0, **fields)

    assert make_plan(config).key == make_plan("digits", "adam,momentum", **fields).key


@pytest.mark.parametrize("field", [{"trials": 0}, {"seeds": 301}, {"minutes": 0}, {"margin": -1}, {"device": "gpu"}])
def test_a_configuration_is_checked_before_its_task_is_loaded(field: dict[str, Any]) -> None:
    (name,) = field
    with pytest.raises(ValueError, match=f"{name} = "):
        RaceConfig("nowhere.py", **field)


def test_the_default_brackets() -> None:
    names = [entry.name for entry in entries()]

    assert names == "momentum nesterov adagrad rmsprop adadelta adam adamw adamax nadam minibatch".split()
    assert {e.name for e in entries("all")} - set(names) == {"radam", "amsgrad", "rmsprop-centered"}
    assert [e.name for e in entries(None, "data")] == ["gd", "sgd", "minibatch"]


def test_an_entry_of_ones_own_races() -> None:
    slow = gp.Entry("slow-adam", gp.rules.adam, {"beta1": 0.5}, {"lr": gp.log(1e-5, 1e-4)})
    result = gp.race("digits", ["adam", slow], trials=2, seeds=6, epochs=1, processes=1)

    assert result.best.name == "adam"
    assert result.record.entries[1].code.startswith("gradprix.optim.Adam(params, lr=")
    assert "betas=(0.5, 0.999)" in result.record.entries[1].code


def down(h, t, x, g):
    """Plain descent."""
    x = x - h.lr * g
    return x


def up(h, t, x, g):
    """Plain ascent."""
    x = x + h.lr * g
    return x


def test_rules_of_ones_own_race_even_under_one_name() -> None:
    up.__name__ = down.__name__
    made = [gp.rule("Nobody 2026", relation="None.", space={"lr": gp.log(1e-2, 10)}, lr=0.1)(f) for f in (down, up)]
    mine = [gp.Entry(name, rule) for name, rule in zip(("down", "up"), made, strict=True)]
    result = gp.race("digits", mine, trials=2, seeds=6, epochs=1, processes=1)

    assert result.best.name == "down"
    assert result.best.code.startswith("gradprix.optim.from_rule(down)(params, lr=")
    assert result.record.entries[1].final.mean < 0.3
    with pytest.raises(ValueError, match="code of your own"):
        result.best.make([])


def test_a_task_of_ones_own_races_by_loss() -> None:
    x = torch.linspace(-1, 1, 120)[:, None]
    task = gp.Task(
        name="line",
        model=lambda: torch.nn.Linear(1, 1),
        loss=torch.nn.functional.mse_loss,
        metric=gp.Metric("test loss", torch.nn.functional.mse_loss, higher_is_better=False, margin=0.1, relative=True),
        baseline=1.0,
        data=lambda: gp.Data(x, 3 * x + 1),
        batch_size=16,
        epochs=3,
    )
    result = gp.race(task, "momentum,minibatch,adam", trials=6, seeds=6)

    assert result.record.plan.metric.relative
    assert result.text.startswith("line: ")


@pytest.mark.slow
def test_gradient_descent_trails_at_equal_examples_and_the_answer_says_why() -> None:
    result = gp.race("digits", bracket="data", trials=7, seeds=6, epochs=3, processes=2)

    assert "gd" not in result.record.verdict.leaders
    assert "gd 3, sgd 3,231, minibatch 102" in result.text
    assert "with larger batches, fewer updates" in result.text


def test_a_race_notes_the_loss_at_the_start() -> None:
    record = gp.race("digits", "adam,momentum", trials=2, seeds=6, epochs=1, processes=1).record
    (start,) = {run.start for runs in record.tuning_runs.values() for run in runs}
    assert record.initial_loss == start
    assert 2.0 < start < 3.0, "of ten classes, about ln 10"


def test_the_command_line(tmp_path: Path) -> None:
    planned = gradprix("race", "digits", *FLAGS, "--plan", folder=tmp_path)
    assert "42 training runs in total" in planned.stdout
    assert not list(tmp_path.iterdir()), "a plan writes nothing"

    raced = gradprix("race", "digits", *FLAGS, "--json", folder=tmp_path)
    result = json.loads(raced.stdout)
    assert raced.stderr == ""
    assert result["report"] == "runs/digits/report.html"
    assert 1e4 < (tmp_path / result["report"]).stat().st_size < 1e6

    shown = " ".join(gradprix("report", "runs/digits", folder=tmp_path).stdout.split())
    assert shown.startswith(" ".join(result["verdict"]["text"].split()))
    assert "Report: runs/digits/report.html" in shown
    assert json.loads(gradprix("report", "runs/digits", "--json", folder=tmp_path).stdout) == result

    refused = gradprix("race", "digits", *FLAGS, "--compile", folder=tmp_path, code=2)
    assert "another execution mode" in refused.stderr
    assert "--out" in refused.stderr


def test_lists_name_every_entry_and_task(tmp_path: Path) -> None:
    listed = gradprix("list", folder=tmp_path).stdout

    assert all(name in listed for name in [*gp.race.ENTRIES, *tasks.ALL])
    assert "digits" not in gradprix("list", "optimizers", folder=tmp_path).stdout


def test_the_installed_script_ends_with_code_2_after_wrong_use() -> None:
    script = str(Path(sys.executable).with_name("gradprix"))
    done = subprocess.run([script, "win"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command" in done.stderr


def test_importing_and_helping_load_nothing_heavy() -> None:
    code = "import sys, gradprix, gradprix.cli; print([m for m in ('torch', 'plotly', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_plans_are_equal_when_everything_in_them_is() -> None:
    assert make_plan("digits").key == make_plan("digits").key
    assert make_plan("digits").key != make_plan("digits", schedule="linear").key
    assert Plan(tasks.digits, tuple(entries())).runs == 620


# A baseline, and an official test set


@pytest.mark.slow
def test_a_baseline_races_too_and_is_fixed_before_anything_is_seen(tmp_path: Path) -> None:
    flags = ["--trials", "2", "--seeds", "6", "--epochs", "2", "--optimizers", "momentum,adagrad"]
    said = gradprix("race", "digits", *flags, "--baseline", "adamw", "--json", folder=tmp_path)

    found = json.loads(said.stdout)
    assert [entry["name"] for entry in found["entries"]] == ["momentum", "adagrad", "adamw"]
    assert len(found["verdict"]["pairs"]) == 2
    assert all("adamw" in (pair["a"], pair["b"]) for pair in found["verdict"]["pairs"])
    assert "against adamw" in found["verdict"]["text"].splitlines()[0]
    assert found["verdict"]["protocol"].startswith("Against adamw: ")
    later = gradprix("race", "digits", *flags, folder=tmp_path, code=2)
    assert "another baseline" in later.stderr
    unknown = gradprix("race", "digits", "--baseline", "adamv", folder=tmp_path, code=2)
    assert "no optimizer is called 'adamv'" in unknown.stderr


@pytest.mark.slow
def test_with_an_official_test_set_intervals_are_over_its_examples_too(tmp_path: Path) -> None:
    digits = tasks.digits.loaded
    official = gp.Data(digits.inputs, digits.targets, test=torch.arange(1500, 1797))
    task = tasks.digits.change(data=lambda: official)
    plan = make_plan(task, "momentum,adagrad", trials=2, seeds=6, epochs=2)
    result = run(plan, tmp_path, Local(1))

    assert result.record.plan.crossed
    with Journal(tmp_path, to_read=True) as journal:
        texts = [row[0] for row in journal.database.execute("SELECT outcome FROM trials")]
    judged = [outcome for outcome in map(json.loads, texts) if outcome["test_metric"] is not None]
    assert len(judged) == 12
    for outcome in judged:
        sizes = [len(range(first, 297, 20)) for first in range(20)]
        whole = sum(n * part for n, part in zip(sizes, outcome["test_parts"], strict=True)) / 297
        assert whole == pytest.approx(outcome["test_metric"])
    values = {entry.name: entry.final.values for entry in result.record.entries}
    kept = {"higher_is_better": True, "margin": 0.005, "level": result.record.verdict.interim_analyses[0][1]}
    (alone,), (both,) = (judge(values, **kept, parts=parts).pairs for parts in (None, result.record.parts))
    (pair,) = result.record.verdict.pairs
    assert pair.ci95 == pytest.approx(both.ci95)
    assert pair.ci95 != pytest.approx(alone.ci95), "not of seeds alone"
    assert not gp.race("digits", **SMALL, processes=1).record.plan.crossed


# With less


def test_the_best_to_expect_of_a_few_trials_by_hand() -> None:
    found = [(0.3, 0.8), (0.1, 0.9), (0.2, 0.95)]  # by loss: 0.9, 0.95, 0.8
    assert expected_best(found) == pytest.approx([(0.9 + 0.95 + 0.8) / 3, (2 * 0.9 + 0.95) / 3, 0.9])
    shares = probability_best({"a": found, "b": [(1.0, 0.85)] * 3}, 1)
    assert shares["a"] == pytest.approx([2 / 3, 1.0, 1.0], abs=0.03)
    assert [a + b for a, b in zip(*shares.values(), strict=True)] == pytest.approx([1.0] * 3)
    assert probability_best({"a": [(1.0, 0.5)], "b": [(1.0, 0.5)]}, -1) == {"a": (0.5,), "b": (0.5,)}


def test_the_target_is_reached_at_the_first_point_that_is_as_good() -> None:
    curve = [(100, 1.0, 1.0, 0.5), (200, 0.5, 0.5, 0.8), (300, 0.4, 0.4, 0.7)]
    assert examples_to_target(curve, 0.75, 1) == 200
    assert examples_to_target(curve, 0.9, 1) is None
    assert examples_to_target(curve, 0.6, -1) == 100


def test_what_was_reached_with_less_is_in_the_record(small: Result) -> None:
    less = small.record.efficiency
    for name, runs in small.record.tuning_runs.items():
        spread = [run for run in runs if run.spread]
        assert len(less.expected[name]) == len(spread) == 4
        best = min(spread, key=lambda run: run.loss)
        assert less.expected[name][-1] == best.metric
        assert less.expected[name][0] == pytest.approx(sum(run.metric for run in spread) / 4)
    adam = [run for run in small.record.tuning_runs["adam"] if run.learning_rate == 1e-3]
    assert less.default["adam"] == adam[0].metric
    assert less.default["minibatch"] is None, "torch's default rate of SGD is far below the range"
    assert set(less.examples) == {"adam", "momentum", "minibatch"}
    assert all(0 < seconds < 1 for seconds in small.record.cost.step_seconds.values())


def nan_when_trained(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """A metric that loses its mind where momentum has learnt something."""
    return float("nan") if outputs.abs().max() > 8 else float((outputs.argmax(-1) == targets).double().mean())


def test_a_metric_that_is_no_number_after_training_counts_as_diverged() -> None:
    task = tasks.digits.change(metric=replace(tasks.digits.metric, score=nan_when_trained))
    entries = [gp.Entry("slow", gp.rules.adam, space={"lr": gp.log(1e-5, 2e-5)}), gp.Entry("fast", gp.rules.adam)]
    record = gp.race(task, entries, trials=2, seeds=6, epochs=12, processes=1).record
    diverged = {entry.name: entry.final.diverged for entry in record.entries}
    assert diverged["slow"] == 0
    assert diverged["fast"] > 0


def needs_every_class(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if len(targets.unique()) < 10:
        raise ValueError("only some classes present")
    return (outputs.argmax(-1) == targets).double().mean()


def test_a_metric_without_a_value_on_a_part_leaves_intervals_to_seeds() -> None:
    digits = tasks.digits.loaded
    official = gp.Data(digits.inputs, digits.targets, test=torch.arange(1500, 1797))
    metric = replace(tasks.digits.metric, score=needs_every_class)
    task = tasks.digits.change(data=lambda: official, metric=metric)
    record = gp.race(task, "momentum,adagrad", trials=2, seeds=6, epochs=1, processes=1).record
    assert not record.plan.crossed


def test_numbers_of_a_task_may_be_numpys(tmp_path: Path) -> None:
    metric = replace(tasks.digits.metric, margin=np.float64(0.01))
    task = tasks.digits.change(metric=metric, baseline=np.float64(0.1))
    result = gp.race(task, "adam,momentum", trials=1, seeds=6, epochs=1, processes=1, out=tmp_path)
    assert gp.load(tmp_path).to_dict() == result.to_dict()


def test_what_is_pasted_is_python() -> None:
    entry = gp.Entry("mine", GridResult, {"mode": "fast"})
    assert entry.code(lr=0.5).endswith("(params, lr=0.5, mode='fast')")
    with pytest.raises(ValueError, match="JSON"):
        gp.Entry("mine", GridResult, {"mode": torch.sign})


class GridResult(torch.optim.SGD):
    def __init__(self, params: Any, lr: float = 0.1, mode: Any = "slow") -> None:
        super().__init__(params, lr=lr)
