"""A race that fits a time: what is left out, in which order, and that the time is about right."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gradprix.cli import app
from gradprix.race import Local, make_plan
from gradprix.race.budget import fit, fit_to_budget
from gradprix.race.cost import Cost, estimate
from gradprix.race.reduced_plans import reduced_plans
from gradprix.text.plan import format_omission
from gradprix.training.autotune import StackLayout

COST = Cost(start=5.0, step=1e-3, network=1e-4, evaluation=1e-3, shape=StackLayout(64, 2))
PLAN = make_plan("digits")


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
    with pytest.raises(ValueError, match=r"even 3 optimizers with 10 trials and 6 seeds take about .* minutes here"):
        fit(PLAN, 0.05, COST)
    with pytest.raises(ValueError, match="must be more than 0"):
        fit(PLAN, 0, COST)


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
    assert "seconds on this machine" in done.output
    assert not (tmp_path / "runs").exists()
