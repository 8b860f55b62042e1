"""Why an entry placed where it did: what is measured is right, planted causes are named, other cases are silent."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix import rules
from gradprix.explain import settles_below, why
from gradprix.explain._measure import Looked, Point, measure, sharpness
from gradprix.explain._reasons import Reason, averaged, diverged, noise, reasons, serves, sharp, steps, worn
from gradprix.explain._watch import Seen, watch
from gradprix.race import ENTRIES, Local, load, make_plan, run
from gradprix.race._lane import run_lane
from gradprix.race._network import Form
from gradprix.race._trial import Trial
from gradprix.rules import Rule
from gradprix.show import report
from gradprix.tasks import Data, Metric, Task, digits


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


def looked_at(task: Task, rule: Rule, seeds: int = 3, batch_size: int | None = None, **values: Any) -> list[Seen]:
    size = task.batch_size if batch_size is None else batch_size
    trials = [Trial(rule, rule.values(**values), s, size, task.epochs, task.schedule, True) for s in range(seeds)]
    return watch(task, trials, Form(), math.inf)


def kinds(found: list[Reason]) -> set[str]:
    return {reason.kind for reason in found if reason.words}


def cloud(count: int, scales: list[float], noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, len(scales), generator=generator) * torch.tensor(scales)
    return inputs, noise * torch.randn(count, generator=generator)


def test_runs_that_are_watched_end_as_they_did() -> None:
    trials = [
        Trial(rule, rule.values(lr=lr), seed, 32, 2, "cosine", True)
        for rule, lr in ((rules.adam, 0.01), (rules.sgd, 0.1))
        for seed in range(2)
    ]
    seen = watch(digits, trials, Form(), math.inf)

    for one, other in zip(run_lane(digits, trials), seen, strict=True):
        assert replace(one) == other.outcome
    assert [len(each.points) for each in seen] == [24] * 4
    assert all(point.sharpness > 0 for each in seen for point in each.points[1::3])
    assert all(0.2 < u / g < 2 for u, g in zip(*averages(seen[2]), strict=True)), "momentum-free SGD goes by its rate"


def averages(seen: Seen) -> tuple[list[float], list[float]]:
    factors = [0.1 * factor for factor in seen.factors]
    return seen.updates[:-1], [g * f for g, f in zip(seen.gradients[:-1], factors[:-1], strict=True)]


def test_curvature_and_steps_are_those_of_the_dense_hessian() -> None:
    inputs, targets = cloud(400, [3.0, 1.0, 0.5, 0.1, 0.1], 0.1)
    task = line(inputs, targets, [1.0, -1.0, 2.0, 0.5, 0.3])
    looked = Looked(task, 0)
    weights = {"w": torch.tensor([1.0, -1.0, 2.0, 0.5, 0.3])}
    update = {"w": torch.tensor([-0.1, 0.02, -0.1, 0.0, 0.3])}
    found = measure(looked, weights, update, 0.5, 16, wholly=True)
    x = looked.inputs
    hessian = (x.T @ x / len(x)).double()
    gradient = hessian @ weights["w"].double() - (x.T @ looked.targets / len(x)).double()
    u = update["w"].double()

    assert found.sharpness == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=0.03)
    assert found.slope == pytest.approx(float(gradient @ u), rel=1e-4)
    assert found.bend == pytest.approx(float(u @ hessian @ u), rel=1e-4)
    assert found.length == pytest.approx(float(gradient @ gradient), rel=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_sharpness_of_a_matrix_is_its_largest_eigenvalue(count: int) -> None:
    half = torch.randn(count, count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    matrix = half + half.T

    found = sharpness(lambda v: [matrix @ v[0].double()], [torch.zeros(count, dtype=torch.float64)])

    assert found == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=0.05)


def test_the_noise_scale_is_that_of_the_examples() -> None:
    inputs, targets = cloud(2_000, [1.0, 1.0], 1.0)
    task, weights = line(inputs, targets, [0.5, 0.0], batch_size=64), {"w": torch.tensor([0.5, 0.0])}
    found = [measure(Looked(task, seed), weights, weights, 0.5, 64, wholly=True) for seed in range(8)]
    each = inputs * (inputs @ weights["w"] - targets)[:, None]
    true = float(each.var(0).sum() / each.mean(0).square().sum())

    estimate = sum(p.spread for p in found) / sum(p.signal for p in found)
    assert estimate == pytest.approx(true, rel=0.2)


@pytest.mark.parametrize(
    ("rule", "given", "edge"),
    [
        (rules.sgd, {}, 2.0),
        (rules.sgd, {"momentum": 0.9}, 2 * 1.9),
        (rules.sgd, {"momentum": 0.9, "nesterov": True}, 2 * 1.9 / 2.8),
        (rules.adam, {}, None),
        (rules.lion, {}, None),
        (rules.lamb, {}, None),
        (rules.muon, {}, None),
    ],
)
def test_where_a_rule_ceases_to_settle(rule: Rule, given: dict[str, Any], edge: float | None) -> None:
    found = settles_below(rule, tuple(sorted(rule.values(**given).items())))

    assert found == (None if edge is None else pytest.approx(edge, rel=0.03))


def test_a_rate_above_the_edge_is_named() -> None:
    inputs, targets = cloud(400, [2.0, 0.3, 0.3], 0.3)  # the largest curvature is about 4
    task = line(inputs, targets, [0.01, 1.0, 1.0], epochs=10, schedule="constant")
    for lr, wanted in ((0.62, True), (0.1, False)):
        found = reasons(looked_at(task, rules.sgd, batch_size=0, lr=lr), 0, lr, 2.0)
        named = {r.kind: r for r in found}
        assert ("cannot settle" in named["edge"].words) is wanted
        assert ("too far" in named["steps"].words) is wanted
        assert named["edge"].low <= named["edge"].number <= named["edge"].high


@pytest.mark.parametrize(("batch_size", "wanted"), [(1, {"noise"}), (16, set()), (300, {"noise"})])
def test_a_batch_far_below_the_noise_scale_is_named(batch_size: int, wanted: set[str]) -> None:
    inputs, targets = cloud(600, [1.0] * 4, 3.0)
    task = line(inputs, targets, [2.0] * 4, epochs=2 if batch_size == 1 else 30, batch_size=batch_size)
    # Slow enough to stay where |G|² is 16, and the noise of one example about ten times that.
    found = reasons(looked_at(task, rules.sgd, lr=0.0003), batch_size, 0.0003, None)

    assert kinds(found) & {"noise"} == wanted
    said = next(reason for reason in found if reason.kind == "noise")
    assert said.low <= said.number <= said.high
    assert ("below" in said.words) is (batch_size == 1)


def test_an_adagrad_that_stalled_is_named_and_others_are_not() -> None:
    inputs = torch.ones(200, 1)
    task = line(inputs, torch.full((200,), 1_000.0), [0.0], epochs=20)  # far away: the gradient stays the same
    for rule, lr, wanted in ((rules.adagrad, 0.01, True), (rules.sgd, 1e-5, False), (rules.adadelta, 1.0, False)):
        assert ("wore out" in worn(looked_at(task, rule, lr=lr)).words) is wanted, rule.name


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
        said[rule.name] = {r.kind: r for r in reasons(runs, 0, 0.1, None)}

    assert "leaves rare classes behind" in said["forgetful"]["rare"].words
    assert said["sgd"]["rare"].words == ""
    assert said["sgd"]["rare"].number == pytest.approx(1.0, abs=0.05)
    assert said["sgd"]["hard"].number == pytest.approx(1.0, abs=0.05)


def test_divergence_is_told_by_its_step() -> None:
    assert diverged([None, None]) is None
    found = diverged([None, 30, 12, None])
    assert found is not None
    assert found.words == "2 of 4 final runs diverged, the first at step 12."


def point(**given: Any) -> Point:
    base = {"share": 0.5, "slope": -1.0, "bend": 0.8, "length": 1.0, "groups": {"the hardest tenth": (-1.0, 1.0)}}
    return Point(**{**base, **given})


def test_what_is_not_clear_is_not_said() -> None:
    mixed = [point(bend=2.0 + 6.0 * (i % 2)) for i in range(20)]  # 1 and 4 times too far, but for noise
    assert steps([point(bend=2.4 + 0.1 * (i % 2)) for i in range(20)]).words
    assert steps([point(bend=0.5 + 4.0 * (i % 2)) for i in range(20)]).words == ""
    assert steps(mixed[:4]).words == "", "four looks are too few"
    assert steps([point(slope=(-1.0) ** i) for i in range(20)]).words == "", "no way down at all"
    assert sharp([point(sharpness=10.0)], 1.0, 2.0, [1.0]).words == "", "one look has no interval"
    assert noise([point(spread=8.0, signal=10.0 * (-1.0) ** i) for i in range(12)], 8).words == ""
    lost = noise([point(spread=800.0, signal=(-1.0) ** i) for i in range(12)], 8)
    assert lost.words.startswith("Its batches are far below")
    assert lost.to_dict()["number"] is None, "no signal at all"
    assert noise([point(spread=1.0, signal=1.0)] * 12, 64).words.startswith("Its batches are far above")
    assert serves([point()] * 12, "hard", "the hardest tenth").words == ""
    assert worn([]).words == ""
    none = steps([]).to_dict()
    assert none["low"] is None
    assert none["n"] == 0


def test_intervals_hold_what_they_should() -> None:
    generator = torch.Generator().manual_seed(0)
    held, times = 0, 300
    for _ in range(times):
        slope = -1 + 0.5 * torch.randn(18, generator=generator)
        bend = 1.2 + 0.5 * torch.randn(18, generator=generator)
        pairs = zip(slope.tolist(), bend.tolist(), strict=True)
        found = steps([point(slope=s, bend=b) for s, b in pairs])
        held += found.low <= 0.6 <= found.high
    assert 0.90 <= held / times <= 0.99


def test_a_race_is_explained_once_and_kept(tmp_path: Any) -> None:
    plan = make_plan("digits", "minibatch,adam", trials=6, seeds=6, epochs=3)
    engine = Local(2)
    result = run(plan, tmp_path / "race", engine)
    assert "why" not in result.record
    found = why(plan, result, engine, 20.0)
    told = found.record["why"]

    assert set(told["entries"]) == {"minibatch", "adam"}
    edges = {name: [r for r in e["reasons"] if r["kind"] == "edge"] for name, e in told["entries"].items()}
    assert edges["adam"] == []
    assert edges["minibatch"][0]["number"] > 0
    moves = told["entries"]["minibatch"]["moves"]
    assert len(moves["step"]) == len(moves["rate"]) == len(moves["cosine"])
    assert all(value == pytest.approx(1.0, abs=1e-5) for value in moves["cosine"][:-1]), "straight down its batch"
    assert load(tmp_path / "race").record["why"] == told
    assert run(plan, tmp_path / "race", engine).record["why"] == told, "the same plan keeps it"
    assert why(plan, found, engine) is found
    text = report(found.record)
    assert 'id="why"' in text
    assert "figure-moves" in text
    other = make_plan("digits", "minibatch,adam,lion", trials=6, seeds=6, epochs=3)
    assert "why" not in run(other, tmp_path / "race", engine).record


def test_other_optimizers_and_networks_one_at_a_time_are_explained_too() -> None:
    plan = make_plan("digits", [ENTRIES["adam"], "muon"], trials=1, seeds=6, epochs=1)
    told = why(plan, run(plan, None, Local(1)), Local(1)).record["why"]

    assert {r["kind"] for r in told["entries"]["muon"]["reasons"]} >= {"steps", "noise", "hard"}
    both = [averaged(looked_at(replace(digits, epochs=1), rules.adam, seeds)) for seeds in (1, 2)]
    assert all(len(each["step"]) == len(each["ratio"]) for each in both)
    assert list(itertools.chain(both[0]["step"])) == both[1]["step"]


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
