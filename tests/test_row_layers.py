"""Row programs of single layers and losses: values and gradients equal plain PyTorch within rounding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from gradprix.compiler import Recording, RowFunction
from gradprix.training.rng import FILLS

ROWS = 2


def images(channels: int = 4, size: int = 12) -> Tensor:
    """Return `[3, channels, size, size]`."""
    return torch.randn(3, channels, size, size)


def sequences() -> Tensor:
    """Return `[3, 6, 8]`."""
    return torch.randn(3, 6, 8)


class Scaled(nn.Module):
    """A function of the input times a parameter, so that the gradient of its input is tested, too."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.inner, self.scale = function, nn.ModuleList(modules), nn.Parameter(torch.tensor(1.1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the function's value."""
        return self.function(x * self.scale, *self.inner)


CHOSEN = torch.tensor([2, 0, 2])
PLACES = torch.arange(144).view(3, 6, 8) % 4
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "convolution of sequences": lambda: nn.Conv1d(6, 5, 3, padding=1),
    "strided convolution of sequences": lambda: nn.Conv1d(6, 4, 3, 2, dilation=2, groups=2),
    "transposed convolution of sequences": lambda: nn.ConvTranspose1d(6, 3, 4, 2, 1),
    "batch norm": lambda: nn.BatchNorm1d(6),
    "layer norm": lambda: nn.LayerNorm(8),
    "root mean square norm": lambda: nn.RMSNorm(8),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 5)),
    "parametric relu": nn.PReLU,
    "maximum of pairs": lambda: Scaled(lambda x: functional.max_pool1d(x, 2)),
    "mean of pairs": lambda: Scaled(lambda x: functional.avg_pool1d(x, 2)),
    "maximum": lambda: Scaled(lambda x: x.max(1)[0] + x.min(-1)[0].sum() * x.argmax(-1).float().mean()),
    "norm": lambda: Scaled(lambda x: x.norm(dim=-1)),
    "standard deviation": lambda: Scaled(lambda x: x.std(1) + x.var((0, 2), correction=0).sum()),
    "logarithm of a sum": lambda: Scaled(lambda x: x.logsumexp(-1)),
    "cumulative sum": lambda: Scaled(lambda x: x.cumsum(1)),
    "flip": lambda: Scaled(lambda x: x.flip(1).flip(0, 2)),
    "roll": lambda: Scaled(lambda x: x.roll((1, -3), (1, 2))),
    "sine": lambda: Scaled(lambda x: x.sin() + (3 * x).cos()),
    "powers": lambda: Scaled(lambda x: x**4 + x.abs() ** 1.5 + x**5),
    "rounding": lambda: Scaled(lambda x: x + ((4 * x).round() - x).detach()),
    "choice": lambda: Scaled(lambda x: x[:, CHOSEN]),
    "choice from the end": lambda: Scaled(lambda x: x[:, :, -CHOSEN - 1]),
    "choice of pairs": lambda: Scaled(lambda x: x[torch.arange(3), CHOSEN]),
    "choice of pairs apart": lambda: Scaled(lambda x: x[CHOSEN, :, CHOSEN]),
    "selection": lambda: Scaled(lambda x: x.index_select(1, CHOSEN)),
    "sums of rows": lambda: Scaled(lambda x: torch.zeros(3, 6, 8).index_add(0, CHOSEN, x)),
    "sums by place": lambda: Scaled(lambda x: torch.zeros(3, 4, 8).scatter_add(1, PLACES, x)),
    "look-up by place": lambda: Scaled(lambda x: x.gather(1, PLACES)),
    "negative padding": lambda: Scaled(lambda x: functional.pad(x, (-1, 2, 1, -2))),
    "products": lambda: Scaled(lambda x: torch.einsum("bij,bkj->bik", x, x)),
    "two bidirectional layers": lambda: Scaled(lambda x, m: m(x)[0], nn.LSTM(8, 5, 2, True, True, bidirectional=True)),
    "attention with padding": lambda: Scaled(
        lambda x, m: m(x, x, x, key_padding_mask=torch.arange(6).expand(3, 6) > 4)[0],
        nn.MultiheadAttention(8, 2, batch_first=True),
    ),
}
OF_IMAGES: dict[str, Callable[[], nn.Module]] = {
    "transposed convolution": lambda: nn.ConvTranspose2d(4, 3, 4, 2, 1),
    "transposed convolution with output padding": lambda: nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1),
    "transposed convolution in groups": lambda: nn.ConvTranspose2d(4, 6, 3, 2, groups=2, bias=False),
    "convolution in groups": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "convolution of each channel": lambda: nn.Conv2d(4, 8, 3, 2, 1, groups=4),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "instance norm": lambda: nn.InstanceNorm2d(4, affine=True),
    "maximum of windows that overlap": lambda: Scaled(lambda x: functional.max_pool2d(x, 3, 2, 1)),
    "maximum of dilated windows": lambda: Scaled(lambda x: functional.max_pool2d(x, 3, 2, 1, 2)),
    "maximum of windows beyond the image": lambda: Scaled(lambda x: functional.max_pool2d(x, 5, ceil_mode=True)),
    "mean of windows that overlap": lambda: Scaled(lambda x: functional.avg_pool2d(x, 3, 2, 1)),
    "mean of pixels of the image": lambda: Scaled(lambda x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    "mean of windows beyond the image": lambda: Scaled(lambda x: functional.avg_pool2d(x, 5, 2, 1, ceil_mode=True)),
    "adaptive mean": lambda: Scaled(lambda x: functional.adaptive_avg_pool2d(x, (5, 3))),
    "nearest pixels": lambda: Scaled(lambda x: functional.interpolate(x, size=(20, 17))),
    "bilinear": lambda: Scaled(lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear")),
    "bilinear with corners": lambda: Scaled(
        lambda x: functional.interpolate(x, size=(7, 20), mode="bilinear", align_corners=True)
    ),
    "nearest pixels of a mask": lambda: Scaled(
        lambda x: functional.interpolate(torch.where(x > 1, float("-inf"), x), scale_factor=2).exp()
    ),
    "an image convolved with a part of it": lambda: Scaled(lambda x: functional.conv2d(x, x[:2, :, :3, :3])),
    "reflection": lambda: Scaled(lambda x: functional.pad(x, (1, 2, 2, 1), mode="reflect")),
    "subpixels": lambda: nn.Sequential(nn.Conv2d(4, 8, 1), nn.PixelShuffle(2)),
}
LAYERS |= {
    name: lambda name=name: Scaled(getattr(functional, name))
    for name in "silu mish softplus elu selu celu gelu hardswish hardsigmoid leaky_relu relu6 logsigmoid tanhshrink "
    "softsign hardtanh glu".split()
}
CLASSES, NUMBERS = torch.tensor([1, 0, 2]), torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "smoothed classes": lambda x: functional.cross_entropy(x, CLASSES, label_smoothing=0.1),
    "weighted classes": lambda x: functional.cross_entropy(x, CLASSES, weight=torch.arange(1.0, 6)),
    "ignored class": lambda x: functional.cross_entropy(x, torch.tensor([1, -100, 2])),
    "probabilities": lambda x: functional.cross_entropy(x, NUMBERS.softmax(1)),
    "huber": lambda x: functional.huber_loss(x, NUMBERS),
    "weighted truths": lambda x: functional.binary_cross_entropy_with_logits(
        x, (NUMBERS > 0).float(), pos_weight=torch.arange(1.0, 6)
    ),
    "divergence": lambda x: functional.kl_div(x.log_softmax(1), NUMBERS.softmax(1), reduction="batchmean"),
    "triplets": lambda x: functional.triplet_margin_loss(x, NUMBERS, -NUMBERS),
    "counts": lambda x: functional.poisson_nll_loss(x, NUMBERS.abs()),
}


def check(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
    """Compare loss and gradients of each row with plain PyTorch."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    count = len([*model.parameters()])

    def step(*args: Tensor) -> list[Tensor | None]:
        value = loss(functional_call(model, dict(zip(tensors, args, strict=False)), (args[-1],)))
        return [value, *torch.autograd.grad(value, args[:count])]

    def given() -> list[Any]:
        return [*(y.detach().clone().requires_grad_(y.requires_grad) for y in tensors.values()), x]

    results = RowFunction(Recording(step, given(), FILLS))(*(torch.stack([y.detach()] * ROWS) for y in given()))
    for result, expected in zip(results, step(*given()), strict=True):
        assert result is not None
        assert expected is not None
        assert torch.equal(result[0], result[1])
        assert torch.allclose(
            result[0], expected, rtol=2e-5, atol=2e-5 * max(1.0, float(expected.detach().abs().max()))
        )


def weighted(x: Tensor) -> Tensor:
    """Return a number that depends on each element differently."""
    return (x * torch.linspace(-1, 1, x.numel()).view(x.shape)).sum() + 0.1 * x.square().sum()


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_sequences_equals_torch(name: str) -> None:
    torch.manual_seed(0)
    check(LAYERS[name](), sequences(), weighted)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_layer_of_images_equals_torch(name: str) -> None:
    torch.manual_seed(0)
    check(OF_IMAGES[name](), images(), weighted)


@pytest.mark.parametrize("name", [name for name in OF_IMAGES if "convol" in name])
def test_larger_images_are_convolved(name: str) -> None:
    torch.manual_seed(0)
    check(OF_IMAGES[name](), torch.randn(6, 4, 12, 12), weighted)
    check(nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"), torch.randn(6, 4, 12, 12), weighted)
    check(nn.Conv2d(18, 5, 3, 2, padding=2, dilation=2), torch.randn(6, 18, 12, 12), weighted)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_equals_torch(name: str) -> None:
    torch.manual_seed(0)
    check(nn.Linear(7, 5), torch.randn(3, 7), LOSSES[name])


class Bytes(nn.Module):
    """Pixels as bytes, which are scaled to fractions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[batch, 3]`."""
        return self.layer((x / 255 + (x > 100)).flatten(1))


def test_narrow_whole_numbers() -> None:
    torch.manual_seed(0)
    check(Bytes(), torch.randint(0, 255, (3, 6, 6), dtype=torch.uint8), weighted)
    check(nn.Embedding(11, 5), torch.randint(0, 11, (3, 6), dtype=torch.int32), weighted)
    x = torch.randint(0, 255, (2, 9), dtype=torch.uint8)
    function = RowFunction(Recording(lambda x: [x + x, x * 3 - 7, x.int() % 7 - 3, x.long().clamp(5, 9)], [x[0]]))
    for result, expected in zip(function(x), [x + x, x * 3 - 7, x.int() % 7 - 3, x.long().clamp(5, 9)], strict=True):
        assert result is not None
        assert result.dtype is expected.dtype
        assert torch.equal(result, expected)
