"""A race on a GPU: on a device that is only pretended, which shows what goes where and that the numbers stay the same.

What it cannot show is what a real one does by itself: how it rounds, how long it takes, how much memory it has.
"""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix import optim, rules, tasks
from gradprix.explain.replay import watch
from gradprix.kernels import StackedRule, _stacked
from gradprix.race import (
    ENTRIES,
    Entry,
    Journal,
    Local,
    OtherRaceError,
    RaceRecord,
    TaskError,
    make_plan,
    preflight,
    run,
)
from gradprix.race.efficiency import seconds_of_steps
from gradprix.race.preflight import check
from gradprix.race.record_json import read_mode
from gradprix.rules import log
from gradprix.tasks.fingerprint import fingerprint
from gradprix.training import STACKED, ModelStack, autotune, evaluate, train_stack
from gradprix.training.device_cache import to_device
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause
from gradprix.training.provenance import provenance
from gradprix.training.rng import SequentialRngMode, StackedRng
from gradprix.training.runtime_settings import runtime_settings
from gradprix.training.trial import Outcome, Trial
from gradprix.utils import devices
from pretended import Gpu, There, pretended
from test_kernels import CASES, IDS, gradient
from test_models import APART, MODELS, TRIALS, task

THERE = ExecutionMode(device="meta")
SMALL: dict[str, Any] = {"trials": 2, "seeds": 6, "epochs": 1}
aten = torch.ops.aten


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    with pretended(monkeypatch) as device:
        yield device


class Here(Local):
    """An executor in this process."""

    def run(
        self, task: Any, trials: list[Trial], watch: Any = None, how: ExecutionMode = STACKED, *_: Any
    ) -> Iterator[Any]:
        for _, group in groupby(sorted(trials, key=attrgetter("stack_key")), key=attrgetter("stack_key")):
            stack = list(group)
            yield stack, train_stack(task, stack, mode=how)

    def call_workers(self, count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        return [function(*args)]


def same(here: list[Outcome], there: list[Outcome], rounding: float) -> None:
    for a, b in zip(here, there, strict=True):
        assert a.diverged == b.diverged
        assert a.test_loss == pytest.approx(b.test_loss, rel=rounding)
        for one, other in zip(a.curve, b.curve, strict=True):
            assert one == pytest.approx(other, rel=rounding, nan_ok=True)


# Where things are

LEFT_OUT = {
    "tuple": "whose score is for another test",
    "hook on a parameter": "which is lost on the way to a pretended device alone",
}


@pytest.mark.sample(6)
@pytest.mark.parametrize("kind", [kind for kind in [*MODELS, *APART] if kind not in LEFT_OUT])
def test_every_kind_of_model_trains_there_as_here(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is mixed raises, and whatever is drawn there would give other numbers."""
    of, form = task({**MODELS, **APART}[kind]), ExecutionMode(stacked=kind in MODELS)
    here = train_stack(of, TRIALS, mode=form)
    with pretended(monkeypatch) as gpu:
        of.network(0)  # some find out their shapes by it
        made, gpu.here = gpu.here, set()
        there = train_stack(of, TRIALS, mode=dataclasses.replace(form, device="meta"))
    same(here, there, 1e-9)
    products = {aten.bmm.default, aten.baddbmm.default, aten.mm.default, aten.addmm.default}
    assert products & gpu.there
    assert not products & gpu.here - made, "nothing is computed here in its place"


ALL = [
    *(entry for entry in ENTRIES.values() if entry.batch_size is None),
    Entry("theirs", torch.optim.Adamax, space={"lr": log(1e-4, 1e-1)}),
]


@pytest.mark.parametrize("form", [STACKED, ExecutionMode(stacked=False)], ids=["stacked", "apart"])
def test_every_optimizer_trains_there_as_here(form: ExecutionMode, monkeypatch: pytest.MonkeyPatch) -> None:
    of = task(lambda: nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)))
    entries = ALL if form.stacked else [ENTRIES["lamb"], *ALL[::-4]]  # each step of each model by itself takes long
    rates = [(entry, lr) for entry in entries for lr in (entry.space["lr"].from_unit(0.5), 1e30)]
    trials = [Trial(entry.rule, entry.values(lr), 1, 10, 2, "cosine", True) for entry, lr in rates]
    here = train_stack(of, trials, mode=form)
    assert {outcome.diverged is None for outcome in here} == {True, False}, "some leave on the way"
    with pretended(monkeypatch) as gpu:
        there = train_stack(of, trials, mode=dataclasses.replace(form, device="meta"))
    same(here, there, 1e-6)
    assert aten.sqrt.default in gpu.there
    assert aten.sqrt.default not in gpu.here


def test_nothing_waits_for_the_device_within_an_epoch(gpu: Gpu) -> None:
    names = [name for name, entry in ENTRIES.items() if entry.batch_size is None and isinstance(entry.rule, rules.Rule)]
    trials = [Trial(ENTRIES[n].rule, ENTRIES[n].values(1e-3), 1, 32, 1, "cosine", False) for n in names]
    with runtime_settings("meta"):
        stack = ModelStack(tasks.digits, trials, THERE)
        batch = stack.data.train[:, :32]
        stack.step(batch, 1.0)
        gpu.waits.clear()
        stack.step(batch, 1.0)
        assert gpu.waits == set()
        evaluate(stack, stack.data.valid)
    assert gpu.waits == {aten._to_copy.default}


@pytest.mark.parametrize("room", [1e9, 1e3], ids=["all", "batch by batch"])
def test_examples_are_put_there_once_where_there_is_room(
    gpu: Gpu, room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.get_device_module("meta"), "mem_get_info", lambda name: (room, room))
    data = task(MODELS["linear"]).loaded
    before = fingerprint(data)
    there = to_device(data, torch.device("meta"))
    assert fingerprint(data) == before, "a task that refers to them is the same task"
    assert isinstance(there.inputs, There) is (room == 1e9)
    assert to_device(data, torch.device("meta")) is there
    assert to_device(data, torch.device("cpu")) is data
    assert not isinstance(data.inputs, There)
    stack = ModelStack(task(MODELS["linear"]), TRIALS, THERE)
    inputs, _ = stack.data.load(stack.data.train[:, :3])
    assert isinstance(inputs, There)


def test_a_stream_and_what_comes_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class Crops(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 60

        def __getitem__(self, i: int) -> Any:
            return torch.randn(64).double() + i % 10, torch.tensor(i % 10)

    def after(network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
        return {"loss": float(functional.cross_entropy(network(inputs), targets))}

    of = dataclasses.replace(task(MODELS["dropout"]), data=lambda: tasks.Data.from_dataset(Crops()), after=after)
    here = train_stack(of, TRIALS)
    with pretended(monkeypatch):
        there = train_stack(of, TRIALS, mode=THERE)
    same(here, there, 1e-9)
    assert [o.after["numbers"]["loss"] for o in here] == pytest.approx([o.after["numbers"]["loss"] for o in there])


def test_dropout_as_a_gpu_has_it_draws_what_the_cpus_draws() -> None:
    """There, torch calls an operation that answers a mask, too."""
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    for draw in (
        lambda f, *args: StackedRng([0, 0, 1, 1], [torch.Generator().manual_seed(s) for s in (1, 2)]).draw(f, *args),
        lambda f, *args: SequentialRngMode(torch.Generator().manual_seed(1)).__torch_dispatch__(f, (), args),
    ):
        found, mask = draw(aten.native_dropout.default, x, 0.4, True)
        expected = x * draw(aten.bernoulli_.float, torch.empty_like(x), 0.6) / 0.6
        torch.testing.assert_close(found, expected)
        assert torch.equal(mask, found != 0)
        assert draw(aten.native_dropout.default, x, 0.4, False)[0] is x


def test_what_is_drawn_again_and_again_goes_on_where_it_was() -> None:
    torch.manual_seed(7)
    expected = [torch.randperm(9) for _ in range(3)]
    torch.manual_seed(7)
    with SequentialRngMode(torch.default_generator):
        assert all(torch.equal(torch.randperm(9), order) for order in expected)


# The rules without their kernels


@pytest.mark.sample(3)
@pytest.mark.parametrize(("rule", "values"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_rule_without_its_kernel_is_the_same(
    rule: Any, values: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [rule.values(**{**values, "lr": lr}) for lr in (1e-3, 0.02, 0.5)]

    def trained(fused: bool) -> list[Tensor]:
        with monkeypatch.context() as patch:
            if not fused:
                patch.setattr(_stacked, "compile_kernel", lambda *_: None)
            begin = torch.stack([gradient(100 + i) for i in range(4)]).to(dtype)
            params = [begin[:, :30].reshape(4, 5, 6).contiguous(), begin[:, 30].clone(), begin[:, 31:].clone()]
            stacked, first = StackedRule(rule, rows, params, 1), 1
            for t in range(1, 40):
                if t == 20:  # one leaves, and those before it, too
                    params, first = [x[2:].clone() for x in params], 0
                    stacked.select_rows(torch.tensor([1, 2]), params, first)
                g = torch.stack([gradient(t + 1000 * i) for i in range(4)]).to(dtype)[4 - len(params[0]) :]
                stacked.step([g[:, :30].reshape(-1, 5, 6).contiguous(), g[:, 30].clone(), g[:, 31:].clone()], 0.5)
        held = [stacked.row_state(1, k) for k in range(3)]
        return [*params, *(torch.as_tensor(x) for state in held for x in state.values())]

    rounding = {torch.float32: 2e-4, torch.float64: 1e-10, torch.bfloat16: 2e-2}[dtype]
    for with_kernel, without in zip(trained(True), trained(False), strict=True):
        assert without.shape == with_kernel.shape
        torch.testing.assert_close(without, with_kernel, rtol=rounding, atol=rounding * 1e-2)


def test_torch_compiles_what_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda function, **given: asked.append(given) or function)
    trials = [Trial(rules.adam, rules.adam.values(), 1, 32, 1, "cosine", False)]
    for fused, expected in ((True, []), (False, [{"dynamic": True}])):
        if not fused:
            monkeypatch.setattr(_stacked, "compile_kernel", lambda *_: None)
        stack = ModelStack(tasks.digits, trials, ExecutionMode(compiled=True))
        stack.models = ModelStack(tasks.digits, trials).models
        stack.step(stack.data.train[:, :32], 1.0)
        assert asked == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")  # torch's compiler uses what torch gives up
@pytest.mark.parametrize("rule", [rules.adam, rules.nadam, rules.schedule_free_adamw], ids=lambda rule: rule.name)
def test_a_rule_compiled_by_torch_is_the_same(rule: rules.Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stacked, "compile_kernel", lambda *_: None)
    found = []
    for compiled in (False, True):
        params = [gradient(1, 30).repeat(3, 1).view(3, 5, 6), gradient(2, 3)]
        stacked = StackedRule(rule, [rule.values()] * 3, params, compiled=compiled)
        for t in range(1, 9):
            if t == 5:
                params = [x[1:].clone() for x in params]
                stacked.select_rows(torch.tensor([1, 2]), params)
            stacked.step([gradient(t, x.numel()).view(x.shape) for x in params])
        found.append(torch.cat([x.flatten() for x in params]))
    torch.testing.assert_close(found[0], found[1])


# A whole race


def test_a_race_there_ends_as_one_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def content(**given: Any) -> RaceRecord:
        out = tmp_path / given["device"]
        return run(make_plan("digits", "adam,lamb,gd", **SMALL, **given), out, Here()).record

    here = content(device="cpu")
    with pretended(monkeypatch):
        there = content(device="meta")
        with pytest.raises(OtherRaceError, match="holds a race .* trained on meta"):
            run(make_plan("digits", "adam,lamb,gd", **SMALL, device="cpu"), tmp_path / "meta", Here())
    words = [[pair.words for pair in record.verdict.pairs] for record in (here, there)]
    assert words[0] == words[1]
    for a, b in zip(here.entries, there.entries, strict=True):
        assert a.tuned == b.tuned
        assert a.final.mean == pytest.approx(b.final.mean, abs=0.01)
    assert [record.plan.mode for record in (here, there)] == [ExecutionMode(), ExecutionMode(device="meta")]
    with Journal(tmp_path / "meta", to_read=True, made=provenance("meta Pretended")) as journal:
        assert len(journal.finished()) == there.cost.trials >= 24 + 3 * 4
    with Journal(tmp_path / "meta", to_read=True, made=provenance()) as journal:
        assert journal.finished() == {}, "what a GPU computed is not taken for what the CPU would"


@pytest.mark.slow
def test_a_race_there_can_be_looked_into_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan("digits", "adam,momentum,lamb", **SMALL)
    trials = [plan.final_trial(entry, {"lr": entry.default_rate}, 0) for entry in plan.entries]
    trials.sort(key=lambda trial: trial.rule.name)
    here = watch(plan.task, trials, STACKED)
    with pretended(monkeypatch):
        there = watch(plan.task, trials, THERE)
        assert all(0 < s < 10 for s in seconds_of_steps(plan.task, trials, "meta"))
    for a, b in zip(here, there, strict=True):
        assert a.updates == pytest.approx(b.updates, rel=1e-3)
        assert len(a.points) == len(b.points) > 0


def test_how_many_fit_there_is_asked_of_the_device(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPRIX_CACHE", "/dev/null/nowhere")
    plan = make_plan("digits", "adam,sgd", trials=10, seeds=6)
    trials = [plan.careful_trial(plan.entries[0], seed) for seed in range(40)]
    found = autotune.choose_layout(plan.task, trials, THERE, 4)
    assert found.processes == 1, "lanes would take turns there"
    each = autotune.bytes_of_one(plan.task, trials, THERE)
    room = 2 * (autotune.PROCESS + plan.task.loaded.nbytes + 5.5 * each)
    monkeypatch.setattr(torch.get_device_module("meta"), "mem_get_info", lambda name: (room, room))
    assert autotune.choose_layout(plan.task, trials, THERE, 4).width == 5


# Which device


def small(**given: Any) -> Any:
    return make_plan("digits", "adam,momentum", **SMALL, **given)


def test_without_a_gpu_all_is_as_it_was() -> None:
    form = check(small())
    assert form == check(small(device="cpu")) == ExecutionMode()
    assert make_plan("digits").description["device"] == "auto"
    assert len(provenance().split(", ")) == 4


def test_a_form_that_was_kept_before_there_were_devices_is_read() -> None:
    slow = Rejection(RejectionCause.FAILS, message="it is slow")
    saved = {"stacked": False, "compiled": False, "why": "it is slow"}
    assert read_mode(saved) == ExecutionMode(False, stack_rejection=slow)


def test_a_device_that_is_not_there_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"device = 'cuda': torch 2.* no GPU .* \(--device cpu\)"):
        check(small(device="cuda"))
    with pytest.raises(ValueError, match=r"device = 'gpu': it must be .auto., .cpu., .cuda."):
        small(device="gpu")


def test_only_one_of_many_devices_that_are_there(gpu: Gpu) -> None:
    devices.require("meta:0")
    with pytest.raises(ValueError, match="device = 'meta:3': torch .* meta:0"):
        devices.require("meta:3")


def test_a_training_loop_decides_itself() -> None:
    def train(make_optimizer: Any, seed: int) -> Any:
        yield {"valid": 1.0}

    assert make_plan(train, "adam,momentum", direction="max").device == "auto"
    with pytest.raises(ValueError, match="a training loop chooses its device itself"):
        make_plan(train, "adam,momentum", direction="max", device="cuda")


def paced(monkeypatch: pytest.MonkeyPatch, there: float) -> None:
    monkeypatch.setattr(preflight.joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(preflight, "seconds_of_one", lambda *args: there if args[2].device == "meta" else 1.0)


SLOWER = Rejection(RejectionCause.SLOWER, 4.0, device="meta")


@pytest.mark.parametrize("seconds", [0.4, 2.0])
def test_a_gpu_is_used_if_it_pays(gpu: Gpu, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, seconds)
    fast = seconds < 1
    assert check(small()) == (THERE if fast else ExecutionMode(device_rejection=SLOWER))
    assert check(small(device="cpu")) == ExecutionMode()
    assert check(small(device="meta")) == THERE, "who asks for it, waits for it"


class Keeps(nn.Module):
    """A network with a tensor of its own that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.scale = nn.Linear(64, 10), torch.ones(64)

    def forward(self, x: Tensor) -> Any:
        return self.out(x * self.scale)


class Refuses(optim.Adam):
    """An optimizer that knows the CPU alone."""

    def step(self, closure: Any = None) -> Any:
        if isinstance(self.param_groups[0]["params"][0], There):
            raise RuntimeError("it is written for the CPU.\nSee above")
        return super().step(closure)


DOES = Gpu.__torch_dispatch__


def wrongly(self: Gpu, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    found = DOES(self, function, types, args, kwargs)
    if isinstance(found, There) and function in (aten.bmm.default, aten.mm.default):
        found.held.mul_(1.1)
    return found


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("gradients", "it gives other gradients than the CPU"),
        ("model", "it makes a tensor on the CPU: give torch's functions device=x.device, and modules buffers"),
        ("optimizer", "it is written for the CPU"),
    ],
)
def test_a_gpu_that_does_not_work_is_not_used(gpu: Gpu, wrong: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, 0.0)
    if wrong == "gradients":
        monkeypatch.setattr(Gpu, "__torch_dispatch__", wrongly)
    of = tasks.digits.change(model=Keeps if wrong == "model" else None)
    refuses = Entry("refuses", Refuses, space={"lr": log(1e-3, 1e-1)})
    entries = ["adam", refuses if wrong == "optimizer" else "sgd"]
    form = check(make_plan(of, entries, **SMALL))
    rejection = form.device_rejection
    assert form == ExecutionMode(device_rejection=rejection)
    assert rejection is not None
    assert rejection.device == "meta"
    cause = RejectionCause.OTHER_GRADIENTS if wrong == "gradients" else RejectionCause.FAILS
    assert rejection.cause is cause
    assert rejection.message.startswith(why), "and the line of the model that it comes from, where there is one"
    with pytest.raises(TaskError, match=f"task 'digits' cannot be raced on meta: (RuntimeError: )?{why}"):
        check(make_plan(of, entries, **SMALL, device="meta"))
