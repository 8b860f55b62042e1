"""Time budgets: measure the cost of a race on its task, and reduce the plan until it fits.

Timings vary, so two calls may choose differently; the chosen plan is saved with the race.
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
from gradprix.training.autotune import StackLayout, seconds_of_one
from gradprix.training.loop_runner import Stopped, run_loop
from gradprix.training.model_stack import ExecutionMode, quiet
from gradprix.training.optimizers import StackedOptimizers
from gradprix.training.trainer import BATCHES_AT_ONCE, NARROWEST, Trainer
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
"""Entries in order of retention when time is short: distinct algorithms first, and the best on the tuned targets of
Dahl et al. 2023, arXiv:2306.07179."""
FEW = 3
"""Number of entries below which trials and seeds are reduced instead of entries."""
PROTOCOL = ((19, 16), (19, 12), (13, 12), (13, 8), (10, 8), (10, FEWEST_SEEDS))
"""(trials, seeds), from the full protocol to the smallest one that can still detect a difference."""
EPOCHS = (0.5, 0.25, 0.125)
LEAST = ((2, 10, FEWEST_SEEDS), (2, 6, FEWEST_SEEDS))
"""(entries, trials, seeds) where even a fraction of an epoch takes long: trials cover the learning-rate grid only."""
FEWEST_STEPS = 8
"""Minimum number of steps of a run: with fewer, training makes no measurable progress."""
LONG, SLOW = 0.5, 5.0
"""Seconds of evaluation sufficient to extrapolate from; duration of a first call, in seconds, above which it is not
repeated."""
ONE_RUN = 60.0
"""Duration of a training loop's run, in seconds, above which a plan states a lower bound of the race's time."""
SAFE = 0.9
"""Fraction of the time budget that a plan may use: machines are shared, and the verdict and report take time too."""


@dataclass(frozen=True)
class Cost:
    """Cost of training stacks on this machine, in seconds.

    Args:
        start: preflight and measurement, once.
        step: per stack and step, independent of the stack's width.
        network: per model and step.
        evaluation: per model and epoch.
        shape: width of the stacks and number of processes.
        model: initialization of each model.
        at_least: the cost is a lower bound, because a training loop was not run to its end.
    """

    start: float
    step: float
    network: float
    evaluation: float
    shape: StackLayout
    model: float = 0.0
    at_least: bool = False

    def phase_seconds(self, rows: int, steps: float, evaluations: float) -> float:
        """Return the seconds of a phase that trains `rows` models."""
        stacks = math.ceil(rows / (self.shape.width * self.shape.processes)) * self.shape.processes
        stacks = max(1, min(stacks, rows // min(NARROWEST, self.shape.width)))
        rounds = math.ceil(stacks / self.shape.processes)
        each = rows / stacks * (self.model + steps * self.network + evaluations * self.evaluation)
        return rounds * (steps * self.step + each)


def measured(plan: Plan, engine: Engine, watch: Watch = lambda *_: None, minutes: float | None = None) -> Cost:
    """Measure the training cost of a plan: a few steps of all its entries, with all processes busy.

    Args:
        plan: the race.
        engine: the executor.
        watch: progress callback.
        minutes: time budget of the race; a training loop that is too slow for it is not run to its end.

    Raises:
        TaskError: if the task fails.
    """
    started = time.perf_counter()
    form = preflight(plan, engine, watch)
    watch(f"Measuring how long {plan.task.name!r} takes", 0.0, 0)
    trials = [plan.careful_trial(entry, seed) for entry in plan.entries for seed in range(2)]
    if not isinstance(plan.task, Task):
        seconds, whole = engine.ask(time_loop_run, plan.task, trials[0], _patience(plan, minutes, engine.workers))
        shape = StackLayout(1, engine.workers)
        return Cost(time.perf_counter() - started, 0.0, 0.0, seconds, shape, at_least=not whole)
    shape = engine.shape(plan.task, trials, form)
    if not form.stacked:
        each = engine.everywhere(shape.processes, measure_sequential_costs, plan.task, trials, form)
        start, step, evaluation = (max(costs) for costs in zip(*each, strict=True))
        return Cost(time.perf_counter() - started, 0.0, step, evaluation, shape, start)
    wide, narrow = shape.width, min(16, shape.width)
    if form.stacked and wide == narrow:
        narrow = NARROWEST
    widths = (narrow, wide) if form.stacked else (len(trials), len(trials))
    times = [max(engine.everywhere(shape.processes, seconds_of_one, plan.task, trials, form, w)) for w in widths]
    step = max(0.0, (times[0] - times[1]) / (1 / widths[0] - 1 / widths[1])) if form.stacked else 0.0
    evaluation = max(engine.everywhere(shape.processes, seconds_to_evaluate, plan.task, trials, form, narrow))
    return Cost(time.perf_counter() - started, step, times[1] - step / widths[1], evaluation, shape)


def _patience(plan: Plan, minutes: float | None, workers: int) -> float:
    """Return the run time in seconds above which not even the smallest race fits the budget."""
    if minutes is None:
        return ONE_RUN
    runs = min(candidate.runs for candidate in candidates(plan))
    return _available_seconds(minutes) / math.ceil(runs / workers)


def time_loop_run(loop: Any, trial: Trial, patience: float) -> tuple[float, bool]:
    """Return the seconds of a user-supplied loop's run, and whether it finished within `patience` seconds."""
    started = time.perf_counter()
    whole = True
    try:
        run_loop(loop, trial, stop=lambda _: time.perf_counter() - started > patience)
    except Stopped:
        whole = False
    return time.perf_counter() - started, whole


def measure_sequential_costs(task: Task, trials: list[Trial], form: ExecutionMode) -> tuple[float, float, float]:
    """Return the seconds of model initialization, of a training step, and of an evaluation on the validation set.

    The optimizer step is averaged over the trials' optimizers, which share the model.
    """
    rules = {trial.rule.name: trial for trial in trials}
    with quiet(form.device):
        started = time.perf_counter()
        trainer = Trainer(task, [trials[0]], form)
        wait(trainer.device)
        start = time.perf_counter() - started
        index = trainer.train[:, : trials[0].batch_size or trainer.train.shape[1]]
        gradients = [torch.zeros_like(x) for x in trainer.leaves.values()]

        def step() -> None:
            computed = trainer.network.gradients(trainer.leaves, trainer.rest, *trainer.batch(index))[1]
            for into, g in zip(gradients, computed, strict=True):
                if g is not None:
                    into.copy_(g)

        backward = _seconds(step, trainer)
        updates = []
        for trial in rules.values():
            optimizers = StackedOptimizers([trial], list(trainer.leaves.values()))
            with torch.no_grad():
                updates.append(_seconds(partial(optimizers.step, gradients, 1.0), trainer))
        return start, backward + sum(updates) / len(updates), _seconds_to_evaluate(trainer)


def _seconds(run: Callable[[], object], trainer: Trainer) -> float:
    """Time a call: the second one, because the first also allocates memory, unless the first took long."""
    for _ in range(2):
        started = time.perf_counter()
        run()
        wait(trainer.device)
        if (elapsed := time.perf_counter() - started) > SLOW:
            break
    return float(elapsed)


def _seconds_to_evaluate(trainer: Trainer) -> float:
    """Return the seconds of an evaluation on the validation set, extrapolated from a part of it if that takes long."""
    count = trainer.valid.shape[1]
    # A sequential model takes as long per example in a small batch; a stack runs the traced program of full batches.
    part = min(count, (trainer.budget.batch_size or count) * (BATCHES_AT_ONCE if trainer.how.stacked else 1))
    elapsed = _seconds(lambda: trainer.evaluate(trainer.valid[:, :part]), trainer)
    more = part * min(count // part, int(LONG / max(elapsed, 1e-6)))  # full parts run the same traced program
    if more > part:
        part, elapsed = more, _seconds(lambda: trainer.evaluate(trainer.valid[:, :more]), trainer)
    return float(elapsed * count / part)


def seconds_to_evaluate(task: Task, trials: list[Trial], form: ExecutionMode, width: int) -> float:
    """Return the seconds of an evaluation per model, in a stack of `width` models."""
    rows = sorted((trials[i % len(trials)] for i in range(width)), key=form_of)
    with quiet(form.device):
        return _seconds_to_evaluate(Trainer(task, rows, form)) / width


def estimate(plan: Plan, cost: Cost) -> float:
    """Return the approximate duration of a plan in seconds."""
    entries = {entry.name: entry for entry in plan.entries}
    total, phases, tests = cost.start, list(iterate_phases(plan)), _test_evaluations(plan)
    for names in phases:
        sizes: defaultdict[int, float] = defaultdict(float)
        for name in names:
            axis = entries[name].space.get("batch_size")
            # The tuned batch size is unknown in advance: assume equal shares.
            each = axis.values if isinstance(axis, Choice) else (plan.batch_size(entries[name]),)
            for size in each:
                sizes[size] += 1 / len(each)
        evaluations = passes(plan.task.epochs) + tests * (names is phases[-1])
        counts = {size: math.ceil(rows) for size, rows in sizes.items()}
        total += sum(cost.phase_seconds(rows, _steps(plan, size), evaluations) for size, rows in counts.items())
    return total


def _steps(plan: Plan, size: int) -> float:
    if not isinstance(plan.task, Task):
        return 0.0
    return count_steps(len(plan.task.loaded.split(0).train), size, plan.task.epochs)


def _test_evaluations(plan: Plan) -> float:
    """Return the cost of a final run's test evaluation in units of a validation evaluation."""
    if not isinstance(plan.task, Task):
        return 0.0
    split = plan.task.loaded.split(0)
    return float(len(split.test) / len(split.valid))


def iterate_phases(plan: Plan) -> Iterator[list[str]]:
    """Yield, phase by phase, the entry of every run: the tuners' requests do not depend on the scores."""
    tuners = {entry.name: plan.tuner(entry) for entry in plan.entries}
    requests = {name: next(tuner) for name, tuner in tuners.items()}
    while requests:
        yield [name for name, points in requests.items() for _ in points]
        for name, points in list(requests.items()):
            try:
                requests[name] = tuners[name].send({key: Score(float(i), float(i)) for i, key in enumerate(points)})
            except StopIteration:
                del requests[name]
    yield [entry.name for entry in plan.entries for _ in range(plan.seeds)]


def candidates(plan: Plan) -> Iterator[Plan]:
    """Yield plans that omit more and more of the requested protocol."""

    def priority(entry: Entry) -> int:
        """Return the rank: the baseline and user-supplied entries, then the shortlist, then the other built-in ones."""
        if entry.name == plan.baseline or entry.name not in ENTRIES:
            return -1
        return SHORTLIST.index(entry.name) if entry.name in SHORTLIST else len(SHORTLIST)

    order = sorted(plan.entries, key=priority)
    counts = range(len(order), min(FEW, len(order)) - 1, -1)

    def reduce_plan(task: Any, number: int, trials: int, seeds: int) -> Plan:
        retained = tuple(entry for entry in plan.entries if entry in order[:number])
        trials, seeds = min(trials, plan.trials), min(seeds, plan.seeds)
        return _note_omissions(plan, replace(plan, task=task, entries=retained, trials=trials, seeds=seeds))

    tasks = [plan.task, *_shorter(plan.task)] if isinstance(plan.task, Task) else [plan.task]
    for task in tasks:
        for number in counts if task is plan.task else (counts[-1],):
            for trials, seeds in PROTOCOL if number == counts[-1] else PROTOCOL[:1]:
                yield reduce_plan(task, number, trials, seeds)
    if tasks[-1].epochs <= 1 and isinstance(plan.task, Task):  # a model whose step takes long
        for number, trials, seeds in LEAST:
            yield reduce_plan(tasks[-1], min(number, len(order)), trials, seeds)


def _shorter(task: Task) -> Iterator[Task]:
    """Yield copies of a task with fewer and fewer epochs, down to a fraction of one with a few full steps."""
    before, count = task.epochs, len(task.loaded.split(0).train)  # loaded before there are copies of the task
    for factor in EPOCHS:
        epochs = task.epochs * factor
        epochs = round(epochs) if epochs >= 1 else _part(count, task.batch_size, epochs)
        if epochs < before:
            yield task.change(epochs=epochs)
            before = epochs


def _part(count: int, batch_size: int, epochs: float) -> float:
    """Round a fraction of an epoch to full batches, with a minimum number of steps and at most one epoch."""
    number = max(FEWEST_STEPS, int(epochs * count / batch_size))
    return min(1, number * batch_size / count)


def _note_omissions(requested: Plan, reduced: Plan) -> Plan:
    """Return the reduced plan with a list of its omissions in `left_out`."""
    dropped = [entry.name for entry in requested.entries if entry not in reduced.entries]
    omissions = [f"{len(dropped)} of {len(requested.entries)} optimizers ({', '.join(dropped)})"] if dropped else []
    for name in ("trials", "seeds"):
        if (now := getattr(reduced, name)) < (before := getattr(requested, name)):
            noun = "tuning trials" if name == "trials" else "final seeds"
            omissions.append(f"{before - now} of {before} {noun} each")
    if reduced.task.epochs < requested.task.epochs:
        epochs = requested.task.epochs
        omissions.append(f"{epochs - reduced.task.epochs:.3g} of {epochs} epochs")
    return replace(reduced, left_out=tuple(omissions))


def fit(plan: Plan, minutes: float, cost: Cost) -> Plan:
    """Return the least reduced plan that fits the budget; spare time goes into epochs, then into final seeds.

    Raises:
        ValueError: if not even the smallest plan fits.
    """
    available = _available_seconds(minutes)

    def fits(other: Plan) -> bool:
        return not cost.at_least and estimate(other, cost) <= available

    for fitting in candidates(plan):
        if fits(fitting):
            break
    else:
        least, needed = "more than" if cost.at_least else "about", estimate(fitting, cost) / SAFE / 60
        needs = f"{needed:.2g}" if needed < 10 else f"{needed:.0f}"
        shorter = "fewer epochs." if fitting.task.epochs >= 1 else "a smaller model."
        raise ValueError(
            f"minutes = {minutes:g}: even {len(fitting.entries)} optimizers with {fitting.trials} trials and "
            f"{fitting.seeds} seeds take {least} {needs} minutes here. Give that much, or "
            + ("a faster loop." if cost.at_least else shorter)
        )

    def with_epochs(epochs: float) -> Plan:
        return replace(fitting, task=fitting.task.change(epochs=epochs))

    if isinstance(fitting.task, Task) and fitting.task.epochs < plan.task.epochs:
        fitting = _maximize_epochs(fitting, fitting.task, plan.task.epochs, with_epochs, fits)
    return _note_omissions(plan, _largest_fitting(lambda n: replace(fitting, seeds=n), fits, fitting.seeds, MOST))


def _maximize_epochs(
    fitting: Plan, task: Task, epochs: float, with_epochs: Callable[[float], Plan], fits: Callable[[Plan], bool]
) -> Plan:
    """Return the plan with the most epochs that fit, or with the largest fraction of one."""
    if fits(one := with_epochs(1)):
        return _largest_fitting(with_epochs, fits, 1, int(epochs)) if epochs >= 1 else one
    size, count = task.batch_size, len(task.loaded.split(0).train)
    low, high = round(task.epochs * count / size), int(min(1, epochs) * count / size)
    return _largest_fitting(lambda n: with_epochs(min(1, n * size / count)), fits, low, high) if high > low else fitting


def _available_seconds(minutes: float) -> float:
    """Return the seconds that a plan may take.

    Raises:
        ValueError: if the budget is not positive.
    """
    if not minutes > 0:
        raise ValueError(f"minutes = {minutes}: it must be more than 0.")
    return 60 * minutes * SAFE


def _largest_fitting(make: Callable[[int], Plan], fits: Callable[[Plan], bool], low: int, high: int) -> Plan:
    """Return the plan of the largest number that fits, by bisection; the smallest is known to fit."""
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
    """Return a plan that fits the time budget, and its approximate duration in seconds.

    An earlier request for the same plan and budget in this folder returns the plan that was chosen then.
    """
    _available_seconds(minutes)  # raises before a folder is created
    key = f"{plan.key} {minutes:g}"
    with Journal(out) as journal:
        known = (journal.read("fitted") or {}).get(key)
    if known is None:
        cost = measured(plan, engine, watch, minutes)
        fitting = fit(plan, minutes, cost)
        names = [entry.name for entry in fitting.entries]
        known = {"entries": names, "trials": fitting.trials, "seeds": fitting.seeds, "epochs": fitting.task.epochs}
        known["seconds"] = estimate(fitting, cost)
        with Journal(out) as journal:
            journal.write("fitted", {**(journal.read("fitted") or {}), key: known})
    task = plan.task.change(epochs=known["epochs"]) if isinstance(plan.task, Task) else plan.task
    retained = tuple(entry for entry in plan.entries if entry.name in known["entries"])
    fitting = replace(plan, task=task, entries=retained, trials=known["trials"], seeds=known["seeds"])
    return _note_omissions(plan, fitting), known["seconds"]
