"""Every rule on every landscape: decrease of the loss."""

from scipy.stats import binomtest

from gradprix.explain.descent import descend, tuned
from gradprix.explain.landscapes import LANDSCAPES
from gradprix.rules import ALL

from ._claim import Claim, Finding, Measured, exact

STEPS, QUICK = 60, 30
EFFECT = 1.0  # share of pairs that must end lower than they began
QUICKLY = ("bowl", "ravine", "rosenbrock", "saddle")


def lower(quick: bool) -> Finding:
    """Run every rule of elements or tensors on every landscape, tuned and at its default."""
    steps, names = (QUICK, QUICKLY) if quick else (STEPS, tuple(LANDSCAPES))
    left: dict[bool, list[float]] = {True: [], False: []}
    rules = [rule for rule in ALL.values() if not rule.of_matrices]
    for name in names:
        landscape = LANDSCAPES[name]()
        rates = [tuned(rule, landscape, steps) for rule in rules]
        for at_best, racers in (
            (True, [(rule, rule.values(lr=lr)) for rule, lr in zip(rules, rates, strict=True)]),
            (False, [(rule, rule.values()) for rule in rules]),
        ):
            values = descend(racers, landscape, steps, seed=1)[1][..., 0]
            left[at_best] += (values[-1] - values[0]).tolist()
    return judged(left[True], left[False], len(rules))


def judged(best: list[float], default: list[float], rules: int) -> Finding:
    """Return the verdict from the change of loss of each pair."""

    def share(what: str, changes: list[float]) -> Measured:
        count = sum(change < 0 for change in changes)
        interval = binomtest(count, len(changes)).proportion_ci(0.95)
        return Measured(what, count / len(changes), (float(interval.low), float(interval.high)), len(changes))

    tuned_ = share("share of pairs of a rule and a landscape that end lower, at tuned rates", best)
    usual = share("the same, at default rates", default)
    many = exact("rules that were tried", rules)
    says = (
        f"{tuned_.text('.0%')} of the pairs of {many.text('.0f')} rules and the landscapes end lower than they began "
        f"at their tuned rates, {usual.text('.0%')} at their defaults."
    )
    return Finding("holds" if tuned_.effect >= EFFECT else "does not hold", says, (tuned_, usual, many))


CLAIMS = (
    Claim(
        "rules-lower-the-loss",
        "Optimizers move weights so as to lower the loss.",
        f"After {STEPS} steps at its tuned rate every rule is lower than it began, on every landscape.",
        f"All rules but Muon, which steps matrices, on all {len(LANDSCAPES)} landscapes with two coordinates: holds "
        "when every pair ends lower, does not hold when one does not. The interval is Clopper and Pearson's. The "
        "same on networks is a claim of its own.",
        lower,
        "landscapes",
    ),
)
