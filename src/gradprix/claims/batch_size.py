"""Batch size on least squares: gradient noise, and mini-batches compared with single examples and full batches."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradprix.rules import sgd
from gradprix.tasks.rng import stream

from .claim import experiment
from .decisions import all_of, is_above, is_within
from .estimates import exact, mean, median
from .quadratics import exponents, final_point, learning_rate_grid
from .registry import Quantities

N, QUICK = 24, 6
EXAMPLES, D, NOISE = 1_000, 10, 0.5
# The scales of features differ by a factor of up to ten, so curvatures differ by up to a hundred. The first design had
# identical scales: full-batch descent converged in its first step, which is unrealistic.
SCALES = torch.logspace(-1, 0, D, dtype=torch.float64)

SIZES, DRAWS, TOLERANCE = (1, 3, 10, 30, 100, 300, 900), 2_000, 0.05
SMALL = tuple(size for size in SIZES if size <= 0.1 * EXAMPLES)
MINI, PASSES = 32, 2  # batch size of mini-batches, and number of epochs


@dataclass(frozen=True)
class Regression:
    """Batch of n least-squares problems, each with its own data set.

    Args:
        inputs: inputs of the examples, `[n, EXAMPLES, D]`.
        targets: targets of the examples, `[n, EXAMPLES]`.
    """

    inputs: Tensor
    targets: Tensor

    def example_gradients(self) -> tuple[Tensor, Tensor]:
        """Return the mean gradient at zero, `[n, 1, D]`, and each example's deviation from it, `[n, EXAMPLES, D]`."""
        x = torch.zeros(len(self.inputs), D, dtype=torch.float64)
        each = self.inputs * (torch.einsum("ned,nd->ne", self.inputs, x) - self.targets)[..., None]
        average = each.mean(1, keepdim=True)
        return average, each - average

    def gradient(self, x: Tensor, batch: Tensor) -> Tensor:
        """Return the mini-batch gradient at points `[..., n, D]`.

        Args:
            x: points.
            batch: indices of the examples in the mini-batch, the same for all data sets.
        """
        inputs, targets = self.inputs[:, batch], self.targets[:, batch]
        residual = torch.einsum("ned,...nd->...ne", inputs, x) - targets
        return torch.einsum("ned,...ne->...nd", inputs, residual) / len(batch)

    def loss(self, x: Tensor) -> Tensor:
        """Return the difference between the loss on all examples and its minimum, at points `[..., n, D]`."""
        best = torch.linalg.lstsq(self.inputs, self.targets[..., None]).solution[..., 0]

        def mean_square(x: Tensor) -> Tensor:
            return 0.5 * (torch.einsum("ned,...nd->...ne", self.inputs, x) - self.targets).square().mean(-1)

        return mean_square(x) - mean_square(best)


def random_regressions(n: int) -> Regression:
    """Return `n` random data sets whose targets are a linear function of the inputs plus noise."""
    generator = stream(0, "regressions")
    inputs, noise = (torch.randn(n, EXAMPLES, d, generator=generator, dtype=torch.float64) for d in (D, 1))
    inputs = inputs * SCALES
    weights = torch.randn(n, D, generator=generator, dtype=torch.float64) / SCALES
    return Regression(inputs, torch.einsum("ned,nd->ne", inputs, weights) + NOISE * noise[..., 0])


@experiment(
    "noise-falls-as-one-over-batch",
    decide=lambda m: all_of(
        is_within(m["slope"], -1 - TOLERANCE, -1 + TOLERANCE),
        *(is_within(m[f"ratio_{size}"], 1 - TOLERANCE, 1 + TOLERANCE) or None for size in SIZES),
    ),
)
def measure_noise(quick: bool) -> Quantities:
    """Compare the variance of the gradient of batches drawn without replacement with its theoretical value."""
    n, draws = (QUICK, DRAWS // 4) if quick else (N, DRAWS)
    _, deviation = random_regressions(n).example_gradients()
    one = deviation.square().sum(-1).mean(-1)
    generator, bare = stream(1, "batches"), {}
    for size in SIZES:
        variance = torch.zeros(n, dtype=torch.float64)
        for _ in range(draws):
            batch = torch.randperm(EXAMPLES, generator=generator)[:size]
            variance += deviation[:, batch].mean(1).square().sum(-1) / draws
        bare[size] = variance / one * size
    slope = exponents(SMALL, torch.stack([bare[size] / size for size in SMALL]))
    ratios = {f"ratio_{size}": mean(bare[size] * (EXAMPLES - 1) / (EXAMPLES - size)) for size in SIZES}
    effects = [ratio.effect for ratio in ratios.values()]
    return {
        "slope": mean(slope),
        **ratios,
        "bare": mean(bare[SIZES[-1]]),
        "low": exact(min(effects), len(effects)),
        "high": exact(max(effects), len(effects)),
    }


def train(problems: Regression, size: int, lr: Tensor, seed: int) -> Tensor:
    """Train with SGD for `PASSES` epochs and return the final loss, `[..., n]`; infinite if it diverged.

    Args:
        problems: the data sets.
        size: batch size.
        lr: learning rates, `[..., n, 1]`.
        seed: seed of the data order.
    """
    generator, n = stream(seed, f"orders {size}"), len(problems.inputs)
    batches = [part for _ in range(PASSES) for part in torch.split(torch.randperm(EXAMPLES, generator=generator), size)]
    order = iter(batches)
    x = torch.zeros(n, D, dtype=torch.float64) * lr
    last = final_point(sgd, lambda x: problems.gradient(x, next(order)), x, len(batches), lr=lr)
    return problems.loss(last).nan_to_num(float("inf"), float("inf"))


@experiment(
    "mini-batch-sits-between",
    decide=lambda m: all_of(
        is_above(m["over_all"], 0),
        m["one"].ci95[0] > m["mini"].ci95[1] or None,
        m["mini"].ci95[0] > m["all"].ci95[1] or None,
    ),
)
def measure_balance(quick: bool) -> Quantities:
    """Compare single examples, mini-batches and full batches by gradient noise, and by loss after equal epochs.

    The learning rate is tuned for each batch size.
    """
    problems, sizes = random_regressions(QUICK if quick else N), (1, MINI, EXAMPLES)
    initial, grid, log_loss = problems.loss(torch.zeros_like(problems.inputs[:, 0])), learning_rate_grid(sgd), []
    for size in sizes:
        best = grid[train(problems, size, grid[:, None, None], seed=0).argmin(0)][:, None]
        log_loss.append((train(problems, size, best, seed=1) / initial).log10())
    average, deviation = problems.example_gradients()
    one = deviation.square().sum(-1).mean(-1) / average[:, 0].square().sum(-1)
    noise = [one / size * (EXAMPLES - size) / (EXAMPLES - 1) for size in sizes]
    return {
        "over_all": mean(log_loss[2] - log_loss[1]),
        "over_mini": mean(log_loss[1] - log_loss[0]),
        "one": median(noise[0]),
        "mini": median(noise[1]),
        "all": median(noise[2]),
    }
