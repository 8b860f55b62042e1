"""A row of a stack has the same numbers wherever it is, whatever instructions torch uses on this CPU."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gradprix as gp
from gradprix import tasks
from gradprix.race import ENTRIES, preflight, row_invariance
from gradprix.race.plan import Plan
from gradprix.tasks import registry
from gradprix.training import ModelStack, Trainer, train_stack
from gradprix.training.reductions import ORDERED, has_fixed_order, ordered_sum
from gradprix.training.runtime_settings import runtime_settings
from gradprix.training.stack_sizes import capacities, capacity, stack_size
from gradprix.training.trace_step import TracedStep
from gradprix.training.trial import Trial
from test_models import MODELS, task

aten = torch.ops.aten
CAPABILITIES = ["default", "avx2", "avx512"]
BUILT_IN = [name for name in registry.PACKAGED if name not in ("tailed", "generate-vae")]


def trials(count: int, batch: int = 10) -> list[Trial]:
    entry = ENTRIES["momentum"]
    values = [entry.values(0.01 * (1 + i % 7)) for i in range(count)]
    return [Trial(entry.rule, each, 1 + i % 3, batch, 1, "constant", True) for i, each in enumerate(values)]


def small(kind: str, dtype: torch.dtype) -> tasks.Task:
    """A model of the table on thirty examples for three steps, the last of them on fewer."""

    def data() -> tasks.Data:
        digits = tasks.digits.loaded
        return tasks.Data(digits.inputs[:55].to(dtype), digits.targets[:55])

    return task(lambda: MODELS[kind]().to(dtype)).change(data=data, model=lambda: MODELS[kind]().to(dtype))


def programs(of: tasks.Task, batch: int) -> list[TracedStep]:
    with runtime_settings():
        stack = ModelStack(of, trials(2, batch))
        examples = stack.data.load(stack.data.train[:, :batch])
        return [stack.traced_step(kind, *examples) for kind in ("train", "score")]


EACH_BY_ITSELF = {
    "addmm",
    "mm",
    "_trilinear",
    "_embedding_bag",
    "_embedding_bag_backward",
    "_embedding_bag_forward_only",
}
EACH_BY_ITSELF |= {"_weight_norm_interface", "_weight_norm_interface_backward"}
"""What torch computes for one model after the other, since it cannot stack it."""


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("kind", MODELS)
def test_all_operations_of_a_stack_are_known_to_compute_each_row_in_the_same_way(kind: str, dtype: torch.dtype) -> None:
    for program in programs(small(kind, dtype), 10):
        assert program.unreviewed <= EACH_BY_ITSELF


@pytest.mark.parametrize("name", BUILT_IN)
def test_all_operations_of_built_in_tasks_are(name: str) -> None:
    of = registry.built_in(name, "small")
    for program in programs(of, of.batch_size or 32):
        assert not program.unreviewed


def test_a_sum_of_columns_is_not_left_to_torch() -> None:
    for shape, dims, fixed in (
        ((300, 24), [0], False),  # columns of several rows side by side
        ((3, 300, 8), [1], False),
        ((3, 300, 8), [2], True),
        ((3, 300, 8), [1, 2], True),
        ((3, 8, 300), [0, 2], True),
        ((3, 300, 8), [0], False),
        ((300, 1, 24), [0, 1], False),
        ((1, 24), [0], True),  # nothing is summed
    ):
        assert has_fixed_order(torch.zeros(shape), dims) is fixed, (shape, dims)
    assert not has_fixed_order(torch.zeros(10, 6, 6, 24).permute(0, 3, 1, 2), [2, 3])
    assert not has_fixed_order(torch.zeros(5, 1, 8).expand(5, 30, 8), [1])
    assert has_fixed_order(torch.zeros(300, 24, dtype=torch.long), [0]), "integers do not round"


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("columns", [1, 5, 8, 33, 64, 100])
def test_all_columns_are_summed_in_the_same_order(columns: int, kind: torch.dtype) -> None:
    column = torch.randn(2, 301, 1, dtype=kind)
    sums = ordered_sum(column.expand(2, 301, columns).contiguous(), [1])
    assert (sums == sums[:, :1]).all()
    wide = torch.complex128 if kind.is_complex else torch.float64
    torch.testing.assert_close(sums[:, :1].to(wide), column.to(wide).sum(1), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "operation", [aten.sum.dim_IntList, aten.mean.dim, aten.nansum.default, aten.logsumexp.default]
)
def test_ordered_reductions_are_those_of_torch(operation: object) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape, order in (
        ((3, 5, 8), (0, 1, 2)),
        ((4, 1, 6, 3), (2, 0, 3, 1)),
        ((7, 9), (1, 0)),
        ((2, 3, 4, 5), (3, 1, 0, 2)),
    ):
        x = torch.randn(shape, generator=generator, dtype=torch.float64).permute(order)
        for dims in ([0], [-1], [0, 1], [0, x.dim() - 1], [*range(x.dim())]):
            for keepdim in (True, False):
                ours, theirs = ORDERED[operation](x, dims, keepdim), operation(x, dims, keepdim)
                torch.testing.assert_close(ours, theirs)


def test_stacks_have_few_sizes_and_little_of_them_is_idle() -> None:
    assert [stack_size(count) for count in (1, 2, 3, 8, 9, 16, 17, 32, 64)] == [2, 3, 4, 9, 11, 17, 21, 33, 65]
    for count in range(1, 300):
        assert count <= capacity(count) <= 1.25 * count
        assert capacity(capacity(count)) == capacity(count)
    assert len(capacities(256)) < 32


def test_a_stack_that_models_have_left_has_one_of_the_sizes_and_changes_no_number() -> None:
    of = tasks.digits.change(epochs=3)
    entry = ENTRIES["sgd"]
    rates = [0.1, 1e30, 0.2, 1e30, 0.05, 1e30, 0.3, 1e30, 1e30, 0.15, 1e30, 0.25]
    every = [Trial(entry.rule, entry.values(lr), 1 + i % 2, 32, 3, "cosine", True) for i, lr in enumerate(rates)]
    trainer = Trainer(of, every)
    outcomes = trainer.run()
    assert len(trainer.stack.rows) == stack_size(6)
    alone = [train_stack(of, [trial])[0].to_json() for trial in every[:3]]
    assert [outcome.to_json() for outcome in outcomes[:3]] == alone


def differences(kind: str, dtype: torch.dtype, widths: list[int], known: int) -> list[tuple[int, int]]:
    """Return where a trial has other numbers in a stack than by itself, as (width, place)."""
    of, every = small(kind, dtype), trials(max(widths))
    alone = {i: train_stack(of, [every[i]])[0].to_json() for i in range(max(widths)) if i % (max(widths) // known) == 0}
    found = []
    for width in widths:
        outcomes = train_stack(of, every[:width])
        found += [(width, i) for i in range(width) if i in alone and outcomes[i].to_json() != alone[i]]
    return found


def run_as(capability: str, kinds: list[str], widths: list[int], known: int) -> None:
    """Run `differences` in a process in which torch uses some instructions alone."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if capability != "default" and {"avx2": "avx2", "avx512": "avx512f"}[capability] not in flags:
        pytest.skip(f"this CPU has no {capability}")
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch; from test_row_independence import differences
for kind in {kinds!r}:
    for dtype in (torch.float32, torch.float64):
        found = differences(kind, dtype, {widths!r}, {known})
        print(kind, dtype, found) if found else None
"""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip().splitlines()[-1:]) == (0, "", [])


@pytest.mark.sample(3)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_model_has_the_same_numbers_in_every_stack(capability: str) -> None:
    run_as(capability, ["batch norm of images", "layer and group norm", "padded embedding"], [2, 7, 13], 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("kind", MODELS)
def test_every_model_has_the_same_numbers_in_stacks_of_1_to_33(kind: str, capability: str) -> None:
    run_as(capability, [kind], [*range(1, 34)], 11)


def test_conv_biases_and_batch_norm_of_a_users_model(tmp_path: Path) -> None:
    """The last digits of six trials are the same in stacks of six, of three, and of two."""

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(-1, (1, 8, 8)),
            *(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.SiLU()),
            *(nn.Conv2d(3, 5, 3, stride=2, padding="valid"), nn.BatchNorm2d(5), nn.GELU(), nn.Flatten()),
            *(nn.Linear(20, 7), nn.Mish(), nn.Linear(7, 10)),
        )

    of = tasks.digits.change(model=model)
    every = trials(6, 3)
    every = [Trial(t.rule, t.values, t.seed, 19, 1, "cosine", True) for t in every]
    known = [outcome.to_json() for outcome in train_stack(of, every)]
    for size in (3, 2):
        parts = [every[i : i + size] for i in range(0, 6, size)]
        assert [outcome.to_json() for part in parts for outcome in train_stack(of, part)] == known


IMAGES = """
def model():
    return nn.Sequential(
        nn.Unflatten(-1, (1, 8, 8)),
        *(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.SiLU()),
        *(nn.Conv2d(3, 5, 3, stride=2), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten()),
        nn.Linear(20, 10),
    )
"""
WORDS = """
class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.norm, self.output = nn.Embedding(17, 6), nn.LayerNorm(6), nn.Linear(6, 10)

    def forward(self, x):
        return self.output(self.norm(self.embedding((x * 16).long())).mean(1))


model = Reader
"""
TASK_FILE = """
import gradprix as gp
from torch import nn
from torch.nn import functional

{model}

def data():
    digits = gp.tasks.digits.loaded
    return gp.Data(digits.inputs[:250], digits.targets[:250])


accuracy = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01)
task = gp.Task("mine", model, functional.cross_entropy, accuracy, 0.1, data, batch_size=19, epochs=2)
"""


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(IMAGES, id="convolutions and batch norm"),
        pytest.param(WORDS, id="embedding and layer norm", marks=pytest.mark.slow),
    ],
)
def test_the_values_of_a_task_file_do_not_depend_on_processes_and_seeds(model: str, tmp_path: Path) -> None:
    """Both decide how many models a stack holds."""
    (tmp_path / "mine.py").write_text(TASK_FILE.format(model=model))
    one, two, more = (
        gp.race(
            f"{tmp_path / 'mine.py'}:task",
            "adam,momentum",
            trials=2,
            seeds=seeds,
            engine=gp.engines.Local(processes),
        ).record
        for seeds, processes in ((6, 1), (6, 2), (9, 2))
    )
    assert one.plan.mode.stacked
    assert len({loss for entry in one.entries for loss in entry.losses}) == 12
    for name in ("entries", "tuning_runs", "curves"):
        assert getattr(one, name) == getattr(two, name)
    for entry, wider in zip(one.entries, more.entries, strict=True):
        assert entry.tuned == wider.tuned
        assert entry.losses == wider.losses[:6]
        assert entry.final.values == wider.final.values[:6]


def test_where_an_operation_is_not_known_every_size_is_checked_and_none_is_wider(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 6), Cumulative(), nn.Linear(6, 10))

    of = tasks.digits.change(model=model)
    seen: list[int] = []
    theirs = row_invariance.stack_results

    def results(task: tasks.Task, trial: Trial, width: int) -> list[torch.Tensor]:
        seen.append(width)
        return theirs(task, trial, width)

    monkeypatch.setattr(row_invariance, "stack_results", results)
    monkeypatch.setattr(row_invariance, "TEST_SECONDS", 600.0)
    plan = Plan(of, (ENTRIES["adam"], ENTRIES["momentum"]), seeds=6)
    form = preflight.check(plan)
    assert (form.stacked, form.widest) == (True, 32)
    assert set(seen) == set(capacities(32))
    seen.clear()
    form = preflight.check(Plan(tasks.digits, plan.entries, seeds=6))
    assert (form.stacked, form.widest) == (True, None)
    assert set(seen) == set(row_invariance.REVIEWED_WIDTHS)


class Cumulative(nn.Module):
    """An operation that nobody has read."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.logcumsumexp(-1)


@pytest.mark.parametrize(
    "activation",
    [nn.PReLU(6), nn.LeakyReLU(0.1), nn.ReLU6(), nn.Hardswish(), nn.Hardshrink(), nn.Softshrink()],
    ids=str,
)
def test_activations_in_pieces_train_in_stacks_and_are_reviewed(activation: nn.Module) -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 6), copy.deepcopy(activation), nn.Linear(6, 10))

    of = tasks.digits.change(model=model)
    assert not any(program.unreviewed for program in programs(of, 10))
    every = trials(3, 13)
    alone = [train_stack(of, [trial])[0].to_json() for trial in every]
    assert [outcome.to_json() for outcome in train_stack(of, every)] == alone
