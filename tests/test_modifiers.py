"""Modified rules, against the arithmetic of the papers and their authors' code written out plainly."""

import pickle
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import gradprix as gp
import modifier_oracles as oracles
from gradprix import optim, race, rules
from gradprix.explain.resolve import resolve_optimizer
from gradprix.kernels import StackedRule, compute_terms, eager_step, init_state
from gradprix.rules import (
    cautious,
    cautious_decay,
    clipped,
    decoupled,
    ema,
    lookahead,
    mars,
    nesterov,
    schedule_free,
)
from gradprix.rules.modifiers import MODIFIERS, direction, modifier, step

pytestmark = pytest.mark.usefixtures("float64")
Rule = rules.Rule
Values = dict[str, float | bool]
PAIRS: list[tuple[Rule, Values]] = [
    (cautious(rules.sgd), {"momentum": 0.9, "weight_decay": 0.1}),
    (cautious(rules.lion), {"weight_decay": 0.1}),
    (cautious(rules.adam), {"amsgrad": True, "weight_decay": 0.1}),
    (cautious(rules.adamw), {}),
    (cautious(rules.adan), {"weight_decay": 0.1}),
    (cautious(rules.adopt), {"weight_decay": 0.1}),
    (cautious(rules.radam), {}),
    (cautious_decay(rules.sgd), {"momentum": 0.9, "weight_decay": 0.1}),
    (cautious_decay(rules.lion), {"weight_decay": 0.1}),
    (cautious_decay(rules.adamw), {"weight_decay": 0.1}),
    (cautious_decay(rules.ademamix), {"weight_decay": 0.1}),
    (decoupled(rules.sgd), {"momentum": 0.9, "weight_decay": 0.1}),
    (decoupled(rules.adam), {"weight_decay": 0.1}),
    (decoupled(rules.rmsprop), {"weight_decay": 0.1, "centered": True}),
    (clipped(rules.sgd, norm=0.1), {"momentum": 0.9, "weight_decay": 0.1}),
    (clipped(rules.adam, value=0.01), {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    (clipped(rules.adamw, ratio=0.01), {}),
    (clipped(rules.lion, norm=0.1, value=0.05), {"maximize": True}),
    (clipped(rules.schedule_free_adamw, norm=0.1), {"weight_decay": 0.1}),
    (mars(rules.adam), {"weight_decay": 0.1}),
    (mars(rules.adamw), {}),
    (mars(rules.lion), {}),
    (mars(rules.adan), {}),
    (nesterov(rules.sgd, momentum=0.9), {"dampening": 0.1}),
    (nesterov(rules.adam), {}),
    (nesterov(rules.adamw), {}),
    (nesterov(rules.rmsprop, momentum=0.5), {}),
    (lookahead(rules.sgd), {"momentum": 0.9}),
    (lookahead(rules.adam, steps=3, alpha=0.8), {"weight_decay": 0.1}),
    (lookahead(rules.lion), {}),
    (ema(rules.sgd, decay=0.9), {}),
    (ema(rules.adamw), {}),
    (ema(rules.nadam), {}),
    (schedule_free(rules.sgd), {"weight_decay": 0.1, "warmup_steps": 5}),
    (schedule_free(rules.adam), {"beta1": 0.9}),
    (schedule_free(rules.adamw), {"r": 1.0}),
    (schedule_free(rules.rmsprop), {}),
    (schedule_free(rules.lion), {"beta1": 0.9, "weight_decay": 0.1}),
    (ema(cautious(rules.adamw)), {}),
    (cautious_decay(cautious(rules.lion)), {"weight_decay": 0.1}),
    (lookahead(clipped(rules.adam, norm=0.1)), {"weight_decay": 0.1}),
    (cautious(clipped(rules.adam, value=0.01)), {"weight_decay": 0.1}),
    (cautious(nesterov(rules.adamw)), {}),
    (clipped(ema(nesterov(rules.sgd, momentum=0.9)), norm=0.1), {}),
    (schedule_free(cautious(mars(rules.adamw))), {"beta1": 0.5}),
]
IDS = [f"{rule.name}-{values}" for rule, values in PAIRS]
SHAPES = [(40, 7), (5, 3, 2), (11,), (1,)]


def gradient(t: int, shape: Any, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * t + sum(shape))
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 10.0 ** (t % 4 - 2)).to(dtype)


def parameters(dtype: torch.dtype = torch.float64, shapes: Any = SHAPES) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(gradient(3, shape, dtype)) for shape in shapes]


def give(params: list[torch.nn.Parameter], t: int) -> None:
    for p in params:
        p.grad = gradient(t, p.shape, p.dtype)


def nearest_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch takes roots with Intel's MKL, which is not always rounded to nearest; all other arithmetic is."""
    monkeypatch.setattr(torch.Tensor, "sqrt", lambda a: torch.from_numpy(np.sqrt(a.numpy())))


def construct(rule: Rule, params: Any, values: Any, **more: Any) -> Any:
    """Return the optimizer of a rule, with the values of its hyperparameters as a group has them."""
    group = {name: value for name, value in values.items() if name not in rule.betas}
    if values.keys() & set(rule.betas):
        group["betas"] = tuple({**rule.hyperparameters, **values}[name] for name in rule.betas)
    return optim.from_rule(rule)(params, **group, **more)


def check_fused(rule: Rule, values: Values, dtype: torch.dtype) -> None:
    both = [parameters(dtype), parameters(dtype)]
    fused, eager = (
        construct(rule, p, {**values, "lr": 0.02}, fused=f) for p, f in zip(both, (None, False), strict=True)
    )
    for t in range(1, 13):
        for params, optimizer in zip(both, (fused, eager), strict=True):
            give(params, t)
            optimizer.step()
        for p, q in zip(*both, strict=True):
            assert torch.equal(p, q)
    if rule.scope == "element":
        assert fused._plan.batches, "the fused path was taken"
        assert not fused._plan.eager
    for p, q in zip(*both, strict=True):
        assert all(torch.equal(value, eager.state[q][key]) for key, value in fused.state[p].items())


def check_row(rule: Rule, values: Values, dtype: torch.dtype) -> None:
    """A row of a stack is what the optimizer makes of the parameters alone."""
    if rule.scope == "tensor":
        return
    rates = [1e-3, 0.02]
    alone = [parameters(dtype) for _ in rates]
    optimizers = [construct(rule, p, {**values, "lr": lr}) for p, lr in zip(alone, rates, strict=True)]
    stack = [torch.stack([p.detach().clone()] * 2) for p in alone[0]]
    stacked = StackedRule(rule, [rule.values(**{**values, "lr": lr}) for lr in rates], stack)
    for t in range(1, 13):
        for params, optimizer in zip(alone, optimizers, strict=True):
            give(params, t)
            optimizer.step()
        stacked.step([torch.stack([p.grad for p in each]) for each in zip(*alone, strict=True)])  # type: ignore[misc]
        for x, *rows in zip(stack, *alone, strict=True):
            assert torch.equal(x, torch.stack([row.detach() for row in rows]))


@pytest.mark.parametrize(("rule", "values"), PAIRS, ids=IDS)
def test_fused_equals_eager_to_the_bit(rule: Rule, values: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    nearest_roots(monkeypatch)
    check_fused(rule, values, torch.float64)


@pytest.mark.sample(8)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rule", "values"), PAIRS, ids=IDS)
def test_fused_equals_eager_to_the_bit_in_other_dtypes(
    rule: Rule, values: Values, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest_roots(monkeypatch)
    check_fused(rule, values, dtype)


@pytest.mark.parametrize(("rule", "values"), PAIRS, ids=IDS)
def test_a_row_of_a_stack_equals_the_optimizer_to_the_bit(rule: Rule, values: Values) -> None:
    check_row(rule, values, torch.float64)


def check_terms(rule: Rule, values: Values, steps: int = 7) -> None:
    """The generated function of a rule, and its recorded terms, agree to the bit."""
    full = rule.values(**values)
    x, state = gradient(7, (9, 4)), dict[str, Any]()
    for t in range(1, steps + 1):
        g = gradient(t, (9, 4))
        before = {name: state.get(name, init_state(spec, full, x, g)) for name, spec in rule.active_state(full).items()}
        terms = compute_terms(rule, full, t, x, g, before)
        x, state = eager_step(rule, full, t, x, g, state)
        assert torch.equal(terms["x"], x)
        assert x.isfinite().all()
        kept = {**before, **terms}  # a rule need not change its state
        assert all(torch.equal(torch.as_tensor(kept[n]), torch.as_tensor(value)) for n, value in state.items())


@pytest.mark.parametrize(("rule", "values"), PAIRS, ids=IDS)
def test_terms_are_what_the_step_did(rule: Rule, values: Values) -> None:
    check_terms(rule, values)


ADAM = {"betas": (0.9, 0.999), "lr": 0.01}
NAMED_ADAM = {"beta1": 0.9, "beta2": 0.999, "lr": 0.01}
SGD = {"momentum": 0.9, "lr": 0.1}
DECAY = {"weight_decay": 0.1}
ORACLES: list[tuple[Rule, Values, oracles.Oracle]] = [
    (cautious(rules.lion), {"lr": 0.01, **DECAY}, oracles.each(oracles.c_lion, lr=0.01, betas=(0.9, 0.99), wd=0.1)),
    (cautious(rules.adamw), {**NAMED_ADAM, **DECAY}, oracles.each(oracles.c_adamw, **ADAM, wd=0.1)),
    (cautious(rules.adopt), {**NAMED_ADAM, **DECAY}, oracles.each(oracles.c_adopt, **ADAM, wd=0.1)),
    (cautious(rules.sgd), {**SGD, **DECAY}, oracles.each(oracles.c_momentum, **SGD, wd=0.1)),
    (cautious_decay(rules.adamw), {**NAMED_ADAM, **DECAY}, oracles.each(oracles.cwd_adamw, **ADAM, wd=0.1)),
    (cautious_decay(rules.adam), {**NAMED_ADAM, **DECAY}, oracles.each(oracles.cwd_adamw, **ADAM, wd=0.1)),
    (cautious_decay(rules.sgd), {**SGD, **DECAY}, oracles.each(oracles.cwd_momentum, **SGD, wd=0.1)),
    (
        cautious_decay(rules.lion),
        {"lr": 0.01, **DECAY},
        oracles.each(oracles.cwd_lion, lr=0.01, betas=(0.9, 0.99), wd=0.1),
    ),
    (decoupled(rules.sgd), {**SGD, **DECAY}, oracles.each(oracles.sgdw, **SGD, wd=0.1)),
    (decoupled(rules.adam), {**NAMED_ADAM, **DECAY}, oracles.torch_class(torch.optim.AdamW, **ADAM, **DECAY)),
    (decoupled(rules.adamw), {**NAMED_ADAM, **DECAY}, oracles.torch_class(torch.optim.AdamW, **ADAM, **DECAY)),
    (
        decoupled(rules.nadam),
        {"lr": 0.01, **DECAY},
        oracles.torch_class(torch.optim.NAdam, lr=0.01, **DECAY, decoupled_weight_decay=True),
    ),
    (
        mars(rules.adamw, gamma=0.05),
        {**NAMED_ADAM, **DECAY},
        oracles.each(oracles.mars_adamw, **ADAM, wd=0.1, gamma=0.05),
    ),
    (
        mars(rules.lion),
        {"lr": 0.01, "beta1": 0.95, "beta2": 0.95, **DECAY},
        oracles.each(oracles.mars_lion, lr=0.01, beta=0.95, wd=0.1, gamma=0.025),
    ),
    (lookahead(rules.sgd), SGD, oracles.lookahead(oracles.torch_class(torch.optim.SGD, **SGD), 5, 0.5)),
    (
        lookahead(rules.adam, steps=3, alpha=0.8),
        {**NAMED_ADAM, **DECAY},
        oracles.lookahead(oracles.torch_class(torch.optim.Adam, **ADAM, **DECAY), 3, 0.8),
    ),
    (
        clipped(rules.sgd, norm=0.5),
        {**SGD, **DECAY},
        oracles.clipped(oracles.torch_class(torch.optim.SGD, **SGD, **DECAY), 0.5),
    ),
    (
        clipped(rules.adam, norm=0.5, value=0.2),
        {**NAMED_ADAM, **DECAY},
        oracles.clipped(oracles.torch_class(torch.optim.Adam, **ADAM, **DECAY), 0.5, 0.2),
    ),
    (
        clipped(rules.adamw, ratio=0.01),
        {**NAMED_ADAM, **DECAY},
        oracles.adaptively_clipped(oracles.torch_class(torch.optim.AdamW, **ADAM, **DECAY), 0.01),
    ),
    (nesterov(rules.sgd, momentum=0.9), {"lr": 0.1}, oracles.torch_class(torch.optim.SGD, **SGD, nesterov=True)),
    (nesterov(rules.adamw), {**NAMED_ADAM, **DECAY}, oracles.each(oracles.c_nadamw, **ADAM, wd=0.1, caution=False)),
    (ema(rules.adagrad), {"lr": 0.1}, oracles.torch_class(torch.optim.Adagrad, lr=0.1)),
    (schedule_free(rules.sgd), {"lr": 0.1, **DECAY}, oracles.wrapped(torch.optim.SGD, decay=0.1, lr=0.1)),
    (schedule_free(rules.sgd), {**SGD, "interpolation": 0.5}, oracles.wrapped(torch.optim.SGD, 0.5, **SGD)),
    (schedule_free(rules.rmsprop), {"lr": 0.01}, oracles.wrapped(torch.optim.RMSprop, lr=0.01)),
    (schedule_free(rules.adam), NAMED_ADAM, oracles.wrapped(torch.optim.Adam, **ADAM)),
    (
        schedule_free(rules.nadam, beta1=0.9),
        {"lr": 0.01, **DECAY},
        oracles.wrapped(torch.optim.NAdam, decay=0.1, lr=0.01),
    ),
    (cautious(nesterov(rules.adamw)), {**NAMED_ADAM, **DECAY}, oracles.each(oracles.c_nadamw, **ADAM, wd=0.1)),
    (
        cautious_decay(cautious(rules.lion)),
        {"lr": 0.01, **DECAY},
        oracles.each(oracles.cwd_lion, lr=0.01, betas=(0.9, 0.99), wd=0.1, caution=True),
    ),
    (
        lookahead(clipped(rules.adam, norm=0.5)),
        {**NAMED_ADAM, **DECAY},
        oracles.lookahead(oracles.clipped(oracles.torch_class(torch.optim.Adam, **ADAM, **DECAY), 0.5), 5, 0.5),
    ),
]


@pytest.mark.parametrize(("rule", "values", "oracle"), ORACLES, ids=[rule.name for rule, *_ in ORACLES])
@pytest.mark.parametrize("fused", [None, False], ids=["fused", "eager"])
def test_agrees_with_the_papers(rule: Rule, values: Values, oracle: oracles.Oracle, fused: bool | None) -> None:
    ours, theirs = parameters(), parameters()
    optimizer, step = construct(rule, ours, values, fused=fused), oracle(theirs)
    for t in range(1, 31):
        give(ours, t)
        give(theirs, t)
        optimizer.step()
        step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("modified", "values", "existing", "given"),
    [
        (schedule_free(rules.sgd), {}, rules.schedule_free_sgd, {}),
        (
            schedule_free(rules.sgd),
            {"interpolation": 0.7, "weight_decay": 0.1, "warmup_steps": 7, "r": 1.0},
            rules.schedule_free_sgd,
            {"momentum": 0.7, "weight_decay": 0.1, "warmup_steps": 7, "r": 1.0},
        ),
        (schedule_free(rules.adamw), {"weight_decay": 0.0}, rules.schedule_free_adamw, {"correct_second_moment": True}),
        (
            schedule_free(rules.adam),
            {"beta2": 0.95, "weight_decay": 0.1, "weight_lr_power": 0.0},
            rules.schedule_free_adamw,
            {"correct_second_moment": True, "beta2": 0.95, "weight_decay": 0.1, "weight_lr_power": 0.0},
        ),
        (
            schedule_free(rules.adamw),
            {"warmup_steps": 5},
            rules.schedule_free_adamw,
            {"correct_second_moment": True, "warmup_steps": 5, "weight_decay": 0.01},
        ),
        (nesterov(rules.muon), {}, rules.muon, {}),
        (nesterov(rules.rmsprop), {}, rules.rmsprop, {}),
        (decoupled(rules.lion), {"weight_decay": 0.1}, rules.lion, {"weight_decay": 0.1}),
        (decoupled(rules.ademamix), {"weight_decay": 0.1}, rules.ademamix, {"weight_decay": 0.1}),
        (clipped(rules.adan, value=1e9, norm=1e9), {"weight_decay": 0.1}, rules.adan, {"weight_decay": 0.1}),
        (cautious_decay(rules.adopt), {}, rules.adopt, {}),
        (ema(rules.nadam), {"weight_decay": 0.1}, rules.nadam, {"weight_decay": 0.1}),
    ],
    ids=lambda value: value.name if isinstance(value, Rule) else str(value),
)
@pytest.mark.filterwarnings("ignore:MuonWithAuxAdam got parameters without their model")
def test_equals_an_existing_rule(modified: Rule, values: Values, existing: Rule, given: Values) -> None:
    shapes = [(6, 4), (3, 5)] if existing is rules.muon else SHAPES
    ours, theirs = parameters(shapes=shapes), parameters(shapes=shapes)
    a, b = construct(modified, ours, {"lr": 0.1, **values}), construct(existing, theirs, {"lr": 0.1, **given})
    for t in range(1, 61):
        for params, optimizer in ((ours, a), (theirs, b)):
            give(params, t)
            optimizer.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
        if t % 20 == 0 and existing.evaluation is not None:
            a.eval()
            b.eval()
            for p, q in zip(ours, theirs, strict=True):
                torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
            a.train()
            b.train()


@pytest.mark.parametrize("warmup", [False, True])
def test_ema_is_evaluated_at_the_moving_average(warmup: bool) -> None:
    def tensorflow_average(averages: Any, weights: Any, count: Any) -> None:
        """Average as in tf.train.ExponentialMovingAverage with num_updates, whose first update has number 1."""
        decay = min(0.9, (2 + int(count)) / (11 + int(count)))
        for mean, x in zip(averages, weights, strict=True):
            mean.copy_(decay * mean + (1 - decay) * x)

    module = torch.nn.ParameterList(parameters())
    average = AveragedModel(module, multi_avg_fn=tensorflow_average if warmup else get_ema_multi_avg_fn(0.9))
    optimizer = optim.from_rule(ema(rules.adamw, decay=0.9, warmup=warmup))(module, lr=0.01)
    for t in range(1, 101):  # the decay reaches 0.9 at t = 80
        give(list(module), t)
        optimizer.step()
        average.update_parameters(module)
    trained = [p.detach().clone() for p in module]
    optimizer.eval()
    for p, mean in zip(module, average.module, strict=True):
        torch.testing.assert_close(p, mean, rtol=1e-12, atol=1e-12)
    optimizer.train()
    assert all(torch.equal(p, x) for p, x in zip(module, trained, strict=True))


REFUSED = [
    (lambda: cautious(rules.schedule_free_sgd), "computes its evaluation point from the weights"),
    (lambda: lookahead(ema(rules.adam)), "Apply the modifier that changes the evaluation point last"),
    (lambda: ema(rules.schedule_free_adamw), "already evaluated at another point than its weights"),
    (lambda: schedule_free(lookahead(rules.adam)), "depends on the weights after its step"),
    (lambda: cautious(clipped(cautious(rules.adam), norm=1)), "cautious is applied already"),
    (lambda: mars(rules.sgd), "sgd has no state that decays with beta1, and the correction is scaled by"),
    (lambda: nesterov(rules.lion), "lion has no momentum"),
    (lambda: nesterov(cautious(rules.nadam)), "has Nesterov momentum already"),
    (lambda: clipped(rules.adam, norm=-1), "max_norm = -1.0: it must be a finite number from 0 up"),
    (lambda: ema(rules.adam, decay=1.0), r"ema_decay = 1.0: it must be in \[0, 1\)"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSED)
def test_what_has_no_meaning_is_refused_with_the_reason(make: Callable[[], Rule], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


def test_what_is_no_rule_or_hyperparameter_is_refused() -> None:
    with pytest.raises(TypeError, match="cautious modifies rules, such as gradprix.rules.adamw"):
        cautious(optim.Adam)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"clipped\(adam, size=1\) has no 'size'. It has: lr, beta1"):
        clipped(rules.adam, size=1)


def test_rules_that_no_modifier_can_divide_are_refused() -> None:
    space = {"lr": rules.log(1e-3, 1)}

    @rules.rule("none", relation="None.", space=space, lr=0.1)
    def squares_the_rate(h, t, x, g):
        x = x - h.lr * h.lr * g
        return x

    @rules.rule("none", relation="None.", space=space, lr=0.1)
    def multiplies(h, t, x, g):
        x = x * (1 - h.lr * g)
        return x

    @rules.rule("none", relation="None.", space=space, lr=0.1, state={"v": "v"})
    def rate_in_state(h, t, x, g, v):
        v = 0.9 * v + h.lr * g
        x = x - v
        return x, v

    @rules.rule("none", relation="None.", space=space, lr=0.1)
    def steps_twice(h, t, x, g):
        x = x - h.lr * g
        x = x - h.lr * g
        return x

    for base, reason in [
        (squares_the_rate, "not proportional to the learning rate"),
        (multiplies, "does not move the weights by the learning rate times a direction"),
        (rate_in_state, "not proportional to the learning rate"),
        (steps_twice, "moves the weights 2 times in a step"),
    ]:
        with pytest.raises(ValueError, match=reason):
            cautious(base)
        assert list(lookahead(base).state)[-2:] == ["slow", "since"], "a complete step is enough for others"


def test_names_of_a_modifier_and_its_base_do_not_collide() -> None:
    @rules.rule("none", relation="None.", space={"lr": rules.log(1e-3, 1)}, lr=0.1, state={"average": "a", "u": "u"})
    def taken(h, t, x, g, average, u):
        average = 0.9 * average + g
        u = g
        share = average + u
        x = x - h.lr * share
        return x, average, u

    modified = ema(cautious_decay(taken))
    assert list(modified.state) == ["average", "u", "average_2"]
    assert rules.formula(modified, weight_decay=0.1) == [
        "average ← 0.9 average + g",
        "u ← g",
        "share ← average + g",
        "shrinking ← where(sign(share) sign(x) ≥ 0, x, 0 x)",
        "x ← x − η λ shrinking",
        "x ← x − η share",
        "decay ← min(ema_decay, (1 + t) / (10 + t))",
        "average_2 ← where(t > 1, decay average_2 + (1 − decay) x, x)",
    ]


def test_optimizers_of_modified_rules_are_pickled_with_their_state() -> None:
    params = parameters(torch.float64)
    optimizer = construct(cautious(rules.lion), params, {"lr": 0.1})
    give(params, 1)
    optimizer.step()
    again, copies = pickle.loads(pickle.dumps((optimizer, params)))
    assert type(again) is type(optimizer)
    for mine, held in ((optimizer, params), (again, copies)):
        give(held, 2)
        mine.step()
    assert all(torch.equal(x, y) for x, y in zip(params, copies, strict=True))


def test_equal_modifications_are_one_rule_and_one_class_and_are_pickled_by_expression() -> None:
    rule = clipped(cautious(rules.adamw), norm=1)
    assert rule is clipped(cautious(rules.adamw), norm=1)
    assert rule is not clipped(cautious(rules.adamw), norm=2)
    assert rule.name == "clipped(cautious(adamw), norm=1)"
    assert pickle.loads(pickle.dumps(rule)) is rule
    assert optim.from_rule(rule) is optim.from_rule(rule)
    assert isinstance(rule.hyperparameters["max_norm"], float), "whatever number was given first"
    assert (rule.hyperparameters["max_norm"], rule.hyperparameters["max_value"]) == (1, 0.0)


def test_the_formula_and_the_class() -> None:
    assert rules.formula(cautious(rules.lion)) == [
        "c ← β₁ m + (1 − β₁) g",
        "m ← β₂ m + (1 − β₂) g",
        "u ← sign(c)",
        "agreement ← max(sign(u) sign(g), 0)",
        "share ← mean(agreement)",
        "x ← (1 − η λ) x",
        "x ← x − (η / max(share, 0.001)) agreement u",
    ]
    assert rules.formula(clipped(rules.sgd, norm=1), weight_decay=0.1)[:2] == [
        "g ← min(max_norm / (‖g‖_group + 1e-06), 1) g",
        "g ← g + λ x",
    ]
    made = optim.from_rule(schedule_free(rules.adamw, beta2=0.95))
    parameters = made.__signature__.parameters
    assert (parameters["betas"].default, parameters["interpolation"].default) == ((0.0, 0.95), 0.9)
    with pytest.raises(ValueError, match=r"beta1 = 1.5"):
        made([torch.ones(2)], betas=(1.5, 0.9))


def test_a_modifier_of_ones_own() -> None:
    @modifier("none", relation="{base} if the scale is 1.", scale=0.5, state={"count": rules.State("count", "scalar")})
    def scaled(h, t, x, g, count):
        u = direction(x, g)
        count = count + 1
        x = x - h.lr * h.scale * u
        return x, count

    def path(rule: Rule, **values: float) -> torch.Tensor:
        h, x = rule.values(**values), torch.zeros(3)
        state: dict[str, Any] = {}
        for t in range(1, 10):
            x, state = eager_step(rule, h, t, x, gradient(t, (3,)), state)
        return x

    torch.testing.assert_close(path(scaled(rules.adam), lr=0.1), path(rules.adam, lr=0.05))
    assert scaled(rules.adam).relation == "adam if the scale is 1."


def test_what_a_modifier_may_not_say_is_refused_with_its_line() -> None:
    def no_base(h, t, x, g):
        x = x - h.lr * g
        return x

    def nested(h, t, x, g):
        x = x - h.lr * direction(x, g)
        return x

    def elsewhere(h, t, x, g):
        y = step(x, g)
        x = y
        return x

    def twice(h, t, x, g):
        x = step(x, g)
        x = step(x, g)
        return x

    for function in (no_base, nested, elsewhere, twice):
        with pytest.raises(rules.RuleError, match=r"test_modifiers.py:\d+: .*call the base once, on a line of its own"):
            modifier("none", relation="None.")(function)
    with pytest.raises(RuntimeError, match="direction stands for the base in a modifier"):
        direction(1.0, 2.0)


NAMES = [
    ("cautious(lion)", "cautious(lion)", {}, None),
    (" clipped( ema(adam) , norm = 1 ) ", "clipped(ema(adam), norm=1)", {}, None),
    ("lookahead(momentum, steps=3)", "lookahead(momentum, steps=3)", {"momentum": 0.9}, None),
    ("clipped(momentum, momentum=0.5, norm=1)", "clipped(momentum, momentum=0.5, norm=1)", {}, None),
    ("nesterov(nesterov)", "nesterov(nesterov)", {"momentum": 0.9}, None),
    ("ema(sgd)", "ema(sgd)", {}, 1),
    ("cautious(adam, amsgrad=True)", "cautious(adam, amsgrad=True)", {}, None),
    ("ema(gradprix.rules:lion)", "ema(lion)", {}, None),
]


@pytest.mark.parametrize(("text", "name", "fixed", "batch_size"), NAMES)
def test_an_expression_names_an_entry(text: str, name: str, fixed: Values, batch_size: int | None) -> None:
    first, second = race.entries(f"{text},adam")
    assert (first.name, dict(first.fixed), first.batch_size) == (name, fixed, batch_size)
    assert second.name == "adam"
    assert re.match(r"(gradprix\.optim\.)?from_rule\(", first.optimizer)
    explained = resolve_optimizer(text.strip())
    assert f"from_rule({explained.rule.name})(params, lr=0.1" in first.code(0.1)


def test_the_code_of_an_entry_constructs_its_optimizer() -> None:
    (entry, _) = race.entries("cautious(adamw),adam")
    code = entry.code(0.1, beta2=0.9, weight_decay=0.2)
    assert code.endswith("from_rule(cautious(adamw))(params, lr=0.1, weight_decay=0.2, betas=(0.9, 0.9))")
    arguments = entry.arguments(0.1, beta2=0.9)
    optimizer = optim.from_rule(cautious(rules.adamw))([torch.ones(2)], **arguments)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.9)
    assert "nus" in optim.from_rule(ema(rules.qhadam)).__signature__.parameters


MALFORMED = [
    ("cautius(adam)", r"no modifier is called 'cautius'. Did you mean cautious"),
    ("cautious(adm)", r"no optimizer is called 'adm'. Did you mean adam"),
    ("cautious(adam", r"its parentheses do not match"),
    ("ema(adam))", r"its parentheses do not match"),
    ("cautious()", r"cautious modifies an optimizer. Give it first, as in cautious\(adamw\)"),
    ("clipped(norm=1)", r"clipped modifies an optimizer. Give it first"),
    ("clipped(adam, norm)", r"'norm' is not a keyword argument with a number, as norm=0.1"),
    ("clipped(adam, norm=much)", r"'norm=much' is not a keyword argument with a number"),
    ("clipped(adam, foo=1)", r"clipped\(adam, foo=1\) has no 'foo'. It has: lr, beta1"),
    ("cautious(ema(adam))", r"cautious\(ema\(adam\)\): .* Apply the modifier that changes the evaluation point last"),
    ("mars(momentum)", r"sgd has no state that decays with beta1"),
    ("clipped(adam)", r"clipped\(adam\): it changes nothing. Give max_norm or max_value or max_ratio"),
    ("ema(adam, lr=0.1)", r"ema\(adam, lr=0.1\): the race tunes lr. Leave it out"),
    ("sam(sam(momentum))", r"sam is applied once, and last"),
    ("ema(sam(momentum), decay=0.9)", r"sam is applied once, and last"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_a_wrong_expression_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        race.entries(f"{text},adamw")


def test_classes_that_no_rule_defines_cannot_be_modified() -> None:
    with pytest.raises(ValueError, match="is not made from a rule, and only rules can be modified"):
        race.entries("cautious(torch.optim:Rprop),adam")


def test_modified_rules_race() -> None:
    names = ["cautious(lion)", "ema(adamw, decay=0.9)", "lookahead(momentum)"]
    result = gp.race("digits", ",".join(names), trials=2, seeds=6, epochs=0.2)
    assert sorted(entry.name for entry in result.record.entries) == sorted(names)
    assert "from_rule(" in result.best.code


def rule_or_reason(name: str, base: str) -> Rule | str:
    try:
        return MODIFIERS[name](rules.ALL[base], **({"norm": 0.1} if name == "clipped" else {}))
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("base", rules.ALL)
def test_every_modifier_of_a_rule_steps_or_is_refused_with_the_reason(base: str) -> None:
    for name in MODIFIERS:
        rule = rule_or_reason(name, base)
        if isinstance(rule, str):
            assert rule.startswith(f"{name}({base}): ")
            assert rule.endswith(".")
        else:
            check_terms(rule, {"weight_decay": 0.1}, steps=4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "base"), list(product(MODIFIERS, rules.ALL)))
def test_every_pair_of_elementwise_rules_runs_alike_everywhere(
    name: str, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = rule_or_reason(name, base)
    if isinstance(rule, Rule) and rule.scope == "element":
        nearest_roots(monkeypatch)
        check_fused(rule, {"weight_decay": 0.1}, torch.float64)
        check_row(rule, {"weight_decay": 0.1}, torch.float64)
