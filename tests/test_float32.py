"""Every kind of model trains in a stack in float32, in which torch has other operations than in float64.

The table of `test_models.py` compares to the last digits. Here it is run again to float tolerance, with the layers,
losses and idioms of torch that exist in two forms, and nothing may be written to the terminal meanwhile.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from gradprix import tasks
from gradprix.tasks.rng import init_model
from gradprix.training import ModelStack, evaluate
from gradprix.training.record_step import REPEATABLE
from gradprix.training.runtime_settings import runtime_settings
from test_models import MODELS, STEPS, TRIALS, Of, conv, image, loss, made, mean_out, plain, rows, score
from torch_helpers import Square

Model = Callable[[], nn.Module]
Pair = [TRIALS[0], TRIALS[2]]


def recurrent(layer: Callable[[], nn.Module], width: int) -> Model:
    return lambda: Of(lambda m, x: m.out(m.r(rows(x))[0][:, -1]), r=layer(), out=nn.Linear(width, 10))


def on_images(*layers: Callable[[], nn.Module]) -> Model:
    return lambda: made(conv(nn.Conv2d(1, 4, 3), *[layer() for layer in layers]))


def hidden(does: Callable[[Tensor], Tensor]) -> Model:
    return lambda: Of(lambda m, x: m.b(does(m.a(x))), a=nn.Linear(64, 16), b=nn.Linear(16, 10))


class Cell(nn.Module):
    """A cell in a loop, with or without a state to begin with."""

    def __init__(self, cell: nn.Module, state: Any = None) -> None:
        super().__init__()
        self.cell, self.state, self.out = cell, state, nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        state = None if self.state is None else self.state(x.new_zeros(len(x), 6))
        for row in rows(x).unbind(1):
            state = self.cell(row, state)
        return self.out(state[0] if isinstance(state, tuple) else state)


def masked(m: Any, x: Tensor) -> Tensor:
    return mean_out(m, m.block(m.embed(rows(x)), src_key_padding_mask=rows(x).sum(-1) == 0))


def in_slots(m: Any, x: Tensor) -> Tensor:
    """Writes each step's output into a tensor that is made beforehand."""
    outputs = torch.zeros(8, len(x), 6)
    hidden = torch.zeros(len(x), 6)
    for i, row in enumerate(rows(x).unbind(1)):
        hidden = torch.tanh(m.a(row) + m.b(hidden))
        outputs[i] = hidden
    return m.out(outputs.mean(0))


def set_by_mask(h: Tensor) -> Tensor:
    h = h.clone()
    h[h < 0] = 0.1
    return h


def without_warning(make: Callable[[], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


class Split(torch.autograd.Function):
    """With `setup_context`, two outputs and no batching rule."""

    @staticmethod
    def forward(x: Tensor, at: int) -> tuple[Tensor, Tensor]:
        return x[:, :at].sign(), x[:, at:] * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def backward(ctx: Any, g: Tensor, h: Tensor) -> Any:
        return torch.cat([g, 2 * h], 1), None


split = Split.apply


class Attends(nn.Module):
    """Keeps its last weights for whoever wants to see them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.weights = nn.Linear(64, 16), nn.Linear(16, 10), None

    def forward(self, x: Tensor) -> Tensor:
        self.weights = self.a(x).softmax(-1)
        return self.b(self.weights)


def pruned() -> nn.Module:
    layer = nn.Linear(64, 16)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return nn.Sequential(layer, nn.Linear(16, 10))


def encoder(**given: Any) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True, **given), 1)


def warped(m: Any, x: Tensor) -> Tensor:
    turn = (0.1 * m.a(x)).view(-1, 2, 3) + torch.eye(2, 3)
    grid = functional.affine_grid(turn, [len(x), 1, 8, 8], align_corners=False)
    return m.out(functional.grid_sample(image(x), grid, align_corners=False).flatten(1))


MORE: dict[str, Model] = {
    "lstm both ways": recurrent(lambda: nn.LSTM(8, 6, bidirectional=True, batch_first=True), 12),
    "lstm with projections": recurrent(lambda: nn.LSTM(8, 6, proj_size=4, batch_first=True), 4),
    "rnn of two layers": recurrent(lambda: nn.RNN(8, 6, 2, nonlinearity="relu", batch_first=True), 6),
    "lstm cell": lambda: Cell(nn.LSTMCell(8, 6), lambda zeros: (zeros, zeros + 1)),
    "lstm cell without state and bias": lambda: Cell(nn.LSTMCell(8, 6, bias=False)),
    "rnn cell": lambda: Cell(nn.RNNCell(8, 6)),
    "rnn cell with relu": lambda: Cell(nn.RNNCell(8, 6, nonlinearity="relu")),
    "gru cell": lambda: Cell(nn.GRUCell(8, 6)),
    "gru cell without bias": lambda: Cell(nn.GRUCell(8, 6, bias=False)),
    "group norm of images": on_images(lambda: nn.GroupNorm(2, 4), nn.ReLU, lambda: nn.GroupNorm(4, 4, affine=False)),
    "instance norm": on_images(lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
    "batch norm without statistics": on_images(lambda: nn.BatchNorm2d(4, track_running_stats=False)),
    "local response norm": on_images(lambda: nn.LocalResponseNorm(2)),
    "changed in place": on_images(partial(nn.ReLU, inplace=True), lambda: nn.Conv2d(4, 4, 1), partial(nn.SiLU, True)),
    "linear changed in place": lambda: nn.Sequential(
        nn.Linear(64, 16), nn.ReLU(inplace=True), nn.Linear(16, 16), nn.Dropout(0.3, inplace=True), nn.Linear(16, 10)
    ),
    "channels last": lambda: Of(
        lambda m, x: m.out(m.n(m.c(image(x).to(memory_format=torch.channels_last))).flatten(1)),
        c=nn.Conv2d(1, 4, 3).to(memory_format=torch.channels_last),
        n=nn.BatchNorm2d(4),
        out=nn.Linear(144, 10),
    ),
    "interpolation": on_images(lambda: nn.Upsample(scale_factor=2, mode="bicubic"), lambda: nn.AdaptiveMaxPool2d(3)),
    "warped": lambda: Of(warped, a=nn.Linear(64, 6), out=nn.Linear(64, 10)),
    "padding mask": lambda: Of(masked, embed=nn.Linear(8, 16), block=encoder(), out=nn.Linear(16, 10)),
    "norm first": lambda: Of(
        lambda m, x: mean_out(m, m.block(m.embed(rows(x)))),
        embed=nn.Linear(8, 16),
        block=nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", norm_first=True, batch_first=True),
        out=nn.Linear(16, 10),
    ),
    "sparse embedding": lambda: Of(
        lambda m, x: mean_out(m, m.e((x * 16).long())), e=nn.Embedding(17, 8, sparse=True), out=nn.Linear(8, 10)
    ),
    "weight norm, as it was": lambda: without_warning(
        lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(64, 16)), nn.Linear(16, 10))
    ),
    "spectral norm of a convolution": lambda: made(conv(parametrizations.spectral_norm(nn.Conv2d(1, 4, 3)))),
    "pruned": pruned,
    "keeps its last weights": Attends,
    "function of autograd": hidden(lambda h: Square.apply(h)),
    "function of autograd with two outputs": hidden(lambda h: torch.cat(split(h, 5), 1)),
    "set by mask": hidden(set_by_mask),
    "filled slots": lambda: Of(in_slots, a=nn.Linear(8, 6), b=nn.Linear(6, 6), out=nn.Linear(6, 10)),
    "sampled": hidden(lambda h: torch.distributions.Normal(h, 1.0).rsample()),
    "vmap of its own": lambda: Of(
        lambda m, x: m.b(torch.func.vmap(lambda each: torch.tanh(m.a(each)))(x)),
        a=nn.Linear(64, 16),
        b=nn.Linear(16, 10),
    ),
    "scripted part": lambda: nn.Sequential(
        without_warning(lambda: torch.jit.script(nn.Linear(64, 16))), nn.Linear(16, 10)
    ),
}


def one_hot(target: Tensor) -> Tensor:
    return functional.one_hot(target, 10).float()


def ctc(output: Tensor, target: Tensor) -> Tensor:
    each = output.log_softmax(-1).expand(4, *output.shape)
    return functional.ctc_loss(each, target[:, None] % 9 + 1, (4,) * len(target), (1,) * len(target))


def gaussian(output: Tensor, target: Tensor, full: bool = True) -> Tensor:
    return functional.gaussian_nll_loss(output[:, 0], target.float(), functional.softplus(output[:, 1]), full=full)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gaussian": gaussian,
    "gaussian, one variance": lambda o, t: nn.GaussianNLLLoss()(o[:, 1:], one_hot(t)[:, 1:], o[:, 0].exp() + 0.1),
    "ctc": ctc,
    "weighted": nn.CrossEntropyLoss(weight=torch.linspace(0.5, 2, 10), label_smoothing=0.1),
    "margin": nn.MultiMarginLoss(p=2),
}


def data() -> tasks.Data:
    digits = tasks.digits.loaded
    return tasks.Data(digits.inputs[:200], digits.targets[:200])


def task(model: Model, loss: Callable[..., Tensor] = loss) -> tasks.Task:
    metric = tasks.Metric("score", score, higher_is_better=True, margin=0.1)
    return tasks.Task("kind", model, loss, metric, -3.0, data, batch_size=10, epochs=1)


def compare(of: tasks.Task, ordered: bool = False) -> None:
    """Compare first gradients, weights and buffers after the steps, and the loss without gradients then."""
    REPEATABLE.update({(of, "train"), (of, "score")})  # `test_models.py` has tried whether it does the same each time
    with runtime_settings():
        stack = ModelStack(of, Pair)
        batches, first = list(stack.data.shuffled_batches(10)), []
        for i in range(STEPS):
            _, computed = stack.compute_gradients(batches[i % 12])
            assert computed is not None
            first = first or [g.clone() for g in computed.values()]
            stack.apply_gradients(computed, 1.0)
        examples = stack.data.valid[:, :10]
        losses, _ = evaluate(stack, examples)
    for row, t in enumerate(Pair):
        after, gradients = plain(of, t, ordered)
        gradients = [g.to_dense() for g in gradients]
        largest = max(float(g.abs().max()) for g in gradients)
        for a, b in zip(first, gradients, strict=True):
            torch.testing.assert_close(a[row], b, rtol=1e-4, atol=2e-6 * largest)
        for name, x in (stack.parameters | stack.buffers).items():
            torch.testing.assert_close(x[row], after[name], rtol=1e-4, atol=2e-5, msg=name)
        model, at = init_model(of.model, t.seed), examples[row]
        model.load_state_dict(after)
        with torch.no_grad():
            alone = of.loss(model.eval()(of.loaded.inputs[at]), of.loaded.targets[at])
        if of.model not in (MODELS["noise"], MORE["sampled"]):  # they draw in evaluation, too
            assert losses[row] == pytest.approx(float(alone), rel=1e-4)


@pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:The PyTorch API of nested")  # torch's plain loop
@pytest.mark.sample(4)
@pytest.mark.parametrize("kind", [*MODELS, *MORE])
def test_a_stack_trains_and_is_evaluated_in_float32_as_a_plain_loop_is(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    compare(task((MODELS | MORE)[kind]), ordered=kind == "transformer")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_of_a_stack_in_float32_are_those_of_a_plain_loop(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    compare(task(MODELS["linear"], LOSSES[kind]))
    assert capfd.readouterr().err == ""
