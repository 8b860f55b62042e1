"""Why an entry placed where it did: what is measured is right, planted causes are named, other cases are silent."""

import itertools
import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

from gradprix import rules
from gradprix.cli import app
from gradprix.explain import gain, settles_below, why
from gradprix.explain.diagnosis import (
    Reason,
    average_updates,
    diagnose,
    measure_group_progress,
    measure_level,
    measure_noise_scale,
    measure_step_length,
    report_divergence,
)
from gradprix.explain.levels import EARLY, LATE, measure_levels
from gradprix.explain.loss_probe import LossProbe
from gradprix.explain.measurement_cost import BUDGET, GRID, choose_points, count_cost, measured_steps
from gradprix.explain.network_measures import Point, estimate_noise, measure
from gradprix.explain.replay import ReplayedRun, watch
from gradprix.race import ENTRIES, Local, load, make_plan, run
from gradprix.race.diagnosis_record import Finding, MeasurementKind
from gradprix.rules import Rule
from gradprix.show import report
from gradprix.tasks import Data, Metric, Task, digits, schedule
from gradprix.text.diagnosis import format_finding
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trainer import train_stack
from gradprix.training.trial import Trial


class Line(nn.Module):
    """One weight for each input, from a start of its own."""

    def __init__(self, begin: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(begin))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.w


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets).square().mean()


def line(inputs: Tensor, targets: Tensor, begin: list[float], **given: Any) -> Task:
    """Least squares: its Hessian is the inputs' second moment, everywhere."""
    return Task(
        **{
            "name": "line",
            "model": lambda: Line(begin),
            "loss": half_square,
            "metric": Metric("loss", half_square, higher_is_better=False, margin=0.1),
            "baseline": 1.0,
            "data": lambda: Data(inputs, targets),
            "batch_size": 16,
            "epochs": 8,
            **given,
        }
    )


def looked_at(
    task: Task, rule: Rule, seeds: int = 5, batch_size: int | None = None, **values: Any
) -> list[ReplayedRun]:
    size = task.batch_size if batch_size is None else batch_size
    trials = [Trial(rule, rule.values(**values), s, size, task.epochs, task.schedule, True) for s in range(seeds)]
    return watch(task, trials, ExecutionMode())


def worn_out(runs: list[ReplayedRun]) -> bool:
    logs = [measure_levels(run, None)[MeasurementKind.RATE_KEPT] for run in runs]
    assert all(math.isfinite(log) for log in logs)
    return measure_level(MeasurementKind.RATE_KEPT, logs).finding is Finding.RATE_WORN_OUT


def kinds(found: list[Reason]) -> set[str]:
    return {reason.kind for reason in found if reason.finding}


def cloud(count: int, scales: list[float], noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, len(scales), generator=generator) * torch.tensor(scales)
    return inputs, noise * torch.randn(count, generator=generator)


def test_runs_that_are_watched_end_as_they_did() -> None:
    trials = [
        Trial(rule, rule.values(lr=lr), seed, 32, 2, "cosine", True)
        for seed, (rule, lr) in enumerate(((rules.adam, 0.01), (rules.sgd, 0.1)))
    ]
    seen = watch(digits, trials, ExecutionMode())

    for one, other in zip(train_stack(digits, trials), seen, strict=True):
        assert replace(one) == other.outcome
    assert [len(each.points) for each in seen] == [12] * 2
    assert all(point.sharpness > 0 for each in seen for point in each.points[1::2])
    sgd = seen[1]
    for t, u, g in zip(sgd.steps[:-1], sgd.updates, sgd.gradients, strict=False):
        assert u == pytest.approx(0.1 * schedule("cosine", sgd.steps[-1])(t - 1) * g, rel=1e-4)


def test_measured_steps_do_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", partial(next, itertools.count(0.0, 1_000.0)))
    trial = Trial(rules.sgd, rules.sgd.values(lr=0.1), 0, 32, 1, "cosine", True)
    (run,) = watch(digits, [trial], ExecutionMode())
    assert len(run.points) == GRID


def test_more_costly_measurements_are_made_at_fewer_steps_early_and_late() -> None:
    cost = count_cost(digits, 0, 32)
    assert cost == count_cost(digits, 0, 32)
    assert cost[1] > 3 * cost[0] > 0
    assert choose_points([cost] * 80, BUDGET) == tuple(range(GRID)), "ten optimizers on digits"
    chosen = [choose_points([(0.1, 1.0)] * 80, budget) for budget in (0, 100, 170, 300, 500, 1_000)]
    assert chosen == sorted(chosen, key=len)
    for points in chosen[1:]:
        shares = [share for share, is_complete in measured_steps(1_000, points).items() if is_complete]
        assert any(EARLY[0] <= share / 1_000 < EARLY[1] for share in shares), points
        assert points == (0, 1) or any(LATE[0] <= share / 1_000 < LATE[1] for share in shares), points


def test_curvature_and_steps_are_those_of_the_dense_hessian() -> None:
    inputs, targets = cloud(400, [3.0, 1.0, 0.5, 0.1, 0.1], 0.1)
    task = line(inputs, targets, [1.0, -1.0, 2.0, 0.5, 0.3])
    looked, twin = LossProbe(task, 0), LossProbe(task, 0)
    weights = {"w": torch.tensor([1.0, -1.0, 2.0, 0.5, 0.3])}
    update = {"w": torch.tensor([-0.1, 0.02, -0.1, 0.0, 0.3])}
    found = measure(looked, weights, update, weights, 16, 0.5, 1.0, wholly=True)
    halves = [(x.double(), y.double()) for x, y in twin.sample(16)]
    w, u = weights["w"].double(), update["w"].double()
    hessians = [x.T @ x / len(x) for x, _ in halves]
    g, h = (x.T @ (x @ w - y) / len(x) for x, y in halves)
    hardest = [((x @ w - y) ** 2).topk(round(0.1 * len(x))).indices for x, y in halves]
    k, m = (x[i].T @ (x[i] @ w - y[i]) / len(i) for (x, y), i in zip(halves, hardest, strict=True))

    assert found.sharpness == pytest.approx(float(torch.linalg.eigvalsh(sum(hessians) / 2)[-1]), rel=0.03)
    assert found.slope == pytest.approx(float((g + h) @ u / 2), rel=1e-4)
    assert found.bend == pytest.approx(float(u @ (hessians[0] + hessians[1]) @ u / 2), rel=1e-4)
    assert found.length == pytest.approx(float(g @ h), rel=1e-4)
    by_step, by_gradient = found.groups[MeasurementKind.HARDEST_TENTH]
    assert by_step == pytest.approx(float((k + m) @ u / 2), rel=1e-4)
    assert by_gradient == pytest.approx(float((k @ h + m @ g) / 2), rel=1e-4)


def test_samples_are_new_at_each_look() -> None:
    task = line(*cloud(400, [1.0, 1.0], 1.0), [0.0, 0.0])
    looked = LossProbe(task, 0)
    first, second, third, _ = (x for _ in range(2) for x, _ in looked.sample(16))

    assert len(first) == len(second) == 128
    assert not torch.equal(first, second)
    assert not torch.equal(first, third)
    everything, again = (x for x, _ in looked.sample(0))
    assert len(everything) == len(again) == len(task.loaded.split(0).train), "of all, where a step is of all"


def test_products_of_samples_are_unbiased() -> None:
    inputs, targets = cloud(200, [1.0] * 10, 3.0)  # a noise scale of about as many examples as there are
    task, w = line(inputs, targets, [0.5] * 10), torch.full((10,), 0.5)
    train = task.loaded.split(0).train
    whole = inputs[train].T @ (inputs[train] @ w - targets[train]) / len(train)
    looked = LossProbe(task, 0)
    found = [measure(looked, {"w": w}, {"w": -whole}, None, 4, 0.5, 1.0, wholly=False) for _ in range(400)]
    lengths = torch.tensor([p.length for p in found])

    error = float(lengths.std()) / 20
    assert float(lengths.mean()) == pytest.approx(float(whole @ whole), abs=3 * error)
    assert error < 0.1 * float(whole @ whole)


@pytest.mark.parametrize("share", [0.03, 2 / 3])
def test_the_noise_scale_is_that_of_the_examples(share: float) -> None:
    inputs, targets = cloud(2_000, [1.0, 1.0], 1.0)
    w = torch.tensor([0.5, 0.0])
    each = inputs * (inputs @ w - targets)[:, None]
    generator, size = torch.Generator().manual_seed(0), round(2_000 * share)
    drawn = [[each[torch.randperm(2_000, generator=generator)[:size]].mean(0)] for _ in range(400)]
    spread, signal = estimate_noise(drawn, size, 2_000)

    assert spread == pytest.approx(float(each.var(0).sum()), rel=0.15)
    assert signal == pytest.approx(float(each.mean(0).square().sum()), rel=0.15)


BALL, AHEAD = 2 * 1.9 / 0.1, 2 * 1.9 / 2.8 / 0.1
"""Where heavy ball and Nesterov's form cease to settle at β = 0.9, in gain times curvature; gain is η / (1 − β)."""


@pytest.mark.parametrize(
    ("rule", "given", "edge"),
    [
        (rules.sgd, {}, 2.0),
        (rules.sgd, {"lr": 1e-6}, 2.0),
        (rules.sgd, {"momentum": 0.9}, BALL),
        (rules.sgd, {"momentum": 0.9, "nesterov": True}, AHEAD),
        (rules.sgd, {"momentum": 0.9, "dampening": 0.99}, BALL),
        (rules.adagrad, {}, 2.0),
        (rules.rmsprop, {}, 2.0),
        (rules.adadelta, {}, 2.0),
        (rules.adam, {}, BALL),
        (rules.adam, {"beta1": 0.5}, 2 * 1.5 / 0.5),
        (rules.adamax, {}, BALL),
        (rules.nadam, {}, AHEAD),
        (rules.lion, {}, None),
        (rules.lamb, {}, None),
        (rules.muon, {}, None),
    ],
)
def test_where_a_rule_ceases_to_settle(rule: Rule, given: dict[str, Any], edge: float | None) -> None:
    found = settles_below(rule, tuple(sorted(rule.values(**given).items())))

    assert found == (None if edge is None else pytest.approx(edge, rel=0.01))


@pytest.mark.parametrize("t", [1, 7, 500])
def test_the_gain_is_the_rate_that_a_rule_has_for_each_weight(t: int) -> None:
    v, u = torch.tensor([4.0, 0.25, 0.0], dtype=torch.float64), torch.tensor([1e-4, 0.01, 0.0], dtype=torch.float64)
    m = torch.tensor([5.0, -5.0, 0.0], dtype=torch.float64)
    of = rules.adam.values(lr=0.1, weight_decay=0.3, eps=0.0)
    corrected = (v / (1 - 0.999**t)).sqrt() * (1 - 0.9**t)
    found = gain(rules.adam, of, t, {"m": m, "v": v})
    torch.testing.assert_close(found[:2], 0.1 / corrected[:2], rtol=1e-5, atol=0.0)
    assert found[2] == 0.0, "what has never seen a gradient"

    root = gain(rules.adadelta, rules.adadelta.values(lr=0.5, eps=1e-12), t, {"v": v, "u": u})
    torch.testing.assert_close(root[:2], 0.5 * (u / v).sqrt()[:2], rtol=1e-4, atol=0.0)
    most = gain(rules.adamax, rules.adamax.values(lr=0.1), 10_000, {"m": m, "u": v})
    torch.testing.assert_close(most[:2], 0.1 / v[:2], rtol=1e-4, atol=0.0)
    ball = gain(rules.sgd, rules.sgd.values(lr=0.1, momentum=0.9), t, {"b": m})
    torch.testing.assert_close(ball, torch.ones_like(m), rtol=1e-5, atol=0.0)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("rule", "given"),
    [
        (rules.sgd, {"momentum": 0.9}),
        (rules.adam, {}),
        *(pytest.param(rule, {}, marks=pytest.mark.slow) for rule in (rules.sgd, rules.rmsprop)),
    ],
)
def test_what_a_rule_sees_is_the_curvature_with_its_gain(rule: Rule, given: dict[str, Any]) -> None:
    inputs, targets = cloud(400, [2.0, 1.0, 0.2], 0.3)
    task = line(inputs, targets, [1.0, 1.0, 1.0], epochs=10, schedule="constant")
    full = rule.values(lr=0.003, **given)
    runs = looked_at(task, rule, 3, lr=0.003, **given)
    whole = [p for run in runs for p in run.points if math.isfinite(p.seen)]

    assert whole
    if rule is rules.sgd:  # a gain for all weights alike
        for p in whole:
            assert p.seen == pytest.approx(0.003 / (1 - full["momentum"]) * p.sharpness, rel=0.05)
    else:  # a rate for each weight sees the ravine rounder than it is
        assert all(p.seen > 0 for p in whole)
        spread = inputs.square().mean(0)
        assert sum(p.seen for p in whole) / len(whole) < 100 * float(spread.max())


def test_a_rate_above_the_edge_is_named() -> None:
    inputs, targets = cloud(400, [2.0, 0.3, 0.3], 0.3)  # the largest curvature is about 4
    task = line(inputs, targets, [0.01, 1.0, 1.0], epochs=10, schedule="constant")
    for lr, wanted in ((0.62, True), (0.1, False)):
        found = diagnose(looked_at(task, rules.sgd, batch_size=0, lr=lr), 0, 2.0)
        named = {r.kind: r for r in found}
        assert (named["edge"].finding is Finding.UNSTABLE) is wanted
        assert (named["steps"].finding is Finding.STEPS_TOO_LONG) is wanted
        assert named["edge"].low <= named["edge"].number <= named["edge"].high


def test_full_batches_that_settle_are_not_said_to_go_too_far() -> None:
    inputs, targets = cloud(100, [1.0] * 60, 1.0)  # many weights for few examples: each sample has another sharpness
    task = line(inputs, targets, [0.5] * 60, epochs=40, batch_size=8)
    train = task.loaded.split(0).train
    sharp_ = float(torch.linalg.eigvalsh(inputs[train].T @ inputs[train] / len(train))[-1])
    lr = 0.6 * 2 / sharp_
    found = {r.kind: r for r in diagnose(looked_at(task, rules.sgd, batch_size=0, lr=lr), 0, 2.0)}

    assert found["edge"].finding is None
    assert found["steps"].finding is not Finding.STEPS_TOO_LONG


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("batch_size", "wanted"), [(1, {"noise"}), (16, set()), pytest.param(300, {"noise"}, marks=pytest.mark.slow)]
)
def test_a_batch_far_below_the_noise_scale_is_named(batch_size: int, wanted: set[str]) -> None:
    inputs, targets = cloud(600, [1.0] * 4, 3.0)
    task = line(inputs, targets, [2.0] * 4, epochs=2 if batch_size == 1 else 30, batch_size=batch_size)
    # Slow enough to stay where |G|² is 16, and the noise of one example about ten times that.
    found = diagnose(looked_at(task, rules.sgd, lr=0.0003), batch_size, None)

    assert kinds(found) & {"noise"} == wanted
    said = next(reason for reason in found if reason.kind == "noise")
    assert said.low <= said.number <= said.high
    assert (said.finding is Finding.BATCH_BELOW_NOISE_SCALE) is (batch_size == 1)


@pytest.mark.slow
def test_an_adagrad_that_stalled_is_named_and_others_are_not() -> None:
    inputs = torch.ones(200, 1)
    task = line(inputs, torch.full((200,), 1_000.0), [0.0], epochs=20)  # far away: the gradient stays the same
    for rule, lr, wanted in ((rules.adagrad, 0.01, True), (rules.sgd, 1e-5, False), (rules.adadelta, 1.0, False)):
        assert (worn_out(looked_at(task, rule, lr=lr))) is wanted, rule.name


@pytest.mark.parametrize("schedule", ["cosine", pytest.param("constant", marks=pytest.mark.slow)])
def test_momentum_whose_gradients_turn_to_noise_is_not_said_to_wear_out(schedule: str) -> None:
    inputs, targets = cloud(600, [1.0] * 4, 2.0)
    task = line(inputs, targets, [3.0] * 4, epochs=10, batch_size=8, schedule=schedule)

    assert not worn_out(looked_at(task, rules.sgd, lr=0.002, momentum=0.9))


def forgetful(h, t, x, g):
    """Leaves out what has a small gradient."""
    x = x - h.lr * where(abs(g) > 0.05, g, 0 * g)  # noqa: F821
    return x


class Rows(nn.Module):
    """Logits for each kind of input."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.table


def test_rare_classes_that_are_left_behind_are_named() -> None:
    forget = rules.rule("Nobody 2026", relation="None.", space={"lr": rules.log(1e-3, 1)}, lr=0.1)(forgetful)
    classes = torch.tensor([0] * 190 + [1] * 190 + [2] * 20)  # a twentieth is rare
    inputs = functional.one_hot(classes, 3).float() + 0.01
    task = Task(
        name="rows",
        model=Rows,
        loss=functional.cross_entropy,
        metric=Metric("accuracy", lambda y, t: (y.argmax(-1) == t).float().mean(), True, 0.01),
        baseline=0.4,
        data=lambda: Data(inputs, classes, stratify=True),
        batch_size=64,
        epochs=10,
    )
    said = {}
    for rule in (forget, rules.sgd):
        runs = looked_at(task, rule, batch_size=0, lr=0.1)
        said[rule.name] = {r.kind: r for r in diagnose(runs, 0, None)}

    assert said["forgetful"]["rare"].finding is Finding.GROUP_NEGLECTED
    assert said["sgd"]["rare"].finding is None
    assert said["sgd"]["hard"].finding is None


def test_mini_batches_serve_groups_as_the_gradient_does() -> None:
    inputs, targets = cloud(1_500, [1.0] * 30, 1.0)
    task = line(inputs, targets, [1.0] * 30, epochs=3, batch_size=16)
    served = {r.kind: r for r in diagnose(looked_at(task, rules.sgd, lr=0.01), 16, None)}["hard"]

    assert served.low < 1.0 < served.high
    assert served.finding is None


def test_divergence_is_told_by_its_step() -> None:
    assert report_divergence([None, None]) is None
    found = report_divergence([None, 30, 12, None])
    assert found is not None
    assert (found.number, found.n, found.finding) == (0.5, 4, Finding.DIVERGED)
    assert format_finding(found.to_record(), [None, 30, 12, None]) == (
        "2 of 4 final runs diverged, the first at step 12."
    )


def point(**given: Any) -> Point:
    base = {
        "factor": 1.0,
        "slope": -1.0,
        "bend": 0.8,
        "length": 1.0,
        "groups": {MeasurementKind.HARDEST_TENTH: (-1.0, 1.0)},
    }
    return Point(**{"share": 0.5, **base, **given})


def runs_of(*each: Point) -> list[list[Point]]:
    """A run for each, of two looks alike."""
    return [[p, p] for p in each]


def test_what_is_not_clear_is_not_said() -> None:
    far = [point(bend=2.4 + 0.1 * i) for i in range(5)]
    assert measure_step_length(runs_of(*far)).finding
    assert measure_step_length(runs_of(*far[:2])).finding is None, "two runs are too few"
    assert measure_step_length([far * 5]).finding is None, "however often one looks"
    assert measure_step_length(runs_of(*(point(bend=0.5 + 4.0 * (i % 2)) for i in range(5)))).finding is None
    assert measure_step_length(runs_of(*(point(slope=(-1.0) ** i, bend=4.0) for i in range(5)))).finding is None, (
        "no clear way down"
    )
    assert measure_step_length(runs_of(*(point(slope=1.0 + 0.1 * i, bend=-4.0) for i in range(5)))).finding is None, (
        "uphill"
    )
    assert measure_step_length(runs_of(*(point(bend=-0.01 - 0.001 * i) for i in range(5)))).finding is None, "no bottom"
    assert measure_level(MeasurementKind.STABILITY, [1.0, 1.1]).finding is None
    assert measure_level(MeasurementKind.STABILITY, [1.0, 1.1, 1.2]).finding is Finding.UNSTABLE
    assert measure_level(MeasurementKind.STABILITY, [-0.2, -0.1, -0.1]).finding is Finding.NEAR_STABILITY_LIMIT
    assert measure_level(MeasurementKind.STABILITY, [-2.0, 0.1, 2.0]).finding is None
    assert (
        measure_noise_scale(runs_of(*(point(spread=8.0, signal=10.0 * (-1.0) ** i) for i in range(5))), 8).finding
        is None
    )
    lost = measure_noise_scale(runs_of(*(point(spread=800.0, signal=-1.0 - i) for i in range(5))), 8)
    assert lost.finding is Finding.BATCH_BELOW_NOISE_SCALE
    assert lost.to_record().number is None, "no signal at all"
    assert (
        measure_noise_scale(runs_of(*[point(spread=1.0, signal=1.0)] * 5), 64).finding
        is Finding.BATCH_ABOVE_NOISE_SCALE
    )
    assert measure_level(MeasurementKind.RATE_KEPT, []).finding is None
    none = measure_step_length([]).to_record()
    assert none.low is None
    assert none.n == 0


@pytest.mark.parametrize(
    ("served", "finding"),
    [
        ((-1.0, 1.0), None),
        ((-0.5, 1.0), Finding.GROUP_NEGLECTED),
        ((-2.0, 1.0), Finding.GROUP_FAVOURED),
        ((-0.5, -0.5), None),  # the plain gradient raises their loss: of that there is no share
        ((1.0, -0.5), None),
    ],
)
def test_who_is_served_is_said_where_the_gradient_serves_them(
    served: tuple[float, float], finding: Finding | None
) -> None:
    each = [point(groups={MeasurementKind.HARDEST_TENTH: served}, slope=-1.0 - 0.001 * i) for i in range(5)]

    assert measure_group_progress(runs_of(*each), MeasurementKind.HARDEST_TENTH).finding is finding
    assert measure_group_progress(runs_of(*each), MeasurementKind.RARE_CLASSES).n == 0


def test_intervals_hold_what_they_should_when_looks_of_a_run_are_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    held, times = 0, 300
    for _ in range(times):
        own = 0.3 * torch.randn(5, generator=generator)  # what a run has for itself, in all of its looks
        bends = 1.2 + own[:, None] + 0.3 * torch.randn(5, 12, generator=generator)
        found = measure_step_length([[point(bend=float(bend)) for bend in run] for run in bends])
        held += found.low <= 0.6 <= found.high
    assert 0.90 <= held / times <= 0.99


def own_task(name: str, **given: Any) -> Task:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(200, 3, generator=generator)
    base = {
        "name": name,
        "model": lambda: nn.Linear(3, 1),
        "loss": lambda y, t: (y[:, 0] - t).square().mean(),
        "metric": Metric("loss", lambda y, t: (y[:, 0] - t).square().mean(), False, 0.1),
        "baseline": 3.0,
        "data": lambda: Data(inputs, inputs.sum(1)),
        "batch_size": 16,
        "epochs": 3,
    }
    return Task(**{**base, **given})


class Scaled(nn.Module):
    """A scalar parameter and one that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner, self.idle = (
            nn.Parameter(torch.tensor(1.0)),
            nn.Linear(3, 1),
            nn.Parameter(torch.ones(2)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * self.inner(inputs)


ODD: dict[str, Task] = {
    "no curvature": own_task("l1", loss=lambda y, t: (y[:, 0] - t).abs().mean()),
    "scalars": own_task("scalars", model=Scaled),
    "batch norm and dropout": own_task(
        "bn",
        model=lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)),
    ),
    "signs as targets": own_task(
        "signs",
        loss=lambda y, t: functional.soft_margin_loss(y[:, 0], t.float()),
        data=lambda: Data(torch.randn(200, 3), torch.tensor([1, -1] * 100)),
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_networks_can_be_looked_into(name: str) -> None:
    seen = looked_at(ODD[name], rules.adam, 2, lr=0.01)

    assert all(run.points for run in seen)
    assert diagnose(seen, 16, None)


def test_runs_that_diverge_are_left_out_of_what_is_said() -> None:
    task = own_task("cubic", loss=lambda y, t: (y[:, 0] - t).abs().pow(3).mean(), epochs=6)
    mixed = [*looked_at(task, rules.sgd, 3, lr=0.001), *looked_at(task, rules.sgd, 1, lr=30.0)]

    assert not mixed[3].lasted
    assert average_updates(mixed).step == tuple(mixed[0].steps)
    assert average_updates(mixed[3:]).step == ()
    assert [r.number for r in diagnose(mixed, 16, 2.0)] == [r.number for r in diagnose(mixed[:3], 16, 2.0)]


@pytest.mark.slow
def test_a_race_is_explained_once_and_kept(tmp_path: Any) -> None:
    plan = make_plan("digits", "minibatch,adam", trials=6, seeds=6, epochs=3)
    engine = Local(2)
    result = run(plan, tmp_path / "race", engine)
    assert result.record.diagnosis is None
    found = why(plan, result, engine, 20.0)
    told = found.record.diagnosis

    assert set(told.entries) == {"minibatch", "adam"}
    shown = found.to_dict()["why"]["entries"]["adam"]["reasons"]
    assert [reason["number"] for reason in shown] == [m.number for m in told.entries["adam"].measurements]
    assert all(bool(reason["words"]) is (reason["finding"] is not None) for reason in shown)
    edges = {name: [m for m in e.measurements if m.kind == "edge"] for name, e in told.entries.items()}
    assert edges["adam"][0].number > 0
    assert edges["minibatch"][0].number > 0
    moves = told.entries["minibatch"].updates
    assert len(moves.step) == len(moves.rate) == len(moves.cosine)
    assert all(value == pytest.approx(1.0, abs=1e-5) for value in moves.cosine[:-1]), "straight down its batch"
    assert load(tmp_path / "race").record.diagnosis == told
    assert run(plan, tmp_path / "race", engine).record.diagnosis == told, "the same plan keeps it"
    assert why(plan, found, engine, 10.0) is found
    assert why(plan, found, engine, 30.0) is not found, "asked for more"
    text = report(found.record)
    assert 'id="why"' in text
    assert "figure-moves" in text
    other = make_plan("digits", "minibatch,adam,lion", trials=6, seeds=6, epochs=3)
    assert run(other, tmp_path / "race", engine).record.diagnosis is None


def test_other_optimizers_and_networks_one_at_a_time_are_explained_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradprix.explain._why.MEASURED_SEEDS", 2)
    plan = make_plan("digits", [ENTRIES["adam"], "muon"], trials=1, seeds=6, epochs=1)
    told = why(plan, run(plan, None, Local(1)), Local(1), budget=600).record.diagnosis

    assert {m.kind for m in told.entries["muon"].measurements} >= {"steps", "noise", "hard"}, told
    task, values = replace(digits, epochs=1), rules.adam.values(lr=0.01)
    trials = [Trial(rules.adam, values, seed, task.batch_size, 1, task.schedule, True) for seed in range(2)]
    both = [average_updates(watch(task, trials[:count], ExecutionMode(), ())) for count in (1, 2)]
    assert all(len(each.step) == len(each.ratio) for each in both)
    assert both[0].step == both[1].step


def test_a_loop_keeps_its_networks_to_itself() -> None:
    from gradprix.tasks import Loop

    def train(make_optimizer: Any, seed: int) -> Any:
        model = nn.Linear(2, 1)
        optimizer = make_optimizer(model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            loss = (model(torch.ones(4, 2)) - 1).square().mean()
            loss.backward()
            optimizer.step()
            yield {"valid": float(loss.detach()), "test": float(loss.detach())}

    loop = Loop(name="loop", train=train, metric=Metric("loss", lambda y, t: 0.0, False, 0.1))
    plan = make_plan(loop, "minibatch,adam", trials=1, seeds=6)
    with pytest.raises(ValueError, match="only a task can be explained"):
        why(plan, run(plan, None, Local(1)), Local(1))


def test_a_race_whose_networks_cannot_be_looked_into_still_has_its_answer(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no second derivative")

    monkeypatch.setattr("gradprix.explain.why", fails)
    arguments = ["race", "digits", "--optimizers", "adam,minibatch", "--trials", "1", "--seeds", "6", "--epochs", "1"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "race"), "--explain"])

    assert done.exit_code == 0, done.output
    assert "could not be diagnosed: RuntimeError: no second derivative" in done.output
    assert "use " in done.output.lower()
    assert (tmp_path / "race" / "report.html").is_file()
