"""Row programs: compiled steps equal plain PyTorch within rounding, and a row equals itself in any stack to the bit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gradprix.compiler import IndexedRows, Recording, RowFunction, UnsupportedError
from gradprix.training.rng import FILLS

Loss = Callable[[Tensor, Tensor], Tensor]


def row_function(function: Callable[..., list[Tensor | None]], given: list[Tensor]) -> RowFunction:
    """Compile a function of one model's tensors."""
    return RowFunction(Recording(function, given, FILLS))


class Transformer(nn.Module):
    """A causal transformer over tokens."""

    def __init__(self, norm_first: bool = True, activation: str = "gelu") -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(11, 24, padding_idx=0), nn.Embedding(7, 24)
        self.block = nn.TransformerEncoderLayer(24, 3, 40, 0.0, activation, batch_first=True, norm_first=norm_first)
        self.out = nn.Linear(24, 11)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[batch, length, 11]`."""
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.out(self.block(self.embed(x) + self.place(torch.arange(x.shape[1])), mask, is_causal=True))


class Recurrent(nn.Module):
    """A recurrent layer over tokens."""

    def __init__(self, layer: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed, self.layer, self.out = nn.Embedding(11, 9), layer(9, 13, batch_first=True), nn.Linear(13, 11)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[batch, length, 11]`."""
        return self.out(self.layer(self.embed(x))[0])


class Residual(nn.Module):
    """A residual block with strides, dilation and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.second, self.skip = nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.Conv2d(3, 8, 1, 2)
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[batch, 4]`."""
        y = torch.relu_(self.norm(self.first(x)))
        return self.out(torch.relu(self.second(y) + self.skip(x)).mean((2, 3)))


class Pieces(nn.Module):
    """Operations in place, on parts of tensors, and with values in another order in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 20), nn.Linear(25, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[batch, 5]`."""
        a, b = self.first(x).chunk(2, 1)
        a = (torch.sigmoid(a) + x[:, :1]).mul_(2)
        b = b.clone().tanh_()
        c = torch.stack([a, b], 1).transpose(1, 2).reshape(len(x), 20)
        d = torch.cat([c[:, 3:8], functional.pad(x[:, ::3], (1, 0), value=0.5), c[:, 5:]], 1)
        return self.second(d * torch.where(d > 0, d.abs().sqrt(), torch.exp(d)))


def tokens(*shape: int) -> Tensor:
    """Return tokens, among them the padding."""
    return torch.randint(0, 11, shape)


def per_token(output: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of all tokens."""
    return functional.cross_entropy(output.flatten(0, 1), target.flatten())


CASES: dict[str, tuple[Callable[[], nn.Module], Loss, Callable[[], tuple[Tensor, Tensor]]]] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(12, 33), nn.ReLU(), nn.Linear(33, 17), nn.Tanh(), nn.Linear(17, 10)),
        functional.cross_entropy,
        lambda: (torch.randn(7, 12), torch.randint(0, 10, (7,))),
    ),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 3)),
        functional.cross_entropy,
        lambda: (torch.randn(19, 12), torch.randint(0, 3, (19,))),
    ),
    "activations": (
        lambda: nn.Sequential(
            *(nn.Linear(12, 8), nn.GELU("tanh"), nn.Linear(8, 8), nn.ELU(), nn.Linear(8, 8), nn.LeakyReLU(0.1)),
            *(nn.Linear(8, 8), nn.Softplus(), nn.LayerNorm(8), nn.Linear(8, 8), nn.Hardswish(), nn.LogSoftmax(1)),
        ),
        functional.nll_loss,
        lambda: (torch.randn(6, 12), torch.tensor([0, 1, -100, 3, 7, 7])),
    ),
    "wide": (
        lambda: nn.Sequential(nn.Linear(700, 20), nn.Mish(), nn.Linear(20, 1)),
        functional.mse_loss,
        lambda: (torch.randn(300, 700), torch.randn(300, 1)),
    ),
    "binary": (
        lambda: nn.Sequential(nn.Linear(5, 9), nn.Sigmoid(), nn.Linear(9, 1), nn.Flatten(0)),
        functional.binary_cross_entropy_with_logits,
        lambda: (torch.randn(40, 5), torch.randint(0, 2, (40,)).float()),
    ),
    "convolutions": (
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 7, 2, bias=False), nn.Tanh()),
            *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(7 * 3 * 2, 4)),
        ),
        functional.cross_entropy,
        lambda: (torch.randn(3, 1, 15, 11), torch.randint(0, 4, (3,))),
    ),
    "residual": (
        Residual,
        functional.cross_entropy,
        lambda: (torch.randn(4, 3, 9, 9), torch.randint(0, 4, (4,))),
    ),
    "transformer": (Transformer, per_token, lambda: (tokens(5, 7), tokens(5, 7))),
    "transformer, norm last": (lambda: Transformer(False, "relu"), per_token, lambda: (tokens(2, 5), tokens(2, 5))),
    "lstm": (lambda: Recurrent(nn.LSTM), per_token, lambda: (tokens(3, 6), tokens(3, 6))),
    "gru": (lambda: Recurrent(nn.GRU), per_token, lambda: (tokens(4, 5), tokens(4, 5))),
    "pieces": (Pieces, functional.smooth_l1_loss, lambda: (torch.randn(6, 12), torch.randn(6, 5))),
}


class Case:
    """A model's step on stacked tensors of several rows.

    Args:
        name: one of `CASES`.
        rows: number of models.
    """

    def __init__(self, name: str, rows: int) -> None:
        torch.manual_seed(0)
        make, self.loss, examples = CASES[name]
        self.model, models = make(), [make() for _ in range(rows)]
        self.names = [key for key, _ in self.model.named_parameters()]
        self.buffers = [key for key, _ in self.model.named_buffers()]
        states = [model.state_dict() for model in models]
        batches = [examples() for _ in range(rows)]
        self.args = [torch.stack([state[key] for state in states]) for key in (*self.names, *self.buffers)]
        self.args += [torch.stack(part) for part in zip(*batches, strict=True)]

    def step(self, *args: Tensor) -> list[Tensor | None]:
        """Return the loss and gradients of one model."""
        tensors = dict(zip((*self.names, *self.buffers), args, strict=False))
        loss = self.loss(functional_call(self.model, tensors, (args[-2],)), args[-1])
        return [loss, *torch.autograd.grad(loss, args[: len(self.names)], allow_unused=True)]

    def given(self, row: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Return the tensors of one row, the first of which require gradients."""
        tensors = [x[row].to(dtype) if x.is_floating_point() else x[row].clone() for x in self.args]
        return [x.clone().requires_grad_(i < len(self.names)) for i, x in enumerate(tensors)]


def error(x: Tensor, expected: Tensor) -> float:
    """Return the largest error, relative to the largest element."""
    x, expected = x.detach().double(), expected.detach().double()
    return float((x - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_step_equals_plain_pytorch(name: str) -> None:
    case = Case(name, 3)
    compiled = row_function(case.step, case.given())
    given = [x.clone() for x in case.args]
    results = compiled(*given)
    for row in range(3):
        reference = case.given(row, torch.float64)
        torch.set_default_dtype(torch.float64)
        try:
            case.model.double()
            expected = case.step(*reference)
        finally:
            torch.set_default_dtype(torch.float32)
        single = case.given(row)
        case.model.float()
        plain = case.step(*single)
        for result, exact, usual in zip(results, expected, plain, strict=True):
            assert (result is None) == (exact is None)
            if result is not None:
                assert error(result[row], exact) <= max(2e-6, 4 * error(usual, exact))
        first = len(case.names)
        for after, wanted in zip(given[first:-2], reference[first:-2], strict=True):  # changed in place
            assert torch.allclose(after[row].double(), wanted.double(), 1e-5, 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_row_has_the_same_bits_in_any_stack(name: str) -> None:
    case = Case(name, 6)
    compiled = row_function(case.step, case.given())
    together = compiled(*[x.clone() for x in case.args])
    for rows in ([5], [3, 1], [4, 4, 0, 2, 5]):
        some = compiled(*[x[rows] for x in case.args])
        for x, y in zip(together, some, strict=True):
            assert x is y is None or torch.equal(x[rows], y)


FUNCTIONS = [torch.exp, torch.log, torch.tanh, torch.sigmoid, torch.erf, torch.log1p, torch.expm1, torch.sin, torch.cos]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_elementary_functions_are_within_two_units_in_the_last_place(function: Callable[[Tensor], Tensor]) -> None:
    bits = torch.arange(0, 2**31 - 2**23, 4099, dtype=torch.int64).to(torch.int32)
    positive = bits.view(torch.float32)
    positive = positive[positive >= torch.finfo(torch.float32).tiny]  # workers flush smaller numbers to zero
    if function in (torch.sin, torch.cos):
        positive = positive[positive < 2**40]
    x = torch.cat([positive, -positive, torch.tensor([0.0, -0.0, 1.0, -1.0])])
    special = torch.tensor([float("inf"), float("-inf"), float("nan")])
    (result,) = row_function(lambda x: [function(x)], [x])(x.unsqueeze(0))
    assert result is not None
    exact = function(x.double())
    rounded = exact.float()
    unit = (torch.nextafter(rounded.abs(), torch.tensor(float("inf"))) - rounded.abs()).double()
    is_usual = rounded.isfinite() & (rounded.abs() >= torch.finfo(torch.float32).tiny)
    errors = ((result[0].double() - exact).abs() / unit)[is_usual]
    assert errors.max() <= 2
    is_large = ~rounded.isfinite()
    assert torch.equal(result[0][is_large].nan_to_num(7.0), rounded[is_large].nan_to_num(7.0))
    (at_special,) = row_function(lambda x: [function(x)], [special])(special.unsqueeze(0))
    assert at_special is not None
    assert torch.equal(at_special[0].nan_to_num(7.0), function(special).nan_to_num(7.0))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (6, 16, 8), (7, 17, 300), (40, 33, 513), (1, 64, 64)])
@pytest.mark.parametrize("orders", ["ab", "Ab", "aB", "AB"])
def test_products_of_matrices_of_any_size_and_order(shape: tuple[int, int, int], orders: str) -> None:
    m, n, k = shape
    a = torch.randn(2, k, m) if "A" in orders else torch.randn(2, m, k)
    b = torch.randn(2, n, k) if "B" in orders else torch.randn(2, k, n)

    def product(a: Tensor, b: Tensor) -> list[Tensor | None]:
        return [(a.T if "A" in orders else a) @ (b.T if "B" in orders else b)]

    (result,) = row_function(product, [a[0], b[0]])(a, b)
    assert result is not None
    for row in range(2):
        (exact,) = product(a[row].double(), b[row].double())
        assert exact is not None
        assert error(result[row], exact) < 2e-6


@pytest.mark.parametrize("dims", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 200, 9), (33, 2, 300)])
def test_sums_and_maxima_over_any_dimensions(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    x = torch.randn(2, *shape)
    x[1].view(-1)[0] = float("nan")
    sums, largest = row_function(lambda x: [x.sum(dims), (x + 1).amax(dims)], [x[0]])(x)
    assert sums is not None
    assert largest is not None
    assert ((sums[0] - x[0].double().sum(dims)).abs() <= 2e-7 * x[0].double().abs().sum(dims)).all()
    assert torch.equal(largest[0], (x[0] + 1).amax(dims))
    assert torch.equal(largest[1].isnan(), x[1].amax(dims).isnan())
    assert torch.equal(sums[1].isnan(), x[1].sum(dims).isnan())


def test_an_index_out_of_range_is_an_error() -> None:
    table, index = torch.randn(2, 5, 3), torch.tensor([[0, 4], [1, 5]])
    look_up = row_function(lambda table, index: [functional.embedding(index, table)], [table[0], index[0]])
    with pytest.raises(IndexError):
        look_up(table, index)
    (rows,) = look_up(table, index.clamp(max=4))
    assert rows is not None
    assert torch.equal(rows[0], table[0][index[0]])


def test_bfloat16_is_rounded_as_in_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (4, 300), generator=generator).to(torch.int32)
    bits[:, :4] = torch.tensor([0x3F808000, 0x3F818000, 0x7F7FFFFF, -0x800000])  # ties, overflow, minus infinity
    x = bits.view(torch.float32)

    def run(x: Tensor, half: Tensor) -> list[Tensor | None]:
        y = x.bfloat16()
        picked = half[:, torch.tensor([2, 0, 5])]
        return [y, y.float(), (y + half).exp(), half.max(1).values, picked, torch.cat([half, y], 1)[:, 1::3].float()]

    half = torch.randn(4, 3, 100, generator=generator).bfloat16()
    expected = [run(each, other) for each, other in zip(x.view(4, 3, 100), half, strict=True)]
    results = row_function(run, [x[0].view(3, 100), half[0]])(x.view(4, 3, 100), half)
    for i, result in enumerate(results):
        assert result is not None
        wanted = torch.stack([row[i] for row in expected])
        exact = {"rtol": 0, "atol": 0} if i != 2 else {"rtol": 2**-7, "atol": 0}  # the exponential is torch's or ours
        torch.testing.assert_close(result, wanted, equal_nan=True, **exact)


def test_products_of_bfloat16_are_accumulated_in_float32() -> None:
    x, weight = (torch.randn(2, n, m, generator=torch.Generator().manual_seed(n)) for n, m in ((9, 40), (40, 13)))

    def run(x: Tensor, weight: Tensor) -> list[Tensor | None]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return [x @ weight]

    (result,) = row_function(run, [x[0], weight[0]])(x, weight)
    assert result is not None
    assert result.dtype is torch.bfloat16
    wide = x.bfloat16().double() @ weight.bfloat16().double()
    torch.testing.assert_close(result.double(), wide, rtol=2**-8, atol=1e-4)


def test_numbers_and_draws_may_come_from_constants() -> None:
    rates = torch.linspace(0.1, 0.3, 3)

    def run(x: Tensor) -> list[Tensor | None]:
        shares = torch.distributions.Dirichlet(torch.full((4,), 2.0)).sample()
        return [x * rates[1].item() + rates[rates > 0.15].sum(), x[0] * shares]

    function = row_function(run, [torch.ones(3, 4)])
    (draw,) = function.draws
    x, shares = torch.randn(2, 3, 4), torch.rand(2, 4)
    results = function(x, IndexedRows(shares, torch.tensor([0, 1])))
    assert draw.function is torch.ops.aten._sample_dirichlet.default
    torch.testing.assert_close(results, [x * 0.2 + 0.5, x[:, 0] * shares])


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: [torch.bernoulli(x)], "random"),
        (lambda x: [torch.linalg.inv(x)], "linalg"),
        (lambda x: [x.double()], "float64"),
        (lambda x: [_changed_through_a_view(x)], "view"),
        (lambda x: [x * float(x.sum())], "depends on numbers"),
        (lambda x: [x * KEPT[:2].add_(1).sum()], "outside"),
        (lambda x: [x * KEPT.data.copy_(x[0])], "outside"),
        (lambda x: [_with_other_data(x)], "access"),
        (lambda x: [_with_seed(x)], "state of the random number generator"),
        (lambda x: [_dropped_again(x)], "state of the random number generator"),
        (lambda x: [x * float(x.numpy().max())], "numpy"),
        (lambda x: [x * x.tolist()[0][0]], "tolist"),
        (lambda x: [x * float(np.asarray(x).max())], "__array__|numpy"),
        (lambda x: [x * KEPT.add_(1)], "outside"),
        (lambda x: [x * ((x > 0).long() & 3)], "bitwise"),
    ],
)
def test_what_programs_do_not_have_is_refused(function: Callable[[Tensor], list[Tensor | None]], says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        row_function(function, [torch.eye(3)])


KEPT = torch.zeros(3)
"""A tensor that a function changes, though it is not its argument."""


def _with_other_data(x: Tensor) -> Tensor:
    y = x * 2
    y.data = x * 3
    return y


def _with_seed(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return x + torch.randn_like(x)


def _dropped_again(x: Tensor) -> Tensor:
    x.requires_grad_()

    def drop(x: Tensor) -> Tensor:
        return functional.dropout(x.tanh(), 0.5)

    return torch.autograd.grad(checkpoint(drop, x, use_reentrant=False).sum(), x)[0]


def _changed_through_a_view(x: Tensor) -> Tensor:
    y = x * 2
    y[:, 1].add_(1)
    return y


def test_arguments_that_are_changed_in_place_keep_their_earlier_value_where_it_was_used() -> None:
    def run(x: Tensor, y: Tensor) -> list[Tensor | None]:
        before = x * 3
        x.add_(y)
        return [before, x * y]

    x, y = torch.randn(2, 4), torch.randn(2, 4)
    expected_x = x + y
    before, product = row_function(run, [x[0].clone(), y[0].clone()])(given := x.clone(), y)
    assert before is not None
    assert product is not None
    assert torch.equal(before, x * 3)
    assert torch.equal(given, expected_x)
    assert torch.equal(product, expected_x * y)


def test_functions_that_differ_in_an_unused_argument_have_code_of_their_own() -> None:
    x, y, unused = torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 2)
    without = row_function(lambda x, y: [x * y], [x[0], y[0]])(x, y)
    after = row_function(lambda x, y, _: [x * y], [x[0], y[0], unused[0]])(x, y, unused)
    before = row_function(lambda _, x, y: [x * y], [unused[0], x[0], y[0]])(unused, x, y)
    for (product,) in (without, after, before):
        assert product is not None
        assert torch.equal(product, x * y)


def test_arguments_that_trade_places() -> None:
    def run(x: Tensor, y: Tensor) -> list[Tensor | None]:
        before = x.clone()
        x.copy_(y)
        y.copy_(before)
        return [x - y]

    x, y = torch.randn(2, 4), torch.randn(2, 4)
    given = x.clone(), y.clone()
    (difference,) = row_function(run, [x[0].clone(), y[0].clone()])(*given)
    assert difference is not None
    assert torch.equal(difference, y - x)
    assert torch.equal(given[0], y)
    assert torch.equal(given[1], x)


def test_attention_to_nothing_is_zero() -> None:
    q, k, v = torch.randn(3, 2, 1, 4, 8)
    mask = torch.tensor([[True, False, True, True], [False] * 4, [True] * 4, [False, True, False, False]])

    def attend(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor | None]:
        return [functional.scaled_dot_product_attention(q, k, v, mask)]

    (result,) = row_function(attend, [q[0], k[0], v[0]])(q, k, v)
    assert result is not None
    assert (result[:, :, 1] == 0).all()
    assert torch.allclose(result, functional.scaled_dot_product_attention(q, k, v, mask), 1e-5, 1e-6)


def test_comparisons_and_logic_of_truth_values() -> None:
    def compare(x: Tensor, y: Tensor) -> list[Tensor | None]:
        a, b = x > 0, y > 0
        results = [a < b, a <= b, a > b, a >= b, a == b, a & b, a | ~b, a ^ b, a > False, torch.logical_and(x, y)]
        return [result.float() for result in results]

    x, y = torch.tensor([[1.0, 1, -1, -1, 0]]), torch.tensor([[1.0, -1, 1, -1, 0]])
    for result, expected in zip(row_function(compare, [x[0], y[0]])(x, y), compare(x[0], y[0]), strict=True):
        assert result is not None
        assert expected is not None
        assert torch.equal(result[0], expected)


def test_scattered_sources_and_their_indices() -> None:
    x, source, index = torch.randn(2, 3, 5), torch.randn(2, 3, 4), torch.randint(0, 5, (2, 3, 1))
    scatter = row_function(lambda x, s, i: [x.scatter(1, i, s), x.scatter(1, i, 2.0)], [x[0], source[0], index[0]])
    from_source, from_number = scatter(x, source, index)
    assert from_source is not None
    assert from_number is not None
    for row in range(2):
        assert torch.equal(from_source[row], x[row].scatter(1, index[row], source[row]))
        assert torch.equal(from_number[row], x[row].scatter(1, index[row], 2.0))
    with pytest.raises(IndexError):
        scatter(x, source, index + 5)


def test_constants_are_those_at_the_first_call() -> None:
    def scale(x: Tensor) -> list[Tensor | None]:
        factor = torch.tensor([1.0, 2.0, 3.0]).mul_(2)
        return [x * factor * torch.empty_strided((3,), (1,)).fill_(2.0)]

    x = torch.ones(2, 3)
    (result,) = row_function(scale, [x[0]])(x)
    assert result is not None
    assert torch.equal(result, torch.tensor([[4.0, 8, 12]] * 2))


def test_arguments_are_checked() -> None:
    double = row_function(lambda x: [x * 2], [torch.ones(3)])
    for wrong in (torch.ones(2, 4), torch.ones(2, 3, dtype=torch.float64), torch.ones(3)):
        with pytest.raises(ValueError, match="an argument is"):
            double(wrong)
    (nothing,) = double(torch.ones(0, 3))
    assert nothing is not None
    assert nothing.shape == (0, 3)


def test_long_sums_are_exact_enough() -> None:
    x = torch.rand(1, 2_000_000)
    (total,) = row_function(lambda x: [x.sum()], [x[0]])(x)
    assert total is not None
    assert error(total[0], x[0].double().sum()) < 5e-7


def test_rows_may_share_arguments() -> None:
    x, y, index = torch.randn(2, 3, 4), torch.randn(5, 4), torch.tensor([1, 0, 0, 1, 1])
    shared = IndexedRows(x, index)

    def run(x: Tensor, y: Tensor) -> list[Tensor | None]:
        return [x @ y, x.add_(1)]

    for given in ([x[0].clone(), y[0]], [x.transpose(1, 2)[0].clone(), y[0][:3]]):
        function = row_function(run, given)
        stack = x if given[0].shape == (3, 4) else x.transpose(1, 2)
        shared, own = IndexedRows(stack, index), y[:, : len(given[1])]
        expected, before = function(stack[index], own), stack.clone()
        for result, other in zip(function(shared, own), expected, strict=True):
            assert torch.equal(result, other)
        assert torch.equal(stack, before)


def test_random_numbers_are_arguments() -> None:
    x = torch.randn(4, 5)

    def run(x: Tensor) -> list[Tensor | None]:
        kept = functional.dropout(x, 0.25)
        noise = torch.empty(3).normal_()
        return [kept, x + torch.randn_like(x), noise * torch.rand(3), torch.randint(3, (2,)) * 2]

    function = row_function(run, [x[0]])
    names = [draw.function.__name__ for draw in function.draws]
    assert names == ["bernoulli_.float", "normal_.default", "randn_like.default", "rand.default", "randint.default"]
    mask, normal, other, uniform = torch.ones(4, 5), torch.randn(4, 3), torch.randn(4, 5), torch.rand(4, 3)
    mask[:, ::2] = 0
    classes = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 2]])
    kept, added, product, doubled = function(x, mask, normal, other, uniform, classes)
    assert torch.allclose(kept, x * mask / 0.75)
    assert torch.equal(added, x + other)
    assert torch.equal(product, normal * uniform)
    assert torch.equal(doubled, classes * 2)


def test_an_operation_without_effect_does_not_change_an_argument() -> None:
    function = row_function(lambda x: [x.float().contiguous() * 2], [torch.ones(3)])
    assert function.changed == [False]
