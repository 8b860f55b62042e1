"""Components of Adam and its relatives: bias correction, Nesterov momentum and weight decay."""

import torch
from torch import Tensor

from gradprix.explain.tracing import step
from gradprix.optim.variants import with_options
from gradprix.rules import Rule, adam, adamax, adamw, nadam, sgd
from gradprix.rules.ir import names
from gradprix.tasks.rng import stream

from .acceleration import overshoot
from .claim import experiment
from .decisions import Decision, is_within
from .estimates import exact, mean, median
from .quadratics import exponents, final_point, quadratics, tuned, updates
from .registry import Quantities

N, QUICK = 24, 6

UNCORRECTED = with_options(adam, {"uncorrected": True})
EARLY, SAME = 100, 0.01  # steps; relative difference of step sizes that counts as none
BETAS, HORIZONS = (0.9, 0.99, 0.999), 5.0
D, CONDITION, BUDGETS = 10, 30.0, (100, 2_000)

LONG, TOLERANCE = 200, 0.05  # number of gradients; tolerated relative difference from Adam's weight

SCALES, DECAY, WEIGHTS, STEPS = (1.0, 10.0, 100.0), 0.1, 200, 500
FLAT, FALLS = 0.05, -0.5  # exponents of the gradient's scale in the decay: thresholds for no and a clear dependence


def step_length_ratio(beta2: float, steps: int, n: int) -> Tensor:
    """Return the ratio of the lengths of Adam's steps without and with bias correction, `[steps]`.

    Args:
        beta2: decay of the second moment.
        steps: number of steps.
        n: number of random gradients to average over, which are the same for both.
    """
    g = torch.randn(steps, n, generator=stream(0, "gradients"), dtype=torch.float64)
    ours, bare = (updates(rule, g, beta2=beta2, eps=0.0) for rule in (adam, UNCORRECTED))
    return (bare / ours).mean(-1)


def decide_bias_correction(m: Quantities) -> Decision:
    """Return the verdict from the number of steps for which the bias correction has an effect."""
    durations = {beta2: m[_key(beta2)].effect for beta2 in BETAS}
    if all(steps <= EARLY for steps in durations.values()):
        return "holds"
    if all(steps <= HORIZONS / (1 - beta2) for beta2, steps in durations.items()):
        return "holds only if", "early means a few times 1/(1 − β₂) steps, thousands at the default"
    return "does not hold"


def say_bias_correction(m: Quantities) -> str:
    """Return a sentence with the measured quantities."""
    costs = " and ".join(f"{m[f'cost_{budget}']} after {budget:,} steps" for budget in BUDGETS if f"cost_{budget}" in m)
    return (
        f"Without correction the first step is {m['first']} times as long. At β₂ = 0.999 lengths differ by more than "
        f"1 % for {m['steps_1000']:,.0f} steps, at 0.99 for {m['steps_100']:,.0f}, at 0.9 for {m['steps_10']:,.0f}. On "
        f"quadratics, tuned, the loss without it is higher by {costs}, in decades."
    )


@experiment("bias-correction-matters-early", decide=decide_bias_correction, say=say_bias_correction)
def measure_bias_correction(quick: bool) -> Quantities:
    """Measure for how many steps the bias correction has an effect, and its effect on the final loss."""
    n, duration, deviation = QUICK if quick else N, {}, 0.0
    for beta2 in BETAS:
        ratio = step_length_ratio(beta2, round(1.2 * HORIZONS / (1 - beta2)), n)
        t = torch.arange(1, len(ratio) + 1, dtype=torch.float64)
        deviation = max(deviation, float((ratio * (1 - beta2**t).sqrt() / (1 - 0.9**t) - 1).abs().max()))
        steps = int(((ratio - 1).abs() > SAME).nonzero().max()) + 1
        duration[beta2] = exact(steps)
    quantities = {
        **{_key(beta2): duration[beta2] for beta2 in (BETAS[-1], *BETAS[:-1])},
        "first": exact(float(ratio[0])),
        "deviation": exact(deviation),
    }
    problems = quadratics(n, D, CONDITION, seed=9)
    for budget in BUDGETS[:1] if quick else BUDGETS:
        log_loss = []
        for rule in (UNCORRECTED, adam):
            lr = tuned(rule, problems, budget)
            x = final_point(rule, problems.gradient, problems.start, budget, lr=lr)
            log_loss.append((problems.loss(x) / problems.loss(problems.start)).clamp(min=1e-24).log10())
        quantities[f"cost_{budget}"] = median(log_loss[0] - log_loss[1])
    return quantities


def _key(beta2: float) -> str:
    return f"steps_{round(1 / (1 - beta2))}"


def uses_newest_gradient(rule: Rule, **options: float | bool) -> bool:
    """Return True if the newest gradient enters the update directly and not only through the momentum.

    This is read from the syntax tree of the rule.
    """
    tree = rule.specialize(rule.values(**options))
    return any("g" in names(assign.value) for assign in tree.assigns if assign.name not in tree.state)


def newest_gradient_weight(rule: Rule, n: int, **options: float | bool) -> list[float]:
    """Return the weight of the newest gradient in the update relative to that of the gradient before it.

    The weights are the derivatives of the update with respect to the gradients.

    Args:
        rule: the rule.
        n: number of random sequences of gradients.
        **options: settings of the rule.

    Returns:
        One ratio per sequence.
    """
    gradients = torch.randn(LONG, n, generator=stream(1, "gradients"), dtype=torch.float64)
    # A large first gradient dominates the denominator, so that the last two gradients change the numerator only.
    gradients[0] = 100.0
    g, state, x = gradients.requires_grad_(), dict[str, Tensor](), torch.zeros(n, dtype=torch.float64)
    for t, each in enumerate(g, 1):
        update = step(rule, rule.values(**options), t, x, each, state)["x"]
    (derivative,) = torch.autograd.grad(update.sum(), g)
    return (derivative[-1] / derivative[-2]).tolist()


RULES: dict[str, tuple[Rule, dict[str, float]]] = {
    "AdaMax": (adamax, {}),
    "Adam": (adam, {}),
    # torch warms up Nadam's momentum from one half. The difference is measurable with the full value from the start.
    "Nadam": (nadam, {"momentum_decay": 1e6}),
    "heavy ball": (sgd, {"momentum": 0.9}),
    "Nesterov": (sgd, {"momentum": 0.9, "nesterov": True}),
}


def decide_acceleration(m: Quantities) -> Decision:
    """Return the verdict from the weight of the newest gradient in AdaMax and in Adam, and from AdaMax's equations."""
    adamax_, adam_, nadam_, heavy, nesterov = (m[name].effect for name in RULES)
    is_same = [abs(ratio - 1) < TOLERANCE for ratio in (adam_ / heavy, nadam_ / nesterov)]
    if not all(is_same) or nadam_ / adam_ <= 1 + TOLERANCE:
        return "inconclusive"  # the measure fails to distinguish momentum from Nesterov momentum
    if m["direct AdaMax"].effect:
        return "holds" if adamax_ / adam_ > 1 + TOLERANCE else "inconclusive"
    return "does not hold" if abs(adamax_ / adam_ - 1) < TOLERANCE else "inconclusive"


def say_acceleration(m: Quantities) -> str:
    """Return a sentence with the measured quantities."""
    path = "beside the momentum" if m["direct AdaMax"].effect else "by the momentum alone"
    return (
        f"The newest gradient has {m['AdaMax']} times the weight of the one before it in AdaMax, {m['Adam']} times in "
        f"Adam and {m['heavy ball']} in heavy ball; {m['Nadam']} in Nadam and {m['Nesterov']} in Nesterov's form, "
        f"which look ahead. In AdaMax's equations the gradient enters the update {path}. At equal learning rate AdaMax "
        f"overshoots {m['overshoot AdaMax']} times as far as Adam, and Nadam {m['overshoot Nadam']} times."
    )


@experiment("adamax-adds-acceleration", decide=decide_acceleration, say=say_acceleration)
def measure_acceleration(quick: bool) -> Quantities:
    """Measure how AdaMax, Adam, Nadam and momentum use the newest gradient, and how far they overshoot the minimum.

    Measured are the coefficient of the newest gradient in the update, and the largest distance beyond the minimum on
    random quadratic functions, relative to that of Adam.
    """
    n = QUICK if quick else N
    problems = quadratics(n, D, CONDITION, seed=10)
    share = torch.rand(n, generator=stream(10, "rates"), dtype=torch.float64)
    lr = (0.01 * 30**share)[:, None]  # all three take steps of about lr for any gradient
    distance = {name: overshoot(problems, lr, *RULES[name]) for name in ("AdaMax", "Adam", "Nadam")}
    return {
        **{x: median(newest_gradient_weight(rule, n, **v)) for x, (rule, v) in RULES.items()},
        **{f"direct {x}": exact(uses_newest_gradient(rule, **v)) for x, (rule, v) in RULES.items()},
        **{
            f"overshoot {x}": median(distance[x] / distance["Adam"])
            for x in ("AdaMax", "Nadam")
        },
    }  # fmt: skip


def shrinkage(rule: Rule, n: int, scale: float, **options: float | bool) -> Tensor:
    """Return the mean amount by which weight decay shrinks weights of 1 whose gradients are pure noise, `[n]`.

    It is the difference between runs without and with weight decay under the same noise.

    Args:
        rule: the rule.
        n: number of runs.
        scale: standard deviation of the gradients.
        **options: settings of the rule.
    """
    x = torch.ones(n, WEIGHTS, dtype=torch.float64)

    def final_weights(decay: float) -> Tensor:
        generator = stream(2, "gradients")
        noise = lambda x: scale * torch.randn(x.shape, generator=generator, dtype=torch.float64)  # noqa: E731
        return final_point(rule, noise, x, STEPS, lr=1e-3, weight_decay=decay, **options)

    return (final_weights(0.0) - final_weights(DECAY)).mean(-1)


def decide_decay(m: Quantities) -> Decision:
    """Return the verdict from the exponents of the gradient's scale in coupled and decoupled weight decay."""
    if is_within(m["decoupled"], -FLAT, FLAT) and m["coupled"].ci95[1] < FALLS:
        return "holds"
    return "does not hold" if abs(m["decoupled"].effect - m["coupled"].effect) < FLAT else "inconclusive"


@experiment("adamw-decay-is-not-l2", decide=decide_decay)
def measure_decay(quick: bool) -> Quantities:
    """Measure how weight decay depends on the scale of the gradients, coupled (Adam) and decoupled (AdamW)."""
    n = QUICK if quick else N
    coupled, decoupled = (torch.stack([shrinkage(rule, n, scale) for scale in SCALES]) for rule in (adam, adamw))
    plain = [shrinkage(sgd, n, 1.0, decoupled_weight_decay=is_decoupled) for is_decoupled in (False, True)]
    return {
        "coupled": mean(exponents(SCALES, coupled)),
        "decoupled": mean(exponents(SCALES, decoupled)),
        "small": mean(coupled[0]),
        "large": mean(coupled[-1]),
        "adamw": mean(decoupled[-1]),
        "sgd": exact(float((plain[0] / plain[1] - 1).abs().max()), n),
    }
