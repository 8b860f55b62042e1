"""Cost of optimizer steps: work in every k-th step, sides of thousands, warnings, and progress while steps are slow."""

import time
import warnings
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import gradprix as gp
from gradprix import rules
from gradprix.cli._errors import report_errors
from gradprix.race import (
    Entry,
    ExpensiveEntryWarning,
    Local,
    estimate,
    expensive_entries,
    make_plan,
    measure_cost,
    stack_checks,
)
from gradprix.race.cost import Cost, update_seconds
from gradprix.race.expensive_entries import MIN_SECONDS, ExpensiveEntry, find_expensive_entries
from gradprix.race.live_files import LiveFiles
from gradprix.race.progress_display import ProgressState
from gradprix.text.expensive_entries import format_expensive_entry
from gradprix.training import ExecutionMode, Progress, StackLayout, UpdateCost, measure_updates, update_cost

MODE = ExecutionMode(stacked=False)
FAST, SLOW, PERIOD = 0.001, 0.1, 10


class Clock:
    """Clock that only the optimizer `Periodic` advances."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


CLOCK = Clock()


class Periodic(torch.optim.SGD):
    """Gradient descent whose every tenth step takes a hundred times as long as the others, on `CLOCK`."""

    steps = 0

    def step(self, closure: Any = None) -> None:
        self.steps += 1
        CLOCK.now += FAST if self.steps % PERIOD else SLOW
        super().step(closure)


PERIODIC = Entry("periodic", Periodic)
MEAN = (SLOW + (PERIOD - 1) * FAST) / PERIOD


class Here(Local):
    """Executor whose calls run in this process, so that they can be measured by `CLOCK`."""

    def call_workers(self, count: int, function: Any, *args: Any) -> list[Any]:
        return [function(*args) for _ in range(count)]


def words(count: int) -> gp.Task:
    """Return a task with an embedding of a number of words."""

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(count, 16), nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.embedding(x).mean(1))

    def data() -> gp.Data:
        x = torch.randint(0, count, (160, 8), generator=torch.Generator().manual_seed(0))
        return gp.Data(x, (x[:, 0] > count // 2).long())

    metric = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01)
    return gp.Task("words", Bag, nn.functional.cross_entropy, metric, 0.5, data, batch_size=16, epochs=1)


TASK = words(50)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(update_cost, "time", CLOCK)
    return CLOCK


def trial_of(task: gp.Task, entry: Entry) -> Any:
    return make_plan(task, [entry, "momentum"]).careful_trial(entry, 0)


@pytest.mark.parametrize(
    ("entry", "period"),
    [
        (Entry("soap", rules.soap), 10),
        (Entry("soap", rules.soap, {"precondition_frequency": 4}), 4),
        (Entry("shampoo", rules.shampoo), 1),
        (Entry("adamw", rules.adamw), 1),
        (PERIODIC, update_cost.UNKNOWN_PERIOD),
    ],
)
def test_the_period_of_a_rule_follows_from_its_remainders(entry: Entry, period: int) -> None:
    assert update_cost.update_period(trial_of(TASK, entry)) == period


def test_work_in_every_tenth_step_is_part_of_the_cost_of_a_step(clock: Clock) -> None:
    measured = measure_updates(TASK, [trial_of(TASK, PERIODIC)], MODE)
    assert measured == {"periodic": UpdateCost(pytest.approx(MEAN))}


def test_a_rule_with_rare_decompositions_costs_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_cost, "time", SimpleNamespace(perf_counter=time.process_time))
    frequencies = {"always": 1, "seldom": 10}
    entries = [Entry(name, rules.soap, {"precondition_frequency": k}) for name, k in frequencies.items()]
    task = words(300)
    cost = measure_updates(task, [trial_of(task, entry) for entry in entries], MODE)
    assert cost["always"].side == cost["seldom"].side == 300
    assert cost["always"].seconds > 2 * cost["seldom"].seconds


class LargestSquare(TorchDispatchMode):
    """Mode that notes the side of the largest square matrix."""

    side = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.ndim >= 2 and result.shape[-1] == result.shape[-2]:
            self.side = max(self.side, result.shape[-1])
        return result


def test_a_side_of_thousands_is_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_cost, "MAX_TIMED_SIDE", 128)
    entries = [Entry("soap", rules.soap), Entry("small", rules.soap, {"max_precond_dim": 1000})]
    task = words(2000)
    with LargestSquare() as largest:
        cost = measure_updates(task, [trial_of(task, entry) for entry in entries], MODE)
    assert largest.side == 128
    assert {name: each.side for name, each in cost.items()} == {"soap": 2000, "small": 16}
    assert cost["soap"].seconds > 2 * cost["small"].seconds


def test_nothing_large_is_decomposed_before_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    decompose, sides = torch.linalg.eigh, []

    def eigh(a: torch.Tensor) -> Any:
        sides.append(a.shape[-1])
        assert a.shape[-1] <= 128
        return decompose(a)

    monkeypatch.setattr(torch.linalg, "eigh", eigh)
    for module in (update_cost, stack_checks):
        monkeypatch.setattr(module, "MAX_TIMED_SIDE", 128)
    measure_cost(make_plan(words(500), "adamw,soap"), Here(1))
    assert max(sides) == 128


def test_the_estimate_contains_the_optimizer_steps(clock: Clock) -> None:
    plan = make_plan(TASK, ["adamw", PERIODIC], trials=4, seeds=6)
    cost = measure_cost(plan, Here(1))
    assert cost.updates == {"periodic": UpdateCost(pytest.approx(MEAN))}
    seconds = sum(update_seconds(plan, cost).values())
    assert seconds == pytest.approx((4 + 6) * plan.updates(PERIODIC) * MEAN)
    without = Cost(cost.start, cost.step, cost.network, cost.evaluation, cost.shape, cost.model)
    assert estimate(plan, cost) == pytest.approx(estimate(plan, without) + seconds)


@pytest.mark.parametrize(
    ("network", "update", "ratio"),
    [
        (0.1, 0.2, None),  # three times as long
        (0.1, 1.4, 15),
        (1e-4, 1e-3, None),  # eleven times as long, but not for long
    ],
)
def test_entries_that_take_many_times_as_long_are_found(network: float, update: float, ratio: float | None) -> None:
    plan = make_plan(TASK, ["adamw", "momentum", PERIODIC], trials=26, seeds=32)
    cost = Cost(1e6, 0.0, network, 0.0, StackLayout(1, 2), updates={"periodic": UpdateCost(update)})
    found = find_expensive_entries(plan, cost)
    assert [each.name for each in found] == ["periodic"] * (ratio is not None)
    for each in found:
        assert each.ratio == pytest.approx(ratio)
        assert each.seconds > MIN_SECONDS


@pytest.mark.parametrize(("others", "is_found"), [(2, True), (12, False)])
def test_an_entry_is_not_expensive_if_the_race_mostly_waits_for_others(others: int, is_found: bool) -> None:
    names = "adamw adam nadam radam adamax lion adopt adagrad adadelta rmsprop momentum nesterov".split()
    plan = make_plan(TASK, [*names[:others], PERIODIC], trials=26, seeds=32)
    cost = Cost(1e6, 0.0, 0.1, 0.0, StackLayout(1, 2), updates={"periodic": UpdateCost(0.8)})
    assert bool(find_expensive_entries(plan, cost)) == is_found


def test_two_expensive_entries_are_found_in_a_race_of_two() -> None:
    plan = make_plan(TASK, ["soap", "shampoo"])
    updates = dict.fromkeys(("soap", "shampoo"), UpdateCost(1.0, 4000))
    cost = Cost(0.0, 0.0, 0.01, 0.0, StackLayout(1, 1), updates=updates)
    found = find_expensive_entries(plan, cost)
    assert [(each.name, each.rule, each.side, each.limits) for each in found] == [
        ("soap", "soap", 4000, {"max_precond_dim": 10_000}),
        ("shampoo", "shampoo", 4000, {"max_precond_dim": 10_000}),
    ]


@pytest.mark.parametrize(("entry", "side"), [(PERIODIC, 0), ("soap", 4000)])
def test_nobody_is_told_to_leave_out_the_only_entry(entry: str | Entry, side: int) -> None:
    plan = make_plan(TASK, [entry, "adamw"])
    plan = replace(plan, entries=plan.entries[:1])
    updates = {plan.entries[0].name: UpdateCost(1.0, side)}
    sentences = [
        format_expensive_entry(each)
        for each in find_expensive_entries(plan, Cost(0.0, 0.0, 0.01, 0.0, StackLayout(1, 1), updates=updates))
    ]
    assert len(sentences) == (side > 0)
    assert all("4,000 rows. Reduce max_precond_dim" in each and "Leave" not in each for each in sentences)


def test_the_sentence_names_the_hyperparameter_and_an_entry_that_works() -> None:
    fixed = {"precondition_frequency": 20}
    limited = format_expensive_entry(ExpensiveEntry("soap", 7200, 4123, 4000, {"max_precond_dim": 1e4}, "soap", fixed))
    assert "soap takes about 2 h, 4,100 times as long" in limited
    assert "4,000 rows" in limited
    assert "max_precond_dim (now 10,000)" in limited
    entry = eval(limited.partition(": ")[2].removesuffix("."), {"gp": gp})
    assert entry.rule == Entry("soap", rules.soap).rule
    assert entry.fixed == {**fixed, "max_precond_dim": 1000}
    other = format_expensive_entry(ExpensiveEntry("mine", 7200, 41))
    assert "Leave mine out" in other
    assert "rows" not in other


def test_a_race_warns_about_an_expensive_entry_before_it_starts(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expensive_entries, "MIN_SECONDS", 0.0)
    with pytest.warns(ExpensiveEntryWarning, match="periodic takes about") as caught:
        gp.race(TASK, ["adamw", PERIODIC], trials=1, seeds=6, engine=Here(1))
    assert len(caught) == 1


def test_the_command_line_prints_warnings_as_messages(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with report_errors():
            warnings.warn("soap takes long.", ExpensiveEntryWarning, stacklevel=1)
            assert capsys.readouterr().err == "gradprix: soap takes long.\n"
            with pytest.warns(UserWarning, match="of the task"):
                warnings.warn("of the task", UserWarning, stacklevel=1)


def test_a_stall_is_shown_with_what_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace()
    monkeypatch.setattr("gradprix.race.live_files.time", now)
    live, state, shown = LiveFiles(None), ProgressState(), []
    for seconds, finished in ((100.0, 0.0), (110.0, 0.0), (125.0, 0.0), (126.0, 0.5), (140.0, 0.5), (156.0, 0.5)):
        now.monotonic = partial(float, seconds)
        state.update(live.update("tuning", finished, 10, running=("soap",)))
        shown.append(state.stall)
    assert shown == [
        "",
        "",
        "soap has been running for 25 s without news",
        "",
        "",
        "soap has been running for 30 s without news",
    ]
    assert shown[-1] in state.format_line()


def test_slow_steps_are_reported_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[float] = []
    now = SimpleNamespace(monotonic=partial(float, 0.0))
    monkeypatch.setattr("gradprix.training.callbacks.time", now)
    callback = Progress(reported.append)
    for step, seconds in enumerate((0.4, 0.8, 1.2, 30.0, 60.0), start=1):
        now.monotonic = partial(float, seconds)
        callback.on_step_end(SimpleNamespace(step=step, steps_per_epoch=200, total_steps=200), torch.zeros(1))
    assert reported == [3 / 200, 4 / 200, 5 / 200]


class Recording(Local):
    """Executor that notes the entries that are running when a stack is submitted."""

    def __init__(self) -> None:
        super().__init__(1)
        self.seen: list[tuple[str, ...]] = []

    def submit(self, stack: Any) -> None:
        self.seen.append(self.running_entries)
        super().submit(stack)


def test_an_executor_names_the_entries_that_it_trains() -> None:
    plan, engine = make_plan(TASK, "adamw,momentum"), Recording()
    trials = [plan.careful_trial(entry, seed) for entry in plan.entries for seed in range(2)]
    list(engine.run(TASK, trials))
    assert [sorted(names) for names in engine.seen] == [["adamw", "momentum"]]
    assert engine.running_entries == ()
