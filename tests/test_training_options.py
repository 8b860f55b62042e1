"""Training options of a task: clipping, accumulation, parameter groups, averaged weights, and trained losses.

The oracle is a plain PyTorch loop with the same batches.
"""

import math
import time
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import gradprix as gp
from gradprix.explain.replay import watch
from gradprix.race import make_plan
from gradprix.race.efficiency import seconds_of_steps
from gradprix.race.preflight import check
from gradprix.race.record_builder import make_best
from gradprix.race.validate_task import validate_task
from gradprix.rules import adamw, sgd
from gradprix.show._report import report
from gradprix.show.plans import describe_run
from gradprix.tasks.parameter_groups import no_decay_norms, parameter_groups
from gradprix.tasks.rng import RngState, stream
from gradprix.tasks.schedules import schedule
from gradprix.tasks.task import TaskError
from gradprix.text.answer import format_code
from gradprix.training import ExecutionMode, ModelStack, Trainer, Trial
from gradprix.training.gradient_clipping import GradientClipper
from gradprix.training.plain_step import compute_plain_gradients, make_plain_optimizer
from gradprix.training.torch_optimizer_adapter import TorchOptimizerAdapter

MODES = {"stacked": ExecutionMode(), "sequential": ExecutionMode(stacked=False)}
EXAMPLES, BATCH, EPOCHS = 120, 16, 2


def cross_entropy(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)


def load():
    generator = torch.Generator().manual_seed(0)
    return gp.Data(torch.randn(EXAMPLES, 5, generator=generator), torch.arange(EXAMPLES) % 3)


def network():
    return nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def network_with_batch_norm():
    return nn.Sequential(nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def layer_rates(model):
    return [
        {"params": model[0].parameters(), "lr_factor": 0.1, "weight_decay": 0.3},
        {"params": ["1.weight", "1.bias"], "weight_decay": 0.0},
        {"params": model[3].parameters(), "weight_decay_factor": 2.0},
    ]


class Temperature(nn.Module):
    """Cross-entropy with a learned temperature."""

    def __init__(self, start=1.5):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(start))

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(outputs * self.log_scale.exp(), targets)


class Prototypes(nn.Module):
    """Loss with a random weight for each class, as in ArcFace."""

    def __init__(self, classes=3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, 3))

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(nn.functional.normalize(outputs) @ self.weight.T, targets)


def make_task(**options):
    metric = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01)
    about = {"model": network, "loss": cross_entropy, "metric": metric, "baseline": 1 / 3, "data": load}
    return gp.Task(**{"name": "options", "batch_size": BATCH, "epochs": EPOCHS, **about, **options})


def make_trial(rule=adamw, seed=0, lr=0.03, clip_norm=None, **values):
    return Trial(rule, rule.values(lr=lr, **values), seed, BATCH, EPOCHS, "cosine", True, clip_norm=clip_norm)


def plain_loop(task, trial, make=torch.optim.AdamW, groups=None):
    """Train a model in a plain loop, and return (model, loss, averaged model, training losses)."""
    data, seed = task.loaded, trial.seed
    with RngState(torch.Generator().manual_seed(seed)):
        model = task.model()
        loss = task.loss() if isinstance(task.loss, type | partial) else task.loss
    if isinstance(loss, nn.Module):
        loss.load_state_dict({name: x.clone() for name, x in loss.state_dict().items()})
    own = list(loss.parameters()) if isinstance(loss, nn.Module) else []
    optimizer = make(groups(model) if groups else [*model.parameters(), *own], **trial.values)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(task.ema or 0.9))
    train, order = data.split(seed).train, stream(seed, "order")
    steps = -(-len(train) // BATCH)
    factor = schedule(trial.schedule, EPOCHS * steps)
    rates, losses = [group["lr"] for group in optimizer.param_groups], []
    for epoch in range(EPOCHS):
        shuffled = train[torch.randperm(len(train), generator=order)]
        for number in range(steps):
            batch = shuffled[number * BATCH :][:BATCH]
            optimizer.zero_grad()
            total = 0.0
            for part in torch.split(batch, -(-len(batch) // task.accumulate)):
                share = len(part) / len(batch)
                value = loss(model(data.inputs[part]), data.targets[part]) * share
                value.backward()
                total += value.item()
            losses.append(total)
            if trial.clip_norm is not None:
                nn.utils.clip_grad_norm_([*model.parameters(), *own], trial.clip_norm)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor(epoch * steps + number)
            optimizer.step()
            average.update_parameters(model)
    return model, loss, average, losses


def adamw_arguments(trial):
    """Return the trial with arguments of `torch.optim.AdamW` instead of the rule's."""
    values = trial.values
    betas = (values["beta1"], values["beta2"])
    return replace(
        trial, values={"lr": values["lr"], "betas": betas, "eps": values["eps"], "weight_decay": values["weight_decay"]}
    )


def train(task, trials, mode):
    """Train trials, and return the trainer and the outcomes."""
    trainer = Trainer(task, trials, mode)
    return trainer, trainer.run()


def row_parameters(trainer, index):
    row = trainer.stack.rows.tolist().index(trainer.order.index(index))
    return {name: x[row] for name, x in trainer.stack.parameters.items()}


def assert_equal_models(trainer, index, model, prefix="", tolerance=1e-5):
    own = row_parameters(trainer, index)
    for name, x in model.named_parameters():
        torch.testing.assert_close(own[prefix + name], x.detach(), rtol=tolerance, atol=tolerance)


OPTIONS = {
    "clipping": ({}, 0.3),
    "accumulation": ({"accumulate": 3}, None),
    "accumulation and clipping": ({"accumulate": 4}, 0.3),
    "batch norm in micro-batches": ({"accumulate": 3, "model": network_with_batch_norm}, None),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPTIONS)
def test_equals_a_plain_loop(name, mode):
    options, clip_norm = OPTIONS[name]
    task = make_task(**options)
    trials = [make_trial(seed=seed, lr=lr, clip_norm=clip_norm, weight_decay=0.1) for seed, lr in ((0, 0.03), (1, 0.1))]
    trainer, _ = train(task, trials, MODES[mode])
    for index, trial in enumerate(trials):
        model, *_ = plain_loop(task, adamw_arguments(trial))
        assert_equal_models(trainer, index, model)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD, "rule"])
def test_groups_equal_a_plain_loop(make, mode):
    task = make_task(groups=layer_rates)
    if make == "rule":
        trial = make_trial(weight_decay=0.1)
        plain, make = adamw_arguments(trial), torch.optim.AdamW
    else:
        trial = plain = make_trial(TorchOptimizerAdapter(make), lr=0.03, weight_decay=0.1)

    def groups(model):
        lr, decay = 0.03, 0.1
        return [
            {"params": model[0].parameters(), "lr": 0.1 * lr, "weight_decay": 0.3},
            {"params": model[1].parameters(), "weight_decay": 0.0},
            {"params": model[3].parameters(), "weight_decay": 2 * decay},
        ]

    trainer, _ = train(task, [trial, trial], MODES[mode])
    model, *_ = plain_loop(task, plain, make, groups)
    assert_equal_models(trainer, 0, model)


@pytest.mark.parametrize("mode", MODES)
def test_average_equals_torch(mode):
    task, trial = make_task(ema=0.8, model=network_with_batch_norm), make_trial(weight_decay=0.1)
    trainer, outcomes = train(task, [trial, make_trial(seed=1)], MODES[mode])
    *_, average, _ = plain_loop(task, adamw_arguments(trial))
    row = trainer.order.index(0)
    for name, x in average.module.named_parameters():
        torch.testing.assert_close(trainer.average.averages[name][row], x.detach(), rtol=1e-5, atol=1e-5)
    test, data = task.loaded.split(0).test, task.loaded
    average.eval()
    expected = float(gp.tasks.accuracy(average(data.inputs[test]), data.targets[test]))
    assert outcomes[0].after["numbers"] == {"accuracy (EMA)": pytest.approx(expected)}
    assert outcomes[0].test_metric == train(task.change(ema=0.5), [trial], MODES[mode])[1][0].test_metric


def test_average_is_computed_in_final_runs_alone():
    trial = replace(make_trial(), evaluates_test=False)
    trainer, (outcome,) = train(make_task(ema=0.9), [trial], MODES["stacked"])
    assert trainer.average is None
    assert outcome.after is None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "loss", [Temperature(0.5), Temperature, partial(Prototypes, 3)], ids=["instance", "class", "partial"]
)
def test_trained_losses_equal_a_plain_loop(loss, mode):
    task = make_task(loss=loss)
    trials = [make_trial(seed=seed, weight_decay=0.1) for seed in (0, 1)]
    trainer, outcomes = train(task, trials, MODES[mode])
    for index, trial in enumerate(trials):
        fresh = make_task(loss=Temperature(0.5) if isinstance(loss, nn.Module) else loss)
        model, trained_loss, *_ = plain_loop(fresh, adamw_arguments(trial))
        assert_equal_models(trainer, index, model, "model.")
        assert_equal_models(trainer, index, trained_loss, "loss.")
        test, data = task.loaded.split(trial.seed).test, task.loaded
        expected = trained_loss(model(data.inputs[test]), data.targets[test]).item()
        assert outcomes[index].test_loss == pytest.approx(expected, rel=1e-4)
    if isinstance(loss, nn.Module):
        assert loss.log_scale.item() == 0.5


class Centered(nn.Module):
    """Cross-entropy of outputs minus their moving average, as in DINO.

    Args:
        assigns: replace the buffer instead of changing its values.
    """

    def __init__(self, assigns):
        super().__init__()
        self.assigns = assigns
        self.register_buffer("center", torch.zeros(3))

    def forward(self, outputs, targets):
        loss = nn.functional.cross_entropy(3 * (outputs - self.center), targets)
        if self.training:
            center = 0.5 * self.center + 0.5 * outputs.detach().mean(0)
            if self.assigns:
                self.center = center
            else:
                self.center.copy_(center)
        return loss


@pytest.mark.parametrize(("mode", "assigns"), [("stacked", False), ("sequential", False), ("sequential", True)])
def test_buffers_of_a_loss_belong_to_the_run(mode, assigns):
    task = make_task(loss=Centered(assigns))
    trials = [make_trial(seed=seed) for seed in (0, 1)]
    _, outcomes = train(task, trials, MODES[mode])
    for index, trial in enumerate(trials):
        losses = plain_loop(make_task(loss=Centered(assigns)), adamw_arguments(trial))[3]
        steps = len(losses) // EPOCHS
        sizes = [BATCH] * (steps - 1) + [len(task.loaded.split(trial.seed).train) - BATCH * (steps - 1)]
        assert outcomes[index].curve[-1][1] == pytest.approx(np.average(losses[-steps:], weights=sizes), rel=1e-4)
    assert not task.loss.center.any()


def test_a_loss_that_replaces_its_buffers_is_not_stacked():
    with pytest.raises(TaskError, match="puts other tensors in the place of its buffers loss.center"):
        train(make_task(loss=Centered(True)), [make_trial()], MODES["stacked"])


class Standardized(Centered):
    """Centered cross-entropy of outputs that are divided by their deviation, which is zero for equal examples."""

    def forward(self, outputs, targets):
        return super().forward((outputs - outputs.mean(0)) / outputs.std(0), targets)


def test_an_error_in_the_recording_of_a_step_is_not_taken_for_divergence():
    # A step is recorded with zeros, for which this loss is NaN.
    with pytest.raises(TaskError, match="puts other tensors in the place of its buffers loss.center"):
        train(make_task(loss=Standardized(True)), [make_trial()], MODES["stacked"])


class LayerDrop(nn.Module):
    """Network that skips a layer in some steps, and has one that it never trains."""

    def __init__(self):
        super().__init__()
        self.first, self.skipped, self.last, self.unused = (nn.Linear(*n) for n in ((5, 8), (8, 8), (8, 3), (8, 8)))

    def forward(self, x):
        h = self.first(x).relu()
        if not self.training or torch.rand(()) < 0.4:
            h = h + self.skipped(h).tanh()
        return self.last(h)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("make", [None, torch.optim.AdamW, torch.optim.SGD])
def test_a_parameter_without_a_gradient_is_left_as_it_is(make, accumulate):
    task = make_task(model=LayerDrop, accumulate=accumulate)
    values = {"weight_decay": 0.5} | ({"momentum": 0.9} if make is torch.optim.SGD else {})
    rule = TorchOptimizerAdapter(make) if make else adamw
    trials = [make_trial(rule, seed, **values) for seed in (0, 1, 2)]
    trainer, _ = train(task, trials, MODES["sequential"])
    for index, trial in enumerate(trials):
        expected = trial if make else adamw_arguments(trial)
        with RngState(stream(trial.seed, "noise")):
            model, *_ = plain_loop(task, expected, make or torch.optim.AdamW)
        assert_equal_models(trainer, index, model)


STACKABLE = {
    "clipping": ({}, 0.3),
    "groups": ({"groups": layer_rates}, None),
    "all": ({"groups": "no_decay_norms", "accumulate": 3, "ema": 0.9, "loss": Temperature}, 0.5),
}


@pytest.mark.parametrize("name", STACKABLE)
def test_rows_do_not_depend_on_the_stack(name):
    options, clip_norm = STACKABLE[name]
    task = make_task(**options)
    trials = [
        make_trial(rule, seed, lr, clip_norm and clip_norm * (1 + seed))
        for rule, seed, lr in product((adamw, sgd), (0, 1, 2), (0.01, 0.1))
    ]
    muon = make_trial(TorchOptimizerAdapter(gp.optim.MuonWithAuxAdam), 1, 0.02, clip_norm)
    together = train(task, [*trials, muon], MODES["stacked"])[1]
    for index in (1, 8):
        assert train(task, [trials[index]], MODES["stacked"])[1][0].to_json() == together[index].to_json()
    pair = train(task, trials[7:9], MODES["stacked"])[1]
    assert [outcome.to_json() for outcome in pair] == [outcome.to_json() for outcome in together[7:9]]


def test_thresholds_share_a_stack_and_change_the_trial():
    free, tight, loose = (make_trial(clip_norm=clip_norm) for clip_norm in (None, 0.1, 10.0))
    assert tight.stack_key == loose.stack_key != free.stack_key
    assert len({trial.key for trial in (free, tight, loose)}) == 3
    outcomes = train(make_task(), [tight, loose], MODES["stacked"])[1]
    assert outcomes[1].curve == train(make_task(), [loose], MODES["stacked"])[1][0].curve
    assert outcomes[0].curve != outcomes[1].curve


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clipping_equals_torch(dtype):
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(5, *shape, generator=generator, dtype=dtype) for shape in ((4, 6), (6,), ())]
    gradients[0][2, 0, 0], gradients[1][3, 0] = float("inf"), float("nan")
    gradients[0][4] *= 1e-4
    max_norms = torch.tensor([0.5, 100.0, 1.0, 1.0, 2.0])
    clipped = GradientClipper(max_norms)(gradients)
    for row, max_norm in enumerate(max_norms.tolist()):
        parameters = [nn.Parameter(torch.zeros_like(g[row])) for g in gradients]
        for parameter, g in zip(parameters, gradients, strict=True):
            parameter.grad = g[row].clone()
        nn.utils.clip_grad_norm_(parameters, max_norm)
        for parameter, g in zip(parameters, clipped, strict=True):
            torch.testing.assert_close(g[row], parameter.grad, rtol=1e-6, atol=1e-7, equal_nan=True)


def test_defaults_change_no_identity():
    task, trial = make_task(), make_trial()
    assert "clip_norm" not in trial.identity
    same = task.change(accumulate=1)
    vars(same).pop("fingerprint", None)
    assert same.fingerprint == task.fingerprint == task.change(clip_norm=1.0).fingerprint
    others = {"accumulate": 2, "ema": 0.9, "groups": "no_decay_norms"}
    assert len({task.change(**{name: value}).fingerprint for name, value in others.items()} | {task.fingerprint}) == 4
    assert "options" not in make_plan(task, "adamw,sgd").description


def test_clip_norm_is_tuned():
    task = make_task(clip_norm=2.0)
    plan = make_plan(task, "adamw,nesterov", tune="clip_norm", trials=12)
    assert plan.tuned == ["lr", "clip_norm"]
    entry = plan.entries[0]
    assert entry.space["clip_norm"] == gp.log(0.2, 20.0)
    assert plan.tuning_trial(entry, {"lr": 0.1, "clip_norm": 0.7}, 0).clip_norm == 0.7
    fixed = make_plan(task, "adamw,nesterov")
    assert fixed.tuning_trial(fixed.entries[0], {"lr": 0.1}, 0).clip_norm == 2.0
    assert "clip_norm" not in entry.code(lr=0.1, clip_norm=0.7)
    tuned = {"lr": 0.1, "clip_norm": 0.7}
    best = make_best(plan, entry, tuned)
    assert best.clip_norm == 0.7
    assert format_code(best, tuned) == "gradprix.optim.AdamW(params, lr=0.1), trained with clip_norm=0.7"
    assert format_code(best, {"lr": 0.1}) == best.code
    assert make_best(fixed, fixed.entries[0], {"lr": 0.1}).clip_norm == 2.0


def test_no_decay_norms():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm((4, 4)), nn.Embedding(5, 4), nn.Linear(4, 2)
    )
    decayed, others = parameter_groups("no_decay_norms", model)
    assert set(decayed.names) == {"0.weight", "3.weight", "4.weight"}
    assert dict(others.settings) == {"weight_decay": 0.0}
    assert len(no_decay_norms(model)[1]["params"]) == len(others.names)


WRONG_GROUPS = {
    "missing": (lambda model: [{"params": model[0].parameters()}], "1.weight"),
    "twice": (lambda model: [{"params": model.parameters()}, {"params": ["0.weight"]}], "0.weight"),
    "rate": (lambda model: [{"params": model.parameters(), "lr": 0.1}], "lr_factor"),
    "other": (lambda model: [{"params": [nn.Parameter(torch.zeros(2))]}], "not a parameter of the model"),
    "name": (lambda model: [{"params": ["0.wieght"]}], "0.wieght"),
    "negative": (lambda model: [{"params": model.parameters(), "lr_factor": -1}], "lr_factor = -1"),
    "list": (lambda model: list(model.parameters()), "not a dictionary"),
    "nothing": (lambda model: None, "groups returns None, not a list"),
}


def test_names_in_groups_are_for_tasks_alone():
    model = network()
    plan = make_plan(make_task(), "adamw,sgd")
    best = make_best(plan, plan.entries[0], {"lr": 0.1})
    with pytest.raises(TypeError, match=r"has the name '1.weight' in params.*model\.get_parameter\('1.weight'\)"):
        best.make(layer_rates(model))
    optimizer = best.make([{"params": model[0].parameters(), "lr_factor": 0.5}, {"params": model[1].weight}])
    assert [(len(group["params"]), group["lr"]) for group in optimizer.param_groups] == [(2, 0.05), (1, 0.1)]


def test_groups_of_a_model_with_a_trained_loss_are_explained():
    with pytest.raises(TaskError, match="groups gets a module with the attributes model and loss"):
        validate_task(make_task(groups=lambda model: model.head, loss=Temperature))


@pytest.mark.parametrize("name", WRONG_GROUPS)
def test_wrong_groups_are_refused(name):
    groups, words = WRONG_GROUPS[name]
    with pytest.raises(TaskError, match=words):
        validate_task(make_task(groups=groups))


@pytest.mark.parametrize(
    "options", [{"clip_norm": 0.0}, {"accumulate": 0}, {"accumulate": 1.5}, {"ema": 1.0}, {"groups": "no_decay"}]
)
def test_wrong_values_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make_task(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": "16"},
        {"epochs": "2"},
        {"baseline": "0.5"},
        {"accumulate": None},
        {"accumulate": True},
        {"clip_norm": "1"},
        {"clip_norm": True},
        {"clip_norm": torch.ones(2)},
        {"ema": "0.9"},
        {"batch_size": 16.5},
        {"accumulate": math.nan},
    ],
)
def test_arguments_that_are_no_numbers_are_refused(options):
    (name,) = options
    with pytest.raises((TypeError, ValueError), match=f"{name} = .*: it must be a "):
        make_task(**options)


def test_numbers_of_other_types_are_converted():
    given = {"batch_size": 16.0, "epochs": np.int64(2), "accumulate": 2.0, "clip_norm": torch.tensor(0.5)}
    task = make_task(**given)
    assert {name: getattr(task, name) for name in given} == {name: float(value) for name, value in given.items()}
    assert [type(getattr(task, name)) for name in given] == [int, int, int, float]
    trial = make_trial(clip_norm=task.clip_norm)
    expected = Trainer(make_task(batch_size=16, epochs=2, accumulate=2, clip_norm=0.5), [trial]).run()
    assert Trainer(task, [trial]).run()[0].curve == expected[0].curve


def test_a_function_that_uses_parameters_is_refused():
    criterion = Temperature()
    with pytest.raises(TaskError, match=r"loss=MyLoss\(\)"):
        validate_task(make_task(loss=lambda outputs, targets: criterion(outputs, targets)))
    validate_task(make_task(loss=criterion))


def test_micro_batches_take_less_memory():
    sizes = []

    class Watched(nn.Linear):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    task = make_task(model=lambda: Watched(5, 3), accumulate=4)
    stack = ModelStack(task, [make_trial()], MODES["sequential"])
    stack.step(stack.data.train[:, :BATCH], 1.0)
    assert sizes == [BATCH // 4] * 4


class Mixup(nn.Module):
    """Model that mixes pairs of examples in training."""

    def __init__(self, draw):
        super().__init__()
        self.net, self.draw = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), draw

    def forward(self, x):
        if not self.training:
            return self.net(x), torch.ones(()), torch.arange(len(x))
        permutation, lam = torch.randperm(len(x)), self.draw(len(x))
        mixed = lam * x + (1 - lam) * x[permutation]
        return self.net(mixed), lam, permutation


def mixed_loss(outputs, targets):
    outputs, lam, permutation = outputs
    first, second = (
        nn.functional.cross_entropy(outputs, y, reduction="none", label_smoothing=0.1)
        for y in (targets, targets[permutation])
    )
    lam = torch.as_tensor(lam).squeeze(-1)
    return (lam * first + (1 - lam) * second).mean()


DRAWS = {
    "uniform": lambda count: torch.rand(()),
    "beta": lambda count: torch.distributions.Beta(0.4, 0.4).sample(),
    "beta of each example": lambda count: torch.distributions.Beta(0.4, 0.4).sample((count, 1)),
}


def mixup_task(draw):
    metric = gp.Metric("accuracy", lambda out, y: gp.tasks.accuracy(out[0], y), higher_is_better=True, margin=0.01)
    return make_task(model=lambda: Mixup(draw), loss=mixed_loss, metric=metric)


@pytest.mark.parametrize("name", DRAWS)
def test_mixup_is_stacked(name):
    task = mixup_task(DRAWS[name])
    validate_task(task)
    trials = [make_trial(seed=seed, lr=lr) for seed, lr in ((0, 0.03), (0, 0.1), (1, 0.03))]
    stacked, sequential = (train(task, trials, mode)[1] for mode in MODES.values())
    for one, other in zip(stacked, sequential, strict=True):
        assert one.test_loss == pytest.approx(other.test_loss, rel=1e-4)
        assert [x[1] for x in one.curve] == pytest.approx([x[1] for x in other.curve], rel=1e-4)
    assert train(task, trials[2:], MODES["stacked"])[1][0].to_json() == stacked[2].to_json()


def test_mixup_with_numpy_is_not_stacked():
    task = mixup_task(lambda count: float(np.random.beta(0.4, 0.4)))
    mode = check(make_plan(task, "adamw,sgd"))
    assert not mode.stacked
    assert "NumPy" in mode.stack_rejection.message


def test_clipping_runs_row_by_row(monkeypatch):
    calls = []
    prepare = GradientClipper.row_call
    monkeypatch.setattr(GradientClipper, "row_call", lambda *args: calls.append(prepare(*args)) or calls[-1])
    train(make_task(groups=layer_rates), [make_trial(clip_norm=0.3)], MODES["stacked"])
    assert calls
    assert None not in calls


def all_options():
    """Return a task with every option, and a trial of it."""
    task = make_task(loss=Temperature(0.3), groups="no_decay_norms", accumulate=3, ema=0.9, clip_norm=0.4)
    return task, make_trial(clip_norm=0.4, weight_decay=0.1)


def test_traces_and_explanations_use_the_options():
    task, trial = all_options()
    trainer = train(task, [trial], MODES["stacked"])[0]
    traced = gp.explain.trace("adamw", task, trainer.total_steps, lr=0.03, weight_decay=0.1)
    for name, x in row_parameters(trainer, 0).items():
        layer = traced.layers[name]
        torch.testing.assert_close(layer.points[-1].to(x).flatten(), x.flatten()[layer.index], rtol=1e-4, atol=1e-5)
    (run,) = watch(task, [trial], MODES["stacked"])
    assert run.lasted
    assert run.points
    assert max(run.gradients) <= 0.4 * (1 + 1e-5)
    assert run.outcome.to_json() == train(task, [trial], MODES["stacked"])[1][0].to_json()


def test_timing_of_a_step_goes_on_while_all_calls_wait_for_a_processor():
    calls = []

    def loss(output, target):
        calls.append(output)
        if len(calls) < 7:
            time.sleep(0.4)  # as if other processes had all processors
        return nn.functional.cross_entropy(output, target)

    task = gp.tasks.digits.change(loss=loss)
    (seconds,) = seconds_of_steps(task, [Trial(sgd, sgd.values(), 0, 32, 1, "cosine", False)])
    assert seconds < 0.2


def test_step_times_use_the_options():
    task, trial = all_options()
    sgd_trial = make_trial(TorchOptimizerAdapter(torch.optim.SGD), lr=0.1)
    assert all(seconds > 0 for seconds in seconds_of_steps(task, [trial, sgd_trial]))
    model = task.build()
    decays = {group["weight_decay"] for group in make_plain_optimizer(task, model, trial).param_groups}
    assert decays == {0.0, 0.1}
    data = task.loaded
    compute_plain_gradients(task, model, [(1.0, data.inputs[:BATCH], data.targets[:BATCH])], 0.01)
    norm = torch.stack([x.grad.norm() for x in model.parameters()]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_plans_and_reports_name_the_options(tmp_path):
    task, _ = all_options()
    plan = make_plan(task, "adamw,nesterov", trials=2, seeds=6)
    assert plan.description["options"] == {
        "clip_norm": 0.4,
        "accumulate": 3,
        "groups": "no_decay_norms",
        "ema": 0.9,
    }
    assert "clipped to the norm 0.4" in describe_run(plan)
    result = gp.race(task, "adamw,nesterov", trials=2, seeds=6, out=tmp_path)
    assert result.record.plan.options == plan.description["options"]
    assert gp.load(tmp_path).record.plan.options == plan.description["options"]
    page = report(result.record)
    assert "accuracy (EMA)" in page
    assert "clip_grad_norm_(model.parameters(), 0.4)" in page
    assert "best.make(gradprix.tasks.no_decay_norms(model))" in page
    optimizer = result.best.make(gp.tasks.no_decay_norms(network()))
    assert optimizer.param_groups[1]["weight_decay"] == 0.0
