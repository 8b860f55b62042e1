"""Tuning of one optimizer: `gradprix tune` and `gp.tune`."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradprix as gp
from command_line import gradprix
from gradprix.race import JournalError, Local, OtherRaceError, RaceConfig, TunePlan, load, make_tune_plan, run_tuning
from gradprix.race.tune_record import TuneRecord
from gradprix.show import tune_page
from gradprix.text.tuning import format_protocol, format_tuning
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome, Trial
from parsed_page import HOSTILE, ParsedPage

TUNING_SEED = 1_000
Metric = Callable[[float, int, bool], float | None]
"""Metric of a run, given its learning rate, its seed, and whether it is final; None if it diverges."""


class MadeUp(Local):
    """Executor whose runs have made-up metrics."""

    def __init__(self, metric: Metric) -> None:
        super().__init__(1)
        self.metric, self.count = metric, 0

    def run(self, task: Any, trials: Any, *_: Any) -> Iterator[Any]:
        for trial in trials:
            self.count += 1
            yield [trial], [self._outcome(trial)]

    def submit_fresh(self, *_: Any) -> None:
        """Repeat no run."""

    def _outcome(self, trial: Trial) -> Outcome:
        score = self.metric(trial.values["lr"], trial.seed, trial.evaluates_test)
        if score is None:
            return Outcome([(300, math.nan, math.nan, math.nan)], None, None, 7)
        return Outcome([(300, 1 - score, 1 - score, score)], 1 - score, score, None, start=2.3)


def peak(at: float, lr: float, width: float = 0.05) -> float:
    return 0.9 - width * math.log10(lr / at) ** 2


def noise(seed: int) -> float:
    return 1e-4 * (seed * 7919 % 11 - 5)


METRICS: dict[str, Metric] = {
    "peak": lambda lr, seed, final: peak(0.01, lr) + noise(seed),
    "flat": lambda lr, seed, final: 0.9 + noise(seed + round(1e6 * lr)),
    "cliff": lambda lr, seed, final: peak(0.01, lr) + noise(seed) if lr < 0.02 else None,
    "edge": lambda lr, seed, final: 0.5 + 0.02 * math.log10(lr),
    "diverges": lambda lr, seed, final: None,
    "unlucky": lambda lr, seed, final: peak(0.001 if final else 0.01, lr) + noise(seed),
    "two peaks": lambda lr, seed, final: peak(0.001 if seed < TUNING_SEED + 2 else 0.1, lr, 0.2),
    "fails finally": lambda lr, seed, final: None if final and seed % 2 else peak(0.01, lr),
}


def run_made_up(plan: TunePlan, engine: MadeUp, out: Path | None = None) -> gp.TuneResult:
    """Run a plan without a preflight, which trains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradprix.race.resume.preflight", lambda *_: ExecutionMode())
        return run_tuning(plan, out, engine)


def tuned(name: str, optimizer: str = "adamw", out: Path | None = None, **settings: Any) -> TuneRecord:
    plan = make_tune_plan(RaceConfig("digits", optimizer, **{"trials": 26, **settings}))
    return run_made_up(plan, MadeUp(METRICS[name]), out).record


def test_a_peak_is_found_with_its_tolerance_and_the_loss_of_the_default() -> None:
    record = tuned("peak")

    assert record.learning_rate == pytest.approx(0.01, rel=0.3)
    low, high = record.tolerance or (0.0, 0.0)
    end = 10 ** math.sqrt(0.005 / 0.05)  # where the metric is a margin, half a point, below the best
    step = 10 ** (1 / 6)
    assert end / step <= 0.01 / low <= end * 1.05
    assert end / step <= high / 0.01 <= end * 1.05
    assert record.default is not None
    assert record.default.settings == {"lr": 0.001}
    lost = peak(0.01, record.learning_rate) - peak(0.01, 0.001)
    assert record.default.loss == pytest.approx(lost, abs=1e-9)
    assert record.default.ci95[0] <= lost <= record.default.ci95[1]
    assert len(record.final.values) == len(record.default.final.values) == 8
    assert len(record.runs) == record.plan.trials == 26
    assert record.curve is not None
    best = max(zip(record.curve.metrics, record.curve.learning_rates, strict=True))
    assert best[1] == pytest.approx(0.01, rel=0.2)


def test_it_tunes_as_a_race_does() -> None:
    race = gp.race.make_plan(RaceConfig("digits", "adamw,adam", trials=26))
    alone = make_tune_plan(RaceConfig("digits", "adamw", trials=26))
    asked = [[race.tuning_trial(race.entries[0], dict(p), s).key for p, s in race.tuner(race.entries[0]).ask()]]
    asked += [[alone.tuning_trial(alone.entry, dict(p), s).key for p, s in alone.tuner(alone.entry).ask()]]

    assert asked[0] == asked[1]
    point = {"lr": 0.01}
    assert race.final_trial(race.entries[0], point, 3).key == alone.final_trial(alone.entry, point, 3).key


@pytest.mark.parametrize(
    ("name", "said", "unsaid"),
    [
        ("peak", "points worse", "Warning"),
        ("flat", "does as well", "Warning"),
        ("cliff", "Training diverges at 0.0", "edge"),
        ("edge", "at the edge of what was tried", "independent"),
        ("diverges", "every tuning run of adamw diverged", "default"),
        ("unlucky", "points better", "points worse"),
        ("two peaks", "Two independent searches chose", "edge"),
        ("fails finally", "4 of 8 final runs at the tuned values diverged", "edge"),
    ],
)
def test_what_is_said(name: str, said: str, unsaid: str) -> None:
    text = "\n".join(format_tuning(tuned(name)))

    assert said in text
    assert unsaid not in text


@pytest.mark.parametrize("name", METRICS)
def test_a_page_shows_any_record(name: str) -> None:
    record = tuned(name)
    result = gp.TuneResult(record)
    page = ParsedPage(tune_page(result))

    assert " ".join(result.text.split()) in " ".join(page.text.replace("\n", " ").split())
    json.dumps(result.to_dict())
    assert len(result.runs) == 26


def test_names_are_escaped() -> None:
    plan = make_tune_plan(RaceConfig("digits", [gp.Entry(HOSTILE[0], gp.rules.adam)], trials=1))
    page = ParsedPage(tune_page(run_made_up(plan, MadeUp(METRICS["peak"]))))

    assert ("script",) in page.elements
    assert HOSTILE[0] in page.text


def test_several_hyperparameters_are_compared_with_all_their_defaults() -> None:
    record = tuned("peak", "momentum", tune="momentum,batch_size", trials=12)

    assert record.default is not None
    assert record.default.settings == {"lr": 0.001, "momentum": 0.9, "batch_size": 32}
    assert record.tuned.keys() == record.default.settings.keys()


def test_without_a_default_learning_rate_there_is_no_comparison() -> None:
    class Needs(torch.optim.SGD):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, lr)

    plan = make_tune_plan(RaceConfig("digits", [gp.Entry("needs", Needs)], trials=3))
    engine = MadeUp(METRICS["peak"])
    record = run_made_up(plan, engine).record

    assert record.default is None
    assert engine.count == plan.runs == 3 + 8
    assert "default" not in "\n".join(format_tuning(record))


def test_it_resumes(tmp_path: Path) -> None:
    plan, engine = make_tune_plan(RaceConfig("digits", "adamw", trials=6)), MadeUp(METRICS["peak"])
    first, second = (run_made_up(plan, engine, tmp_path) for _ in range(2))

    assert engine.count == plan.runs == 6 + 2 * 8
    assert second.reused == plan.runs
    assert first.text == second.text
    with pytest.raises(JournalError, match="gradprix tune"):
        load(tmp_path)


def test_a_race_is_not_overwritten(tmp_path: Path) -> None:
    with gp.race.Journal(tmp_path) as journal:
        journal.write("plan", gp.race.make_plan(RaceConfig("digits", "adamw,adam")).description)
        journal.finish([], [])
        journal.write("fitted", {"any": None})

    with pytest.raises(OtherRaceError, match="holds a race"):
        tuned("peak", out=tmp_path)


@pytest.mark.parametrize(
    ("optimizer", "settings", "error", "message"),
    [
        ("adam,adamw", {}, ValueError, "adam and adamw: this tunes one optimizer"),
        ("all", {}, ValueError, "this tunes one optimizer"),
        ("", {}, ValueError, "no optimizer to tune"),
        ("addamw", {}, ValueError, "Did you mean adamw"),
        (torch.optim.AdamW, {}, TypeError, "give one name, such as 'adamw'"),
        ("adamw", {"tune": "momentum"}, ValueError, "momentum"),
        ("adamw", {"seeds": 3}, ValueError, "seeds = 3"),
        ("adamw", {"minutes": 3}, TypeError, "takes no minutes"),
        ("adamw", {"trails": 3}, TypeError, "takes no trails"),
        ("adamw", {"engine": Local(1), "processes": 1}, ValueError, "limits of an executor"),
    ],
)
def test_mistakes(optimizer: Any, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gp.tune("digits", optimizer, **settings)


# With training

TASK = """
import torch
from torch import nn
import gradprix as gp

X = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))

def accuracy(output, target):
    return (output.argmax(-1) == target).double().mean()

task = gp.Task("mine", lambda: nn.Linear(4, 2), nn.functional.cross_entropy,
               gp.Metric("accuracy", accuracy, True, 0.01), 0.5, lambda: gp.Data(X, (X.sum(1) > 0).long()),
               batch_size=8, epochs=2)
"""


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    command = ("tune", "task.py", "--optimizer", "adamw", "--trials", "4", "--processes", "1")
    planned = gradprix(*command, "--plan", folder=tmp_path).stdout
    told = " ".join(gradprix(*command, folder=tmp_path).stdout.split())
    again = gradprix(*command, "--json", folder=tmp_path)
    result = json.loads(again.stdout)

    assert f"{4 + 2 * 8} training runs" in planned
    assert result["text"].splitlines()[0] in told
    assert result["page"] == str(Path("runs", "tune", "mine", "adamw", "tune.html"))
    assert "AdamW" in ParsedPage((tmp_path / result["page"]).read_text()).text
    assert len(result["runs"]) == 4
    assert result["default"]["settings"] == {"lr": 0.001}
    low, high = result["tolerance"]
    assert low <= result["tuned"]["lr"] <= high


def train(make_optimizer: Callable[..., Any], seed: int) -> Iterator[dict[str, float]]:
    """Approach 3 in ten steps from 0: a learning rate near 0.5 is best, and 1 diverges slowly."""
    x = nn.Parameter(torch.rand(1))
    optimizer = make_optimizer([x])
    for _ in range(3):
        for _ in range(3):
            optimizer.zero_grad()
            (x - 3).square().sum().backward()
            optimizer.step()
        yield {"valid": float((x - 3).abs()), "test": float((x - 3).abs())}


def test_a_training_loop() -> None:
    result = gp.tune(train, "minibatch", direction="min", trials=6, processes=1)

    assert 0.1 <= result.record.learning_rate < 1
    assert result.record.default is not None
    assert result.record.default.ci95[0] > 0
    (parameter,) = result.best.make([nn.Parameter(torch.ones(1))]).param_groups[0]["params"]
    assert parameter.numel() == 1


def test_a_default_that_is_better_is_what_the_answer_says_first() -> None:
    first, second, *_ = format_tuning(tuned("unlucky"))
    assert first.startswith("digits: keep the default. These trials find nothing better than AdamW(lr=")
    assert second.startswith("The default, 0.001, is ")
    assert format_tuning(tuned("peak"))[0].startswith("digits: use AdamW(lr=")


def test_the_json_of_diverged_runs_has_no_nan() -> None:
    plan = make_tune_plan(RaceConfig("digits", "adamw", trials=26))
    data = run_made_up(plan, MadeUp(METRICS["cliff"])).to_dict()
    assert json.dumps(data, allow_nan=False)
    assert any(run["diverged"] is not None and run["loss"] is None for run in data["runs"])


def test_one_trial_is_singular() -> None:
    assert format_protocol(tuned("peak", trials=1)).startswith("1 tuning trial, then")
