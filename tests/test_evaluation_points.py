"""Stacks of models with optimizers that evaluate the model at other weights than they train."""

import json

import pytest
import torch

import gradprix as gp
from gradprix import optim, rules
from gradprix.kernels import StackedRule
from gradprix.rules import clipped, ema, schedule_free
from gradprix.training import Trial, train_stack
from gradprix.training.torch_optimizer_adapter import TorchOptimizerAdapter

RULES = {
    "schedule_free_adamw": (rules.schedule_free_adamw, {"warmup_steps": 10}, "warmup"),
    "schedule_free(sgd)": (schedule_free(rules.sgd), {}, "constant"),
    "ema(adamw)": (ema(rules.adamw), {}, "cosine"),
    "ema(clipped(adam))": (ema(clipped(rules.adam, norm=1.0)), {}, "cosine"),
}
RATES = (0.003, 0.03)
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("name", RULES)
def test_a_row_equals_a_model_with_its_own_optimizer(name: str) -> None:
    rule, values, schedule = RULES[name]
    task = gp.tasks.find("digits", "small", None).change(epochs=1)

    def results(optimizer: object, given: dict[str, float]) -> list[dict[str, object]]:
        trials = [Trial(optimizer, {**given, "lr": lr}, seed, 32, 1, schedule, True) for lr in RATES for seed in (0, 1)]
        return [json.loads(outcome.to_json()) for outcome in train_stack(task, trials)]

    assert isinstance(gp.Entry("entry", rule).rule, rules.Rule)  # raced in stacks
    alone = TorchOptimizerAdapter(optim.from_rule(rule))
    assert results(rule, rule.values(**values)) == results(alone, values)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("device", ["kernel", "eager"])
def test_evaluation_points_are_those_of_the_optimizers(dtype: torch.dtype, device: str, monkeypatch) -> None:
    if device == "eager":  # as on devices without a kernel
        monkeypatch.setattr("gradprix.kernels._stacked.STORAGE_DTYPES", {})
    rule = rules.schedule_free_adamw
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(2, *shape, generator=generator).to(dtype) for shape in ((5, 3), (7,))]
    models = [[torch.nn.Parameter(x[row].clone()) for x in params] for row in range(2)]
    optimizers = [optim.ScheduleFreeAdamW(model, lr=lr) for model, lr in zip(models, RATES, strict=True)]
    stacked = StackedRule(rule, [rule.values(lr=lr) for lr in RATES], params)
    for _ in range(5):
        gradients = [torch.randn(x.shape, generator=generator).to(dtype) for x in params]
        stacked.step(gradients)
        for row, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            for x, g in zip(model, gradients, strict=True):
                x.grad = g[row].clone()
            optimizer.step()
    trained = [x.clone() for x in params]
    stacked.eval()
    for row, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
        optimizer.eval()
        for x, own in zip(params, model, strict=True):
            tolerance = 0.0 if device == "kernel" else TOLERANCES[dtype]
            torch.testing.assert_close(x[row], own.detach(), rtol=tolerance, atol=tolerance)
    assert not all(torch.equal(x, y) for x, y in zip(params, trained, strict=True))
    stacked.train()
    assert all(torch.equal(x, y) for x, y in zip(params, trained, strict=True))


def test_artifacts_are_those_of_the_evaluation_point() -> None:
    def largest_weight(model: torch.nn.Module, *examples: object) -> dict[str, float]:
        return {"largest": max(float(x.detach().abs().max()) for x in model.parameters())}

    task = gp.tasks.find("digits", "small", None).change(after=largest_weight)
    outcomes = [
        train_stack(task, [Trial(rule, rule.values(lr=0.1), 0, 32, 1, "constant", True)])[0]
        for rule in (rules.adamw, ema(rules.adamw, decay=0.9999, warmup=False))
    ]
    assert all(outcome.after is not None for outcome in outcomes)
    trained, averaged = (outcome.after["numbers"]["largest"] for outcome in outcomes)
    assert averaged < 0.8 * trained  # the average is mostly the first weights
