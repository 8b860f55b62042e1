"""A trial's numbers depend on its plan alone, and are those of a plain PyTorch loop."""

import inspect
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix import optim, rules, tasks
from gradprix.explain.resolve import resolve_optimizer
from gradprix.race import ENTRIES, Entry, Local, entries
from gradprix.rules import Log
from gradprix.tasks.rng import init_model, stream
from gradprix.tasks.task import TaskError
from gradprix.training import Callback, Trainer
from gradprix.training.execution_mode import STACKED, ExecutionMode
from gradprix.training.trainer import train_stack
from gradprix.training.trial import Outcome, Trial

RATES = {"sgd": 0.3, "adagrad": 0.05, "adadelta": 2.0, "rmsprop": 3e-3}
VARIANTS = [entry for entry in ENTRIES.values() if entry.batch_size is None and isinstance(entry.rule, rules.Rule)]
SHORT = tasks.digits.change(epochs=2)


def trial(entry: object = "adam", lr: float = 1e-2, seed: int = 1, epochs: int = 2, batch_size: int = 32) -> Trial:
    entry = ENTRIES[entry] if isinstance(entry, str) else entry
    return Trial(entry.rule, entry.values(lr), seed, batch_size, epochs, "cosine", evaluates_test=True)


def plain(t: Trial, task: tasks.Task = SHORT) -> tuple[nn.Module, list[float]]:
    """The same run as anyone would write it: torch.optim, a scheduler, one network."""
    data, cut = task.loaded, task.loaded.split(t.seed)
    model, order = init_model(task.model, t.seed), stream(t.seed, "order")
    values = dict(t.values)
    if t.rule.betas:
        values["betas"] = tuple(values.pop(name) for name in t.rule.betas)
    cls = next(c for name in optim.__all__ if getattr(c := getattr(optim, name), "rule", None) is t.rule)
    # What torch lacks is stepped by the rule itself, which has tests of its own against its authors' arithmetic.
    make = getattr(torch.optim, cls.__name__, partial(cls, fused=False))
    known = inspect.signature(make).parameters
    optimizer = make(model.parameters(), **{name: value for name, value in values.items() if name in known})
    batch = t.batch_size or len(cut.train)
    steps = t.epochs * -(-len(cut.train) // batch)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, tasks.schedule(t.schedule, steps))
    losses = []
    for _ in range(t.epochs):
        for index in cut.train[torch.randperm(len(cut.train), generator=order)].split(batch):
            loss = task.loss(model(data.inputs[index]), data.targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
    if hasattr(optimizer, "eval"):  # evaluates the model at other weights than it trains
        optimizer.eval()
    return model.eval(), losses


@pytest.mark.parametrize("entry", VARIANTS, ids=lambda e: e.name)
def test_a_stacked_run_is_a_plain_pytorch_loop(entry: object) -> None:
    # float64 leaves no room for a wrong formula to hide behind rounding.
    def data() -> tasks.Data:
        single = tasks.digits.loaded
        return tasks.Data(single.inputs.double(), single.targets, stratify=True)

    task = SHORT.change(data=data, model=lambda: tasks.digits.model().double())
    t = trial(entry, RATES.get(entry.rule.name, 1e-2))
    (outcome,) = train_stack(task, [t])
    model, losses = plain(t, task)
    cut = task.loaded.split(t.seed)
    with torch.no_grad():
        output = model(task.loaded.inputs[cut.test])
    assert outcome.test_loss == pytest.approx(task.loss(output, task.loaded.targets[cut.test]).item(), rel=1e-9)
    assert outcome.test_metric == tasks.accuracy(output, task.loaded.targets[cut.test]).item()
    n = len(cut.train)
    sizes = [min(32, n - start) for start in range(0, n, 32)]
    for epoch, point in enumerate(outcome.curve):
        mean = sum(s * x for s, x in zip(sizes, losses[epoch * len(sizes) :], strict=False)) / n
        assert point[:2] == (n * (epoch + 1), pytest.approx(mean, rel=1e-9))


def test_a_run_in_float32_stays_near_the_plain_loop() -> None:
    t = trial("nadam", 2e-3)
    _, losses = plain(t)

    assert train_stack(SHORT, [t])[0].curve[0][1] == pytest.approx(
        sum(losses[:33]) * 32 / 1077 + losses[33] * 21 / 1077, rel=1e-5
    )


@pytest.fixture(scope="module")
def crowd() -> tuple[list[Trial], list[Outcome]]:
    """Every optimizer at rates from timid to absurd on two seeds, and what came of it in one lane."""
    trials = [trial(e, lr, seed) for e in VARIANTS for lr, seed in ((1e-3, 1), (1e-2, 2), (1e30, 1))]
    return trials, train_stack(SHORT, trials)


@pytest.mark.parametrize("width", [1, 2, 3, 16])
def test_the_lane_a_trial_is_in_changes_no_bit(crowd: tuple[list[Trial], list[Outcome]], width: int) -> None:
    trials, outcomes = crowd
    assert any(outcome.diverged for outcome in outcomes), "some diverge on the way"
    known = {t.key: outcome.to_json() for t, outcome in zip(trials, outcomes, strict=True)}
    shuffled = random.Random(width).sample(trials, len(trials) if width > 1 else 9)
    for i in range(0, len(shuffled), width):
        lane = shuffled[i : i + width]
        assert [o.to_json() for o in train_stack(SHORT, lane)] == [known[t.key] for t in lane]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_engine_changes_no_bit(crowd: tuple[list[Trial], list[Outcome]], processes: int) -> None:
    trials, outcomes = crowd
    seen: list[float] = []
    got = {
        t.key: outcome.to_json()
        for lane, results in Local(processes).run(SHORT, trials, seen.append)
        for t, outcome in zip(lane, results, strict=True)
    }
    assert got == {t.key: outcome.to_json() for t, outcome in zip(trials, outcomes, strict=True)}
    assert all(0 <= share <= len(trials) for share in seen)


def test_a_diverged_run_scores_the_baseline(crowd: tuple[list[Trial], list[Outcome]]) -> None:
    lost = [outcome for outcome in crowd[1] if outcome.diverged]

    assert {outcome.test_metric for outcome in lost} == {tasks.digits.baseline}
    assert {outcome.valid_loss for outcome in lost} == {float("inf")}
    assert all(1 <= outcome.diverged <= 68 for outcome in lost)


def test_everything_that_matters_is_in_a_trials_key() -> None:
    base = trial()
    others = [
        trial("adamw"),
        trial("amsgrad"),
        trial(lr=0.02),
        trial(seed=2),
        trial(epochs=3),
        trial(batch_size=16),
        replace(base, schedule="linear"),
        replace(base, evaluates_test=False),
    ]

    assert trial().key == base.key
    assert len({t.key for t in [base, *others]}) == 9


@pytest.mark.parametrize(
    "other", [{"batch_size": 16}, {"epochs": 3}, {"schedule": "linear"}, {"evaluates_test": False}], ids=str
)
def test_trials_that_cannot_share_a_stack_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the trials of a stack must have the same batch size, epochs"):
        train_stack(SHORT, [trial(), replace(trial("momentum"), **other)])
    assert trial().stack_key == trial("momentum", lr=0.2, seed=5).stack_key


def test_an_outcome_survives_the_journal() -> None:
    for outcome in (
        Outcome([(10, 0.5, float("nan"), 0.25)], None, None, 3),
        Outcome([(10, 0.1, 0.2, 0.3)], float("inf"), 0.1, None),
    ):
        assert Outcome.from_json(outcome.to_json()).to_json() == outcome.to_json()


def test_the_users_random_numbers_and_threads_are_left_alone() -> None:
    torch.manual_seed(5)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(5)
    train_stack(SHORT.change(epochs=1), [trial(epochs=1)])

    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


class Odd(nn.Module):
    """Batch norm with its buffers, a frozen layer, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen, self.out = nn.BatchNorm1d(64), nn.Linear(64, 32), nn.Linear(32, 10)
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.frozen(self.norm(x))))


def test_buffers_and_frozen_and_unused_parameters_work() -> None:
    task = SHORT.change(model=Odd, name="odd")
    trials = [trial("momentum", 0.05, seed) for seed in (1, 2)]
    for t, outcome in zip(trials, train_stack(task, trials), strict=True):
        model, _ = plain(t, task)
        cut = task.loaded.split(t.seed)
        with torch.no_grad():
            loss = task.loss(model(task.loaded.inputs[cut.test]), task.loaded.targets[cut.test])
        assert outcome.test_loss == pytest.approx(loss.item(), rel=1e-4)


def test_rules_are_all_raced_by_some_entry() -> None:
    can = {rule for rule in rules.ALL.values() if rule.scope == "element"}
    assert {entry.rule for entry in ENTRIES.values() if isinstance(entry.rule, rules.Rule)} == can
    resolved = {resolve_optimizer(name).rule for name in ENTRIES}
    assert resolved == set(rules.ALL.values()), "the others one network at a time"


class Signs(torch.optim.Optimizer):
    """Somebody's own: sees whole matrices, and keeps what it likes."""

    def __init__(self, params: object, lr: float = 1e-3, damp: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "damp": damp})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                held = self.state[p].setdefault("mean", torch.zeros_like(p))
                held.lerp_(p.grad, group["damp"])
                p.sub_(held.sign() * (group["lr"] * p.norm()))


class Lamb(optim.LAMB):
    """A class derived from that of a rule, which need not step as the rule does."""


class ScheduleFree(optim.ScheduleFreeAdamW):
    """Another derived class, which evaluates the model at other weights than it trains."""


class Needy(Signs):
    """Evaluates the model again within a step."""

    def step(self, closure: object) -> None: ...


def foreign(make: object, lr: float, **fixed: object) -> Trial:
    entry = Entry("mine", make, fixed)
    return Trial(entry.rule, entry.values(lr), 3, 32, 2, "cosine", evaluates_test=True)


FOREIGN = [
    *(foreign(Signs, lr, damp=0.3) for lr in (1e-3, 1e-2, 1e30)),
    *(foreign(torch.optim.ASGD, lr) for lr in (0.05, 0.1)),
    *(foreign(Lamb, lr) for lr in (0.01, 0.02)),
    *(foreign(rules.muon, lr) for lr in (0.002, 0.005)),
    *(foreign(ScheduleFree, lr) for lr in (0.01, 0.02)),
]


@pytest.mark.parametrize("t", FOREIGN, ids=lambda t: f"{t.rule.name}-{t.values['lr']}")
def test_anyones_optimizer_trains_as_in_a_plain_loop(t: Trial) -> None:
    (outcome,) = train_stack(SHORT, [t])
    data, cut = SHORT.loaded, SHORT.loaded.split(t.seed)
    model, order = init_model(SHORT.model, t.seed), stream(t.seed, "order")
    params = model if t.rule.make is optim.MuonWithAuxAdam else model.parameters()
    optimizer = t.rule.make(params, **t.values)
    factor = torch.optim.lr_scheduler.LambdaLR(optimizer, tasks.schedule("cosine", 68))
    for _ in range(2):
        for index in cut.train[torch.randperm(len(cut.train), generator=order)].split(32):
            loss = SHORT.loss(model(data.inputs[index]), data.targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            factor.step()
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    with torch.no_grad():
        loss = SHORT.loss(model(data.inputs[cut.test]), data.targets[cut.test]).item()
    if t.values["lr"] > 1e10:
        assert outcome.diverged is not None
    else:
        assert outcome.test_loss == pytest.approx(loss, rel=1e-3)


def test_anyones_optimizers_share_a_lane_with_rules_and_change_no_bit() -> None:
    trials = [*FOREIGN, trial("adam", 1e-2, 1), trial("momentum", 1e-2, 2), trial("sgd", 1e30, 2)]
    known = [outcome.to_json() for outcome in train_stack(SHORT, trials)]
    order = random.Random(0).sample(range(len(trials)), len(trials))
    for part in (order[:2], order[2:5], order[5:]):
        assert [o.to_json() for o in train_stack(SHORT, [trials[i] for i in part])] == [known[i] for i in part]


def test_an_optimizer_that_needs_a_closure_gets_one_and_shares_no_stack_with_others() -> None:
    for make in (Needy, torch.optim.LBFGS):
        own = foreign(make, 0.1)
        assert own.rule.closure
        assert own.stack_key != foreign(Signs, 0.1).stack_key


def test_a_class_of_ours_is_raced_by_its_rule() -> None:
    entry = Entry("mine", optim.Adam, {"betas": (0.8, 0.99)})

    assert entry.rule is rules.adam
    assert (entry.values(0.1)["beta1"], entry.values(0.1)["beta2"]) == (0.8, 0.99)
    assert entry.code(0.1) == "gradprix.optim.Adam(params, lr=0.1, betas=(0.8, 0.99))"


def test_optimizers_are_found_by_file_or_module(tmp_path: Path) -> None:
    (tmp_path / "mine_too.py").write_text('import torch\n\n\nclass MyOpt(torch.optim.SGD):\n    """Mine."""\n')
    mine, asgd, adam = entries(f"{tmp_path}/mine_too.py:MyOpt, torch.optim:ASGD, adam")

    assert (mine.name, mine.about, mine.optimizer) == ("myopt", "Mine.", "mine_too.MyOpt")
    assert mine.space["lr"] == Log(1e-5, 0.1)
    assert asgd.code(0.1) == "torch.optim.asgd.ASGD(params, lr=0.1)"
    assert adam.rule is rules.adam
    for wrong in ("nowhere.py:MyOpt", "torch.optim:Nothing", "no.such:Thing"):
        with pytest.raises(ValueError, match=wrong.partition(":")[0]):
            entries(f"{wrong},adam")
    with pytest.raises(TypeError, match="neither a gp.rule nor a subclass"):
        Entry("mine", "adam")
    with pytest.raises(ValueError, match="ASGD takes no dampening"):
        Entry("mine", torch.optim.ASGD, {"dampening": 0.1})


class Steps(Callback):
    """Records what a trainer lets a callback see."""

    def __init__(self) -> None:
        self.factors: list[float] = []
        self.moved: list[bool] = []
        self.losses: list[list[float]] = []
        self.epochs: list[int] = []
        self.weights: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: Trainer, gradients: Mapping[str, Tensor], factor: float) -> None:
        assert gradients.keys() == trainer.stack.parameters.keys()
        self.factors.append(factor)
        self.weights = {name: x.clone() for name, x in trainer.stack.parameters.items()}

    def on_step_end(self, trainer: Trainer, losses: Tensor) -> None:
        assert trainer.step == len(self.factors)
        self.moved.append(any(not torch.equal(x, self.weights[n]) for n, x in trainer.stack.parameters.items()))
        self.losses.append(losses.tolist())

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.epochs.append(trainer.step)


def test_callbacks_see_every_step_and_change_no_number() -> None:
    todo = [trial("adam", 0.01, 1), trial("minibatch", 0.1, 2), trial("adam", 0.003, 3)]
    steps = Steps()
    trainer = Trainer(SHORT, todo, callbacks=[steps])
    outcomes = trainer.run()

    assert [o.to_json() for o in outcomes] == [o.to_json() for o in train_stack(SHORT, todo)]
    assert [todo[i].rule.name for i in trainer.order] in (["adam", "adam", "sgd"], ["sgd", "adam", "adam"])
    assert len(steps.losses) == trainer.total_steps == trainer.epochs * trainer.steps_per_epoch
    assert steps.epochs == [trainer.steps_per_epoch * (epoch + 1) for epoch in range(trainer.epochs)]
    assert steps.factors == [trainer.schedule(step) for step in range(trainer.total_steps)]
    assert all(steps.moved[:-1])
    first = steps.losses[0]
    assert [outcomes[i].start for i in trainer.order] == first[: len(todo)]


def test_progress_is_reported_at_least_once_an_epoch_up_to_the_end() -> None:
    shares: list[float] = []
    train_stack(SHORT, [trial("adam", 0.01, 1, batch_size=0, epochs=2)], shares.append)
    assert shares == pytest.approx([1 / 2, 1])


class Gradients(Callback):
    """Has all gradients kept until every model has been stepped."""

    def on_before_optimizer_step(self, trainer: Trainer, gradients: Mapping[str, Tensor], factor: float) -> None:
        pass


def test_steps_row_by_row_are_those_of_the_whole_stack() -> None:
    def model() -> nn.Module:
        normed = nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.2)
        return nn.Sequential(*normed, nn.Linear(20, 10))

    task = SHORT.change(model=model)
    todo = [trial(name, 1e-2, seed) for name in ENTRIES for seed in (1, 2)]
    todo += [trial("adam", 1e9, 3), trial("adam", 1e-4, 4)]
    assert [o.to_json() for o in Trainer(task, todo).run()] == [
        o.to_json() for o in Trainer(task, todo, callbacks=[Gradients()]).run()
    ]


class Hazards(nn.Module):
    """A network with something that a stack must not get wrong without a word."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.layer, self.out = kind, nn.Linear(64, 10), nn.Linear(10, 10)
        self.cache = torch.zeros(10)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return ten logits."""
        h = self.layer(x)
        match self.kind:
            case "numbers of a tensor":
                h = h * torch.tensor([h[0, 0], h[0, 1]]).sum()
            case "other data":
                self.layer.weight.data = self.layer.weight.data.clamp(-0.1, 0.1)
            case "kept part":
                h = h + self.cache
                self.cache[:4] = h.detach().mean(0)[:4]
            case "input in place":
                h = self.layer(x.mul_(1.5))
            case "counter":
                self.calls += 1
                h = h * self.calls
        return self.out(h.tanh())


@pytest.mark.parametrize("kind", ["numbers of a tensor", "other data", "kept part", "input in place", "counter"])
def test_a_stack_is_right_or_refused(kind: str) -> None:
    task, todo = SHORT.change(model=lambda: Hazards(kind)), [trial("adam", 1e-3), trial("adam", 3e-3)]
    alone = train_stack(task, todo, mode=ExecutionMode(stacked=False))
    try:
        stacked = train_stack(task, todo)
    except TaskError:
        return
    for one, other in zip(alone, stacked, strict=True):
        assert np.array(one.curve) == pytest.approx(np.array(other.curve), rel=1e-3)


def test_an_evaluation_that_counts_its_calls_has_outputs_of_one_call() -> None:
    class Counting(Hazards):
        def forward(self, x: Tensor) -> Any:
            h = super().forward(x)
            return h, h.double() * self.calls

    task = SHORT.change(
        model=lambda: Counting("counter"),
        loss=lambda output, target: functional.cross_entropy(output[0], target),
        metric=tasks.Metric("size", lambda output, target: float(output[1].abs().mean()), True, 0.01),
    )
    (stacked,), (alone,) = (train_stack(task, [trial()], mode=mode) for mode in (STACKED, ExecutionMode(stacked=False)))
    assert stacked.test_metric == pytest.approx(alone.test_metric, rel=1e-4)


def test_a_loss_must_be_one_number() -> None:
    task = SHORT.change(loss=lambda output, target: functional.cross_entropy(output, target).view(1))
    with pytest.raises(Exception, match=r"the loss of a batch has the shape \(1,\)"):
        train_stack(task, [trial(), trial(lr=1e-3)])


def test_idle_rows_may_leave_a_stack() -> None:
    todo = [trial("minibatch", 1e9, seed) for seed in range(10)] + [trial("minibatch", 0.01, 11)]
    assert [outcome.diverged is None for outcome in train_stack(SHORT.change(epochs=4), todo)] == [False] * 10 + [True]
