"""What cannot be stacked trains one model at a time, and the reason is in the words of who wrote the model."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp
from gradprix.race.preflight import check
from test_models import Of, few_rows, plan, rows
from torch_helpers import Square

INTERNAL = ("vmap:", "vmap over", "functorch", "atch over", "NYI", "C++", "https:", "lease", "not implemented")


square = Square.apply


class Reads(Square):
    """Looks at its numbers where torch does not notice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x if x.sum() > -1e9 else x


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def packed(m: Any, x: Tensor) -> Tensor:
    lengths = (x[:, :8] > 0.3).sum(1).clamp(min=1)
    sequences = nn.utils.rnn.pack_padded_sequence(rows(x), lengths, batch_first=True, enforce_sorted=False)
    return m.out(m.r(sequences)[1][0][-1])


def by_expert(m: Any, x: Tensor) -> Tensor:
    out = x.new_zeros(len(x), 10)
    chosen = x[:, 20] > 0.5
    out[chosen] = m.a(x[chosen])
    return out + m.b(x)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(network())


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(network(), torch.zeros(2, 64))


def remembers(m: Any, x: Tensor) -> Tensor:
    m.last = getattr(m, "last", 0.0) * 0.5 + m.a(x).mean().detach()
    return m.a(x) + m.last


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "packed sequence": (lambda: Of(packed, r=nn.LSTM(8, 6, batch_first=True), out=nn.Linear(6, 10)), "padded"),
    "boolean index": (lambda: Of(by_expert, a=nn.Linear(64, 10), b=nn.Linear(64, 10)), "torch.where"),
    "nonzero": (lambda: Of(lambda m, x: m.a(x) + len(x.nonzero()), a=nn.Linear(64, 10)), "torch.where"),
    "numpy": (lambda: Of(lambda m, x: m.a(x) * float(x.numpy().max()), a=nn.Linear(64, 10)), "reads numbers"),
    "list": (lambda: Of(lambda m, x: m.a(x) * max(x[0].tolist()), a=nn.Linear(64, 10)), "reads numbers"),
    "scripted": (scripted, "unscripted"),
    "traced": (traced, "unscripted"),
    "data parallel": (lambda: nn.DataParallel(network()), "return the module inside"),
    "function kept under a name": (lambda: Of(lambda m, x: square(m.a(x)).atan(), a=nn.Linear(64, 10)), "F.apply(x)"),
    "function that reads": (lambda: Of(lambda m, x: Reads.apply(m.a(x)), a=nn.Linear(64, 10)), "reads numbers"),
    "average of all batches": (lambda: nn.Sequential(nn.BatchNorm1d(64, momentum=None), nn.Linear(64, 10)), "momentum"),
    "unknown operation": (lambda: nn.Sequential(nn.Linear(64, 10), nn.RReLU()), "aten::rrelu"),
    "state in an attribute": (lambda: Of(remembers, a=nn.Linear(64, 10)), "it changes last as it runs"),
}


def where_it_matters(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output[target != 3], target[target != 3])


def checked(output: Tensor, target: Tensor) -> Tensor:
    assert torch.isfinite(output).all()
    return functional.cross_entropy(output, target)


LOSSES = {"masked": (where_it_matters, "torch.where"), "checked": (checked, "leave the check out")}


def task(model: Callable[[], nn.Module], loss: Callable[..., Tensor] = functional.cross_entropy) -> gp.Task:
    def data() -> gp.Data:
        digits = gp.tasks.digits.loaded
        return gp.Data(digits.inputs[:120], digits.targets[:120])

    metric = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01)
    return gp.Task("kind", model, loss, metric, 0.1, data, batch_size=10, epochs=1)


@pytest.mark.parametrize("kind", [*MODELS, *LOSSES])
def test_the_reason_names_the_cure_and_the_line(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    model, cure = MODELS.get(kind, (network, ""))
    loss, cure = LOSSES.get(kind, (functional.cross_entropy, cure))
    of = task(model, loss)
    form = check(plan(of))
    assert not form.stacked
    assert cure in form.stack_rejection.message
    assert not any(words in form.stack_rejection.message for words in INTERNAL)
    if kind in ("packed sequence", "boolean index", "masked", "checked"):
        assert "test_stacking_errors.py, line" in form.stack_rejection.message
    assert capfd.readouterr().err == ""


def compiled() -> nn.Module:
    return torch.compile(network(), backend="eager")


def lstm() -> nn.Module:
    return Of(
        lambda m, x: m.out(m.r(few_rows(x))[0][:, -1]),
        r=nn.LSTM(8, 6, 2, dropout=0.3, batch_first=True),
        out=nn.Linear(6, 10),
    )


@pytest.mark.parametrize("make", [scripted, compiled, lstm])
def test_a_race_writes_nothing_of_torchs_to_the_terminal(
    make: Callable[[], nn.Module], capfd: pytest.CaptureFixture[str]
) -> None:
    result = gp.race(task(make), "adam,momentum", trials=2, seeds=6, processes=1)
    assert result.record.plan.mode.stacked is (make is not scripted)
    said = capfd.readouterr()
    assert "Warning" not in said.err + said.out
    assert "torch/" not in said.err + said.out


def test_models_are_copied_as_they_were_after_a_check() -> None:
    """What a check puts in the place of torch's functions is gone after it."""
    before = copy.copy(vars(functional)), torch.zeros, Tensor.__setitem__, torch.autograd.Function.apply
    check(plan(task(network)))
    after = copy.copy(vars(functional)), torch.zeros, Tensor.__setitem__, torch.autograd.Function.apply
    assert before == after
