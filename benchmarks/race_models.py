"""Models whose races are measured: small ones on the digits data, and larger ones on random tokens and images.

The data may be random because the duration of a step does not depend on its values.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp
from gradprix import tasks


class Rows(nn.Module):
    """A transformer with one block, whose tokens are the eight rows of a digit."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.place = nn.Parameter(torch.randn(8, 32) * 0.1)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.out = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, `[batch, 10]`, of digits, `[batch, 64]`."""
        return self.out(self.block(self.embed(x.unflatten(-1, (8, 8))) + self.place).mean(1))


def cnn() -> nn.Module:
    """Return a network of two convolutions, each followed by ReLU and max pooling, and a linear layer."""
    return nn.Sequential(
        nn.Unflatten(-1, (1, 8, 8)),
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 2 * 2, 10)),
    )


class GPT(nn.Module):
    """A causal transformer over tokens.

    Args:
        vocabulary: size of the vocabulary.
        length: number of tokens of an example.
        width: size of the embeddings.
        layers: number of blocks.
        heads: number of attention heads of a block.
        dropout: dropout probability.
    """

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        given = width, heads, 4 * width, dropout, "gelu"
        block = nn.TransformerEncoderLayer(*given, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.out = nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the next token, `[batch, length, vocabulary]`, for tokens, `[batch, length]`."""
        y = self.embed(x) + self.place(torch.arange(x.shape[1], device=x.device))
        return self.out(self.blocks(y, self.mask, is_causal=True))


class Residual(nn.Module):
    """A residual block: two convolutions with batch norm, and a skip connection.

    Args:
        before: number of input channels.
        after: number of output channels.
        stride: stride of the first convolution.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after))
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        skip = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.skip = nn.Identity() if before == after else skip

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, `[batch, after, height, width]`."""
        return torch.relu(self.skip(x) + self.second(torch.relu(self.first(x))))


def resnet() -> nn.Module:
    """Return a residual network of 78,000 parameters for images of 32 × 32 pixels."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


class Recurrent(nn.Module):
    """An LSTM over tokens.

    Args:
        vocabulary: size of the vocabulary.
        width: size of the embeddings and of the hidden state.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(vocabulary, width), nn.LSTM(width, width, batch_first=True)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the next token, `[batch, length, vocabulary]`, for tokens, `[batch, length]`."""
        return self.out(self.layer(self.embed(x))[0])


def token_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy over all tokens."""
    return functional.cross_entropy(output.flatten(0, -2), target.flatten())


def score(output: Tensor, target: Tensor) -> float:
    """Return the mean cross-entropy as a number."""
    return float(token_loss(output, target))


@dataclass(frozen=True)
class Case:
    """A model with its data and the extent of its training.

    Args:
        model: function that creates the model.
        epochs: number of epochs.
        networks: number of training runs of a race.
        data: function that returns inputs and targets; if None, the digits data are used.
        batch_size: examples per step.
        loss: loss of tokens or classes; it also selects the metric.
        runs: number of training runs per optimizer in PyTorch loops.
    """

    model: Callable[[], nn.Module]
    epochs: int
    networks: int
    data: Callable[[], tuple[Tensor, Tensor]] | None = None
    batch_size: int = 32
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    runs: int = 2

    def task(self, name: str) -> gp.Task:
        """Return the task of a race."""
        if self.data is None:
            return tasks.digits.change(name=f"digits-{name}", model=self.model, epochs=self.epochs)
        tokens = self.loss is token_loss
        metric = gp.Metric("loss", score, False, 0.01) if tokens else gp.Metric("accuracy", tasks.accuracy, True, 0.01)
        return gp.Task(
            name=name,
            model=self.model,
            loss=self.loss,
            metric=metric,
            baseline=10.0 if tokens else 0.1,
            data=lambda: gp.Data(*self.data()),  # type: ignore[misc]
            batch_size=self.batch_size,
            epochs=self.epochs,
        )


def tokens(vocabulary: int, length: int, examples: int) -> tuple[Tensor, Tensor]:
    """Return random tokens as inputs and the tokens that follow them as targets, `[examples, length]` each."""
    x = torch.randint(0, vocabulary, (examples, length + 1), generator=torch.Generator().manual_seed(0))
    return x[:, :-1].contiguous(), x[:, 1:].contiguous()


def pictures(examples: int) -> tuple[Tensor, Tensor]:
    """Return random images, `[examples, 3, 32, 32]`, and random classes, `[examples]`."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(examples, 3, 32, 32, generator=generator)
    return x, torch.randint(0, 10, (examples,), generator=generator)


CASES: dict[str, Case] = {
    "mlp": Case(tasks.digits.model, 44, 1_000),
    "cnn": Case(cnn, 44, 400),
    "transformer": Case(Rows, 44, 400),
    "gpt": Case(lambda: GPT(256, 64, 64, 2, 4), 8, 400, lambda: tokens(256, 64, 320), 16, token_loss, 1),
    "resnet": Case(resnet, 4, 400, lambda: pictures(640), runs=1),
    "lstm": Case(lambda: Recurrent(64, 64), 12, 400, lambda: tokens(64, 50, 640), 16, token_loss, 1),
    "large": Case(lambda: GPT(2_048, 64, 320, 7, 8), 2, 104, lambda: tokens(2_048, 64, 80), 8, token_loss, 1),
}
"""Cases by name. Networks of `large`, with ten million parameters, are trained one at a time."""
