"""Every way of running a rule gives the same numbers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gradprix import optim, rules
from gradprix.kernels import (
    STORAGE_DTYPES,
    KernelCall,
    StackedRule,
    compile_kernel,
    compute_terms,
    eager_step,
    hoist_scalars,
    init_state,
)

CASES: list[tuple[rules.Rule, dict[str, float | bool]]] = [
    *((r, {}) for r in rules.ALL.values() if r.is_separable),
    (rules.sgd, {"momentum": 0.9, "dampening": 0.3}),
    (rules.sgd, {"momentum": 0.9, "nesterov": True}),
    (rules.sgd, {"weight_decay": 0.1, "maximize": True}),
    (rules.rmsprop, {"centered": True, "momentum": 0.5}),
    (rules.adam, {"amsgrad": True, "weight_decay": 0.1}),
    (rules.nadam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    (rules.adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    *((r, {"weight_decay": 0.1, "maximize": True}) for r in (rules.lion, rules.adan, rules.ademamix, rules.adopt)),
    *((r, {"weight_decay": 0.1, "warmup_steps": 10}) for r in (rules.schedule_free_sgd, rules.schedule_free_adamw)),
    (rules.schedule_free_adamw, {"r": 1.0, "weight_lr_power": 0.0}),
    (rules.schedule_free_adamw, {"correct_second_moment": True, "weight_decay": 0.1}),
]
IDS = [f"{r.name}-{v}" for r, v in CASES]
WHOLE = [(r, {}) for r in rules.ALL.values() if r.scope == "tensor"]
REDUCED = [(r, {}) for r in rules.ALL.values() if r.reductions]  # see test_reductions.py


def gradient(t: int, n: int = 37) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(t)) * 10.0 ** (t % 5 - 3)


def nearest_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch takes roots with Intel's MKL, which is not always rounded to nearest; all other arithmetic is."""
    monkeypatch.setattr(torch.Tensor, "sqrt", lambda a: torch.from_numpy(np.sqrt(a.numpy())))


@pytest.mark.parametrize("compiled", [True, False], ids=["kernel", "torch"])
@pytest.mark.parametrize(("rule", "values"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_of_a_stack_equals_the_rule_alone_to_the_bit(
    rule: Any, values: Any, dtype: torch.dtype, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest_roots(monkeypatch)
    rates = [1e-3, 0.02, 0.5]
    rows = [rule.values(**{**values, "lr": lr}) for lr in rates]
    stack = torch.stack([gradient(100 + i) for i in range(3)]).to(dtype)
    alone: list[tuple[torch.Tensor, dict[str, Any]]] = [(x.clone(), {}) for x in stack]
    params = [stack[:, :30].view(3, 5, 6).clone(), stack[:, 30:].clone()]
    stacked = StackedRule(rule, rows, params)
    if not compiled:
        stacked.kernel = None
    for t in range(1, 60):
        g = torch.stack([gradient(t), gradient(t + 1000), gradient(t)]).to(dtype)
        if t == 40:  # the first leaves
            alone, rates, rows = alone[1:], rates[1:], rows[1:]
            params = [x[1:].clone() for x in params]
            stacked.select_rows(torch.tensor([1, 2]), params)
        g = g[-len(alone) :]
        stacked.step([g[:, :30].reshape(-1, 5, 6).contiguous(), g[:, 30:].contiguous()], factor=0.5)
        for i, (x, state) in enumerate(alone):
            alone[i] = eager_step(rule, {**rows[i], "lr": rates[i] * 0.5}, t, x, g[i], state)
        assert torch.equal(torch.cat([x.flatten(1) for x in params], dim=1), torch.stack([x for x, _ in alone]))


def test_a_row_of_a_bfloat16_stack_is_what_the_optimizer_makes_of_it() -> None:
    rows = [rules.adam.values(lr=lr) for lr in (1e-3, 0.02)]
    start_at = gradient(100).bfloat16()
    stack = torch.stack([start_at, start_at])
    alone = [torch.nn.Parameter(start_at.clone()) for _ in rows]
    optimizers = [optim.Adam([x], lr=row["lr"]) for x, row in zip(alone, rows, strict=True)]
    stacked = StackedRule(rules.adam, rows, [stack])
    for t in range(1, 40):
        g = torch.stack([gradient(t), gradient(t + 1000)]).bfloat16()
        stacked.step([g])
        for i, (x, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
            x.grad = g[i].clone()
            optimizer.step()
    assert torch.equal(stack, torch.stack([x.detach() for x in alone]))


@pytest.mark.parametrize(("rule", "values"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_compiled_kernel_equals_the_rule_alone_to_the_bit(
    rule: Any, values: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest_roots(monkeypatch)
    full = rule.values(**{**values, "lr": 0.02})
    x, state = gradient(100).to(dtype), {}
    p = torch.nn.Parameter(x.clone())
    rows = hoist_scalars(rule, full)
    compiled = compile_kernel(rows, STORAGE_DTYPES[dtype])
    pointers, table = np.zeros((1, 2 + len(rows.tensors)), np.int64), np.zeros((1, len(rows.constants)))
    work = KernelCall([p.numel()], [0], pointers, table)
    numbers, tensors = [], []
    for t in range(1, 60):
        g = gradient(t).to(dtype)
        x, state = eager_step(rule, full, t, x, g, state)
        if t == 1:
            numbers = [init_state(rule.state[name], full, p, g) for name in rows.numbers]
            tensors = [init_state(rule.state[name], full, p.detach(), g) for name in rows.tensors]
        table[0], numbers = rows.scalars(SimpleNamespace(**full), t, *numbers)
        pointers[0] = [tensor.data_ptr() for tensor in (p, g, *tensors)]
        work.run(compiled)
        assert torch.equal(p.detach(), x)
        for name, tensor in zip(rows.tensors, tensors, strict=True):
            assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("rule", [r for r, _ in WHOLE], ids=lambda r: r.name)
def test_whole_tensors_are_not_stacked_yet(rule: rules.Rule) -> None:
    with pytest.raises(ValueError, match=f"{rule.name} steps whole tensors .* cannot be stacked yet"):
        StackedRule(rule, [rule.values(), rule.values()], [torch.ones(2, 12)])


@pytest.mark.parametrize(("rule", "values"), CASES + WHOLE + REDUCED, ids=[*IDS, *(r.name for r, _ in WHOLE + REDUCED)])
def test_terms_are_what_the_step_did(rule: Any, values: Any) -> None:
    full = rule.values(**values)
    x, state = gradient(7, 36).double().view(9, 4), {}
    for t in range(1, 20):
        g = gradient(t, 36).double().view(9, 4)
        before = {name: state.get(name, init_state(spec, full, x, g)) for name, spec in rule.active_state(full).items()}
        named = compute_terms(rule, full, t, x, g, before)
        x, state = eager_step(rule, full, t, x, g, state)
        assert torch.equal(named["x"], x)
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(named.get(name, before[name])), torch.as_tensor(value))


def test_terms_have_the_names_of_the_rule() -> None:
    named = compute_terms(rules.adam, rules.adam.values(), 1, 1.0, 2.0, {"m": 0.0, "v": 0.0})

    assert list(named) == ["m", "v", "m_hat", "v_hat", "x"]
    assert named["m_hat"] == pytest.approx(2.0)
    assert named["x"] == pytest.approx(1.0 - 1e-3, rel=1e-8)


def made(function: Any, **given: Any) -> rules.Rule:
    make = rules.rule("Nobody 2026", relation="None.", space={"lr": rules.log(1e-3, 1)}, lr=0.1, **given)
    return make(function)


def bare(h, t, x, g):
    """No state at all."""
    x = x - h.lr * g
    return x


def remembers(h, t, x, g, p):
    """The previous point is state, and is the parameter itself until that moves."""
    c0 = x + 0.1 * (x - p)
    p = x
    x = c0 - h.lr * g
    return x, p


OWN = [made(bare), made(remembers, state={"p": rules.State("previous", init="x")})]


@pytest.mark.parametrize("rule", OWN, ids=lambda r: r.name)
def test_rules_of_ones_own_run_alike_everywhere(rule: rules.Rule) -> None:
    values = rule.values()
    x = gradient(1)
    p, stack = torch.nn.Parameter(x.clone()), x.clone().repeat(2, 1)
    optimizer, stacked, state = optim.from_rule(rule)([p]), StackedRule(rule, [values, values], [stack]), {}
    for t in range(1, 20):
        g = gradient(t)
        x, state = eager_step(rule, values, t, x, g, state)
        x = x.clone()
        p.grad = g.clone()
        optimizer.step()
        stacked.step([g.repeat(2, 1)])
        assert torch.equal(p.detach(), x)
        assert torch.equal(stack[1], x)
