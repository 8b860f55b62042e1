"""Every kind of model trains in a stack as it does in a plain loop: gradients, and weights after 20 steps."""

import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gradprix import tasks
from gradprix.race import ENTRIES, row_invariance, stack_checks
from gradprix.race.plan import Plan
from gradprix.race.preflight import check
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.training import ModelStack, train_stack
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause
from gradprix.training.rng import SequentialRngMode
from gradprix.training.runtime_settings import runtime_settings
from gradprix.training.sequential_models import SequentialModels
from gradprix.training.trial import Trial

STEPS = 20


class Of(nn.Module):
    """A network of some parts, and what it does with them."""

    def __init__(self, does: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.does = does
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.does(self, x)


def image(x: Tensor) -> Tensor:
    return x.unflatten(-1, (1, 8, 8))


def rows(x: Tensor) -> Tensor:
    return x.unflatten(-1, (8, 8))


def few_rows(x: Tensor) -> Tensor:
    """The first three rows: all steps of a recurrent layer are alike, and each is traced."""
    return x[..., :24].unflatten(-1, (3, 8))


def mean_out(m: Any, x: Tensor) -> Tensor:
    return m.out(x.mean(1))


def tied() -> nn.Module:
    net = Of(
        lambda m, x: m.out(m.b(torch.relu(m.a(x)))), a=nn.Linear(64, 64), b=nn.Linear(64, 64), out=nn.Linear(64, 10)
    )
    net.b.weight = net.a.weight
    return net


def frozen() -> nn.Module:
    net = Of(lambda m, x: m.out(torch.relu(m.a(x))), a=nn.Linear(64, 32), out=nn.Linear(32, 10))
    net.a.requires_grad_(False)
    net.unused = nn.Parameter(torch.ones(3))
    return net


def conv(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Unflatten(-1, (1, 8, 8)), *layers, nn.Flatten(), nn.LazyLinear(10))


def made(net: nn.Module) -> nn.Module:
    """Lazy layers take their shape from a first example."""
    net.eval()(torch.rand(2, 64))
    return net.train()


class PerStep(nn.Module):
    """A recurrent cell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(8, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(len(x), 16)
        for row in few_rows(x).unbind(1):
            hidden = self.cell(row, hidden)
        return self.out(hidden)


def attend(m: Any, x: Tensor) -> Tensor:
    h = m.embed(rows(x))
    return m.out(m.attention(h, h, h, need_weights=False)[0].mean(1))


def variational(m: Any, x: Tensor) -> Tensor:
    mean, log = m.a(x).chunk(2, -1)
    return m.out(mean + torch.randn_like(mean) * torch.exp(0.5 * log))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(64, 10),
    "class of its own": lambda: type("Own", (nn.Linear,), {})(64, 10),
    "without bias": lambda: nn.Sequential(nn.Linear(64, 16, bias=False), nn.Tanh(), nn.Linear(16, 10, bias=False)),
    "batch norm": lambda: nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)),
    "batch norm of images": lambda: made(conv(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())),
    "layer and group norm": lambda: nn.Sequential(
        nn.LayerNorm(64), nn.Linear(64, 32), nn.GroupNorm(4, 32), nn.Linear(32, 10)
    ),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)),
    "dropout of channels": lambda: made(conv(nn.Conv2d(1, 4, 3), nn.Dropout2d(0.3))),
    "alpha dropout": lambda: nn.Sequential(nn.Linear(64, 32), nn.SELU(), nn.AlphaDropout(0.2), nn.Linear(32, 10)),
    "noise": lambda: Of(variational, a=nn.Linear(64, 16), out=nn.Linear(8, 10)),
    "lstm": lambda: Of(
        lambda m, x: m.out(m.r(few_rows(x))[0][:, -1]),
        r=nn.LSTM(8, 6, 2, dropout=0.3, batch_first=True),
        out=nn.Linear(6, 10),
    ),
    "gru": lambda: Of(
        lambda m, x: m.out(m.r(few_rows(x))[0][:, -1]),
        r=nn.GRU(8, 6, bidirectional=True, batch_first=True),
        out=nn.Linear(12, 10),
    ),
    "rnn": lambda: Of(
        lambda m, x: m.out(m.r(few_rows(x))[0][:, -1]), r=nn.RNN(8, 6, batch_first=True), out=nn.Linear(6, 10)
    ),
    "cell in a loop": PerStep,
    "checkpoint": lambda: Of(
        lambda m, x: m.b(checkpoint(lambda t: functional.dropout(torch.relu(m.a(t))), x, use_reentrant=False)),
        a=nn.Linear(64, 16),
        b=nn.Linear(16, 10),
    ),
    "attention": lambda: Of(
        attend, embed=nn.Linear(8, 16), attention=nn.MultiheadAttention(16, 4, batch_first=True), out=nn.Linear(16, 10)
    ),
    "transformer": lambda: Of(
        lambda m, x: m.out(m.block(m.embed(rows(x))).mean(1)),
        embed=nn.Linear(8, 16),
        block=nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True),
        out=nn.Linear(16, 10),
    ),
    "embedding": lambda: Of(
        lambda m, x: m.out(m.e((x * 16).long()).mean(1)), e=nn.Embedding(17, 8), out=nn.Linear(8, 10)
    ),
    "padded embedding": lambda: Of(
        lambda m, x: m.out(m.e((x * 8).long()).amax(1)), e=nn.Embedding(17, 6, padding_idx=0), out=nn.Linear(6, 10)
    ),
    "bag of embeddings": lambda: Of(
        lambda m, x: m.out(m.e((x * 16).long())), e=nn.EmbeddingBag(17, 8), out=nn.Linear(8, 10)
    ),
    "convolution": lambda: made(
        conv(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, stride=2))
    ),
    "same padding": lambda: made(conv(nn.Conv2d(1, 4, 3, padding="same", dilation=2), nn.AvgPool2d(2))),
    "groups and circles": lambda: made(
        conv(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 4, 3, groups=2))
    ),
    "kernel larger than padding": lambda: made(
        conv(nn.Conv2d(1, 4, 1, padding=2), nn.Conv2d(4, 4, (1, 3), padding=(1, 0)))
    ),
    "overlapping pools": lambda: made(
        conv(nn.Conv2d(1, 4, 3), nn.MaxPool2d(3, stride=2, padding=1), nn.AdaptiveAvgPool2d(2))
    ),
    "convolution in one dimension": lambda: Of(
        lambda m, x: m.out(m.c(rows(x)).mean(-1)), c=nn.Conv1d(8, 6, 3, padding=1), out=nn.Linear(6, 10)
    ),
    "transposed convolution": lambda: made(conv(nn.Conv2d(1, 4, 3, stride=2), nn.ConvTranspose2d(4, 2, 3, stride=2))),
    "upsampling": lambda: made(conv(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2), nn.PixelUnshuffle(2))),
    "weight norm": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(64, 16)), nn.ReLU(), nn.Linear(16, 10)
    ),
    "spectral norm": lambda: nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(64, 16)), nn.Linear(16, 10)
    ),
    "tied weights": tied,
    "frozen and unused": frozen,
    "bilinear and gated": lambda: Of(
        lambda m, x: m.out(functional.glu(m.b(torch.relu(x[:, :32]), x[:, 32:]))),
        b=nn.Bilinear(32, 32, 16),
        out=nn.Linear(8, 10),
    ),
    "dictionary": lambda: Of(lambda m, x: {"logits": m.a(x), "extra": (x,)}, a=nn.Linear(64, 10)),
    "tuple": lambda: Of(lambda m, x: (m.a(x), x.sum()), a=nn.Linear(64, 10)),
}


class Keeps(nn.Module):
    """A layer, and a forward pass that changes what the network keeps."""

    def __init__(self, does: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.does, self._count, self.past = nn.Linear(64, 10), does, 0, list[float]()
        self.register_buffer("mean", torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


def anneal(m: Any, x: Tensor) -> Tensor:
    m._count += 1
    return m.a(x) / max(0.1, 1 - 0.05 * m._count)


def follow(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    if m.training:
        m.mean = 0.9 * m.mean + 0.1 * h.mean(0).detach()
    return h - m.mean


def clamp(m: Any, x: Tensor) -> Tensor:
    m.a.weight.data = m.a.weight.data.clamp(-0.1, 0.1)
    return m.a(x)


def hooked() -> nn.Module:
    net = nn.Linear(64, 10)
    net.weight.register_hook(lambda g: 0.1 * g)
    return net


def remember(m: Any, x: Tensor) -> Tensor:
    m.past.append(1.0)
    return m.a(x) * len(m.past)


APART = {
    "counter": lambda: Keeps(anneal),
    "history": lambda: Keeps(remember),
    "buffer put anew": lambda: Keeps(follow),
    "parameter put anew": lambda: Keeps(clamp),
    "hook on a parameter": hooked,
    "python's luck": lambda: Keeps(lambda m, x: m.a(x) * (1 + random.random())),
    "numpy's luck": lambda: Keeps(lambda m, x: m.a(x) * (1 + np.random.rand())),
    "random slope": lambda: nn.Sequential(nn.Linear(64, 32), nn.RReLU(), nn.Linear(32, 10)),
    "branch on values": lambda: Of(lambda m, x: m.a(x) if x.sum() > 0 else -m.a(x), a=nn.Linear(64, 10)),
    "item": lambda: Of(lambda m, x: m.a(x) * min(1.0, x.mean().item() + 1), a=nn.Linear(64, 10)),
    "random order": lambda: Of(lambda m, x: m.a(x[:, torch.randperm(64)]), a=nn.Linear(64, 10)),
    "class by seed": lambda: type(f"Model{torch.randint(1_000_000, ())}", (nn.Linear,), {})(64, 10),
}
WHY = {
    "counter": "it changes _count as it runs",
    "history": "it changes past as it runs",
    "buffer put anew": "other tensors in the place of its buffers mean",
    "parameter put anew": "",
    "hook on a parameter": "it has hooks on its parameters",
    "python's luck": "random numbers of Python or NumPy",
    "numpy's luck": "random numbers of Python or NumPy",
    "random slope": "aten::rrelu",
    "branch on values": "its course depends on values",
    "item": "reads numbers out of tensors",
    "random order": "draws random numbers",
    "class by seed": "of another class with another seed",
}


def loss(output: Any, target: Tensor) -> Tensor:
    if isinstance(output, dict):
        output = output["logits"]
    elif isinstance(output, tuple):
        output = output[0]
    return functional.cross_entropy(output, target)


def noisy(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output + 0.1 * torch.rand_like(output), target)


def score(output: Any, target: Tensor) -> float:
    return -float(loss(output, target))


def data() -> tasks.Data:
    digits = tasks.digits.loaded
    return tasks.Data(digits.inputs[:200].double(), digits.targets[:200])


def task(model: Callable[[], nn.Module], loss: Callable[..., Tensor] = loss) -> tasks.Task:
    metric = tasks.Metric("score", score, higher_is_better=True, margin=0.1)
    return tasks.Task("kind", lambda: model().double(), loss, metric, -3.0, data, batch_size=10, epochs=1)


def trial(seed: int, lr: float) -> Trial:
    entry = ENTRIES["momentum"]
    return Trial(entry.rule, entry.values(lr), seed, 10, 1, "constant", True)


TRIALS = [trial(1, 0.01), trial(1, 0.05), trial(2, 0.02)]


def plain(of: tasks.Task, t: Trial, ordered: bool) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Weights and buffers after the steps, and the first gradients, of a plain loop under the trial's seed.

    torch deals random numbers out in the order of memory; `ordered` has it deal them in the order of elements, as a
    race does, whatever layout torch's attention chooses.
    """
    model, order = init_model(of.model, t.seed), stream(t.seed, "order")
    index = of.loaded.split(t.seed).train
    index = index[torch.randperm(len(index), generator=order)]
    optimizer = torch.optim.SGD(model.parameters(), lr=t.values["lr"], momentum=0.9)
    first: list[Tensor] = []
    with RngState(stream(t.seed, "noise")), contextlib.ExitStack() as stack:
        if ordered:
            stack.enter_context(SequentialRngMode(torch.default_generator))
        for i in range(STEPS):
            at = index[(10 * i) % 120 :][:10]
            value = of.loss(model(of.loaded.inputs[at]), of.loaded.targets[at])
            optimizer.zero_grad()
            value.backward()
            first = first or [p.grad.clone() for p in model.parameters() if p.grad is not None]
            optimizer.step()
    return {name: x.detach() for name, x in model.state_dict(keep_vars=True).items()}, first


def stacked(of: tasks.Task, form: ExecutionMode) -> tuple[dict[str, Tensor], list[Tensor | None]]:
    stack, other = ModelStack(of, TRIALS, form), ModelStack(of, TRIALS, form)
    batches = list(stack.data.shuffled_batches(10))
    with runtime_settings():
        _, first = other.gradients(*other.data.load(batches[0]))
        for i in range(STEPS):
            stack.step(batches[i % 12], 1.0)
    rest = stack.buffers
    if isinstance(stack.models, SequentialModels):
        own = [dict(model.named_buffers()) for model in stack.models.models]
        rest = {name: torch.stack([buffers[name] for buffers in own]) for name in own[0]}
    return {**stack.parameters, **rest}, first


def compare(of: tasks.Task, form: ExecutionMode, ordered: bool = False) -> None:
    after, first = stacked(of, form)
    for row, t in enumerate(TRIALS):
        expected, gradients = plain(of, t, ordered)
        for a, b in zip((g for g in first if g is not None), gradients, strict=True):
            torch.testing.assert_close(a[row], b, rtol=1e-9, atol=1e-12)
        for name, value in after.items():
            torch.testing.assert_close(value[row], expected[name], rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", MODELS)
def test_a_stack_trains_as_a_plain_loop_does(kind: str) -> None:
    compare(task(MODELS[kind]), ExecutionMode(), ordered=kind == "transformer")


def test_a_loss_may_draw_noise() -> None:
    compare(task(MODELS["linear"], noisy), ExecutionMode())


def gaussian(output: Tensor, target: Tensor, **given: Any) -> Tensor:
    return functional.gaussian_nll_loss(output[:, 0], target.double(), functional.softplus(output[:, 1]), **given)


def gaussian_of_ten(output: Tensor, target: Tensor, variance: Callable[[Tensor], Tensor], **given: Any) -> Tensor:
    means, logits = output[:, 1:], output[:, :1]
    return functional.gaussian_nll_loss(
        means, functional.one_hot(target, 10)[:, 1:].double(), variance(logits), **given
    )


GAUSSIAN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": partial(gaussian, reduction="sum"),
    "sum, full": partial(gaussian, reduction="sum", full=True),
    "sum, variances below the bound": partial(gaussian, reduction="sum", eps=0.7),
    "sum, one variance an example": partial(gaussian_of_ten, reduction="sum", variance=lambda v: 0.1 + v.exp()),
    "sum, one variance an example, flat": partial(
        gaussian_of_ten, reduction="sum", variance=lambda v: 0.1 + v.exp().squeeze(1)
    ),
    "mean": gaussian,
    "none": lambda output, target: gaussian(output, target, reduction="none").square().mean(),
    "module": lambda output, target: nn.GaussianNLLLoss(full=True, reduction="sum")(
        output[:, 0], target.double(), output[:, 1].exp()
    ),
}


@pytest.mark.parametrize("kind", GAUSSIAN)
def test_gaussian_losses_train_as_in_a_plain_loop(kind: str) -> None:
    of = task(MODELS["linear"], lambda output, target: 0.1 * GAUSSIAN[kind](output, target))
    compare(of, ExecutionMode())


@pytest.mark.parametrize("kind", [*APART, "dropout", "batch norm", "dictionary", "checkpoint"])
def test_one_at_a_time_trains_as_a_plain_loop_does(kind: str) -> None:
    compare(task({**MODELS, **APART}[kind]), ExecutionMode(stacked=False))


def plan(of: tasks.Task) -> Plan:
    return Plan(of, (ENTRIES["adam"], ENTRIES["momentum"]), seeds=6)


@pytest.mark.parametrize("kind", APART)
def test_what_cannot_be_stacked_goes_one_at_a_time_and_says_why(kind: str) -> None:
    form = check(plan(task(APART[kind])))
    assert not form.stacked
    assert WHY[kind] in form.stack_rejection.message


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["dropout", "lstm", "transformer", "dictionary", "batch norm of images"])
def test_the_check_lets_a_stack_through_and_a_lane_runs_whole_without_a_warning(kind: str) -> None:
    of = task(MODELS[kind])
    assert check(plan(of)).stacked
    outcomes = train_stack(of, TRIALS)
    assert all(outcome.diverged is None for outcome in outcomes)
    alone = train_stack(of, TRIALS[2:])
    assert alone[0].to_json() == outcomes[2].to_json(), "whatever else is in the lane"


def layers(hidden: int, act: Callable[[], nn.Module], norm: bool = False) -> Callable[[], nn.Module]:
    between = (nn.BatchNorm1d(hidden),) if norm else ()
    return lambda: nn.Sequential(nn.Linear(64, hidden), *between, act(), nn.Linear(hidden, 10))


ODD: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "13 in batches of 5": (layers(13, nn.ReLU), 5),
    "65 in batches of 33": (layers(65, nn.ReLU), 33),
    "silu": (layers(13, nn.SiLU), 32),
    "mish": (layers(13, nn.Mish), 7),
    "batch norm of 30": (layers(30, nn.SiLU, norm=True), 32),
    "convolution to 5": (lambda: made(conv(nn.Conv2d(1, 5, 3), nn.ELU())), 32),
    "dropout": (MODELS["dropout"], 7),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", ODD)
def test_odd_sizes_change_no_bit_in_any_lane(kind: str) -> None:
    model, batch = ODD[kind]
    of = tasks.digits.change(model=model)
    entry = ENTRIES["minibatch"]
    trials = [Trial(entry.rule, entry.values(0.01 * (1 + i)), 1 + i % 3, batch, 1, "cosine", True) for i in range(7)]
    known = [outcome.to_json() for outcome in train_stack(of, trials)]
    assert [outcome.to_json() for outcome in train_stack(of, trials[::-1])][::-1] == known
    parts = (trials[:1], trials[1:3], trials[3:])
    assert [outcome.to_json() for part in parts for outcome in train_stack(of, part)] == known


def test_where_a_row_would_change_a_bit_networks_go_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    of = plan(tasks.digits.change(model=layers(3, nn.Mish), batch_size=1))  # does so on some processors
    alike = row_invariance.is_row_invariant(of.task, of.careful_trial(of.entries[0], 0), (2, 7))
    assert check(of).stacked is alike
    monkeypatch.setattr(row_invariance, "is_row_invariant", lambda *_: False)
    form = check(of)
    assert not form.stacked
    assert form.stack_rejection == Rejection(RejectionCause.ROWS_DIFFER)


@pytest.mark.parametrize(
    ("stack", "turns", "longer"),
    [
        ([3.0, 1.0, 3.0], 3, 0.5),  # one moment of quiet is enough to know that it is fast
        ([9.0] * 10 + [2.0] * 10, 11, 1.0),  # noise that goes by
        ([6.0] * 20, 20, 3.0),
        ([600.0] * 20, 3, 300.0),  # there is no time for more
    ],
)
def test_a_stack_is_given_up_if_it_stays_slower(
    stack: list[float], turns: int, longer: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, apart, taken = 0.0, [2.0] * 20, []

    def runs(seconds: list[float]) -> Callable[[], None]:
        def run() -> None:
            nonlocal clock
            taken.append(seconds)
            clock += 0.01 * seconds[sum(each is seconds for each in taken) - 1]

        return run

    monkeypatch.setattr(stack_checks.time, "perf_counter", lambda: clock)
    assert stack_checks.slowdown(runs(stack), runs(apart)) == pytest.approx(longer)
    assert len(taken) == 2 * turns


@pytest.mark.parametrize("stacked", [True, False])
def test_what_is_found_after_training_is_of_the_networks_that_were_judged(stacked: bool) -> None:
    def after(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
        return {"accuracy": float(tasks.accuracy(network(inputs), targets))}

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))

    of = tasks.digits.change(model=network, epochs=2, after=after)
    rule = ENTRIES["adam"].rule
    trials = [Trial(rule, rule.values(lr=0.01), seed, 32, 2, "cosine", True) for seed in range(3)]
    for outcome in train_stack(of, trials, mode=ExecutionMode(stacked=stacked)):
        assert outcome.after["numbers"]["accuracy"] == pytest.approx(outcome.test_metric)
        assert outcome.test_metric > 0.5, "statistics of batches that were never seen would not do"
