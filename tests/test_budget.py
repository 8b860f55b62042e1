"""A race that fits a time: what is left out, in which order, and that the time is about right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import gradprix as gp
from gradprix.cli import app
from gradprix.race import Local, RaceConfig, TooLittleTimeError, make_plan, make_tune_plan
from gradprix.race.budget import fit, fit_to_budget
from gradprix.race.cost import Cost, estimate
from gradprix.race.reduced_plans import reduced_plans
from gradprix.text.alternatives import format_commands
from gradprix.text.plan import format_omission
from gradprix.training.autotune import StackLayout

COST = Cost(start=5.0, step=1e-3, network=1e-4, evaluation=1e-3, shape=StackLayout(64, 2))
PLAN = make_plan("digits")
ACCURACY = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01)
MINE = gp.Entry("mine", torch.optim.Adagrad)
loss = nn.functional.cross_entropy


def test_stages_are_those_of_the_protocol() -> None:
    assert [sum(phase.runs.values()) for phase in PLAN.phases] == [120, 40, 40, 60, 320, 40]


def test_a_stage_costs_its_lanes_one_after_the_other() -> None:
    cost = Cost(0.0, step=1.0, network=0.1, evaluation=0.0, shape=StackLayout(10, 2))
    assert cost.phase_seconds(20, 3, 1) == pytest.approx(3 * (1 + 10 * 0.1)), "two lanes at once"
    assert cost.phase_seconds(40, 3, 1) == pytest.approx(2 * 3 * (1 + 10 * 0.1)), "and then two more"
    assert cost.phase_seconds(2, 3, 1) == pytest.approx(3 * (1 + 2 * 0.1)), "two networks are one lane"


def test_entries_are_dropped_before_protocol_and_protocol_before_epochs() -> None:
    made = list(reduced_plans(PLAN))
    shapes = [(len(p.entries), p.trials, p.seeds, p.task.epochs) for p in made]
    assert shapes[0] == (10, 26, 32, 20)
    assert shapes[1:8] == [(n, 26, 32, 20) for n in range(9, 2, -1)]
    assert shapes[8] == (3, 26, 16, 20)
    assert shapes[-1] == (3, 10, 6, 2)
    assert [entry.name for entry in made[7].entries] == ["nesterov", "adamw", "nadam"], "in the order of the race"
    (dropped,) = made[7].left_out
    assert dropped[:3] == ("optimizers", 7, 10)
    assert dropped.names[:2] == ("momentum", "adagrad")
    assert format_omission(dropped).startswith("7 of 10 optimizers (momentum, adagrad")
    assert made[7].description["left_out"] == [format_omission(dropped)]
    assert [format_omission(omission) for omission in made[-1].left_out[1:]] == [
        "16 of 26 tuning trials each",
        "26 of 32 final seeds each",
        "18 of 20 epochs",
    ]


@pytest.mark.parametrize("minutes", [0.3, 0.5, 1, 2, 10])
def test_a_plan_uses_the_time_it_has(minutes: float) -> None:
    made = fit(PLAN, minutes, COST)
    assert estimate(made, COST) <= 0.9 * 60 * minutes
    if minutes < 4:
        assert estimate(made, COST) > 0.7 * 0.9 * 60 * minutes
    else:
        assert (made.seeds, made.left_out) == (300, ()), "there is nothing more to do"


def test_too_little_time_is_refused_with_how_much_it_takes() -> None:
    with pytest.raises(
        TooLittleTimeError, match=r"even 3 optimizers with 10 trials and 6 seeds take about 0.2 minutes here"
    ):
        fit(PLAN, 0.05, COST)
    with pytest.raises(ValueError, match="must be more than 0"):
        fit(PLAN, 0, COST)


SLOW = Cost(start=60.0, step=0.0, network=3.0, evaluation=8.0, shape=StackLayout(1, 2), model=0.3)
"""Cost of a large model, trained one at a time."""
ALTERNATIVES = """\
Instead of this time budget, with your other options:
   7.7 min  gradprix tune 'my task.py' --optimizer adamw --epochs 0.213333 --trials 10 --seeds 6
            adamw: 10 trials, 6 seeds, 0.21 instead of 1 epochs; its learning rate, and what that gains over the default
   8.3 min  gradprix race 'my task.py' --minutes 9.2
            nesterov, adamw: 6 trials, 6 seeds, 0.21 instead of 1 epochs; longer runs may rank them differently
    15 min  gradprix race 'my task.py' --optimizers adamw,nesterov,nadam --epochs 0.213333 --trials 10 --seeds 6
            adamw, nesterov, nadam: 10 trials, 6 seeds, 0.21 instead of 1 epochs; longer runs may rank them differently
    24 min  gradprix tune 'my task.py' --optimizer adamw --trials 10 --seeds 6
            adamw: 10 trials, 6 seeds; its learning rate, and what that gains over the default
    37 min  gradprix race 'my task.py' --optimizers adamw,nesterov --trials 10 --seeds 6
            adamw, nesterov: 10 trials, 6 seeds"""


def large_task() -> gp.Task:
    examples = gp.Data(torch.randn(2_000, 4), torch.arange(2_000) % 2)
    return gp.Task("large", lambda: nn.Linear(4, 2), loss, ACCURACY, 0.5, lambda: examples, batch_size=32, epochs=1)


def test_what_fits_instead_is_listed_as_commands_that_take_so_long() -> None:
    plan = make_plan(large_task())
    with pytest.raises(TooLittleTimeError, match="a training step of one model takes 3 s") as raised:
        fit(plan, 5, SLOW)
    alternatives = raised.value.alternatives
    assert format_commands(alternatives, "my task.py", plan.task.epochs) == ALTERNATIVES
    for each in alternatives:
        given = dict(each.settings)
        if "minutes" in given:
            again = fit(plan, given["minutes"], SLOW)
        elif "optimizer" in given:
            again = make_tune_plan(RaceConfig(large_task(), given.pop("optimizer"), **given))
        else:
            again = make_plan(large_task(), **given)
        assert estimate(again, SLOW) == pytest.approx(each.seconds)


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"optimizers": "adam,adagrad"}, {"trials": 10, "seeds": 6}),
        ({"optimizers": [MINE, "adam"]}, {"trials": 10, "seeds": 6}),
        ({"optimizers": [MINE, "adam"], "baseline": "mine"}, {"trials": 10, "seeds": 6}),
        ({"baseline": "adagrad"}, {"optimizers": "adagrad,adamw", "trials": 10, "seeds": 6}),
        ({"trials": 7, "seeds": 6}, {"optimizers": "adamw,nesterov"}),
    ],
)
def test_an_alternative_changes_what_the_user_did_not_choose(given: dict[str, Any], settings: dict[str, Any]) -> None:
    with pytest.raises(TooLittleTimeError) as raised:
        fit(make_plan(large_task(), **given), 5, SLOW)
    races = [each.settings for each in raised.value.alternatives if "optimizer" not in each.settings]
    assert settings in races


def test_a_part_of_an_epoch_is_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for epochs in ("0.25", "2"):
        done = CliRunner().invoke(app, ["race", "digits", "--plan", "--json", "--epochs", epochs])
        assert done.exit_code == 0, done.output
        assert f'"epochs": {epochs},' in done.output
    done = CliRunner().invoke(app, ["race", "digits", "--plan", "--json", "--epochs", "1.5"])
    assert "epochs = 1.5: it must be a whole number" in done.output


def test_what_was_chosen_is_kept_with_the_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradprix.race import budget

    costs: list[Any] = []

    def measure_cost(*_: Any) -> Cost:
        costs.append(Cost(5.0 + len(costs), 1e-3 * (1 + len(costs)), 1e-4, 1e-3, StackLayout(64, 2)))
        return costs[-1]

    monkeypatch.setattr(budget, "measure_cost", measure_cost)
    (first, seconds), (again, same) = (fit_to_budget(PLAN, 0.4, Local(2), tmp_path) for _ in range(2))
    assert first.key == again.key
    assert first.left_out == again.left_out != ()
    assert seconds == same == estimate(first, costs[0])
    assert len(costs) == 1
    assert fit_to_budget(PLAN, 2, Local(2), tmp_path)[0].key != first.key


def test_a_plan_says_what_it_takes_and_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["race", "digits", "--plan", "--minutes", "0.35", "--epochs", "60"])
    assert done.exit_code == 0, done.output
    assert "To fit the time it does without" in done.output
    assert " on this machine" in done.output
    assert not (tmp_path / "runs").exists()
