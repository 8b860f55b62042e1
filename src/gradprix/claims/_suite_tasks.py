"""Claims about many tasks, evaluated on the committed races of the textbook's optimizers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.special import betaincinv

from ._claim import Claim, Finding, Measured, Verdict, exact, mean
from ._network_experiment import is_more

ALPHA = 0.05
FEWEST = 5
"""Minimum number of tasks for a statement about tasks in general."""
EFFECT = 0.5
"""Minimum mean lead over tasks, in margins; a margin is the smallest difference that matters on a task."""
MOST = 5.0
"""Limit of a difference on one task, in margins, so that no single task decides."""
USUAL = 0.9
"""Share of tasks on which a default must be good enough for "needs no tuning"."""
FILE = Path(__file__).parents[1] / "show" / "evidence.json"
Evidence = Mapping[str, Any]


def evidence(file: Path = FILE) -> Evidence:
    """Return the committed suite.

    Args:
        file: output of `studies/suite.py`.

    Raises:
        ValueError: if it does not exist or has fewer than five tasks.
    """
    if not file.exists():
        raise ValueError("this claim is about many tasks, and no suite of them is kept: python studies/suite.py")
    suite: Evidence = json.loads(file.read_text("utf-8"))
    if len(suite["tasks"]) < FEWEST:
        raise ValueError(
            f"the suite has {len(suite['tasks'])} tasks, and a claim about many needs {FEWEST}: "
            "python studies/suite.py races on all of them."
        )
    return suite


def lead(suite: Evidence, a: str, b: str) -> Measured:
    """Return an entry's mean lead over another, in margins."""
    regrets = [task["regrets"] for task in suite["tasks"].values()]
    ahead = [min(MOST, max(-MOST, each[b] - each[a])) for each in regrets]
    return mean(f"{a} better than {b}, in margins, mean over tasks", ahead)


def compared(suite: Evidence, a: str, b: str) -> tuple[str, list[Measured]]:
    """Return a comparison of two entries as text, and the measurements, the mean lead first."""
    pairs = [pair for task in suite["tasks"].values() for pair in task["pairs"] if {pair["a"], pair["b"]} == {a, b}]
    ahead = lead(suite, a, b)
    won, lost = (
        exact(
            f"tasks on which {one} wins against {other}, by the verdicts of the races",
            sum((pair["a"], pair["words"]) == (one, "wins") for pair in pairs),
            len(pairs),
        )
        for one, other in ((a, b), (b, a))
    )
    says = (
        f"{a} wins against {b} on {won.text('.0f')} of {len(pairs)} tasks and loses on {lost.text('.0f')}, and is "
        f"{ahead.text()} margins better on average"
    )
    return says, [ahead, won, lost]


def improves(suite: Evidence, entries: Sequence[str], rival: str) -> Finding:
    """Return the verdict of the claim that each of some entries beats a rival over tasks."""
    comparisons = {entry: compared(suite, entry, rival) for entry in entries}
    answers = {entry: is_more(measured[0], EFFECT) for entry, (_, measured) in comparisons.items()}
    true = [entry for entry, answer in answers.items() if answer]
    says = "; ".join(text for text, _ in comparisons.values()) + "."
    measured = [each for _, every in comparisons.values() for each in every]
    if None in answers.values():
        return Finding("not settled", says, measured)
    if len(true) == len(entries):
        return Finding("holds", says, measured)
    if true:
        return Finding("holds only if", says, measured, f"it is {' or '.join(true)}")
    return Finding("does not hold", says, measured)


def beats_all(suite: Evidence, entry: str, rivals: Sequence[str]) -> Finding:
    """Return the verdict of the claim that an entry beats each rival over tasks; the smallest lead comes first."""
    comparisons = sorted((compared(suite, entry, rival) for rival in rivals), key=lambda each: each[1][0].effect)
    answers = [is_more(measured[0], EFFECT) for _, measured in comparisons]
    verdict: Verdict = "does not hold" if False in answers else "not settled" if None in answers else "holds"
    says = "; ".join(text for text, _ in comparisons) + "."
    return Finding(verdict, says, [each for _, every in comparisons for each in every])


def share(what: str, count: int, of: int) -> Measured:
    """Return a proportion with its 95 % interval (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404)."""
    low = float(betaincinv(count, of - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, of - count, 0.975)) if count < of else 1.0
    return Measured(what, count / of, (low, high), of)


def needs_no_tuning(suite: Evidence) -> Finding:
    """Return the verdict of the claim that Adam's default is as good as its tuned learning rate.

    The suite has both for one tuning seed, which slightly favours the tuned one, as the best of several.
    """
    good = suite["defaults"]["adam"]
    good_share = share(
        "share of tasks on which adam's default is within the margin of its tuned rate", sum(good.values()), len(good)
    )
    bad = [name for name, well in good.items() if not well]
    says = f"Adam's default came within the margin of its tuned rate on {good_share.text('.0%')} of tasks"
    says += f"; not on {', '.join(bad)}." if bad else "."
    verdict: Verdict = (
        "holds" if good_share.effect >= USUAL else "does not hold" if good_share.ci95[1] < USUAL else "not settled"
    )
    return Finding(verdict, says, [good_share])


def depends_on_the_problem(suite: Evidence) -> Finding:
    """Return the verdict from rank reversals between tasks."""
    crossed = suite["crossings"]
    reversals = exact(
        "pairs of optimizers that win against each other on different tasks", len(crossed), len(suite["tasks"])
    )
    if crossed:
        pair = crossed[0]
        says = (
            f"{len(crossed)} pairs win against each other on different tasks, such as {pair['a']} against {pair['b']} "
            f"on {', '.join(pair['a_wins'])}, and the other way round on {', '.join(pair['b_wins'])}."
        )
        return Finding("holds", says, [reversals])
    always = [entry for entry in suite["entries"] if all(entry in task["leads"] for task in suite["tasks"].values())]
    says = "No two optimizers win against each other on different tasks"
    says += f", and {', '.join(always)} led on all." if always else "."
    return Finding("does not hold" if always else "not settled", says, [reversals])


def all_learn(suite: Evidence) -> Finding:
    """Return the verdict of the claim that every optimizer beats the trivial answer on every task."""
    leads: dict[tuple[str, str], float] = {}
    for name, task in suite["tasks"].items():
        turn = 1 if task["metric"]["higher_is_better"] else -1
        leads |= {(e, name): turn * (mean - task["trivial"]) / task["margin"] for e, mean in task["means"].items()}
    failed = [f"{entry} on {name}" for (entry, name), above in leads.items() if above < 1]
    least = min(leads, key=lambda key: leads[key])
    beaten = share(
        "share of (optimizer, task) better than the trivial answer by the margin", len(leads) - len(failed), len(leads)
    )
    smallest = exact("smallest lead over the trivial answer, in margins", leads[least], len(leads))
    lost = exact("final runs that diverged", sum(sum(task["diverged"].values()) for task in suite["tasks"].values()))
    says = (
        f"Of the optimizers on tasks, at tuned rates, {beaten.text('.0%')} beat the best constant answer; the least by "
        f"{smallest.text('.1f')} margins ({least[0]} on {least[1]}). {lost.text('.0f')} final runs diverged."
    )
    says += f" Those that do not: {', '.join(failed)}." if failed else ""
    return Finding("does not hold" if failed else "holds", says, [beaten, smallest, lost])


_OVER = (
    "The difference of means over seeds on each task, in units of its margin and at most "
    f"{MOST:g} either way, over all tasks of the suite, {FEWEST} at least. {{}} if the 95 % interval of its mean "
    f"(Student's t) is above zero and it is {EFFECT:g} margins or more; does not hold if the interval is below that."
)


CLAIMS = (
    Claim(
        id="every-optimizer-learns-every-task",
        account="Optimizers decide how a network learns: they move its weights to lower the loss.",
        prediction="At its tuned rate every optimizer does better on every task than the best constant answer.",
        decides="Holds if for each the mean over seeds is better by the task's margin or more, else does not hold.",
        run=lambda quick: all_learn(evidence()),
        on="suite",
    ),
    Claim(
        id="adam-beats-its-halves",
        account="Adam combines adaptive rates and momentum, and so does better than either.",
        prediction="Over tasks, tuned, Adam is better than momentum, and than RMSProp.",
        decides=_OVER.format("Holds for both, momentum and RMSProp,"),
        run=lambda quick: beats_all(evidence(), "adam", ("momentum", "rmsprop")),
        on="suite",
    ),
    Claim(
        id="adam-beats-adadelta-and-momentum",
        account="Adam combines AdaDelta and momentum, and converges faster and more accurately.",
        prediction="Over tasks, tuned, Adam is better than AdaDelta, and than momentum.",
        decides=_OVER.format("Holds for both, AdaDelta and momentum,"),
        run=lambda quick: beats_all(evidence(), "adam", ("adadelta", "momentum")),
        on="suite",
    ),
    Claim(
        id="adamax-and-nadam-improve-on-adam",
        account="AdaMax and Nadam improve on Adam.",
        prediction="Over five tasks or more, tuned, AdaMax is better than Adam, and so is Nadam.",
        decides=_OVER.format("Holds for both, or only for one of them,"),
        run=lambda quick: improves(evidence(), ("adamax", "nadam"), "adam"),
        on="suite",
    ),
    Claim(
        id="adam-needs-no-tuning",
        account="Adam works well at its default rate and needs no tuning.",
        prediction="On nearly every task Adam at its default, 0.001, is within the margin of Adam at its tuned rate.",
        decides=f"Holds if it is on {100 * USUAL:.0f} % of tasks or more; does not hold if the 95 % interval of the "
        "share is below that. One tuning seed each.",
        run=lambda quick: needs_no_tuning(evidence()),
        on="suite",
        source="Sivaprasad et al. 2020, arXiv:1910.11758",
    ),
    Claim(
        id="best-optimizer-depends-on-the-problem",
        account="The right optimizer depends on the problem and its loss surface.",
        prediction="Some optimizer wins against another on one task, and the other against it on another task.",
        decides="Holds if there is such a pair, at 5 % for all pairs of all tasks together; does not hold if there is "
        "none and some optimizer leads on all tasks.",
        run=lambda quick: depends_on_the_problem(evidence()),
        on="suite",
        source="Schmidt et al. 2021, arXiv:2007.01547",
    ),
)
