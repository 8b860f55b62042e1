"""Models as people train them (autocast, checkpointing, LoRA, libraries) train in a stack as in a plain loop."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

import gradprix as gp
from gradprix.race import ENTRIES
from gradprix.race.plan import Plan
from gradprix.race.preflight import check
from gradprix.tasks.parameter_groups import parameter_groups
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.training import ModelStack
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.rng import SequentialRngMode
from gradprix.training.runtime_settings import runtime_settings
from gradprix.training.trial import Trial
from test_models import Of, image, rows

STEPS, BATCH = 6, 10
INTERNAL = ("vmap", "functorch", "scalar type", "stacked tensors", "aten::", "BatchedTensor", "C++", "NotImplemented")


def autocast(does: Callable[[Any, Tensor], Any]) -> Callable[[Any, Tensor], Any]:
    """Return a forward pass under autocast to bfloat16."""

    def forward(m: Any, x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return does(m, x)

    return forward


in_bfloat16 = autocast(lambda m, x: m.net(x))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.GELU(), nn.Dropout(0.2), nn.Linear(32, 10))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)
    )


def transformer_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)


AUTOCAST: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: Of(in_bfloat16, net=mlp()),
    "float32 outside": lambda: Of(lambda m, x: m.out(in_bfloat16(m, x).float()), net=mlp(), out=nn.Linear(10, 10)),
    "operations of torch": lambda: Of(lambda m, x: in_bfloat16(m, x).double(), net=mlp()),  # programs lack float64
    "convolutions of torch": lambda: Of(autocast(lambda m, x: m.net(image(x)).double()), net=convolutions()),
    "convolutions": lambda: Of(autocast(lambda m, x: m.net(image(x))), net=convolutions()),
    "attention": lambda: Of(
        autocast(lambda m, x: m.out(m.layer(rows(x)).mean(1))), layer=transformer_layer(), out=nn.Linear(8, 10)
    ),
}
"""Forward passes under autocast to bfloat16."""


def checkpointed(m: Any, x: Tensor, use_reentrant: bool) -> Tensor:
    return m.last(checkpoint(m.block, m.first(x), use_reentrant=use_reentrant))


def recomputed(use_reentrant: bool) -> nn.Module:
    """Return a model whose middle part, with dropout, is computed again in the backward pass."""
    block = nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.3), nn.Tanh())
    return Of(
        partial(checkpointed, use_reentrant=use_reentrant), first=nn.Linear(64, 32), block=block, last=nn.Linear(32, 10)
    )


def without_gradients(m: Any, x: Tensor) -> Tensor:
    """Apply a checkpointed part to inputs that require no gradient: its parameters get none either."""
    return m.last(checkpoint(m.block, x, use_reentrant=True) + m.first(x))


def as_adapters_do(m: Any, x: Tensor) -> Tensor:
    """Require gradients of activations, as libraries do before frozen layers that are checkpointed."""
    hidden = m.embed(x)
    hidden.requires_grad_(True)
    return m.last(checkpoint(m.block, hidden, use_reentrant=True))


def adapters() -> nn.Module:
    model = Of(as_adapters_do, embed=nn.Linear(64, 16), block=nn.Linear(16, 16), last=nn.Linear(16, 10))
    model.embed.requires_grad_(False)
    return model


def masked_mean(m: Any, x: Tensor) -> Tensor:
    """Leave out a mask that masks nothing, except in a compiled model, as libraries do."""
    mask = x[:, :16] > 0.1
    if not torch.compiler.is_compiling() and bool(mask.all()):
        return m.out(m.first(x))
    hidden = m.first(x)
    return m.out(torch.where(mask, hidden, 0.0))


def stochastic_depth(m: Any, x: Tensor) -> Tensor:
    """Drop more of the later blocks, with rates that are read out of a constant tensor."""
    rates = torch.linspace(0, 0.3, len(m.blocks))
    for rate, block in zip(rates, m.blocks, strict=True):
        h = block(x)
        x = x + (functional.dropout(h, rate.item()) if m.training and rate.item() > 0 else h)
    return m.out(x)


def drop_path(m: Any, x: Tensor) -> Tensor:
    h = m.block(x)
    if m.training:
        h = h * h.new_empty(len(h), 1).bernoulli_(0.8) / 0.8
    return m.out(x + h)


def mixed_up(m: Any, x: Tensor, draw: Callable[[], Any]) -> tuple[Tensor, Any, Tensor]:
    """Mix each example with another one of the batch; `draw` returns the weight."""
    if not m.training:
        return m.net(x), torch.ones(()), torch.arange(len(x))
    weight, order = draw(), torch.randperm(len(x))
    return m.net(weight * x + (1 - weight) * x[order]), weight, order


def from_beta() -> Tensor:
    return torch.distributions.Beta(0.4, 0.4).sample()


def from_dirichlet(count: int, size: int) -> Tensor:
    return torch.distributions.Dirichlet(torch.ones(size)).sample((count,))


def denoising(m: Any, x: Tensor) -> Tensor:
    """Predict the noise at random steps of a diffusion."""
    steps, noise = torch.randint(0, 50, (len(x),)), torch.randn_like(x)
    share = torch.linspace(0.99, 0.01, 50)[steps][:, None]
    return m.net(share.sqrt() * x + (1 - share).sqrt() * noise) - noise[:, :10]


def residual_of_equation(m: Any, x: Tensor) -> Tensor:
    """Differentiate the model with respect to its input, as in a physics-informed network."""
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        y = m.net(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y + slope[:, :10] ** 2


class GraphConvolution(nn.Module):
    """Averages over the neighbours in a graph, whose edges are a buffer; edges from a node to itself are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(64, 16), nn.Linear(16, 10)
        self.register_buffer("edges", torch.randint(BATCH, (2, 40), generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        source, target = self.edges[:, self.edges[0] != self.edges[1]]
        degree = torch.ones(len(x)).index_add(0, target, torch.ones(len(target)))
        weights = degree.pow_(-0.5)[:, None]
        h = self.first(x) * weights
        return self.out(torch.relu(h.index_add(0, target, h[source]) * weights))


STACKED: dict[str, Callable[[], nn.Module]] = {
    "checkpoint": lambda: recomputed(use_reentrant=False),
    "reentrant checkpoint": lambda: recomputed(use_reentrant=True),
    "checkpoint without gradients": lambda: Of(
        without_gradients, first=nn.Linear(64, 16), block=nn.Linear(64, 16), last=nn.Linear(16, 10)
    ),
    "checkpoint before adapters": adapters,
    "check of a mask": lambda: Of(masked_mean, first=nn.Linear(64, 16), out=nn.Linear(16, 10)),
    "stochastic depth": lambda: Of(
        stochastic_depth, blocks=nn.ModuleList(nn.Linear(64, 64) for _ in range(3)), out=nn.Linear(64, 10)
    ),
    "drop path": lambda: Of(drop_path, block=nn.Linear(64, 64), out=nn.Linear(64, 10)),
    "mixup": lambda: Of(partial(mixed_up, draw=from_beta), net=mlp()),
    "dirichlet noise": lambda: Of(lambda m, x: m.net(x * from_dirichlet(len(x), 64)), net=nn.Linear(64, 10)),
    "graph convolution": GraphConvolution,
    "diffusion": lambda: Of(denoising, net=nn.Linear(64, 10)),
    "derivative of the output": lambda: Of(residual_of_equation, net=nn.Sequential(nn.Linear(64, 10), nn.Tanh())),
}


def loss(output: Any, target: Tensor) -> Tensor:
    if isinstance(output, tuple):  # mixup
        output, weight, order = output
        smooth = partial(functional.cross_entropy, label_smoothing=0.1)
        return weight * smooth(output, target) + (1 - weight) * smooth(output, target[order])
    return functional.cross_entropy(output, target)


def score(output: Any, target: Tensor) -> Tensor:
    return gp.tasks.accuracy(output[0] if isinstance(output, tuple) else output, target)


def digits() -> gp.Data:
    data = gp.tasks.digits.loaded
    return gp.Data(data.inputs[:200], data.targets[:200])


def task(
    model: Callable[[], nn.Module],
    data: Callable[[], gp.Data] = digits,
    loss: Callable[..., Tensor] = loss,
    score: Callable[..., Any] = score,
    **options: Any,
) -> gp.Task:
    metric = gp.Metric("score", score, higher_is_better=True, margin=0.1)
    return gp.Task("real", model, loss, metric, 0.1, data, batch_size=BATCH, epochs=1, **options)


def trial(seed: int, lr: float) -> Trial:
    entry = ENTRIES["momentum"]
    return Trial(entry.rule, entry.values(lr), seed, BATCH, 1, "constant", True)


TRIALS = [trial(1, 0.01), trial(1, 0.05), trial(2, 0.02)]


def plain_losses(of: gp.Task, t: Trial) -> list[float]:
    """Return the losses of the first steps of a plain loop under the trial's seed."""
    model, order = init_model(of.model, t.seed), stream(t.seed, "order")
    model.train()
    index = of.loaded.split(t.seed).train
    index = index[torch.randperm(len(index), generator=order)]
    optimizer = torch.optim.SGD([x for x in model.parameters() if x.requires_grad], lr=t.values["lr"], momentum=0.9)
    losses = []
    with RngState(stream(t.seed, "noise")), SequentialRngMode(torch.default_generator):
        for i in range(STEPS):
            examples = index[BATCH * i :][:BATCH]
            inputs, targets = tree_map(lambda x: x[examples], (of.loaded.inputs, of.loaded.targets))  # noqa: B023
            with torch.autocast("cpu", torch.bfloat16, enabled=of.autocast is not None):
                output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
                value = of.loss(output, targets)
            optimizer.zero_grad()
            value.backward()
            losses.append(value.item())
            optimizer.step()
    return losses


def stack_losses(of: gp.Task, trials: list[Trial], mode: ExecutionMode) -> Tensor:
    """Return the losses of the first steps of a stack, `[steps, trials]`."""
    stack = ModelStack(of, trials, mode)
    batches = list(stack.data.shuffled_batches(BATCH))[:STEPS]
    with runtime_settings():
        return torch.stack([stack.step(batch, 1.0) for batch in batches])[:, : len(trials)].float()


def compare(of: gp.Task, tolerance: float) -> None:
    """Compare a stack with a plain loop, and a row with the same row of another stack."""
    losses = stack_losses(of, TRIALS, ExecutionMode())
    expected = torch.tensor([plain_losses(of, t) for t in TRIALS]).T
    torch.testing.assert_close(losses, expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(stack_losses(of, TRIALS[2:], ExecutionMode())[:, 0], losses[:, 2])


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("kind", STACKED)
def test_a_stack_trains_as_a_plain_loop_does(kind: str) -> None:
    compare(task(STACKED[kind]), 1e-4)


@pytest.mark.parametrize("kind", AUTOCAST)
def test_under_autocast_a_stack_trains_as_a_plain_loop_does(kind: str) -> None:
    compare(task(AUTOCAST[kind]), 3e-2)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("loss", [loss, nn.CrossEntropyLoss(label_smoothing=0.1)])
def test_autocast_of_a_task_covers_model_and_loss(stacked: bool, loss: Callable[..., Tensor]) -> None:
    of = task(mlp, loss=loss, autocast=torch.bfloat16)
    losses = stack_losses(of, TRIALS, ExecutionMode(stacked=stacked))
    expected = torch.tensor([plain_losses(of, t) for t in TRIALS]).T
    torch.testing.assert_close(losses, expected, rtol=3e-2, atol=3e-2)
    without = stack_losses(task(mlp, loss=loss), TRIALS, ExecutionMode(stacked=stacked))
    assert not torch.allclose(losses, without, rtol=1e-5), "numbers are rounded"
    torch.testing.assert_close(losses, without, rtol=3e-2, atol=3e-2)


def test_autocast_is_part_of_the_task() -> None:
    of = task(mlp, autocast=torch.bfloat16)
    assert of.fingerprint != task(mlp).fingerprint
    assert of.options == {"autocast": "bfloat16"}
    with pytest.raises(ValueError, match="float16 needs gradient scaling"):
        task(mlp, autocast=torch.float16)


def test_groups_of_a_task_with_autocast_see_the_model() -> None:
    def groups(model: nn.Module) -> list[dict[str, Any]]:
        return [
            {"params": [model[0].weight], "lr_factor": 0.5},
            {"params": ["0.bias"]},
            {"params": [*model[1:].parameters()]},
        ]

    of = task(mlp, autocast=torch.bfloat16, groups=groups)
    names = [group.names for group in parameter_groups(of.groups, of.build())]
    assert names[0] == ("model.0.weight",)
    assert "model.0.bias" in names[1]


@pytest.mark.parametrize("model", [AUTOCAST["attention"], STACKED["checkpoint"], STACKED["mixup"]])
def test_the_check_before_a_race_lets_them_through(model: Callable[[], nn.Module]) -> None:
    entries = ENTRIES["adam"], ENTRIES["momentum"]
    mode = check(Plan(task(model), entries, seeds=6))
    assert mode.stacked, mode.stack_rejection


def packed(m: Any, x: Tensor) -> Tensor:
    lengths = (x[:, :8] > 0.3).sum(1).clamp(min=1)
    sequences = nn.utils.rnn.pack_padded_sequence(rows(x), lengths, batch_first=True, enforce_sorted=False)
    return m.out(m.r(sequences)[1][0][-1])


def skips_layers(m: Any, x: Tensor) -> Tensor:
    return m.out(x if m.training and torch.rand(1).item() < 0.3 else x + m.block(x))


def on_a_graph(m: Any, x: Tensor) -> Tensor:
    return m.out((torch.eye(64).to_sparse() @ x.T).T)


ONE_AT_A_TIME: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "packed sequence": (lambda: Of(packed, r=nn.LSTM(8, 6, batch_first=True), out=nn.Linear(6, 10)), "padded"),
    "skipped layer": (lambda: Of(skips_layers, block=nn.Linear(64, 64), out=nn.Linear(64, 10)), "reads numbers"),
    "sparse adjacency": (lambda: Of(on_a_graph, out=nn.Linear(64, 10)), "sparse"),
    "mixup by NumPy": (lambda: Of(partial(mixed_up, draw=lambda: np.random.beta(0.4, 0.4)), net=mlp()), "NumPy"),
    "mixup by Python": (lambda: Of(partial(mixed_up, draw=random.random), net=mlp()), "Python"),
    "mixup by a number": (lambda: Of(partial(mixed_up, draw=lambda: from_beta().item()), net=mlp()), "reads numbers"),
}


@pytest.mark.parametrize("kind", ONE_AT_A_TIME)
def test_the_reason_is_in_words_of_the_models_author(kind: str) -> None:
    model, words = ONE_AT_A_TIME[kind]
    mode = check(Plan(task(model), (ENTRIES["momentum"],), seeds=6))
    assert mode.stack_rejection is not None
    assert words in mode.stack_rejection.message
    assert not any(each in mode.stack_rejection.message for each in INTERNAL)


# Models of libraries


@pytest.fixture
def transformers() -> Any:
    return pytest.importorskip("transformers")


IDS = torch.randint(1, 40, (200, 12), generator=torch.Generator().manual_seed(1))
LABELS = IDS[:, 0] % 4
LENGTHS = torch.arange(12) < torch.randint(3, 13, (200, 1), generator=torch.Generator().manual_seed(2))
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def bert(library: Any, **options: Any) -> nn.Module:
    config = library.BertConfig(vocab_size=40, max_position_embeddings=16, num_labels=4, **SIZES, **options)
    return library.BertForSequenceClassification(config)


def gpt2(library: Any) -> nn.Module:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return library.GPT2LMHeadModel(
        library.GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2, **ends)
    )


def llama(library: Any) -> nn.Module:
    config = library.LlamaConfig(vocab_size=40, max_position_embeddings=16, num_key_value_heads=1, **SIZES)
    return library.LlamaForCausalLM(config)


def vit(library: Any) -> nn.Module:
    config = library.ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=4, **SIZES)
    return library.ViTForImageClassification(config)


def with_checkpointing(model: nn.Module, **options: Any) -> nn.Module:
    model.gradient_checkpointing_enable(**({"gradient_checkpointing_kwargs": options} if options else {}))
    return model


def lora(model: nn.Module, *modules: str, **options: Any) -> nn.Module:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(r=4, lora_dropout=0.1, target_modules=[*modules], **options))


def classified() -> gp.Data:
    return gp.Data({"input_ids": IDS, "attention_mask": LENGTHS.long(), "labels": LABELS}, LABELS)


def continued() -> gp.Data:
    return gp.Data({"input_ids": IDS, "labels": IDS}, LABELS)


def continued_with_padding() -> gp.Data:
    labels = IDS.masked_fill(~LENGTHS, -100)
    return gp.Data({"input_ids": IDS, "attention_mask": LENGTHS.long(), "labels": labels}, LABELS)


def seen() -> gp.Data:
    pixels = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return gp.Data({"pixel_values": pixels, "labels": LABELS}, LABELS)


LIBRARIES: dict[str, tuple[Callable[[Any], nn.Module], Callable[[], gp.Data]]] = {
    "BERT": (bert, classified),
    "BERT, eager attention": (partial(bert, attn_implementation="eager"), classified),
    "GPT-2": (gpt2, continued),
    "GPT-2, padded": (gpt2, continued_with_padding),
    "Llama": (llama, continued),
    "Llama, padded": (llama, continued_with_padding),
    "ViT": (vit, seen),
    "GPT-2, checkpointed": (lambda library: with_checkpointing(gpt2(library)), continued),
    "BERT, reentrant": (lambda library: with_checkpointing(bert(library), use_reentrant=True), classified),
    "BERT with LoRA": (lambda library: lora(bert(library), "query", "value", task_type="SEQ_CLS"), classified),
    "GPT-2 with LoRA": (
        lambda library: lora(gpt2(library), "c_attn", task_type="CAUSAL_LM", fan_in_fan_out=True),
        continued,
    ),
}


@pytest.mark.integrations
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", LIBRARIES)
def test_models_of_libraries_train_as_in_a_plain_loop(kind: str, transformers: Any) -> None:
    model, data = LIBRARIES[kind]
    of = task(partial(model, transformers), data, lambda out, _: out.loss, lambda out, _: out.loss)
    compare(of, 1e-4)
