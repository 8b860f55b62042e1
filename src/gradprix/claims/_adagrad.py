"""AdaGrad: coordinate-wise learning rates, and their decay until, as the textbook has it, learning stops."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradprix.rules import Rule, adagrad, sgd
from gradprix.tasks.rng import stream

from ._claim import Claim, Finding, Measured, Verdict, exact, mean
from ._problems import Gradient, Quadratics, final_loss, quadratics, tuned, updates, walk

N, QUICK = 24, 8
CONDITION, SHORT, DECADE = (
    100.0,
    100,
    1.0,
)  # condition number, steps, and the decades of loss that count as an advantage
FEATURES, BATCHES = 64, {1: 2_000, 64: 200}  # number of features, one per example; and updates by batch size
RARELY, LESS = 0.1, 1 / 1.1  # noise in targets; largest ratio of errors on rare features that counts as learning them

LONG, ROUNDING = 10_000, 1e-10
STEPS, D, NOISE, BEHIND = 1_000, 10, 0.3, 1.0  # the last: decades of loss by which a stalled descent is behind
LEAST = 1e-24  # relative loss below which only rounding remains


def decades(
    problems: Quadratics, rule: Rule, steps: int, lr: Tensor | float, seed: int | None = None, **form: float
) -> Tensor:
    """Return the decimal logarithm of the relative final loss, `[n]`."""
    gradient = problems.gradient if seed is None else problems.noisy(seed)
    remaining = final_loss(problems, walk(rule, gradient, problems.start, steps, lr=lr, **form), steps)
    return (remaining / problems.loss(problems.start)).clamp(min=LEAST).log10()


def ravines(n: int, degrees: float) -> Quadratics:
    """Return the same rotated ravine with n starting points."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    curvature = turn @ torch.diag(torch.tensor([1.0, CONDITION], dtype=torch.float64)) @ turn.T
    along = torch.randn(n, 2, generator=stream(0, "starts of a ravine"), dtype=torch.float64)
    return Quadratics(curvature.expand(n, 2, 2), along @ turn.T, torch.zeros(n, 2, dtype=torch.float64))


def advantage(degrees: float, n: int) -> list[float]:
    """Return the decades by which AdaGrad ends below gradient descent in a rotated ravine, each tuned."""
    problems = ravines(n, degrees)
    ours, plain = (decades(problems, rule, SHORT, tuned(rule, problems, SHORT)) for rule in (adagrad, sgd))
    return (plain - ours).tolist()


def adapts(quick: bool) -> Finding:
    """Compare with gradient descent in a ravine along the axes and in a rotated one."""
    n = QUICK if quick else N
    aligned = mean("decades of loss AdaGrad ends below gradient descent, ravine along the axes", advantage(0, n))
    turned = mean("the same, turned by 45°", advantage(45, n))
    return judged_adapts(aligned, turned)


def judged_adapts(aligned: Measured, turned: Measured) -> Finding:
    """Return the verdict from the two advantages."""
    says = (
        f"In a ravine along the axes AdaGrad ends {aligned.text('.1f')} decades below gradient descent or more, as it "
        f"is beyond what is measured; in the same ravine turned by 45° {turned.text('.1f')}."
    )
    if aligned.ci95[0] > DECADE and turned.ci95[0] > DECADE:
        return Finding("holds", says, (aligned, turned))
    if aligned.ci95[0] > DECADE and turned.ci95[1] < DECADE:
        return Finding("holds only if", says, (aligned, turned), "the terrain's directions are the coordinates")
    return Finding("does not hold" if aligned.ci95[1] < DECADE else "not settled", says, (aligned, turned))


@dataclass(frozen=True)
class Features(Quadratics):
    """Linear regression on one-feature examples, feature k with frequency ∝ 1 / k; x holds the weight errors."""

    batch: int

    def noisy(self, seed: int) -> Gradient:
        """Return the gradient function of random batches."""
        generator, frequency = stream(seed, "examples with features"), self.curvature[0].diagonal()

        def gradient(x: Tensor) -> Tensor:
            n = len(self.start)
            chosen = torch.multinomial(frequency.expand(n, -1), self.batch, replacement=True, generator=generator)
            counts = torch.zeros(n, FEATURES, dtype=torch.float64).scatter_add_(
                1, chosen, torch.ones(n, self.batch, dtype=torch.float64)
            )
            noise = RARELY * torch.randn(n, FEATURES, generator=generator, dtype=torch.float64)
            return (counts * x + counts.sqrt() * noise) / self.batch

        return gradient


def rarer(batch: int, n: int) -> tuple[Tensor, Tensor]:
    """Return the squared errors that AdaGrad and SGD leave in the weights of the rarer features, `[n]` each."""
    frequency = 1 / torch.arange(1, FEATURES + 1, dtype=torch.float64)
    sign = torch.randint(2, (n, FEATURES), generator=stream(0, "weights of features")).double() * 2 - 1
    problems = Features(torch.diag(frequency / frequency.sum()).expand(n, FEATURES, FEATURES), sign, sign, batch)
    remaining = []
    for rule in (adagrad, sgd):
        lr = tuned(rule, problems, BATCHES[batch], seed=0)
        *_, last = walk(rule, problems.noisy(1), sign, BATCHES[batch], lr=lr)
        remaining.append(last[:, FEATURES // 2 :].square().mean(-1))
    return remaining[0], remaining[1]


def rare(quick: bool) -> Finding:
    """Compare the optimizers with one example per step and with many."""
    n = QUICK if quick else N
    ratios, rest = [], []
    for batch in BATCHES:
        ours, plain = rarer(batch, n)
        ratios.append(
            mean(f"error on the rarer features, AdaGrad's share of SGD's, batch of {batch}", (ours / plain).tolist())
        )
        rest += [
            mean(f"share of the error left on them, AdaGrad, batch of {batch}", ours.tolist()),
            mean(f"the same, SGD, batch of {batch}", plain.tolist()),
        ]
    return judged_rare(*ratios, *rest)


def judged_rare(one: Measured, many: Measured, *rest: Measured) -> Finding:
    """Return the verdict from the ratios of errors."""
    says = (
        f"On the rarer half of the features AdaGrad leaves {one.text()} of the error that SGD leaves, each at its "
        f"tuned rate, where a step sees one example, and {many.text()} where it sees a batch of {max(BATCHES)}."
    )
    below, above = [m.ci95[1] < LESS for m in (one, many)], [m.ci95[0] >= LESS for m in (one, many)]
    verdict: Verdict = "holds" if all(below) else "does not hold" if all(above) else "not settled"
    condition = ""
    if any(below) and any(above):
        verdict, condition = "holds only if", f"a step sees {'many examples' if below[1] else 'one example'}"
    return Finding(verdict, says, (one, many, *rest), condition)


def root_t(rule: Rule, steps: int) -> tuple[Measured, Measured]:
    """Return the largest relative deviation from η / √t on constant gradients, and the exponent of t."""
    lr = 0.1
    size = torch.logspace(-3, 3, 7, dtype=torch.float64)
    steps_taken = updates(rule, size.expand(steps, 7), lr=lr, eps=0.0).abs()
    t = torch.arange(1, steps + 1, dtype=torch.float64)[:, None]
    off = (steps_taken / (lr / t.sqrt()) - 1).abs().max()
    slope = np.polyfit(t[:, 0].log().numpy(), steps_taken.log().mean(-1).numpy(), 1)[0]
    return (
        exact("largest relative distance of a step on a constant gradient from η/√t", float(off), 7),
        exact("exponent of t in its length", float(slope), 7),
    )


def shrinks(quick: bool) -> Finding:
    """Run steps on constant gradients."""
    return judged_shrinks(*root_t(adagrad, LONG // 10 if quick else LONG))


def judged_shrinks(off: Measured, slope: Measured) -> Finding:
    """Return the verdict from the largest distance from η / √t."""
    says = (
        f"On constant gradients of every size the step at time t is η/√t to within {off.text('.0e')}: its length "
        f"goes as t to the power {slope.text('.4f')}."
    )
    return Finding("holds" if off.effect <= ROUNDING else "does not hold", says, (off, slope))


# Compared with momentum, as first designed, gradient descent at a constant learning rate "stalled" as well, for lack of
# momentum. The cost of a decaying learning rate shows against a constant one.
def stalls(quick: bool) -> Finding:
    """Compare with gradient descent and momentum: tuned, at defaults, and tuned with noise."""
    n = QUICK if quick else N
    noiseless, noisy = quadratics(n, D, CONDITION, seed=7), quadratics(n, D, CONDITION, seed=7, noise=NOISE)

    def left(rule: Rule, arm: str, **form: float) -> Tensor:
        problems, seed = (noisy, 1) if arm == "noise" else (noiseless, None)
        default = float(rule.hyperparameters["lr"])
        lr = default if arm == "default" else tuned(rule, problems, STEPS, None if seed is None else 0, **form)
        return decades(problems, rule, STEPS, lr, seed, **form)

    arms = {"tuned": "at tuned rates", "default": "at default rates", "noise": "at tuned rates, noisy gradients"}
    ours = {arm: left(adagrad, arm) for arm in arms}
    behind = [
        mean(f"decades of loss AdaGrad is behind {other}, {words}", (ours[arm] - left(sgd, arm, **form)).tolist())
        for other, form in (("gradient descent", {}), ("momentum", {"momentum": 0.9}))
        for arm, words in arms.items()
    ]
    return judged_stalls(*behind)


def judged_stalls(*behind: Measured) -> Finding:
    """Return the verdict from the distance to a constant learning rate in each of three arms."""
    arms, heavy = behind[:3], behind[3:]
    conditions = ("its rate is tuned", "its rate is left at the default", "gradients are noisy")
    stalled = [name for name, arm in zip(conditions, arms, strict=True) if arm.ci95[0] > BEHIND]
    not_stalled = [arm for arm in arms if arm.ci95[1] < BEHIND]
    says = (
        f"AdaGrad's loss over gradient descent's is, in decades, {arms[0].text('.1f')} at tuned rates, "
        f"{arms[1].text('.1f')} at default rates, {arms[2].text('.1f')} at tuned rates with noisy gradients; over "
        f"momentum's {heavy[0].text('.1f')}, {heavy[1].text('.1f')} and {heavy[2].text('.1f')}."
    )
    verdict: Verdict = "not settled"
    if len(stalled) == len(arms):
        verdict = "holds"
    elif len(not_stalled) == len(arms):
        verdict = "does not hold"
    elif len(stalled) + len(not_stalled) == len(arms):
        verdict = "holds only if"
    return Finding(verdict, says, behind, " or ".join(stalled) if verdict == "holds only if" else "")


CLAIMS = (
    Claim(
        "adagrad-adapts-to-directions",
        "AdaGrad adapts its rate to each direction, which suits irregular terrain.",
        f"In a ravine {CONDITION:g} times as steep across as along, AdaGrad ends lower than gradient descent, however "
        "the ravine lies.",
        f"After {SHORT} steps from {N} random starts, both at the rate tuned for each start. Holds when the 95 % "
        f"interval of the mean advantage is above {DECADE:g} decade both along the axes and turned by 45°; holds "
        "only if the terrain's directions are the coordinates when along the axes it is and turned it is below "
        f"{DECADE:g}; does not hold when below {DECADE:g} along the axes; else not settled.",
        adapts,
        "landscapes",
        "Duchi, Hazan & Singer 2011, JMLR 12:2121-2159, with a diagonal matrix",
    ),
    Claim(
        "adagrad-learns-rare-features",
        "AdaGrad suits sparse features: it learns the rare ones, which SGD neglects.",
        f"Linear regression on examples with one of {FEATURES} features each, feature k as often as 1/k: "
        "AdaGrad leaves less error in the weights of the rarer half than SGD.",
        f"Mean ratio of squared errors over {N} data sets, each at the rate tuned for the whole loss, after "
        f"{' and '.join(f'{steps:,} steps on {batch}' for batch, steps in BATCHES.items())} examples. Holds when "
        f"both 95 % intervals are below {LESS:.2g}, does not hold when both are above, holds only if when one is below "
        "and one above; else not settled.",
        rare,
        "landscapes",
        "Duchi, Hazan & Singer 2011, JMLR 12:2121-2159, section 1.3",
        "As first decided, half of the error had to be gone, more than the account says: 0.66 did not hold. Since, a "
        "tenth has to be. And features were first of one size, so that there was nothing to adapt to.",
    ),
    Claim(
        "adagrad-shrinks-as-root-t",
        "AdaGrad's rate keeps falling as squared gradients add up.",
        "On a constant gradient of any size the step at time t is η/√t.",
        f"For {LONG:,} steps on gradients from 0.001 to 1,000, with ε = 0: holds when no step is further from η/√t "
        f"than {ROUNDING:g} of it; else does not hold.",
        shrinks,
        "landscapes",
        "Duchi, Hazan & Singer 2011, JMLR 12:2121-2159, eq. 1",
    ),
    Claim(
        "adagrad-stalls",
        "AdaGrad's rate falls until learning stops.",
        f"After {STEPS:,} steps much of the loss is still to be gained, which a constant rate has gained.",
        f"Decades of loss behind gradient descent on {N} random quadratics ({D} directions, condition number "
        f"{CONDITION:g}), in three arms: both tuned, both at their default rates, both tuned with noise in the "
        f"gradients. An arm stalls when the 95 % interval of the mean is above {BEHIND:g} decade. Holds when all do, "
        "does not hold when none does, holds only if when some do and the others are below; else not settled.",
        stalls,
        "landscapes",
        "Zeiler 2012, arXiv:1212.5701, section 2.3",
        "Compared with momentum at first, which is faster for another reason; with gradient descent at a constant rate "
        "since. At default rates the answer hangs on the scale of the loss, to which gradient descent's rate is tied.",
    ),
)
