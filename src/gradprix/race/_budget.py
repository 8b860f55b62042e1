"""A race that fits a time: what it would cost, measured on the task, and what is left out for it.

Time is measured, so two calls may choose differently; what was chosen is kept with the race.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradprix.rules import Choice
from gradprix.tasks import Task

from ._check import check
from ._entries import ENTRIES
from ._entry import Entry
from ._journal import Journal
from ._loop import run_loop
from ._plan import FEWEST_SEEDS, MOST, Plan
from ._trial import Trial
from ._trial import form as form_of
from ._tune import Score
from .engines._engine import Engine
from .lanes._lane import NARROWEST, Lane
from .lanes._network import Form, quiet
from .lanes._width import Shape, seconds_of_one

SHORTLIST = ("adamw", "nesterov", "nadam", "momentum", "rmsprop", "adam", "adagrad")
"""Who stays longest when there is time for a few: different algorithms first, and those that were best in the tuned
targets of Dahl et al. 2023, arXiv:2306.07179."""
FEW = 3
"""Entries below which protocol is given up first."""
PROTOCOL = ((19, 16), (19, 12), (13, 12), (13, 8), (10, 8), (10, FEWEST_SEEDS))
"""(trials, seeds), from the whole protocol to the least that can still tell something."""
EPOCHS = (1, 0.5, 0.25, 0.125)
SAFE = 0.9
"""The share of the time that a plan is made for: machines are shared, and a verdict and a report take a moment."""


@dataclass(frozen=True)
class Cost:
    """What lanes cost on this machine, in seconds.

    Args:
        start: to look at the task and to measure this, once.
        step: of a lane for each step, whatever its width.
        network: of each network for each step.
        evaluation: of each network for each epoch.
        shape: how lanes are laid.
    """

    start: float
    step: float
    network: float
    evaluation: float
    shape: Shape

    def of(self, rows: int, steps: float, epochs: int) -> float:
        """A stage in which so many networks run."""
        lanes = math.ceil(rows / (self.shape.width * self.shape.processes)) * self.shape.processes
        lanes = max(1, min(lanes, rows // min(NARROWEST, self.shape.width)))
        turns = math.ceil(lanes / self.shape.processes)
        each = rows / lanes * (steps * self.network + epochs * self.evaluation)
        return turns * (steps * self.step + each)


def measured(plan: Plan, engine: Engine) -> Cost:
    """What lanes of a plan's task cost here: a few steps of all its entries, with all processes busy.

    Raises:
        TaskError: when the task does not work.
    """
    started = time.perf_counter()
    form = engine.ask(check, plan)
    trials = [plan.careful_trial(entry, seed) for entry in plan.entries for seed in range(2)]
    if not isinstance(plan.task, Task):
        seconds = engine.ask(seconds_of_a_run, plan.task, trials[0])
        return Cost(time.perf_counter() - started, 0.0, 0.0, seconds, Shape(1, engine.workers))
    found = engine.shape(plan.task, trials, form)
    wide, narrow = found.width, min(16, found.width)
    if form.stacked and wide == narrow:
        narrow = NARROWEST
    widths = (narrow, wide) if form.stacked else (len(trials), len(trials))
    times = [max(engine.everywhere(found.processes, seconds_of_one, plan.task, trials, form, w)) for w in widths]
    step = max(0.0, (times[0] - times[1]) / (1 / widths[0] - 1 / widths[1])) if form.stacked else 0.0
    evaluation = max(engine.everywhere(found.processes, seconds_to_evaluate, plan.task, trials, form, narrow))
    return Cost(time.perf_counter() - started, step, times[1] - step / widths[1], evaluation, found)


def seconds_of_a_run(loop: Any, trial: Trial) -> float:
    """How long a run of somebody's own loop takes."""
    started = time.perf_counter()
    run_loop(loop, trial)
    return time.perf_counter() - started


def seconds_to_evaluate(task: Task, trials: list[Trial], form: Form, width: int) -> float:
    """How long a network takes to be evaluated in a lane of so many."""
    rows = sorted((trials[i % len(trials)] for i in range(width)), key=form_of)
    with quiet(form.device):
        lane = Lane(task, rows, form)
        lane.evaluate(lane.valid)
        started = time.perf_counter()
        lane.evaluate(lane.valid)
        return (time.perf_counter() - started) / width


def estimate(plan: Plan, cost: Cost) -> float:
    """About how many seconds a plan takes."""
    entries = {entry.name: entry for entry in plan.entries}
    total = cost.start
    for names in stages(plan):
        sizes: defaultdict[int, float] = defaultdict(float)
        for name in names:
            axis = entries[name].space.get("batch_size")
            # Which one is tuned is not known before: as much of each.
            each = axis.values if isinstance(axis, Choice) else (plan.batch_size(entries[name]),)
            for size in each:
                sizes[size] += 1 / len(each)
        total += sum(
            cost.of(math.ceil(rows), _steps(plan, size), max(1, plan.task.epochs)) for size, rows in sizes.items()
        )
    return total


def _steps(plan: Plan, size: int) -> float:
    if not isinstance(plan.task, Task):
        return 0.0
    count = len(plan.task.loaded.split(0).train)
    return plan.task.epochs * math.ceil(count / (size or count))


def stages(plan: Plan) -> Iterator[list[str]]:
    """The entries of the networks that run together, stage after stage: as the tuners ask, whatever they hear."""
    tuners = {entry.name: plan.tuner(entry) for entry in plan.entries}
    asked = {name: next(tuner) for name, tuner in tuners.items()}
    while asked:
        yield [name for name, wanted in asked.items() for _ in wanted]
        for name, wanted in list(asked.items()):
            try:
                asked[name] = tuners[name].send({key: Score(float(i), float(i)) for i, key in enumerate(wanted)})
            except StopIteration:
                del asked[name]
    yield [entry.name for entry in plan.entries for _ in range(plan.seeds)]


def candidates(plan: Plan) -> Iterator[Plan]:
    """Plans that do without more and more of what was asked for."""

    def place(entry: Entry) -> int:
        """The earlier, the longer it stays: what the race is about, then the shortlist, then others of ours."""
        if entry.name == plan.baseline or entry.name not in ENTRIES:
            return -1
        return SHORTLIST.index(entry.name) if entry.name in SHORTLIST else len(SHORTLIST)

    order = sorted(plan.entries, key=place)
    counts = range(len(order), min(FEW, len(order)) - 1, -1)
    for factor in EPOCHS:
        epochs = max(1, round(plan.task.epochs * factor))
        task = plan.task if factor == 1 or not isinstance(plan.task, Task) else plan.task.change(epochs=epochs)
        for number in counts if factor == 1 else (counts[-1],):
            kept = [entry for entry in plan.entries if entry in order[:number]]
            for trials, seeds in PROTOCOL if number == counts[-1] else PROTOCOL[:1]:
                trials, seeds = min(trials, plan.trials), min(seeds, plan.seeds)
                yield _with(plan, replace(plan, task=task, entries=tuple(kept), trials=trials, seeds=seeds))
        if not isinstance(plan.task, Task):
            return


def _with(asked: Plan, made: Plan) -> Plan:
    """A plan, with what it does without."""
    gone = [entry.name for entry in asked.entries if entry not in made.entries]
    found = [f"{len(gone)} of {len(asked.entries)} optimizers ({', '.join(gone)})"] if gone else []
    for name in ("trials", "seeds"):
        if (now := getattr(made, name)) < (before := getattr(asked, name)):
            found.append(f"{before - now} of {before} {'tuning trials' if name == 'trials' else 'final seeds'} each")
    if made.task.epochs < asked.task.epochs:
        found.append(f"{asked.task.epochs - made.task.epochs} of {asked.task.epochs} epochs")
    return replace(made, left_out=tuple(found))


def fit(plan: Plan, minutes: float, cost: Cost) -> Plan:
    """The plan that does without least and fits the time; time that is left goes into epochs, then into final seeds.

    Raises:
        ValueError: when not even the smallest fits.
    """
    room = _room(minutes)
    for made in candidates(plan):
        if estimate(made, cost) <= room:
            break
    else:
        raise ValueError(
            f"minutes = {minutes:g}: even {len(made.entries)} optimizers with {made.trials} trials and {made.seeds} "
            f"seeds take about {estimate(made, cost) / SAFE / 60:.2g} minutes here. Give that much, or fewer epochs."
        )
    epochs = _most(
        lambda n: made if n == made.task.epochs else replace(made, task=made.task.change(epochs=n)),
        lambda other: estimate(other, cost) <= room,
        made.task.epochs,
        plan.task.epochs,
    )
    seeds = _most(lambda n: replace(epochs, seeds=n), lambda other: estimate(other, cost) <= room, epochs.seeds, MOST)
    return _with(plan, seeds)


def _room(minutes: float) -> float:
    """The seconds that a plan is made for.

    Raises:
        ValueError: for no time at all.
    """
    if not minutes > 0:
        raise ValueError(f"minutes = {minutes}: it must be more than 0.")
    return 60 * minutes * SAFE


def _most(make: Callable[[int], Plan], fits: Callable[[Plan], bool], low: int, high: int) -> Plan:
    """The plan of the largest number that fits; that of the smallest does."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(make(middle)):
            low = middle
        else:
            high = middle - 1
    return make(low)


def fitted(plan: Plan, minutes: float, engine: Engine, out: Path | None) -> tuple[Plan, float]:
    """A plan that fits the time, and about how many seconds it takes.

    It is the one that was chosen when the same was asked for in this folder before.
    """
    _room(minutes)  # before a folder is made
    key = f"{plan.key} {minutes:g}"
    with Journal(out) as journal:
        known = (journal.read("fitted") or {}).get(key)
    if known is None:
        cost = measured(plan, engine)
        made = fit(plan, minutes, cost)
        names = [entry.name for entry in made.entries]
        known = {"entries": names, "trials": made.trials, "seeds": made.seeds, "epochs": made.task.epochs}
        known["seconds"] = estimate(made, cost)
        with Journal(out) as journal:
            journal.write("fitted", {**(journal.read("fitted") or {}), key: known})
    task = plan.task.change(epochs=known["epochs"]) if isinstance(plan.task, Task) else plan.task
    kept = tuple(entry for entry in plan.entries if entry.name in known["entries"])
    made = replace(plan, task=task, entries=kept, trials=known["trials"], seeds=known["seeds"])
    return _with(plan, made), known["seconds"]
