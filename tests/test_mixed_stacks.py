"""Rows of a stack draw their own random numbers, whatever other optimizers are in the stack."""

import pytest
import torch
from torch import nn

import gradprix as gp
from gradprix.rules import adagrad, adam, prodigy, rmsprop, sgd
from gradprix.training import ExecutionMode, Trainer, Trial, model_stack, row_step

RULES = (prodigy, rmsprop, adam, sgd, adagrad)  # a step of Prodigy is several kernel calls, of the others one


def network():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def load():
    generator = torch.Generator().manual_seed(0)
    return gp.Data(torch.randn(90, 5, generator=generator), torch.arange(90) % 3)


METRIC = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01)
TASK = gp.Task("mixed", network, nn.functional.cross_entropy, METRIC, 1 / 3, load, batch_size=8, epochs=2)


def curves(rules, clip_norm):
    trials = [
        Trial(rule, rule.values(lr=0.03), seed, 8, 2, "cosine", True, clip_norm=clip_norm)
        for rule in rules
        for seed in (0, 1)
    ]
    outcomes = Trainer(TASK, trials, ExecutionMode()).run()
    return {(trial.rule.name, trial.seed): outcome.curve for trial, outcome in zip(trials, outcomes, strict=True)}


@pytest.mark.parametrize("clip_norm", [None, 0.3])
def test_a_run_does_not_depend_on_the_other_optimizers_of_its_stack(clip_norm):
    mixed = curves(RULES, clip_norm)
    for rule in RULES:
        assert curves([rule], clip_norm).items() <= mixed.items()


def test_a_mixed_stack_steps_row_by_row(monkeypatch):
    prepared = []

    def watch(*args):
        prepared.append(row_step.prepare_row_step(*args))
        return prepared[-1]

    monkeypatch.setattr(model_stack, "prepare_row_step", watch)
    curves([prodigy, rmsprop], None)
    assert prepared
    assert None not in prepared


@pytest.mark.parametrize("fails", ["raises", "is not supported"])
def test_a_step_that_cannot_be_prepared_draws_its_numbers_once(fails, monkeypatch):
    expected = curves([rmsprop], 0.3)

    def fail(*_):
        if fails == "raises":
            raise ValueError("no step")

    monkeypatch.setattr(row_step.GradientClipper, "row_call", fail)
    assert curves([rmsprop], 0.3) == expected
