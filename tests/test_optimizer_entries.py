"""Races of optimizers that need more than parameters: functions, closures, nothing to tune, several gradients a step.

`test_optimizer_factories.py` compares their training with plain loops.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import gradprix as gp
from gradprix import race, rules
from gradprix.race import TaskError, make_plan
from gradprix.race.best import Best
from gradprix.race.preflight import check
from gradprix.rules.ops import norm
from gradprix.show._report import report
from gradprix.training.execution_mode import Rejection, RejectionCause
from test_other_optimizers import FEW, TASK, Grouped, LateRate, Matrices, Plain, Whole, data, network, plain
from untimed import Untimed


class Polyak(Plain):
    """Has no learning rate but the loss over the squared norm of the gradient, as AliG does."""

    def __init__(self, params: Any, momentum: float = 0.0) -> None:
        torch.optim.Optimizer.__init__(self, params, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        loss = closure()
        params = [p for group in self.param_groups for p in group["params"]]
        size = min(0.1, float(loss) / (1e-6 + sum(float(p.grad.square().sum()) for p in params)))
        for p in params:
            p.sub_(size * p.grad)


class Twice(Plain):
    """Evaluates the model a second time in each step."""

    def step(self, closure: Any) -> None:  # type: ignore[override]
        closure()
        super().step()
        closure()


class OwnSchedule(Plain):
    """Changes its learning rate, as Ranger21 does."""

    def __init__(self, params: Any, num_iterations: int, lr: float = 0.1) -> None:
        super().__init__(params, lr)
        self.left = num_iterations

    def step(self, closure: Any = None) -> None:
        super().step()
        self.left -= 1
        for group in self.param_groups:
            group["lr"] *= self.left / (self.left + 1)


def muon(model: nn.Module, lr: float, total_steps: int) -> list[torch.optim.Optimizer]:
    assert total_steps == UPDATES
    matrices = [p for p in model.parameters() if p.ndim == 2]
    return [Matrices(matrices, lr), torch.optim.AdamW([p for p in model.parameters() if p.ndim != 2], 0.1 * lr)]


def grouped(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return Grouped([{"params": list(model.parameters()), "use_muon": True}], lr)


SPACE = {"lr": gp.log(0.01, 1)}
IN_STACKS = [
    gp.Entry("muon", muon, space=SPACE),
    gp.Entry("grouped", grouped),
    gp.Entry("own schedule", OwnSchedule, schedule="constant"),
    gp.Entry("untuned", torch.optim.AdamW, {"lr": 0.01}, space={}),
    gp.Entry("sam", Plain, sam_rho=0.05),
    gp.Entry("sam, tuned", rules.sgd, space={**SPACE, "sam_rho": gp.log(0.01, 0.2)}),
    gp.Entry("minibatch", rules.sgd),
]
ONE_AT_A_TIME = [
    gp.Entry("polyak", Polyak, space={}, closure=True),
    gp.Entry("twice", Twice),
    gp.Entry("lbfgs", torch.optim.LBFGS, {"max_iter": 2}, space=SPACE),
    gp.Entry("sam", rules.sgd, sam_rho=0.05),
    gp.Entry("minibatch", rules.sgd),
]
UPDATES = 6


@pytest.mark.parametrize(
    ("entries", "stacked"), [(IN_STACKS, True), (ONE_AT_A_TIME, False)], ids=["stacks", "closures"]
)
def test_optimizers_that_need_more_than_parameters_race(entries: list[gp.Entry], stacked: bool) -> None:
    result = gp.race(TASK, entries, trials=3, seeds=6, engine=Untimed(2))
    record, runs = result.record, {entry.name: entry for entry in result.record.entries}
    assert not record.failed
    assert record.plan.mode.stacked is stacked
    assert {name: entry.tuning.trials for name, entry in runs.items()} == {
        entry.name: 3 if entry.space else 1 for entry in entries
    }
    assert record.cost.trials == sum(entry.tuning.trials + 6 for entry in runs.values())
    gradients = {name: entry.gradients for name, entry in runs.items()}
    several = {"sam": 2 * UPDATES, "sam, tuned": 2 * UPDATES, "twice": 2 * UPDATES}
    assert gradients.pop("lbfgs", 3 * UPDATES) > UPDATES
    assert gradients == {name: several.get(name, UPDATES) for name in gradients}
    untuned = {"polyak", "untuned"} & set(runs)
    assert all(runs[name].tuned == {} and runs[name].tolerance is None for name in untuned)
    assert all(name in result.text for name in several.keys() & runs.keys())
    page = report(record)
    assert "nothing tuned" in page
    assert len(result.entries) == len(entries)
    assert f"1 trial of {next(iter(untuned))}" in page
    if not stacked:
        assert record.plan.mode.stack_rejection == Rejection(RejectionCause.CLOSURE, message="polyak, twice and lbfgs")


def test_sharpness_aware_entries_have_names() -> None:
    given = "sam(momentum), sam(cautious(lion), rho=0.1), sam(adam)"
    chosen = {entry.name: entry for entry in race.entries(given)}
    assert {name: entry.sam_rho for name, entry in chosen.items()} == {
        "sam(momentum)": 0.05,
        "sam(cautious(lion), rho=0.1)": 0.1,
        "sam(adam)": 0.05,
    }
    assert chosen["sam(momentum)"].fixed == {"momentum": 0.9}
    for wrong in ("sam()", "sam(adam, 0.1)", "sam(adam, rho=x)", "sam(adam, rho=0.1, lr=1)"):
        with pytest.raises(ValueError, match="rho"):
            race.entries(f"{wrong}, adam")


def test_a_race_of_entries_that_tune_nothing_has_a_result() -> None:
    entries = [gp.Entry(name, make, {"lr": 0.1}, space={}) for name, make in (("a", Plain), ("b", LateRate))]
    result = gp.race(TASK, entries, seeds=6, engine=Untimed(2))
    assert result.record.plan.tune == ()
    assert "nothing tuned" in report(result.record)


def test_the_code_of_a_factory_says_what_it_takes() -> None:
    assert gp.Entry("m", muon, space=SPACE).code(lr=0.02).endswith(".muon(model, lr=0.02, total_steps=...)")
    assert gp.Entry("p", Polyak, space={}, closure=True).code().endswith(".Polyak(params)")
    best = Best("m", f"{__name__}.muon", {"lr": 0.02}, "", "cosine")
    with pytest.raises(TypeError, match="muon takes a model"):
        best.make(network().parameters())
    assert [group["lr"] for group in best.make(network(), total_steps=UPDATES).param_groups] == [
        0.02,
        pytest.approx(0.002),
    ]


def test_the_code_of_a_factory_is_part_of_a_trial() -> None:
    def factory(power: int) -> Any:
        return lambda params, lr: Plain(params, lr**power)

    trials = [make_plan(TASK, [gp.Entry("a", factory(power)), "adamw"]) for power in (1, 1, 2)]
    keys = [plan.tuning_trial(plan.entries[0], {"lr": 0.1}, 0) for plan in trials]
    assert keys[0].key == keys[1].key != keys[2].key
    assert keys[0].update_key != keys[2].update_key


def test_the_equations_of_a_rule_are_part_of_a_trial_with_its_class() -> None:
    def first() -> rules.Rule:
        @rules.rule("none", relation="none", space=SPACE, scope="tensor", lr=0.1)
        def scaled(h, t, x, g):
            """Gradient over its norm."""
            x = x - h.lr * g / norm(g)
            return x

        return scaled

    def second() -> rules.Rule:
        @rules.rule("none", relation="none", space=SPACE, scope="tensor", lr=0.1)
        def scaled(h, t, x, g):
            """Gradient over its norm."""
            x = x - h.lr * g / (norm(g) + 1)
            return x

        return scaled

    plans = [make_plan(TASK, [gp.Entry("a", make()), "adamw"]) for make in (first, first, second)]
    keys = [plan.tuning_trial(plan.entries[0], {"lr": 0.1}, 0).key for plan in plans]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rule": rules.adam, "closure": True}, "leave closure out"),
        ({"rule": rules.adam, "sam_rho": 0.0}, "sam_rho = 0.0"),
        ({"rule": rules.adam, "schedule": "fast"}, "schedule = 'fast'"),
        ({"rule": Plain, "space": {"momentum": gp.log(0.1, 1)}}, "must include lr, unless lr is fixed"),
    ],
)
def test_entries_with_wrong_values_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gp.Entry("a", **given)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda model, lr: None, "returns None: it must return a torch.optim.Optimizer, or a list"),
        (lambda model, lr: [Plain(model.parameters(), lr)] * 2, "in more than one parameter group"),
        (OwnSchedule, "changes its own learning rate, .* schedule='constant'"),
        (lambda params, lr: Polyak(params), r"keeps no lr in its groups, .* space=\{\}"),
    ],
)
def test_factories_with_wrong_results_are_refused(make: Any, says: str) -> None:
    plan = make_plan(TASK, [gp.Entry("other", make), "minibatch"])
    with pytest.raises(TaskError, match=f"optimizer 'other' on task 'tiny' cannot be raced: .*{says}"):
        check(plan)


def of_model(make_optimizer: Callable[..., Any], seed: int) -> Iterator[dict[str, float]]:
    """A loop that gives the model and the number of steps, and a closure to optimizers that need one."""
    net, examples = network(), data()
    optimizer = make_optimizer(net, total_steps=UPDATES)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(examples.inputs), examples.targets)
        loss.backward()
        return loss

    for _ in range(8):
        yield {"valid": float(optimizer.step(closure))}


def test_a_loop_can_give_the_model_the_number_of_steps_and_a_closure() -> None:
    entries = [gp.Entry("muon", muon, space=SPACE), gp.Entry("lbfgs", torch.optim.LBFGS, space=SPACE), "adamw"]
    result = gp.race(of_model, entries, direction="min", **FEW)
    assert not result.record.failed


@pytest.mark.parametrize(
    ("make", "says"), [(Whole, r"call make_optimizer\(model\)"), (OwnSchedule, "make_optimizer.*total_steps")]
)
def test_a_loop_that_lacks_what_an_optimizer_needs_is_told_so(make: Any, says: str) -> None:
    with pytest.raises(TaskError, match=says):
        gp.race(plain, [gp.Entry("other", make), "minibatch"], direction="min", **FEW)
