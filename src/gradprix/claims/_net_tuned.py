"""Tuned and default learning rates: Adam against its halves, its default, and several optimizers at theirs."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from gradprix.race import ENTRIES
from gradprix.stats.verdict import judge
from gradprix.tasks import Metric, Task, digits
from gradprix.tasks.builtin.long_tail import class_accuracy
from gradprix.training.trainer import train_stack
from gradprix.training.trial import Outcome
from gradprix.tuning import learning_rate

from ._claim import Claim, Finding, Measured, Verdict, exact, mean
from ._net_outliers import KINDS
from ._network_experiment import finals, is_more, seeds, trial, tuned

ALPHA = 0.05
N = 32
HALVES = ("momentum", "rmsprop")
MARGIN = 100 * digits.metric.margin  # in percentage points
SEVERAL = ("momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam", "adamax", "nadam")
PROBLEMS = {
    "digits": digits,
    "rare digits": KINDS["rare"].change(
        schedule="cosine",
        metric=Metric("mean accuracy of classes", class_accuracy, True, margin=0.01, percent=True),
    ),
}
SEEDS = {"digits": 32, "rare digits": 64}
"""Rare digits have a fifth as many test examples."""
QUICK = 4
"""Seeds of a quick run."""


@cache
def _tuned(quick: bool) -> dict[str, list[float]]:
    """Return the test accuracy of Adam and its halves, tuned, and of Adam at its default, in percentage points."""
    run_seeds = seeds(quick, N)
    rates = tuned(digits, ("adam", *HALVES), quick)
    outcomes_by_name = {
        **finals(digits, rates, run_seeds),
        "default": finals(digits, {"adam": ENTRIES["adam"].default_rate}, run_seeds)["adam"],
    }
    return {name: [_metric(outcome) for outcome in outcomes] for name, outcomes in outcomes_by_name.items()}


def _metric(outcome: Outcome) -> float:
    assert outcome.test_metric is not None, "all of these runs are tested"
    return 100 * outcome.test_metric


def all_beaten(over: Sequence[Measured], margin: float, says: str) -> Finding:
    """Return the verdict on superiority over several, each by a margin."""
    answers = [is_more(difference, margin) for difference in over]
    verdict: Verdict = "does not hold" if False in answers else "not settled" if None in answers else "holds"
    return Finding(verdict, says, list(over))


def _beats_halves(quick: bool) -> Finding:
    values = {name: _tuned(quick)[name] for name in ("adam", *HALVES)}
    # Simultaneous intervals for all pairs, as in a race.
    pairs = judge(values, higher_is_better=True, margin=MARGIN, baseline="adam").pairs
    over = []
    for pair in pairs:
        sign, (low, high) = (1, pair.ci95) if pair.a == "adam" else (-1, (-pair.ci95[1], -pair.ci95[0]))
        half = pair.b if pair.a == "adam" else pair.a
        over.append(
            Measured(
                f"points of test accuracy, adam - {half}", sign * pair.difference, (low, high), len(values["adam"])
            )
        )
    over.sort(key=lambda difference: difference.effect)  # the smallest lead decides
    listed = " and ".join(
        f"{difference.text('+.2f')} points above {difference.what.split(' - ')[1]}" for difference in over
    )
    return all_beaten(over, MARGIN, f"On digits, all tuned, Adam's test accuracy is {listed}.")


def no_worse(lost: Measured, margin: float, says: str, others: Sequence[Measured] = ()) -> Finding:
    """Return the verdict from a loss that must be smaller than a margin."""
    more = is_more(lost, margin)
    return Finding("not settled" if more is None else "does not hold" if more else "holds", says, [lost, *others])


def _needs_no_tuning(quick: bool) -> Finding:
    accuracies = _tuned(quick)
    lost = mean(
        "points of test accuracy, adam tuned - adam at 0.001",
        np.subtract(accuracies["adam"], accuracies["default"]).tolist(),
    )
    rate = exact("tuned rate of adam", tuned(digits, ("adam", *HALVES), quick)["adam"])
    says = (
        f"On digits Adam at its default rate, {ENTRIES['adam'].default_rate:g}, loses {lost.text()} points of test "
        f"accuracy against {rate.text('g')}, its tuned one."
    )
    return no_worse(lost, MARGIN, says, [rate])


def _differences(task: Task, run_seeds: Sequence[int]) -> list[float]:
    """Return the difference of the test metric between Adam at several rates and several optimizers at defaults.

    Each arm is represented by its best run on the validation examples.
    """
    adam = ENTRIES["adam"]
    grid = learning_rate.spread(adam.space["lr"], adam.default_rate, len(SEVERAL))  # type: ignore[arg-type]  # it is a range
    one = [("adam", learning_rate.rate(point)) for point in grid]
    many = [(name, ENTRIES[name].default_rate) for name in SEVERAL]
    outcomes = iter(
        train_stack(task, [trial(task, name, lr, seed) for seed in run_seeds for name, lr in (*one, *many)])
    )
    best = [
        [_metric(min((next(outcomes) for _ in arm), key=lambda outcome: outcome.valid_loss)) for arm in (one, many)]
        for _ in run_seeds
    ]
    return [a - b for a, b in best]


def worth_as_much(differences: Sequence[Measured], margins: Sequence[float], says: str) -> Finding:
    """Return the verdict on equivalence on every problem: each interval within its margin."""
    same = [-m < x.ci95[0] and x.ci95[1] < m for x, m in zip(differences, margins, strict=True)]
    differ = [abs(x.effect) >= m and x.ci95[0] * x.ci95[1] > 0 for x, m in zip(differences, margins, strict=True)]
    verdict: Verdict = "holds" if all(same) else "does not hold" if any(differ) else "not settled"
    return Finding(verdict, says, list(differences))


def _several(quick: bool) -> Finding:
    differences = [
        mean(
            f"points of {task.metric.name} on {name}, best of {len(SEVERAL)} rates of adam - best of {len(SEVERAL)} "
            "optimizers at their defaults",
            _differences(task, seeds(quick, SEEDS[name])[: QUICK if quick else None]),
        )
        for name, task in PROBLEMS.items()
    ]
    listed = " and ".join(f"{x.text('+.2f')} points on {name}" for x, name in zip(differences, PROBLEMS, strict=True))
    says = (
        f"{len(SEVERAL)} rates of Adam are worth {listed} more than {len(SEVERAL)} optimizers at their default rates."
    )
    return worth_as_much(differences, [100 * task.metric.margin for task in PROBLEMS.values()], says)


CLAIMS = (
    Claim(
        id="adam-beats-its-halves-on-digits",
        account="Adam combines adaptive rates and momentum, and converges more accurately than either.",
        prediction="On digits, each at its tuned rate, Adam's test accuracy is higher than that of momentum and that "
        "of RMSProp, by half a point or more.",
        decides=f"Paired over {N} fresh seeds, with a race's intervals that hold together in 95 %. Holds if for both "
        f"the interval is above zero and the difference is {MARGIN:g} points or more; does not hold if for one "
        "the interval is below that.",
        run=_beats_halves,
        on="networks",
    ),
    Claim(
        id="adam-needs-no-tuning-on-digits",
        account="Adam works well at its default rate and needs no tuning.",
        prediction="On digits, Adam at 0.001 is less than half a point of test accuracy behind Adam at its tuned rate.",
        decides=f"Paired over {N} fresh seeds. Holds if the 95 % interval of what is lost is below "
        f"{MARGIN:g} points; does not hold if it is above zero and the loss is that or more.",
        run=_needs_no_tuning,
        on="networks",
        source="Sivaprasad et al. 2020, arXiv:1910.11758",
    ),
    Claim(
        id="several-at-defaults-equal-one-tuned",
        account="So experiment with several optimizers: it is worth as much as tuning one.",
        prediction=f"The best by validation of {len(SEVERAL)} optimizers at their default rates and the best of "
        f"Adam at {len(SEVERAL)} rates over its range, which take as many trainings, do as well on test examples.",
        decides="Holds by two one-sided tests on digits, and on digits of which some are rare: paired over "
        + " and ".join(f"{n} seeds" for n in SEEDS.values())
        + ", the 95 % interval of the difference must lie within the margin of each ("
        + " and ".join(f"{100 * task.metric.margin:g} points" for task in PROBLEMS.values())
        + "). Does not hold if on one the interval is off zero and the difference beyond the margin.",
        run=_several,
        on="networks",
        source="Schmidt et al. 2021, arXiv:2007.01547",
    ),
)
