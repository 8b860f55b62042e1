"""A race that fits a time: what it would cost, measured on the task, and what is left out for it.

Time is measured, so two calls may choose differently; what was chosen is kept with the race.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gradprix.executors.executor import Engine
from gradprix.rules import Choice
from gradprix.tasks import Task
from gradprix.tasks.schedules import count_steps, passes
from gradprix.training.autotune import Shape, seconds_of_one
from gradprix.training.loop_runner import Stopped, run_loop
from gradprix.training.model_stack import Form, quiet
from gradprix.training.optimizers import Steppers
from gradprix.training.trainer import BATCHES_AT_ONCE, NARROWEST, Lane
from gradprix.training.trial import Trial
from gradprix.training.trial import form as form_of
from gradprix.tuning.learning_rate import Score
from gradprix.utils.devices import wait

from .entry import Entry
from .entry_registry import ENTRIES
from .journal import Journal
from .plan import FEWEST_SEEDS, MOST, Plan
from .preflight import preflight
from .progress_display import Watch

SHORTLIST = ("adamw", "nesterov", "nadam", "momentum", "rmsprop", "adam", "adagrad")
"""Who stays longest when there is time for a few: different algorithms first, and those that were best in the tuned
targets of Dahl et al. 2023, arXiv:2306.07179."""
FEW = 3
"""Entries below which protocol is given up first."""
PROTOCOL = ((19, 16), (19, 12), (13, 12), (13, 8), (10, 8), (10, FEWEST_SEEDS))
"""(trials, seeds), from the whole protocol to the least that can still tell something."""
EPOCHS = (0.5, 0.25, 0.125)
LEAST = ((2, 10, FEWEST_SEEDS), (2, 6, FEWEST_SEEDS))
"""(entries, trials, seeds) where even a part of an epoch takes long: trials are spread over the rates, and no more."""
FEWEST_STEPS = 8
"""Steps of a run below which nothing is learnt that a race could be about."""
LONG, SLOW = 0.5, 5.0
"""Seconds of an evaluation that are enough to extrapolate from; seconds of a first call from which it is not repeated.
"""
ONE_RUN = 60.0
"""Seconds of a training loop's run from which a plan says at least how long the race takes."""
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
        model: of each network, to be made.
        at_least: whether it is only known that they take no less: a training loop that was not run to its end.
    """

    start: float
    step: float
    network: float
    evaluation: float
    shape: Shape
    model: float = 0.0
    at_least: bool = False

    def of(self, rows: int, steps: float, evaluations: float) -> float:
        """A stage in which so many networks run."""
        lanes = math.ceil(rows / (self.shape.width * self.shape.processes)) * self.shape.processes
        lanes = max(1, min(lanes, rows // min(NARROWEST, self.shape.width)))
        turns = math.ceil(lanes / self.shape.processes)
        each = rows / lanes * (self.model + steps * self.network + evaluations * self.evaluation)
        return turns * (steps * self.step + each)


def measured(plan: Plan, engine: Engine, watch: Watch = lambda *_: None, minutes: float | None = None) -> Cost:
    """What lanes of a plan's task cost here: a few steps of all its entries, with all processes busy.

    Args:
        plan: what is to be raced.
        engine: where.
        watch: hears what is done.
        minutes: how long the race may take; a training loop that is too slow for it is not run to its end.

    Raises:
        TaskError: when the task does not work.
    """
    started = time.perf_counter()
    form = preflight(plan, engine, watch)
    watch(f"Measuring how long {plan.task.name!r} takes", 0.0, 0)
    trials = [plan.careful_trial(entry, seed) for entry in plan.entries for seed in range(2)]
    if not isinstance(plan.task, Task):
        seconds, whole = engine.ask(seconds_of_a_run, plan.task, trials[0], _patience(plan, minutes, engine.workers))
        shape = Shape(1, engine.workers)
        return Cost(time.perf_counter() - started, 0.0, 0.0, seconds, shape, at_least=not whole)
    found = engine.shape(plan.task, trials, form)
    if not form.stacked:
        each = engine.everywhere(found.processes, costs_one_at_a_time, plan.task, trials, form)
        start, step, evaluation = (max(costs) for costs in zip(*each, strict=True))
        return Cost(time.perf_counter() - started, 0.0, step, evaluation, found, start)
    wide, narrow = found.width, min(16, found.width)
    if form.stacked and wide == narrow:
        narrow = NARROWEST
    widths = (narrow, wide) if form.stacked else (len(trials), len(trials))
    times = [max(engine.everywhere(found.processes, seconds_of_one, plan.task, trials, form, w)) for w in widths]
    step = max(0.0, (times[0] - times[1]) / (1 / widths[0] - 1 / widths[1])) if form.stacked else 0.0
    evaluation = max(engine.everywhere(found.processes, seconds_to_evaluate, plan.task, trials, form, narrow))
    return Cost(time.perf_counter() - started, step, times[1] - step / widths[1], evaluation, found)


def _patience(plan: Plan, minutes: float | None, workers: int) -> float:
    """Return the seconds of a loop's run from which not even the smallest race would fit."""
    if minutes is None:
        return ONE_RUN
    runs = min(made.runs for made in candidates(plan))
    return _room(minutes) / math.ceil(runs / workers)


def seconds_of_a_run(loop: Any, trial: Trial, patience: float) -> tuple[float, bool]:
    """Return how long a run of somebody's own loop takes, and whether it came to its end in the seconds given."""
    started = time.perf_counter()
    whole = True
    try:
        run_loop(loop, trial, stop=lambda _: time.perf_counter() - started > patience)
    except Stopped:
        whole = False
    return time.perf_counter() - started, whole


def costs_one_at_a_time(task: Task, trials: list[Trial], form: Form) -> tuple[float, float, float]:
    """Return the seconds in which a model is made, trained for a step, and evaluated on the validation examples.

    The step of an optimizer is the mean over the trials' optimizers; all share the model.
    """
    rules = {trial.rule.name: trial for trial in trials}
    with quiet(form.device):
        started = time.perf_counter()
        lane = Lane(task, [trials[0]], form)
        wait(lane.device)
        start = time.perf_counter() - started
        index = lane.train[:, : trials[0].batch_size or lane.train.shape[1]]
        gradients = [torch.zeros_like(x) for x in lane.leaves.values()]

        def step() -> None:
            found = lane.network.gradients(lane.leaves, lane.rest, *lane.batch(index))[1]
            for into, g in zip(gradients, found, strict=True):
                if g is not None:
                    into.copy_(g)

        passed = _seconds(step, lane)
        updates = []
        for trial in rules.values():
            steppers = Steppers([trial], list(lane.leaves.values()))
            with torch.no_grad():
                updates.append(_seconds(partial(steppers.step, gradients, 1.0), lane))
        return start, passed + sum(updates) / len(updates), _seconds_to_evaluate(lane)


def _seconds(run: Callable[[], object], lane: Lane) -> float:
    """Return how long a call takes: the second one, for the first also allocates memory, unless that took long."""
    for _ in range(2):
        started = time.perf_counter()
        run()
        wait(lane.device)
        if (took := time.perf_counter() - started) > SLOW:
            break
    return float(took)


def _seconds_to_evaluate(lane: Lane) -> float:
    """Return how long an evaluation on all validation examples takes, by some of them if it takes long."""
    count = lane.valid.shape[1]
    # One at a time, an example takes as long in a small batch; a stack runs the program of the race's own batches.
    part = min(count, (lane.budget.batch_size or count) * (BATCHES_AT_ONCE if lane.how.stacked else 1))
    took = _seconds(lambda: lane.evaluate(lane.valid[:, :part]), lane)
    more = part * min(count // part, int(LONG / max(took, 1e-6)))  # whole parts, which run the same program
    if more > part:
        part, took = more, _seconds(lambda: lane.evaluate(lane.valid[:, :more]), lane)
    return float(took * count / part)


def seconds_to_evaluate(task: Task, trials: list[Trial], form: Form, width: int) -> float:
    """How long a network takes to be evaluated in a lane of so many."""
    rows = sorted((trials[i % len(trials)] for i in range(width)), key=form_of)
    with quiet(form.device):
        return _seconds_to_evaluate(Lane(task, rows, form)) / width


def estimate(plan: Plan, cost: Cost) -> float:
    """About how many seconds a plan takes."""
    entries = {entry.name: entry for entry in plan.entries}
    total, asked, tests = cost.start, list(stages(plan)), _test_evaluations(plan)
    for names in asked:
        sizes: defaultdict[int, float] = defaultdict(float)
        for name in names:
            axis = entries[name].space.get("batch_size")
            # Which one is tuned is not known before: as much of each.
            each = axis.values if isinstance(axis, Choice) else (plan.batch_size(entries[name]),)
            for size in each:
                sizes[size] += 1 / len(each)
        evaluations = passes(plan.task.epochs) + tests * (names is asked[-1])
        total += sum(cost.of(math.ceil(rows), _steps(plan, size), evaluations) for size, rows in sizes.items())
    return total


def _steps(plan: Plan, size: int) -> float:
    if not isinstance(plan.task, Task):
        return 0.0
    return count_steps(len(plan.task.loaded.split(0).train), size, plan.task.epochs)


def _test_evaluations(plan: Plan) -> float:
    """Return how many evaluations on validation examples that of a final run on its test examples takes."""
    if not isinstance(plan.task, Task):
        return 0.0
    split = plan.task.loaded.split(0)
    return float(len(split.test) / len(split.valid))


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

    def made(task: Any, number: int, trials: int, seeds: int) -> Plan:
        kept = tuple(entry for entry in plan.entries if entry in order[:number])
        trials, seeds = min(trials, plan.trials), min(seeds, plan.seeds)
        return _with(plan, replace(plan, task=task, entries=kept, trials=trials, seeds=seeds))

    tasks = [plan.task, *_shorter(plan.task)] if isinstance(plan.task, Task) else [plan.task]
    for task in tasks:
        for number in counts if task is plan.task else (counts[-1],):
            for trials, seeds in PROTOCOL if number == counts[-1] else PROTOCOL[:1]:
                yield made(task, number, trials, seeds)
    if tasks[-1].epochs <= 1 and isinstance(plan.task, Task):  # a model of which a step takes long
        for number, trials, seeds in LEAST:
            yield made(tasks[-1], min(number, len(order)), trials, seeds)


def _shorter(task: Task) -> Iterator[Task]:
    """A task with fewer and fewer epochs, at last with parts of one, of a few whole steps."""
    before, count = task.epochs, len(task.loaded.split(0).train)  # loaded before there are copies of the task
    for factor in EPOCHS:
        epochs = task.epochs * factor
        epochs = round(epochs) if epochs >= 1 else _part(count, task.batch_size, epochs)
        if epochs < before:
            yield task.change(epochs=epochs)
            before = epochs


def _part(count: int, batch_size: int, epochs: float) -> float:
    """Return a part of an epoch of whole batches, and of a few steps at least; one epoch where it has no more."""
    number = max(FEWEST_STEPS, int(epochs * count / batch_size))
    return min(1, number * batch_size / count)


def _with(asked: Plan, made: Plan) -> Plan:
    """A plan, with what it does without."""
    gone = [entry.name for entry in asked.entries if entry not in made.entries]
    found = [f"{len(gone)} of {len(asked.entries)} optimizers ({', '.join(gone)})"] if gone else []
    for name in ("trials", "seeds"):
        if (now := getattr(made, name)) < (before := getattr(asked, name)):
            found.append(f"{before - now} of {before} {'tuning trials' if name == 'trials' else 'final seeds'} each")
    if made.task.epochs < asked.task.epochs:
        found.append(f"{asked.task.epochs - made.task.epochs:.3g} of {asked.task.epochs} epochs")
    return replace(made, left_out=tuple(found))


def fit(plan: Plan, minutes: float, cost: Cost) -> Plan:
    """The plan that does without least and fits the time; time that is left goes into epochs, then into final seeds.

    Raises:
        ValueError: when not even the smallest fits.
    """
    room = _room(minutes)

    def fits(other: Plan) -> bool:
        return not cost.at_least and estimate(other, cost) <= room

    for made in candidates(plan):
        if fits(made):
            break
    else:
        least, needed = "more than" if cost.at_least else "about", estimate(made, cost) / SAFE / 60
        needs = f"{needed:.2g}" if needed < 10 else f"{needed:.0f}"
        raise ValueError(
            f"minutes = {minutes:g}: even {len(made.entries)} optimizers with {made.trials} trials and {made.seeds} "
            f"seeds take {least} {needs} minutes here. Give that much, or "
            + ("a faster loop." if cost.at_least else "fewer epochs." if made.task.epochs >= 1 else "a smaller model.")
        )

    def trained(epochs: float) -> Plan:
        return replace(made, task=made.task.change(epochs=epochs))

    if isinstance(made.task, Task) and made.task.epochs < plan.task.epochs:
        made = _longest(made, made.task, plan.task.epochs, trained, fits)
    seeds = _most(lambda n: replace(made, seeds=n), fits, made.seeds, MOST)
    return _with(plan, seeds)


def _longest(
    made: Plan, task: Task, epochs: float, trained: Callable[[float], Plan], fits: Callable[[Plan], bool]
) -> Plan:
    """The plan of the most epochs that fit, or of the largest part of one."""
    if fits(one := trained(1)):
        return _most(trained, fits, 1, int(epochs)) if epochs >= 1 else one
    size, count = task.batch_size, len(task.loaded.split(0).train)
    low, high = round(task.epochs * count / size), int(min(1, epochs) * count / size)
    return _most(lambda n: trained(min(1, n * size / count)), fits, low, high) if high > low else made


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


def fitted(
    plan: Plan, minutes: float, engine: Engine, out: Path | None, watch: Watch = lambda *_: None
) -> tuple[Plan, float]:
    """A plan that fits the time, and about how many seconds it takes.

    It is the one that was chosen when the same was asked for in this folder before.
    """
    _room(minutes)  # before a folder is made
    key = f"{plan.key} {minutes:g}"
    with Journal(out) as journal:
        known = (journal.read("fitted") or {}).get(key)
    if known is None:
        cost = measured(plan, engine, watch, minutes)
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
