"""Components of Adam and its relatives: bias correction, Nesterov momentum and weight decay."""

import numpy as np
import torch
from torch import Tensor

from gradprix.explain.tracing import step
from gradprix.rules import Rule, adam, adamax, adamw, nadam, sgd
from gradprix.rules.ir import names
from gradprix.tasks.rng import stream

from ._acceleration import overshoot
from ._claim import Claim, Finding, Measured, Verdict, exact, mean, median
from ._problems import quadratics, tuned, updates, walk

N, QUICK = 24, 6

EARLY, SAME = 100, 0.01  # steps; relative difference of step sizes that still counts as one
BETAS, HORIZONS = (0.9, 0.99, 0.999), 5.0
D, CONDITION, BUDGETS = 10, 30.0, (100, 2_000)

LONG, LOOKS = 200, 0.05  # gradients before the measured one; tolerated relative difference from Adam's weight

SCALES, DECAY, WEIGHTS, STEPS = (1.0, 10.0, 100.0), 0.1, 200, 500
FLAT, FALLS = 0.05, -0.5  # exponents of the gradient's scale in the decay: thresholds for none and for a clear one


def corrections(beta2: float, steps: int, n: int) -> Tensor:
    """Return the length of Adam's step without bias correction relative to with it, on the same noise, `[steps]`."""
    g = torch.randn(steps, n, generator=stream(0, "gradients"), dtype=torch.float64)
    ours, bare = (updates(adam, g, beta2=beta2, eps=0.0, uncorrected=off) for off in (False, True))
    return (bare / ours).mean(-1)


def bias(quick: bool) -> Finding:
    """Measure the duration of the bias correction, and its effect on the final loss."""
    n, last, off = QUICK if quick else N, [], 0.0
    for beta2 in BETAS:
        ratio = corrections(beta2, round(1.2 * HORIZONS / (1 - beta2)), n)
        t = torch.arange(1, len(ratio) + 1, dtype=torch.float64)
        off = max(off, float((ratio * (1 - beta2**t).sqrt() / (1 - 0.9**t) - 1).abs().max()))
        over = int(((ratio - 1).abs() > SAME).nonzero().max()) + 1
        last.append(exact(f"steps after which lengths differ by less than 1 %, β₂ = {beta2:g}", over))
        if beta2 == BETAS[-1]:
            first = exact("length of the first step without correction over that with it", float(ratio[0]))
    problems = quadratics(n, D, CONDITION, seed=9)
    lost = []
    for budget in BUDGETS[:1] if quick else BUDGETS:
        ends = []
        for uncorrected in (True, False):
            lr = tuned(adam, problems, budget, uncorrected=uncorrected)
            *_, x = walk(adam, problems.gradient, problems.start, budget, lr=lr, uncorrected=uncorrected)
            ends.append((problems.loss(x) / problems.loss(problems.start)).clamp(min=1e-24).log10())
        lost.append(
            median(f"decades of loss it costs to leave it out, tuned, {budget:,} steps", (ends[0] - ends[1]).tolist())
        )
    theory = exact("largest relative distance of the ratio from (1 − β₁ᵗ) / √(1 − β₂ᵗ)", off)
    return judged_bias(last, first, theory, lost)


def judged_bias(last: list[Measured], first: Measured, theory: Measured, lost: list[Measured]) -> Finding:
    """Return the verdict from the duration of the bias correction."""
    costs = " and ".join(m.text() for m in lost)
    says = (
        f"Without correction the first step is {first.text()} times as long. At β₂ = 0.999 lengths differ by more "
        f"than 1 % for {last[-1].text(',.0f')} steps, at 0.99 for {last[1].text(',.0f')}, at 0.9 for "
        f"{last[0].text(',.0f')}. On quadratics, tuned, leaving it out costs {costs} decades of loss."
    )
    measured = (last[-1], *last[:-1], first, theory, *lost)
    if all(m.effect <= EARLY for m in last):
        return Finding("holds", says, measured)
    if all(m.effect <= HORIZONS / (1 - beta2) for m, beta2 in zip(last, BETAS, strict=True)):
        return Finding(
            "holds only if", says, measured, "early means some times 1/(1 − β₂) steps, thousands at the default"
        )
    return Finding("does not hold", says, measured)


def sees_the_gradient(rule: Rule, **options: float | bool) -> bool:
    """Return True if the newest gradient enters the update directly, not only by the momentum; read off the rule."""
    tree = rule.folded(rule.values(**options))
    return any("g" in names(assign.value) for assign in tree.assigns if assign.name not in tree.state)


def newest(rule: Rule, n: int, **options: float | bool) -> list[float]:
    """Return the derivative of the update by the newest gradient relative to the one before, for each draw."""
    gradients = torch.randn(LONG, n, generator=stream(1, "gradients"), dtype=torch.float64)
    # One large gradient first fixes the denominator, so that the last two change the numerator only.
    gradients[0] = 100.0
    g, state, x = gradients.requires_grad_(), dict[str, Tensor](), torch.zeros(n, dtype=torch.float64)
    for t, each in enumerate(g, 1):
        moved = step(rule, rule.values(**options), t, x, each, state)["x"]
    (by,) = torch.autograd.grad(moved.sum(), g)
    return (by[-1] / by[-2]).tolist()


def accelerates(quick: bool) -> Finding:
    """Read the rules, and measure the weight of the newest gradient."""
    n = QUICK if quick else N
    heavy = {"momentum": 0.9}
    given = {
        "AdaMax": (adamax, {}),
        "Adam": (adam, {}),
        # torch warms up Nadam's momentum from one half; the full value from the start makes the difference measurable.
        "Nadam": (nadam, {"momentum_decay": 1e6}),
        "heavy ball": (sgd, heavy),
        "Nesterov": (sgd, {**heavy, "nesterov": True}),
    }
    weights = [
        median(f"weight of the newest gradient over that of the one before, {name}", newest(rule, n, **options))
        for name, (rule, options) in given.items()
    ]
    seen = [
        exact(f"whether the newest gradient enters beside the momentum, {name}", sees_the_gradient(rule, **options))
        for name, (rule, options) in given.items()
    ]
    problems = quadratics(n, D, CONDITION, seed=10)
    share = torch.rand(n, generator=stream(10, "rates"), dtype=torch.float64)
    lr = (0.01 * 30**share)[:, None]  # all three take steps of about lr for any gradient
    passed = {name: overshoot(problems, lr, *given[name]) for name in ("AdaMax", "Adam", "Nadam")}
    past = [
        median(f"overshoot of {name} over Adam's at equal rate", (passed[name] / passed["Adam"]).tolist())
        for name in ("AdaMax", "Nadam")
    ]
    return judged_acceleration(weights, seen, past)


def judged_acceleration(weights: list[Measured], seen: list[Measured], past: list[Measured]) -> Finding:
    """Return the verdict from AdaMax's weights against Adam's, and from its equations."""
    ours, plain, ahead, heavy, nesterov = (m.effect for m in weights)
    says = (
        f"The newest gradient counts {weights[0].text()} times as much as the one before it in AdaMax, "
        f"{weights[1].text()} in Adam and {weights[3].text()} in heavy ball; {weights[2].text()} in Nadam and "
        f"{weights[4].text()} in Nesterov's form, which look ahead. In AdaMax's equations the gradient enters the "
        f"update {'beside the momentum' if seen[0].effect else 'by the momentum alone'}. At equal rate AdaMax goes "
        f"{past[0].text()} times as far past the minimum as Adam, and Nadam {past[1].text()} times."
    )
    measured = (*weights, *seen, *past)
    is_discriminating = (
        abs(plain / heavy - 1) < LOOKS and abs(ahead / nesterov - 1) < LOOKS and ahead / plain > 1 + LOOKS
    )
    if not is_discriminating:
        return Finding("not settled", says, measured)
    if not seen[0].effect and abs(ours / plain - 1) < LOOKS:
        return Finding("does not hold", says, measured)
    return Finding("holds" if seen[0].effect and ours / plain > 1 + LOOKS else "not settled", says, measured)


def shrinkage(rule: Rule, n: int, scale: float, **options: float | bool) -> Tensor:
    """Return the mean shrinkage by weight decay of weights whose gradients are noise of this scale, `[n]`.

    It is the difference of runs with and without decay under the same noise.
    """
    x = torch.ones(n, WEIGHTS, dtype=torch.float64)

    def last(decay: float) -> Tensor:
        generator = stream(2, "gradients")
        noise = lambda x: scale * torch.randn(x.shape, generator=generator, dtype=torch.float64)  # noqa: E731
        *_, end = walk(rule, noise, x, STEPS, lr=1e-3, weight_decay=decay, **options)
        return end

    return (last(0.0) - last(DECAY)).mean(-1)


def slope(rule: Rule, n: int, **options: float | bool) -> list[float]:
    """Return the exponent of the gradient's scale in the shrinkage, for each draw."""
    log_shrinkage = torch.stack([shrinkage(rule, n, scale, **options) for scale in SCALES]).log().numpy()
    fitted: list[float] = np.polyfit(np.log(SCALES), log_shrinkage, 1)[0].tolist()
    return fitted


def decay(quick: bool) -> Finding:
    """Measure the dependence of weight decay on the scale of gradients."""
    n = QUICK if quick else N
    by_gradient, direct = slope(adam, n), slope(adamw, n)
    both = [shrinkage(sgd, n, 1.0, decoupled_weight_decay=decoupled) for decoupled in (False, True)]
    off = float((both[0] / both[1] - 1).abs().max())
    return judged_decay(
        mean("exponent of the gradient's scale in the decay, AdamW", direct),
        mean("exponent of the gradient's scale in the decay, Adam with an L2 penalty", by_gradient),
        mean(
            "share of a weight that decays where gradients are of size 1, Adam with L2",
            shrinkage(adam, n, 1.0).tolist(),
        ),
        mean("the same where they are of size 100", shrinkage(adam, n, 100.0).tolist()),
        mean("share that decays where they are of size 100, AdamW", shrinkage(adamw, n, 100.0).tolist()),
        exact("how far the two are apart in SGD, as a share of the decay", off, n),
    )


def judged_decay(direct: Measured, penalty: Measured, *each: Measured) -> Finding:
    """Return the verdict from the two exponents."""
    small, large, theirs, plain = each
    says = (
        f"Under Adam with an L2 penalty a weight decays as the scale of its gradients to the power {penalty.text()}: "
        f"by {small.text('.2%')} where they are of size 1, by {large.text('.2%')} at 100. Under AdamW the power is "
        f"{direct.text()}, and at 100 it decays by {theirs.text('.2%')}. In SGD the two are one, to "
        f"{plain.text('.0e')}."
    )
    differ = direct.ci95[0] > -FLAT and direct.ci95[1] < FLAT and penalty.ci95[1] < FALLS
    agree = abs(direct.effect - penalty.effect) < FLAT
    verdict: Verdict = "holds" if differ else "does not hold" if agree else "not settled"
    return Finding(verdict, says, (penalty, direct, *each))


CLAIMS = (
    Claim(
        "bias-correction-matters-early",
        "Adam's correction for starting at zero matters only in the first steps.",
        f"After {EARLY} steps Adam's step is as long without it as with it.",
        f"The step after which lengths differ by less than {SAME:.0%}, on the same gradients, for β₂ = "
        f"{', '.join(f'{beta2:g}' for beta2 in BETAS)}: holds when it is at most {EARLY} for all; holds only if "
        f"early means some times 1/(1 − β₂) when it is at most {HORIZONS:g}/(1 − β₂) for all; else does not hold. "
        f"Besides: the loss it costs on {N} random quadratics, tuned with and without.",
        bias,
        "landscapes",
        "Kingma & Ba 2015, arXiv:1412.6980, section 3",
    ),
    Claim(
        "adamax-adds-acceleration",
        "AdaMax improves on Adam by an acceleration term.",
        "The newest gradient enters AdaMax's update beside the momentum that holds it already, as in Nesterov's "
        "form and in Nadam, and so weighs more against the one before than it does in Adam.",
        f"Read off the equations, and measured as the ratio of the two gradients' weights (the median of {N} draws). "
        f"Does not hold when the gradient enters by the momentum alone and the ratio is within {LOOKS:.0%} of "
        "Adam's; holds when it enters beside and the ratio is larger; not settled otherwise, or when the measure "
        "does not tell heavy ball and Adam from Nesterov and Nadam.",
        accelerates,
        "landscapes",
        "Kingma & Ba 2015, arXiv:1412.6980, Algorithm 2; Dozat 2016",
    ),
    Claim(
        "adamw-decay-is-not-l2",
        "In Adam, decay of the weights themselves (AdamW) and an L2 penalty are two different things.",
        "With a penalty, weights whose gradients are large decay less; under AdamW all decay alike.",
        f"Weights under noise of scales 1, 10 and 100, λ = {DECAY:g}, {STEPS} steps, {N} draws: the exponent of the "
        f"scale in the decay. Holds when its 95 % interval is below {FALLS:g} with the penalty and within ± {FLAT:g} "
        f"under AdamW; does not hold when the two differ by less than {FLAT:g}; else not settled.",
        decay,
        "landscapes",
        "Loshchilov & Hutter 2019, arXiv:1711.05101, propositions 1 and 2",
    ),
)
