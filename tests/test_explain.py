"""Traces, equations, characters and landscapes: from the rule itself, and what the optimizer really did."""

import json
import math
import re
from dataclasses import replace
from html import escape
from typing import Any

import pytest
import torch
from rich.cells import cell_len
from torch import nn
from typer.testing import CliRunner

from gradprix import optim, rules
from gradprix.cli import app
from gradprix.explain import (
    LANDSCAPES,
    descend,
    equations,
    interpolate_plane,
    measure_step_response,
    number,
    plane_through,
    principal_plane,
    resolve_optimizer,
    step,
    trace,
    training_path,
    tuned,
)
from gradprix.kernels import init_state
from gradprix.race import ENTRIES
from gradprix.rules import Rule
from gradprix.show import explanation
from gradprix.tasks import Data, Metric, Task, UnknownNameError, schedule
from gradprix.tasks.rng import stream
from gradprix.training.trainer import train_stack
from gradprix.training.trial import Trial
from parsed_page import HOSTILE, ParsedPage
from torch_helpers import default_dtype_restored

ON_POINTS = [r for r in rules.ALL.values() if not r.is_matrix_rule]
SURFACES = list(LANDSCAPES)


@pytest.fixture(autouse=True)
def _double() -> Any:
    with default_dtype_restored():
        yield


@pytest.mark.sample(4)
@pytest.mark.parametrize("which", ON_POINTS, ids=lambda r: r.name)
@pytest.mark.parametrize("given", [{}, {"weight_decay": 0.01, "maximize": True}], ids=["plain", "around"])
def test_a_trace_is_what_the_optimizer_did_on_a_landscape(which: Rule, given: dict[str, Any]) -> None:
    place = LANDSCAPES["ravine"]()
    found = trace(which, place, 200, lr=0.01, **given)
    x = nn.Parameter(torch.tensor(place.start, dtype=torch.float64))
    optimizer = optim.from_rule(which)([x], lr=0.01, **given)
    for t in range(200):
        torch.testing.assert_close(found.x.points[t], x.detach(), rtol=1e-13, atol=1e-14)
        _, x.grad = place.gradient(x.detach())
        optimizer.step()

    torch.testing.assert_close(found.x.points[0] + found.x.updates.sum(0), x.detach(), rtol=1e-12, atol=1e-13)
    assert torch.equal(found.x.terms["x"], found.x.points[1:])


def small(dtype: torch.dtype = torch.float64) -> Task:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 5, generator=generator, dtype=torch.float64).to(dtype)
    targets = inputs.sum(1, keepdim=True).tanh()
    return Task(
        name="small",
        model=lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).to(dtype),
        loss=nn.functional.mse_loss,
        metric=Metric("loss", nn.functional.mse_loss, higher_is_better=False, margin=0.1),
        baseline=1.0,
        data=lambda: Data(inputs, targets),
        batch_size=8,
        epochs=4,
    )


@pytest.mark.parametrize("name", [*rules.ALL, "nesterov"])
def test_a_trace_is_what_the_optimizer_did_on_a_network(name: str) -> None:
    torch.set_default_dtype(torch.float64)  # or float64 examples would be made float32
    task, its = small(), resolve_optimizer(name)
    found = trace(name, task, 20, seed=3, lr=0.01)
    model, data = task.network(3), task.loaded
    params = model if name == "muon" else model.parameters()
    optimizer = optim.from_rule(its.rule)(params, lr=0.01, **its.fixed)
    rates = [group["lr"] for group in optimizer.param_groups]
    train, order = data.split(3).train, stream(3, "order")
    factor = schedule("cosine", 4 * 5)
    steps = iter(range(20))
    for _ in range(4):
        for index in train[torch.randperm(len(train), generator=order)].split(8):
            t = next(steps)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor(t)
            optimizer.zero_grad()
            loss = task.loss(model(data.inputs[index]), data.targets[index])
            loss.backward()
            assert float(loss.detach()) == pytest.approx(float(found.losses[t]), rel=1e-9)
            optimizer.step()

    for layer, x in model.named_parameters():
        final, kept = x.detach().flatten(), found.layers[layer]
        torch.testing.assert_close(kept.points[0] + kept.updates.sum(0), final[kept.index], rtol=1e-9, atol=1e-11)


def test_adagrads_effective_rate_on_a_constant_gradient_is_lr_over_root_t() -> None:
    values, state, x = rules.adagrad.values(lr=0.3, eps=0.0), {}, torch.zeros(1, dtype=torch.float64)
    for t in range(1, 1_001):
        moved = step(rules.adagrad, values, t, x, torch.ones(1, dtype=torch.float64), state)["x"]
        assert float((x - moved).abs()) == pytest.approx(0.3 / math.sqrt(t), rel=1e-12)
        x = moved
    assert measure_step_response(rules.adagrad).exponent == pytest.approx(-0.5, abs=1e-6)


def test_adadeltas_effective_rate_does_not_go_to_zero() -> None:
    found = measure_step_response(rules.adadelta)

    assert found.exponent > 0
    assert bool((found.rates[1:] >= found.rates[:-1] * (1 - 1e-9)).all()), "it never falls"
    assert found.decay == 1.0, "and no weight shrinks where there is no gradient"


def test_a_step_response_ends_where_steps_under_a_constant_gradient_overflow() -> None:
    found = measure_step_response(rules.dadapt_adam)  # without a minimum, the estimated distance to it has no limit

    assert 0 < len(found.rates) < 1_000
    assert bool(found.rates.isfinite().all())
    assert float(found.rates[-1]) > 1e20
    assert all(math.isnan(x) for x in (found.exponent, found.scale, found.noise))
    assert "grows without limit" in found.sentences[0]
    bounded = measure_step_response(rules.dadapt_adam, growth_rate=1.001)
    assert len(bounded.rates) == 1_000
    assert math.isfinite(bounded.exponent + bounded.scale + bounded.noise)


def test_rates_ratios_and_cosines_are_those_of_the_steps() -> None:
    found = trace("momentum", LANDSCAPES["ravine"](), 10, lr=0.01).x

    for t in range(10):
        u, g, x = found.updates[t], found.gradients[t], found.points[t]
        assert torch.equal(found.rates[t], u.abs() / g.abs())
        assert float(found.rate[t]) == pytest.approx(float(u.norm() / g.norm()))
        assert float(found.ratio[t]) == pytest.approx(float(u.norm() / x.norm()))
        assert float(found.cosine[t]) == pytest.approx(float(-(u @ g) / (u.norm() * g.norm())))
    assert list(found.terms) == ["damping", "b", "x"]


def test_many_descents_at_once_are_each_the_one_alone() -> None:
    place = LANDSCAPES["noisy"]()
    rates = torch.tensor([[0.01], [0.1]], dtype=torch.float64)
    both = [(r, {**r.values(), "lr": rates}) for r in (rules.adam, rules.lamb, rules.schedule_free_adamw)]
    points, values = descend(both, place, 30, [[1.0, 2.0], [-1.0, 0.5]], seed=4)

    assert points.shape == (31, 3, 2, 2)
    assert values.shape == (31, 3, 2)
    for i, (each, _) in enumerate(both):
        for row, begin in enumerate([(1.0, 2.0), (-1.0, 0.5)]):
            alone = trace(each, place, 30, start=begin, seed=4, lr=float(rates[row]))
            torch.testing.assert_close(points[:, i, row], alone.x.points, rtol=1e-12, atol=1e-14)


def test_a_descent_that_is_lost_stays_where_it_was() -> None:
    points, _ = descend([(rules.sgd, rules.sgd.values(lr=100.0))], LANDSCAPES["rosenbrock"](), 50)

    assert bool(points.isfinite().all())
    assert torch.equal(points[-1], points[-2])


@pytest.mark.parametrize("name", SURFACES)
def test_a_landscapes_gradient_is_the_slope_of_its_value(name: str) -> None:
    place, h = LANDSCAPES[name](), 1e-6
    (x_low, x_high), (y_low, y_high) = place.box
    unit = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = unit * torch.tensor([x_high - x_low, y_high - y_low]) + torch.tensor([x_low, y_low])
    _, gradient = place.gradient(x)
    for axis in torch.eye(2, dtype=torch.float64):
        slope = (place.value(x + h * axis) - place.value(x - h * axis)) / (2 * h)
        torch.testing.assert_close(gradient @ axis, slope, rtol=1e-4, atol=1e-5)
    for minimum in place.minima:
        point = torch.tensor(minimum, dtype=torch.float64)
        assert float(place.gradient(point)[1].norm()) < 1e-3
        assert float(place.value(point)) <= float(place.value(x).min()) + 1e-9


@pytest.mark.parametrize("name", SURFACES)
def test_a_tuned_rate_goes_down(name: str) -> None:
    place = LANDSCAPES[name]()
    lr = tuned(rules.adam, place, 100)
    _, values = descend([(rules.adam, rules.adam.values(lr=lr))], place, 100)

    assert float(values[-1, 0, 0]) < 0.5 * float(values[0, 0, 0])
    assert f"{lr:.1e}"[:3] in {"1.0", "1.5", "2.2", "3.3", "4.7", "6.8"}, "a rate of the ladder"


def test_gradient_descent_is_tuned_to_one_over_the_curvature() -> None:
    assert tuned(rules.sgd, LANDSCAPES["bowl"](curvature=10.0), 50) == 0.1


def state_before(which: Rule, values: Any, x: torch.Tensor, g: torch.Tensor) -> dict[str, Any]:
    return {name: init_state(spec, values, x, g) for name, spec in which.active_state(values).items()}


@pytest.mark.parametrize("which", ON_POINTS, ids=lambda r: r.name)
def test_equations_hold_with_their_numbers(which: Rule) -> None:
    x, g = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, -0.25], dtype=torch.float64)
    values = which.values(weight_decay=0.1)
    found = equations(which, values, 3, x, g, state_before(which, values, x, g))

    assert [e.name for e in found][-1] in {"x", *which.state}
    for equation in found:
        assert equation.sentence.endswith(".")
        assert equation.formula.startswith(f"{equation.symbol} ← ")
        for text, value in zip(equation.numbers, equation.values, strict=True):
            assert text.endswith(f" = {number(value)}")
            if not re.search("where|‖|clip|max|sign|√", text):
                assert evaluated(text.rpartition(" = ")[0]) == pytest.approx(value, rel=0.02, abs=2e-3), text


def evaluated(text: str) -> float:
    """A printed equation, computed by Python."""
    python = text.replace("−", "-").replace("·", "*").replace("^", "**")
    python = re.sub(
        r"([⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: "**" + m[0].translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")), python
    )
    python = re.sub(r"\|(.+?)\|", r"abs(\1)", python)
    python = re.sub(r"(?<=[\d)]) (?=[(\d])", " * ", python)
    return float(eval(python))


def test_equations_without_a_step_have_no_numbers() -> None:
    found = equations(rules.adam, rules.adam.values())

    assert [e.formula for e in found] == rules.formula(rules.adam)
    assert all(e.numbers == () for e in found)
    assert found[0].sentence == "m keeps 90 % of its value and adds 10 % of the gradient."


def test_a_changed_rule_changes_everything_that_is_said_of_it() -> None:
    def mine(h, t, x, g, m):
        """Momentum by its sign, nearly."""
        m = h.beta * m + (1 - h.beta) * g
        x = x - h.lr * m / (abs(m) + h.eps)
        return x, m

    def changed(h, t, x, g, m):
        """Momentum by its sign, nearly."""
        m = h.beta * m + g
        x = x - h.lr * m / (m**2 + h.eps)
        return x, m

    make = rules.rule(
        "Nobody 2026", relation="None.", space={"lr": rules.log(1e-3, 1)}, lr=0.1, beta=0.9, eps=1e-3, state={"m": "m"}
    )
    before, after = (explanation.explained(resolve_optimizer(make(function)), {}) for function in (mine, changed))
    formulas = [[e.formula for e in found["equations"]] for found in (before, after)]

    assert formulas[0] == ["m ← β m + (1 − β) g", "x ← x − η m / (|m| + ε)"]
    assert formulas[1] == ["m ← β m + g", "x ← x − η m / (m² + ε)"]
    for page, own, other in zip(map(explanation.page, (before, after)), formulas, reversed(formulas), strict=True):
        assert all(f"<code>{escape(line)}</code>" in page for line in own)
        assert not any(f"<code>{escape(line)}</code>" in page for line in other)
    assert list(before["trace"].x.terms) == ["m", "x"]
    assert before["character"].sentences != after["character"].sentences


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("minibatch", {}, {"scale": 100.0, "exponent": 0.0, "coasts": 0.0, "decay": 1.0, "memory": 0}),
        ("momentum", {}, {"scale": 100.0, "coasts": 9.0, "first": 1.0, "memory": 1}),
        ("adam", {}, {"scale": 1.0, "exponent": 0.0, "first": 1.0, "memory": 2}),
        ("adamw", {"lr": 0.1, "weight_decay": 0.01}, {"decay": 0.999**1_000}),
        ("adam", {"weight_decay": 0.0}, {"decay": 1.0}),
        ("rmsprop", {}, {"first": 10.0, "scale": 1.0}),
        ("adadelta", {}, {"first": math.sqrt(1e-6) / math.sqrt(0.1 + 1e-6)}),
    ],
)
def test_a_character_is_as_computed_by_hand(name: str, given: dict[str, Any], wanted: dict[str, float]) -> None:
    its = resolve_optimizer(name)
    found = measure_step_response(its.rule, **its.fixed, **given)

    for key, value in wanted.items():
        assert getattr(found, key) == pytest.approx(value, rel=1e-4, abs=1e-9), key


def test_names_lead_to_entries_rules_and_own_rules(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_optimizer("nesterov").fixed == {"momentum": 0.9, "nesterov": True}
    assert resolve_optimizer("muon").rule is rules.muon
    assert resolve_optimizer(rules.lion).name == "lion"
    with pytest.raises(UnknownNameError, match="Did you mean nadam"):
        resolve_optimizer("nadm")
    (tmp_path / "its_own.py").write_text(
        "import gradprix as gp\n\n"
        '@gp.rule("Me 2026", relation="SGD.", space={"lr": gp.log(1e-3, 1)}, lr=0.1)\n'
        'def mine(h, t, x, g):\n    """Mine."""\n    x = x - h.lr * g\n    return x\n\n'
        "import torch\n"
        'ball = gp.Entry("ball", gp.rules.sgd, {"momentum": 0.5})\n'
    )
    monkeypatch.chdir(tmp_path)
    assert resolve_optimizer("its_own.py:ball").fixed == {"momentum": 0.5}
    assert resolve_optimizer("its_own.py:mine").about == "Mine."
    with pytest.raises(ValueError, match="neither a gp.rule"):
        resolve_optimizer("torch.optim:SGD")


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", ENTRIES)
def test_every_optimizer_can_be_explained_on_the_command_line(name: str) -> None:
    done = CliRunner().invoke(app, ["explain", name])

    assert done.exit_code == 0, done.output
    its, unwrapped = resolve_optimizer(name), " ".join(done.output.split())
    for line in rules.formula(its.rule, **its.fixed):
        assert line in unwrapped
    assert max(map(cell_len, done.output.splitlines())) <= 80


def test_a_page_stands_alone(tmp_path: Any) -> None:
    page = tmp_path / "nadam.html"
    done = CliRunner().invoke(app, ["explain", "nadam", "--set", "beta1=0.5", "--html", str(page)])

    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "keeps 50 %" in text
    assert "default-src 'none'" in text
    assert "In a ravine" in text


@pytest.mark.parametrize("text", HOSTILE)
def test_names_in_the_page_are_escaped(text: str) -> None:
    its = resolve_optimizer("minibatch")
    explanations = [explanation.explained(replace(its, name=name, about=name), {}) for name in (text, "harmless")]
    page, plain = (ParsedPage(explanation.page(each)) for each in explanations)
    assert page.elements == plain.elements
    assert page.text.count(text) >= 2, "heading and description"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["adamm"], "Did you mean adam"),
        (["adam", "--set", "beta1"], "give a name and a number"),
        (["adam", "--set", "beta9=1"], "has no 'beta9'"),
        (["adam", "--set", "beta1=2"], "must be in"),
        (["adam", "--html", "/dev/null/x.html"], "/dev/null"),
    ],
)
def test_mistakes_are_said_in_a_line(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["explain", *arguments])

    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_trace_of_matrices_wants_a_network() -> None:
    with pytest.raises(ValueError, match="trace it on a task"):
        trace("muon", LANDSCAPES["bowl"](), 3)
    with pytest.raises(ValueError, match="steps = "):
        trace("adam", LANDSCAPES["bowl"](), 0)
    json.dumps(measure_step_response(rules.adam).sentences)


def test_the_plane_through_three_points_holds_them_and_their_losses() -> None:
    task = small(torch.float32)
    ends = torch.stack([training_path("minibatch", task, 10, lr=lr)[-1] for lr in (0.01, 0.1, 0.5)])
    plane = plane_through(task, ends)

    torch.testing.assert_close(plane.drawn, plane.true, rtol=1e-5, atol=1e-6)
    assert plane.variance == pytest.approx(1.0)
    assert plane.points[0].tolist() == [0.0, 0.0]
    far = (ends[1] - ends[2]).double().norm()
    assert float((plane.points[1] - plane.points[2]).norm()) == pytest.approx(float(far), rel=1e-6)
    with pytest.raises(ValueError, match="on a line"):
        plane_through(task, torch.stack([ends[0], ends[1], 2 * ends[1] - ends[0]]))


def test_a_slices_gradient_is_that_of_the_network_in_the_plane() -> None:
    task = small(torch.float32)
    way = training_path("adam", task, 20, lr=0.05)
    plane = principal_plane(task, way)
    at, h = torch.tensor([[0.1, -0.2]], dtype=torch.float64), 1e-3
    _, gradient = plane.landscape.gradient(at)
    for axis in torch.eye(2, dtype=torch.float64):
        slope = (plane.landscape.value(at + h * axis) - plane.landscape.value(at - h * axis)) / (2 * h)
        torch.testing.assert_close(gradient @ axis, slope, rtol=2e-2, atol=2e-3)

    assert 0.5 < plane.variance < 1
    assert plane.true[-1] == pytest.approx(float(plane.drawn[-1]), abs=1e-6), "the end is the origin"
    assert f"{100 * plane.variance:.1f} % of the path's variance" in plane.projection_error
    off = float((plane.true - plane.drawn).abs().max())
    assert f"off by up to {off:.2g}" in plane.projection_error


def test_a_path_is_the_training_of_a_race() -> None:
    task = small(torch.float32)
    trial = Trial(rules.adam, rules.adam.values(lr=0.05), 3, 8, 4, "cosine", True)
    way = training_path("adam", task, 20, seed=3, lr=0.05)
    model = task.network(3)
    torch.nn.utils.vector_to_parameters(way[-1], model.parameters())
    test = task.loaded.split(3).test
    loss = task.loss(model(task.loaded.inputs[test]), task.loaded.targets[test])

    assert float(loss.detach()) == pytest.approx(train_stack(task, [trial])[0].test_loss, rel=1e-4)
    with pytest.raises(ValueError, match="matrices"):
        training_path("muon", task, 3)


def test_a_sampled_slice_is_near_the_slice() -> None:
    task = small(torch.float32)
    plane = principal_plane(task, training_path("adam", task, 20, lr=0.05))
    quick = interpolate_plane(plane, 41)
    (x_low, x_high), (y_low, y_high) = quick.box
    unit = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = unit * torch.tensor([x_high - x_low, y_high - y_low]) + torch.tensor([x_low, y_low])
    exact, found = plane.landscape.gradient(at), quick.gradient(at)

    spread = float(exact[0].max() - exact[0].min())
    assert float((exact[0] - found[0]).abs().max()) < 0.01 * spread
    torch.testing.assert_close(exact[1], found[1], rtol=0.2, atol=0.02 * float(exact[1].norm(dim=1).max()))
    assert plane.projection_error in quick.about
    assert float(descend([(rules.sgd, rules.sgd.values(lr=0.5))], quick, 50)[1][-1, 0, 0]) < float(plane.true[0])
