"""Claims about many tasks, evaluated on the committed races of the textbook's optimizers."""

from collections.abc import Sequence
from pathlib import Path

from gradprix.race.evidence import EVIDENCE, Evidence, load_evidence
from gradprix.race.suite_record import SuiteSummary
from gradprix.stats.verdict import PairVerdict

from .claim import experiment
from .decisions import Decision, all_of, any_of, is_relevant
from .estimates import Measured, exact, mean, proportion
from .registry import Quantities

FEWEST = 5  # minimum number of tasks for a statement about tasks in general
EFFECT = 0.5  # minimum mean lead over tasks, in margins; a margin is the smallest difference that matters on a task
MOST = 5.0  # limit to which the difference on one task is clipped, in margins, so that no single task decides
USUAL = 0.9
"""Proportion of tasks on which a default learning rate must be good enough for the verdict "needs no tuning"."""


def load_suite(file: Path = EVIDENCE) -> Evidence:
    """Return the published suite of races.

    Args:
        file: file written by `studies/suite.py`.

    Raises:
        ValueError: if the file does not exist or has fewer than five tasks.
    """
    suite = load_evidence(file)
    if len(suite.tasks) < FEWEST:
        raise ValueError(
            f"the suite has {len(suite.tasks)} tasks, and a claim about many tasks needs {FEWEST}: run "
            "python studies/suite.py, which races on all of them."
        )
    return suite


def lead(suite: SuiteSummary, a: str, b: str) -> Measured:
    """Return the mean lead of entry `a` over entry `b` over the tasks on which both raced, in margins."""
    regrets = [task.regrets for task in suite.tasks.values() if a in task.regrets and b in task.regrets]
    leads = [min(MOST, max(-MOST, each[b] - each[a])) for each in regrets]
    return mean(leads, f"{a} better than {b}, in margins, mean over tasks")


def count_wins(suite: SuiteSummary, a: str, b: str) -> Measured:
    """Return the number of tasks on which entry `a` wins against entry `b`."""
    pairs = [pair for task in suite.tasks.values() for pair in task.pairs if {pair.a, pair.b} == {a, b}]
    wins = sum(pair.a == a and pair.verdict is PairVerdict.WINS for pair in pairs)
    return exact(wins, len(pairs), f"tasks on which {a} wins against {b}, by the verdicts of the races")


def compare(suite: SuiteSummary, pairs: Sequence[tuple[str, str]]) -> Quantities:
    """Return the lead, the wins and the losses of the first entry of each pair against the second."""
    quantities: dict[str, Measured] = {}
    for a, b in pairs:
        quantities |= {f"{a} {b} lead": lead(suite, a, b), f"{a} {b} won": count_wins(suite, a, b)}
        quantities[f"{a} {b} lost"] = count_wins(suite, b, a)
    return quantities


def compare_with_rivals(suite: SuiteSummary, entry: str, rivals: Sequence[str]) -> Quantities:
    """Compare an entry with each of its rivals.

    The comparison with the smallest lead comes first.
    """
    return compare(suite, sorted(((entry, b) for b in rivals), key=lambda pair: lead(suite, *pair).effect))


def _leads(m: Quantities) -> dict[tuple[str, str], Measured]:
    return {(a, b): m[name] for name in m for a, b, kind in [name.split()] if kind == "lead"}


def decide_all(m: Quantities) -> Decision:
    """Return the verdict on a claim that requires every lead to be large enough to matter."""
    return all_of(*(is_relevant(each, EFFECT) for each in _leads(m).values()))


def summarize_comparisons(m: Quantities) -> str:
    """Summarize the comparisons in one sentence."""
    comparisons = [
        f"{a} wins against {b} on {m[f'{a} {b} won']:.0f} of {m[f'{a} {b} won'].n} tasks and loses on "
        f"{m[f'{a} {b} lost']:.0f}, and is {each} margins better on average"
        for (a, b), each in _leads(m).items()
    ]
    return "; ".join(comparisons) + "."


@experiment("adam-beats-its-halves", decide=decide_all, say=summarize_comparisons)
def measure_halves(quick: bool) -> Quantities:
    """Compare Adam with momentum and RMSProp."""
    return compare_with_rivals(load_suite(), "adam", ("momentum", "rmsprop"))


@experiment("adam-beats-adadelta-and-momentum", decide=decide_all, say=summarize_comparisons)
def measure_parts(quick: bool) -> Quantities:
    """Compare Adam with AdaDelta and momentum."""
    return compare_with_rivals(load_suite(), "adam", ("adadelta", "momentum"))


@experiment(
    "adamax-and-nadam-improve-on-adam",
    decide=lambda m: any_of({a: is_relevant(each, EFFECT) for (a, _), each in _leads(m).items()}, "it is "),
    say=summarize_comparisons,
)
def measure_variants(quick: bool) -> Quantities:
    """Compare AdaMax with Adam, and Nadam with Adam."""
    return compare(load_suite(), (("adamax", "adam"), ("nadam", "adam")))


def decide_default(m: Quantities) -> Decision:
    """Return the verdict from the proportion of tasks on which the default learning rate is good enough."""
    if m["share"].effect >= USUAL:
        return "holds"
    return "does not hold" if m["share"].ci95[1] < USUAL else "inconclusive"


@experiment("adam-needs-no-tuning", decide=decide_default)
def measure_default(quick: bool) -> Quantities:
    """Return the proportion of tasks on which Adam's default learning rate is as good as its tuned one.

    Both results are from the same tuning seed. This slightly favours the tuned learning rate, which was selected as the
    best of several on this seed.
    """
    good = load_suite().defaults["adam"]
    bad = [name for name, is_good in good.items() if not is_good]
    return {"share": proportion(len(good) - len(bad), len(good)), "bad": f"; not on {', '.join(bad)}" * bool(bad)}


def say_reversals(m: Quantities) -> str:
    """Describe the first rank reversal in a sentence.

    If there is none, name the optimizers that lead on all tasks.
    """
    if pair := m["example"]:
        return (
            f"{m['reversals']:.0f} pairs win against each other on different tasks, such as {pair.a} against "
            f"{pair.b} on {', '.join(pair.a_wins)}, and {pair.b} against {pair.a} on {', '.join(pair.b_wins)}."
        )
    always = f", and {', '.join(m['always'])} led on all" if m["always"] else ""
    return f"No two optimizers win against each other on different tasks{always}."


@experiment(
    "best-optimizer-depends-on-the-problem",
    decide=lambda m: "holds" if m["example"] else "does not hold" if m["always"] else "inconclusive",
    say=say_reversals,
)
def measure_reversals(quick: bool) -> Quantities:
    """Return the confirmed rank reversals between tasks, the first of them, and the entries that lead on all tasks."""
    suite = load_suite()
    reversals, tasks = [each for each in suite.reversals if each.is_confirmed], suite.tasks.values()
    always = [entry for entry in suite.entries if all(entry in task.leaders for task in tasks)]
    return {"reversals": exact(len(reversals), len(tasks)), "example": next(iter(reversals), None), "always": always}


@experiment("every-optimizer-learns-every-task", decide=lambda m: all_of(not m["failed"]))
def measure_learning(quick: bool) -> Quantities:
    """Return the proportion of pairs of optimizer and task in which the optimizer beats the task's chance level."""
    tasks = load_suite().tasks
    leads: dict[tuple[str, str], float] = {}
    for name, task in tasks.items():
        sign = 1 if task.metric.higher_is_better else -1
        leads |= {(e, name): sign * (mean - task.chance_level) / task.margin for e, mean in task.means.items()}
    failed = [f"{entry} on {name}" for (entry, name), above in leads.items() if above < 1]
    least = min(leads, key=lambda key: leads[key])
    return {
        "beaten": proportion(len(leads) - len(failed), len(leads)),
        "least": exact(leads[least], len(leads)),
        "diverged": exact(sum(sum(task.diverged.values()) for task in tasks.values())),
        "where": " on ".join(least),
        "failed": f" Those that do not: {', '.join(failed)}." * bool(failed),
    }
