"""Optimizers that need more than parameters: a model, the number of steps, closures, or several gradients in a step.

The oracle is a plain PyTorch loop with the same batches and the same noise.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradprix as gp
from gradprix.race.efficiency import seconds_of_steps
from gradprix.rules import adamw, sgd
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.training import ExecutionMode, TorchOptimizerAdapter, Trainer, Trial
from gradprix.training.combined_optimizer import CombinedOptimizer
from gradprix.training.plain_step import make_plain_optimizer, read_micro_batches, take_plain_step

STACKED, SEQUENTIAL = ExecutionMode(), ExecutionMode(stacked=False)
EXAMPLES, BATCH, EPOCHS = 90, 16, 2
STEPS = 8
"""Number of steps of a run: 4 in each epoch, with 60 training examples."""
Compute = Callable[[], Tensor]
"""Function that computes the gradients of the current batch and returns the loss."""


def load(dtype: torch.dtype = torch.float32) -> gp.Data:
    generator = torch.Generator().manual_seed(0)
    return gp.Data(torch.randn(EXAMPLES, 5, generator=generator).to(dtype), torch.arange(EXAMPLES) % 3)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def noisy_network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def make_task(model: Callable[[], nn.Module] = network, dtype: torch.dtype = torch.float32, **options: Any) -> gp.Task:
    metric = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01)
    about: dict[str, Any] = {"batch_size": BATCH, "epochs": EPOCHS, **options}
    loss, data = nn.functional.cross_entropy, partial(load, dtype)
    return gp.Task("small", lambda: model().to(dtype), loss, metric, 1 / 3, data, **about)


def make_trial(rule: Any, seed: int = 0, closure: bool = False, **values: Any) -> Trial:
    rule = TorchOptimizerAdapter(rule, closure) if callable(rule) and not hasattr(rule, "tree") else rule
    return Trial(rule, rule.values(**values), seed, BATCH, EPOCHS, "cosine", True)


def batches(task: gp.Task, seed: int) -> Iterator[Tensor]:
    """Yield the indices of the batches of a run."""
    train, order = task.loaded.split(seed).train, stream(seed, "order")
    for _ in range(EPOCHS):
        yield from train[torch.randperm(len(train), generator=order)].split(BATCH)


def plain_loop(
    task: gp.Task,
    seed: int,
    make: Callable[[nn.Module], torch.optim.Optimizer],
    step: Callable[[nn.Module, torch.optim.Optimizer, Compute], Any],
) -> nn.Module:
    """Train a model in a plain loop, with the cosine schedule.

    Args:
        task: the task.
        seed: seed of the run.
        make: returns the optimizer of the model.
        step: performs a step, given the model, the optimizer and a function that computes the gradients.
    """
    model, data = init_model(task.build, seed), task.loaded
    optimizer = make(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, gp.schedule("cosine", STEPS))
    with RngState(stream(seed, "noise")):
        for index in batches(task, seed):

            def compute(index: Tensor = index) -> Tensor:
                optimizer.zero_grad()
                loss = task.loss(model(data.inputs[index]), data.targets[index])
                loss.backward()
                return loss

            step(model, optimizer, compute)
            schedule.step()
    return model


def assert_equals_plain_loop(
    task: gp.Task,
    trials: list[Trial],
    mode: ExecutionMode,
    make: Callable[..., torch.optim.Optimizer],
    step: Callable[..., Any],
) -> list[int | None]:
    """Compare the weights and buffers of trials with those of plain loops; return the numbers of gradients."""
    trainer = Trainer(task, trials, mode)
    outcomes = trainer.run()
    for index, trial in enumerate(trials):
        row = trainer.stack.rows.tolist().index(trainer.order.index(index))
        model = plain_loop(task, trial.seed, partial(make, **trial.values), step)
        tensors = {**trainer.stack.parameters, **trainer.stack.buffers}
        for name, x in [*model.named_parameters(), *model.named_buffers()]:
            tolerance = 1e-10 if x.dtype is torch.float64 else 1e-4
            torch.testing.assert_close(tensors[name][row], x.detach(), rtol=tolerance, atol=0.1 * tolerance)
    return [outcome.gradients for outcome in outcomes]


# Optimizers that take a model, and the number of steps


class Matrices(torch.optim.SGD):
    """Gradient descent that rejects all parameters but matrices, as `torch.optim.Muon` does."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr, momentum=0.9)
        if any(x.ndim != 2 for group in self.param_groups for x in group["params"]):
            raise ValueError("only supports 2D parameters")


def two_optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    hidden = [x for x in model.parameters() if x.ndim == 2]
    others = [x for x in model.parameters() if x.ndim != 2]
    return [Matrices(hidden, lr=lr), torch.optim.AdamW(others, lr=0.1 * lr)]


def named_groups(model: nn.Module, lr: float, weight_decay: float = 0.1) -> torch.optim.Optimizer:
    decayed = {name: x for name, x in model.named_parameters() if name.endswith("weight")}
    rest = [x for name, x in model.named_parameters() if name not in decayed]
    groups = [{"params": list(decayed.values()), "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr)


def final_steps(model, lr: float, total_steps: int) -> torch.optim.Optimizer:  # type: ignore[no-untyped-def]
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=1 - 1 / total_steps)


class OfModel(torch.optim.SGD):
    """Takes the model, as AdamMini does."""

    def __init__(self, model: nn.Module, lr: float = 0.1) -> None:
        super().__init__(model[0].parameters(), lr)


class Iterations(torch.optim.SGD):
    """Takes the number of steps, as Ranger21 does."""

    def __init__(self, params: Any, num_iterations: int, lr: float = 0.1) -> None:
        super().__init__(params, lr, momentum=1 - 1 / num_iterations)


def of_parameters(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=lr, momentum=0.5)


def combined(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return CombinedOptimizer(two_optimizers(model, lr))


PLAIN: dict[Any, Callable[..., torch.optim.Optimizer]] = {
    two_optimizers: combined,
    named_groups: named_groups,
    final_steps: partial(final_steps, total_steps=STEPS),
    OfModel: OfModel,
    Iterations: lambda model, lr: Iterations(model.parameters(), STEPS, lr),
    of_parameters: lambda model, lr: of_parameters(model.parameters(), lr),
    partial(of_parameters): lambda model, lr: of_parameters(model.parameters(), lr),
}


def usual_step(model: nn.Module, optimizer: torch.optim.Optimizer, compute: Compute) -> None:
    compute()
    optimizer.step()


@pytest.mark.parametrize("mode", [STACKED, SEQUENTIAL], ids=["stacked", "sequential"])
@pytest.mark.parametrize("make", PLAIN, ids=lambda make: getattr(make, "__name__", "partial"))
def test_factories_train_as_in_a_plain_loop(make: Any, mode: ExecutionMode) -> None:
    trials = [make_trial(make, seed, lr=0.05 * (1 + seed)) for seed in (0, 1)]
    gradients = assert_equals_plain_loop(make_task(), trials, mode, PLAIN[make], usual_step)
    assert gradients == [STEPS, STEPS]


def test_combined_optimizer_equals_its_optimizers_in_schedules_and_checkpoints() -> None:
    def models() -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        model = network()
        twin = network()
        twin.load_state_dict(model.state_dict())
        return model, twin

    model, twin = models()
    whole, parts = CombinedOptimizer(two_optimizers(model, 0.1)), two_optimizers(twin, 0.1)
    schedule = torch.optim.lr_scheduler.StepLR(whole, 2, 0.1)
    x = torch.randn(7, 5)
    for number in range(6):
        for each in (model, twin):
            each.zero_grad()
            each(x).square().sum().backward()
        whole.step()
        for part in parts:
            part.step()
        schedule.step()
        for part in parts:
            for group in part.param_groups:
                group["lr"] *= 0.1 if number % 2 else 1.0
        if number == 2:  # goes on from a checkpoint
            saved = whole.state_dict()
            whole = CombinedOptimizer(two_optimizers(model, 0.1))
            whole.load_state_dict(saved)
            schedule.optimizer = whole
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="more than one parameter group"):
        CombinedOptimizer([torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(model[0].parameters(), 0.1)])


# Closures


class Extrapolation(torch.optim.Optimizer):
    """Extragradient: steps from the old weights along the gradient at the weights after a step."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        params = [(x, group["lr"]) for group in self.param_groups for x in group["params"]]
        with torch.enable_grad():
            loss = closure()
        old = [x.clone() for x, _ in params]
        for x, lr in params:
            x.sub_(lr * x.grad)
        with torch.enable_grad():
            closure()
        for (x, lr), before in zip(params, old, strict=True):
            x.copy_(before - lr * x.grad)
        return loss


class Sam(torch.optim.Optimizer):
    """SAM as its users write it: the gradients are computed before the step, and `.data` is replaced.

    Foret et al. 2020, arXiv:2010.01412, algorithm 1.
    """

    def __init__(self, params: Any, base: type[torch.optim.Optimizer], rho: float, **values: Any) -> None:
        super().__init__(params, {"rho": rho, **values})
        self.base = base(self.param_groups, **values)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        assert closure is not None
        params = [x for group in self.param_groups for x in group["params"] if x.grad is not None]
        norm = torch.stack([x.grad.norm() for x in params]).norm()
        old = [x.data.clone() for x in params]
        for x in params:
            x.data = x.data + self.param_groups[0]["rho"] * x.grad / norm
        with torch.enable_grad():
            closure()
        for x, before in zip(params, old, strict=True):
            x.data = before
        self.base.step()


def sam(params: Any, lr: float, rho: float = 0.05) -> torch.optim.Optimizer:
    return Sam(params, torch.optim.SGD, rho, lr=lr, momentum=0.9)


def closure_step(model: nn.Module, optimizer: torch.optim.Optimizer, compute: Compute) -> None:
    optimizer.step(compute)


def step_after_backward(model: nn.Module, optimizer: torch.optim.Optimizer, compute: Compute) -> None:
    compute()
    optimizer.step(compute)


CLOSURES: dict[str, tuple[Any, dict[str, float], Callable[..., Any], int | None]] = {
    "LBFGS": (torch.optim.LBFGS, {"lr": 0.3, "max_iter": 3}, closure_step, None),
    "extragradient": (Extrapolation, {"lr": 0.1}, closure_step, 2 * STEPS),
    "SAM": (sam, {"lr": 0.1}, step_after_backward, 2 * STEPS),
}


@pytest.mark.parametrize("model", [network, noisy_network])
@pytest.mark.parametrize("name", CLOSURES)
def test_closures_train_as_in_a_plain_loop(name: str, model: Callable[[], nn.Module]) -> None:
    make, values, step, count = CLOSURES[name]
    trials = [make_trial(make, seed, closure=True, **values) for seed in (0, 1)]
    plain = partial(lambda network, **given: make(network.parameters(), **given))
    gradients = assert_equals_plain_loop(make_task(model, torch.float64), trials, SEQUENTIAL, plain, step)
    assert all(each == count if count else each > 2 * STEPS for each in gradients)


def test_closures_accumulate_and_clip_gradients() -> None:
    def clipped(model: nn.Module, optimizer: torch.optim.Optimizer, compute: Compute) -> None:
        def closure() -> Tensor:
            loss = compute()
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            return loss

        optimizer.step(closure)

    trials = [replace(make_trial(Extrapolation, seed, lr=0.1), clip_norm=0.25) for seed in (0, 1)]
    plain = partial(lambda network, **given: Extrapolation(network.parameters(), **given))
    assert_equals_plain_loop(make_task(dtype=torch.float64, accumulate=3), trials, SEQUENTIAL, plain, clipped)


def test_a_class_whose_step_requires_a_closure_gets_one() -> None:
    assert [TorchOptimizerAdapter(each).closure for each in (torch.optim.LBFGS, Extrapolation, sam)] == [
        True,
        True,
        False,
    ]
    own, shared = make_trial(Extrapolation, lr=0.1), make_trial(torch.optim.SGD, lr=0.1)
    assert own.stack_key != shared.stack_key
    assert own.key != make_trial(torch.optim.SGD, lr=0.1).key


# Sharpness-aware minimization in the trainer


def sharpness_aware(rho: float, clip_norm: float | None = None) -> Callable[..., None]:
    """Return the step of algorithm 1 in arXiv:2010.01412; running means are those of the first pass."""

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, compute: Compute) -> None:
        compute()
        old = {name: x.detach().clone() for name, x in model.state_dict().items()}
        norm = torch.linalg.vector_norm(torch.cat([x.grad.flatten() for x in model.parameters()]))
        with torch.no_grad():
            for x in model.parameters():
                x += rho * x.grad / norm
        compute()
        model.load_state_dict(old)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()

    return step


def plain_sgd(model: nn.Module, lr: float, **_: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


@pytest.mark.parametrize("mode", [STACKED, SEQUENTIAL], ids=["stacked", "sequential"])
@pytest.mark.parametrize(
    ("model", "clip_norm", "accumulate"), [(network, None, 1), (network, 0.3, 3), (noisy_network, None, 1)]
)
def test_sharpness_aware_steps_equal_a_plain_loop(
    model: Callable[[], nn.Module], clip_norm: float | None, accumulate: int, mode: ExecutionMode
) -> None:
    for rule, values in ((sgd, {"momentum": 0.9}), (torch.optim.SGD, {"momentum": 0.9})):
        trials = [
            replace(make_trial(rule, seed, lr=0.1, **values), sam_rho=0.2, clip_norm=clip_norm) for seed in (0, 1)
        ]
        task = make_task(model, accumulate=accumulate)
        gradients = assert_equals_plain_loop(task, trials, mode, plain_sgd, sharpness_aware(0.2, clip_norm))
        assert gradients == [2 * STEPS] * 2


def test_sharpness_aware_rows_do_not_depend_on_the_stack() -> None:
    trials = [
        replace(make_trial(rule, seed, lr=0.02), sam_rho=rho)
        for rule in (sgd, adamw)
        for seed, rho in ((0, 0.1), (1, 0.5))
    ]
    together = [outcome.to_json() for outcome in Trainer(make_task(), trials, STACKED).run()]
    for index in (1, 2):
        assert Trainer(make_task(), [trials[index]], STACKED).run()[0].to_json() == together[index]
    free = replace(trials[0], sam_rho=None)
    assert free.stack_key != trials[0].stack_key
    assert free.key != trials[0].key
    assert Trainer(make_task(), [free], STACKED).run()[0].to_json() != together[0]


# Timing in a plain loop


@pytest.mark.parametrize("name", ["closure", "sam", "factory"])
def test_a_plain_step_equals_the_trainer(name: str) -> None:
    trial = {
        "closure": make_trial(Extrapolation, lr=0.1),
        "sam": replace(make_trial(sgd, lr=0.1, momentum=0.9), sam_rho=0.2),
        "factory": make_trial(final_steps, lr=0.1),
    }[name]
    trial, task = replace(trial, schedule="constant"), make_task(noisy_network)
    trainer = Trainer(task, [trial], SEQUENTIAL)
    trainer.run()
    model, data = init_model(task.build, trial.seed), task.loaded
    optimizer = make_plain_optimizer(task, model, trial)
    with RngState(stream(trial.seed, "noise")):
        for index in batches(task, trial.seed):
            parts = read_micro_batches(task, index, lambda part: (data.inputs[part], data.targets[part]))
            take_plain_step(task, model, parts, optimizer, trial)
    for x_name, x in model.named_parameters():
        torch.testing.assert_close(trainer.stack.parameters[x_name][0], x.detach(), rtol=1e-4, atol=1e-5)
    (seconds,) = seconds_of_steps(task, [trial])
    assert seconds > 0
