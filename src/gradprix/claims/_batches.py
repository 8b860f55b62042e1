"""Batch size on least squares: gradient noise, and mini-batches compared with single examples and full batches."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradprix.rules import sgd
from gradprix.tasks.rng import stream

from ._claim import Claim, Finding, Measured, Verdict, exact, mean, median
from ._problems import rate_grid, walk

N, QUICK = 24, 6
EXAMPLES, D, NOISE = 1_000, 10, 0.5
# Features differ in scale by a factor of up to ten, curvatures by a hundred. With identical scales, as first designed,
# full-batch descent converged in its first step, which is unrealistic.
SCALES = torch.logspace(-1, 0, D, dtype=torch.float64)

SIZES, DRAWS, OFF = (1, 3, 10, 30, 100, 300, 900), 2_000, 0.05
MINI, PASSES = 32, 2  # examples per mini-batch, and epochs


@dataclass(frozen=True)
class Regression:
    """Least squares on n data sets in parallel.

    Args:
        inputs: `[n, EXAMPLES, D]`.
        targets: `[n, EXAMPLES]`.
    """

    inputs: Tensor
    targets: Tensor

    def each(self, x: Tensor) -> Tensor:
        """Return the gradient of every example at points `[n, D]`, `[n, EXAMPLES, D]`."""
        return self.inputs * (torch.einsum("ned,nd->ne", self.inputs, x) - self.targets)[..., None]

    def gradient(self, x: Tensor, batch: Tensor) -> Tensor:
        """Return the gradient of a batch, the same for all data sets, at points `[..., n, D]`."""
        inputs, targets = self.inputs[:, batch], self.targets[:, batch]
        off = torch.einsum("ned,...nd->...ne", inputs, x) - targets
        return torch.einsum("ned,...ne->...nd", inputs, off) / len(batch)

    def loss(self, x: Tensor) -> Tensor:
        """Return the loss on all examples above its minimum, at points `[..., n, D]`."""
        best = torch.linalg.lstsq(self.inputs, self.targets[..., None]).solution[..., 0]

        def mean_square(x: Tensor) -> Tensor:
            return 0.5 * (torch.einsum("ned,...nd->...ne", self.inputs, x) - self.targets).square().mean(-1)

        return mean_square(x) - mean_square(best)


def regressions(n: int) -> Regression:
    """Return data sets with random weights and noisy targets."""
    generator = stream(0, "regressions")
    inputs, noise = (torch.randn(n, EXAMPLES, d, generator=generator, dtype=torch.float64) for d in (D, 1))
    inputs = inputs * SCALES
    weights = torch.randn(n, D, generator=generator, dtype=torch.float64) / SCALES
    return Regression(inputs, torch.einsum("ned,nd->ne", inputs, weights) + NOISE * noise[..., 0])


def falls(quick: bool) -> Finding:
    """Compare the gradient variance of batches drawn without replacement with theory."""
    n, draws = (QUICK, DRAWS // 4) if quick else (N, DRAWS)
    problems = regressions(n)
    each = problems.each(torch.zeros(n, D, dtype=torch.float64))
    centred = each - each.mean(1, keepdim=True)
    spread = centred.square().sum(-1).mean(-1)
    generator, ratios, bare = stream(1, "batches"), [], []
    for size in SIZES:
        variance = torch.zeros(n, dtype=torch.float64)
        for _ in range(draws):
            chosen = torch.randperm(EXAMPLES, generator=generator)[:size]
            variance += centred[:, chosen].mean(1).square().sum(-1) / draws
        bare.append(variance / spread * size)
        ratios.append(bare[-1] * (EXAMPLES - 1) / (EXAMPLES - size))
    small = [i for i, size in enumerate(SIZES) if size <= 0.1 * EXAMPLES]
    logs = torch.stack([bare[i] / SIZES[i] for i in small]).log().numpy()
    slopes = np.polyfit(np.log([SIZES[i] for i in small]), logs, 1)[0].tolist()
    measured = [mean("exponent of the batch size in the noise, up to a tenth of the examples", slopes)]
    for size, ratio, single in zip(SIZES, ratios, bare, strict=True):
        measured.append(mean(f"noise over (1/b)(N − b)/(N − 1) of one example's, b = {size}", ratio.tolist()))
        if size == SIZES[-1]:
            measured.append(mean(f"noise over 1/b of one example's, b = {size}", single.tolist()))
    return judged_falls(measured[0], measured[1:-1], measured[-1])


def judged_falls(slope: Measured, ratios: list[Measured], bare: Measured) -> Finding:
    """Return the verdict from the exponent and the ratios to theory."""
    low, high = (
        exact(f"{pick.__name__} of the ratios to theory over batch sizes", pick(m.effect for m in ratios), len(ratios))
        for pick in (min, max)
    )
    says = (
        f"Noise falls as the batch size to the power {slope.text()}. Over all sizes it is {low.text('.3f')} to "
        f"{high.text('.3f')} times what theory has with the finite-sample factor; without it, a batch of {SIZES[-1]} "
        f"of {EXAMPLES:,} would be taken for {bare.text()} times its noise."
    )
    fits = all(m.ci95[0] > 1 - OFF and m.ci95[1] < 1 + OFF for m in ratios)
    is_close = slope.ci95[0] > -1 - OFF and slope.ci95[1] < -1 + OFF
    is_far = slope.ci95[0] > -1 + OFF or slope.ci95[1] < -1 - OFF
    verdict: Verdict = "holds" if fits and is_close else "does not hold" if is_far else "not settled"
    return Finding(verdict, says, (slope, *ratios, bare, low, high))


def trained(problems: Regression, size: int, lr: Tensor | float, seed: int) -> Tensor:
    """Return the loss after some passes over the data in shuffled batches, `[..., n]`; infinite if diverged."""
    generator, n = stream(seed, f"orders {size}"), len(problems.inputs)
    batches = [part for _ in range(PASSES) for part in torch.split(torch.randperm(EXAMPLES, generator=generator), size)]
    order = iter(batches)
    x = torch.zeros(n, D, dtype=torch.float64) * torch.as_tensor(lr, dtype=torch.float64)
    *_, last = walk(sgd, lambda x: problems.gradient(x, next(order)), x, len(batches), lr=lr)
    return problems.loss(last).nan_to_num(float("inf"), float("inf"))


def between(quick: bool) -> Finding:
    """Compare noise at one learning rate, and loss after equal examples with each batch size tuned."""
    n = QUICK if quick else N
    problems, sizes = regressions(n), (1, MINI, EXAMPLES)
    losses = []
    for size in sizes:
        rates = rate_grid(sgd)
        tried = trained(problems, size, rates[:, None, None], seed=0)
        best = rates[tried.argmin(0)][:, None]
        losses.append((trained(problems, size, best, seed=1) / problems.loss(0 * best.expand(n, D))).log10())
    each = problems.each(torch.zeros(n, D, dtype=torch.float64))
    one = (each - each.mean(1, keepdim=True)).square().sum(-1).mean(-1) / each.mean(1).square().sum(-1)
    noise = [one / size * (EXAMPLES - size) / (EXAMPLES - 1) for size in sizes]
    return judged_between(
        mean(
            "decades of loss one example a step ends below a mini-batch, equal examples",
            (losses[1] - losses[0]).tolist(),
        ),
        mean("decades of loss a mini-batch ends below all examples, equal examples", (losses[2] - losses[1]).tolist()),
        median("noise over the squared gradient at the start, one example a step", noise[0].tolist()),
        median(f"the same, a mini-batch of {MINI}", noise[1].tolist()),
        median("the same, all examples", noise[2].tolist()),
    )


def judged_between(one: Measured, all_: Measured, *noise: Measured) -> Finding:
    """Return the verdict from the two differences in loss and the three noise measurements."""
    says = (
        f"At the start noise is {noise[0].text()} times the squared gradient with one example a step, "
        f"{noise[1].text('.3f')} with {MINI}, {noise[2].text()} with all. After {PASSES} passes, each at its tuned "
        f"rate, one example a step ends {one.text()} decades of loss below mini-batches, and those {all_.text()} "
        "below all examples."
    )
    quieter = noise[0].ci95[0] > noise[1].ci95[1] and noise[1].ci95[0] > noise[2].ci95[1]
    verdict: Verdict = "not settled"
    if quieter and all_.ci95[0] > 0:
        verdict = "holds"
    elif all_.ci95[1] <= 0:
        verdict = "does not hold"
    return Finding(verdict, says, (all_, one, *noise))


CLAIMS = (
    Claim(
        "noise-falls-as-one-over-batch",
        "A larger batch has less noise in its gradient.",
        f"Drawn without replacement from N = {EXAMPLES:,} examples, the variance of a batch's gradient is that of one "
        "example times (1/b)(N − b)/(N − 1).",
        f"Least squares in {D} weights, {N} data sets, {DRAWS:,} draws of each of {len(SIZES)} batch sizes. Holds "
        f"when for every size the 95 % interval of the ratio to theory is within 1 ± {OFF:g}, and that of the "
        f"exponent of the size, up to a tenth of the examples, within −1 ± {OFF:g}; does not hold when the "
        "exponent's is wholly outside; else not settled.",
        falls,
        "landscapes",
        "Cochran 1977, Sampling Techniques, theorem 2.2",
    ),
    Claim(
        "mini-batch-sits-between",
        "Mini-batches balance the two: less noise than one example at a time, and still efficient.",
        f"A batch of {MINI} has less noise than one example and more than all, and after {PASSES} passes over the "
        "data its loss is lower than that of gradient descent on all.",
        f"Least squares on {EXAMPLES:,} examples with features of scales from 0.1 to 1, {N} data sets, rates tuned "
        "for each on another order of the data. Holds when the intervals of the three noises are apart in that "
        "order and the 95 % interval of the mean difference from all examples is above 0; does not hold when it is "
        "at or below 0; else not settled. Equal examples: what a second buys is another question.",
        between,
        "landscapes",
    ),
)
