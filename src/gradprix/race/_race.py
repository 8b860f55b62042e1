"""A race from its plan to its record."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gradprix.rules import Axis, choice
from gradprix.tasks import Task, find
from gradprix.tasks._loop import Loop, Problem, loop, trains
from gradprix.tasks._schedule import SCHEDULES

from ._budget import fitted
from ._check import check
from ._engine import Engine, Local
from ._entry import Entry, all_tuning, entries
from ._journal import Journal, OtherRaceError
from ._less import seconds_of_steps
from ._looks import Look, level
from ._network import Form
from ._plan import SEEDS, TRIALS, Plan, made_by
from ._progress import Watch, progress
from ._record import Finals, make_record
from ._result import Result
from ._search import Found, Scores
from ._trial import Outcome, Trial
from ._tune import Score


def make_plan(
    task: Any,
    optimizers: str | Iterable[str | Entry] | None = None,
    *,
    bracket: str = "rules",
    tune: str | Sequence[str] | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    schedule: str | None = None,
    margin: float | None = None,
    direction: str | None = None,
    baseline: str | None = None,
    preset: str | None = None,
    data: str | Path | None = None,
    seed: int = 0,
    compile: bool = False,  # noqa: A002  # as torch calls it
) -> Plan:
    """Decide everything about a race, without running it. The arguments are those of `race`."""
    if isinstance(task, str):
        task = find(task, preset, data)
    elif preset is not None or data is not None:
        raise ValueError("preset and data are for built-in tasks, given by their names.")
    problem = posed(task, direction, margin)
    problem = problem.change(epochs=epochs, batch_size=batch_size, schedule=schedule)
    default = problem.entries if bracket == "rules" else ()
    chosen = entries(optimizers or default or None, bracket, baseline)
    if tune is not None:
        names = [name.strip() for name in tune.split(",")] if isinstance(tune, str) else list(tune)
        chosen = all_tuning(chosen, names, training_axes(problem))
    trials = (problem.trials or TRIALS) if trials is None else trials
    seeds = (problem.seeds or SEEDS) if seeds is None else seeds
    return Plan(problem, tuple(chosen), trials, seeds, seed, compile, baseline=baseline)


def posed(given: Any, direction: str | None, margin: float | None) -> Problem:
    """What is to be raced on: a task, or a training loop.

    Args:
        given: either, or a function that returns a task, or one that trains: `train(make_optimizer, seed)`.
        direction: whether more or less is better, for a training loop.
        margin: the smallest difference that matters; its own when None.

    Raises:
        TypeError: for anything else.
    """
    found = given
    if callable(found) and not isinstance(found, Task | Loop):
        if trains(found):
            if direction is None:
                raise ValueError(
                    f"{found.__name__} is a training loop: say whether more of what it yields is better, "
                    'direction="max" (--direction max), or less, "min".'
                )
            return loop(found, direction, margin=margin)
        found = found()
    if not isinstance(found, Task | Loop):
        raise TypeError(
            f"{given!r} is a {type(found).__name__}: give a gp.Task, a function that returns one, or a training loop "
            "train(make_optimizer, seed)."
        )
    if direction is not None:
        raise ValueError("direction is for training loops: a task's metric says itself which way is better.")
    if margin is not None:
        found = found.change(metric=replace(found.metric, margin=margin, relative=False))
    return found


def training_axes(problem: Problem) -> dict[str, Axis]:
    """Where batch size and schedule are searched."""
    if isinstance(problem, Loop):
        return {}
    sizes = sorted({max(1, int(problem.batch_size * factor)) for factor in (0.25, 0.5, 1, 2, 4)})
    return {"batch_size": choice(*sizes), "schedule": choice(*SCHEDULES)}


def race(
    task: Any,
    optimizers: str | Iterable[str | Entry] | None = None,
    *,
    bracket: str = "rules",
    tune: str | Sequence[str] | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    schedule: str | None = None,
    margin: float | None = None,
    direction: str | None = None,
    baseline: str | None = None,
    preset: str | None = None,
    data: str | Path | None = None,
    seed: int = 0,
    minutes: float | None = None,
    compile: bool = False,  # noqa: A002
    out: str | Path | None = None,
    processes: int | None = None,
    memory: float | None = None,
) -> Result:
    """Tune optimizers fairly on a task, race them on fresh seeds, and say what the result is worth.

    Args:
        task: a task, or a function that returns one; the name of a built-in one, or where yours is: `"mine.py:task"`;
            or a training loop of your own, `train(make_optimizer, seed)`, which yields after each epoch a mapping with
            `"valid"` and, if it has held-out examples that nothing is tuned by, `"test"`.
        optimizers: entries or their names, as a list or with commas between; `"all"` for every rule; the task's own
            choice, or the bracket's entries, when None.
        bracket: `"rules"` races optimizers at one batch size, `"data"` one rule at three batch sizes.
        tune: what is tuned besides the learning rate, as a list or with commas between, of hyperparameters and
            `batch_size` and `schedule`; each optimizer tunes those that it has.
        trials: tuning trials for each entry; the task's own number, or 19, when None.
        seeds: final runs of each entry, on seeds that are the same for all and that no tuning has seen; the task's own
            number, or 16, when None.
        epochs: passes over the training examples in each run; the task's when None.
        batch_size: examples a step for entries without one of their own; the task's when None.
        schedule: `"cosine"`, `"linear"` or `"constant"`; the task's when None.
        margin: the smallest difference that matters, in the metric's units; the task's when None.
        direction: `"max"` or `"min"`: which way is better, for a training loop.
        baseline: the optimizer that the others are compared with, and not with each other: fewer comparisons, of which
            each can tell smaller differences. It races, too, and is to be chosen before anything is seen.
        preset: of a built-in task: `"small"` takes seconds, `"default"` minutes, `"large"` wants a larger machine.
        data: a copy of a built-in task's examples of your own, instead of the archive that is fetched.
        seed: races with different numbers share no seed.
        minutes: about how long the race may take: optimizers, trials, seeds and epochs are chosen to fit, and what is
            left out is said.
        compile: compile the stacked networks with `torch.compile`, which needs a C++ compiler. It takes half a minute
            or more, and pays in races that take many.
        out: a folder to keep the race in, so that it can be continued; nothing is kept when None.
        processes: how many train at once; as many as the machine has cores when None.
        memory: how much the race may take, in GB; half of what is free when None.

    Returns:
        The result: its answer, its verdict, and the record of every run.

    Raises:
        ValueError: for unknown names and impossible numbers.
        TaskError: when the task's model, loss or metric does not work.
        JournalError: when `out` holds a race on another task, or one that is running, or cannot be written.
    """
    plan = make_plan(
        task,
        optimizers,
        bracket=bracket,
        tune=tune,
        trials=trials,
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        margin=margin,
        direction=direction,
        baseline=baseline,
        preset=preset,
        data=data,
        seed=seed,
        compile=compile,
    )
    engine, folder = Local(processes, memory), None if out is None else Path(out)
    if minutes is not None:
        plan = fitted(plan, minutes, engine, folder)
    with progress() as watch:
        return run(plan, folder, engine, watch)


def run(plan: Plan, out: Path | None, engine: Engine, watch: Watch = lambda *_: None) -> Result:
    """Run a plan, or finish it where it was left. Of a race with another plan, networks that are the same are used.

    Args:
        plan: what to do.
        out: a folder to keep it in; nothing is kept when None.
        engine: where it is done.
        watch: hears how far it is.

    Raises:
        OtherRaceError: when the folder holds a race on another task, or one that trains in another form.
        NoLookLeftError: when more seeds were looked at too often.
        JournalError: when the folder cannot be written.
        TaskError: when the task, or an optimizer on it, does not work.
        WorkerError: when worker processes are killed again and again.
    """
    with Journal(out, made=made_by()) as journal:
        described = plan.describe()
        looks, given = admitted(plan, described, journal, out)
        before, kept = journal.read("plan"), journal.read("form")
        # A race goes on in the form in which it began: it is found out by a trial, which need not end the same twice.
        form = None if kept is None else Form(**kept)
        if form is None or before is None or before["entries"] != described["entries"]:
            tried = engine.ask(check, plan)
            form = form or tried
        described |= {"form": form.describe(), "tested": form.tested}
        journal.forget("record")  # what is refused until here leaves the race that was there as it was
        journal.write("plan", described)
        journal.write("form", asdict(form))
        course = _Course(plan, form, journal, engine, watch)
        finished = set(course.finished)
        tuned = course.tune()
        finals = course.finish(tuned)
        looks = [*dict.fromkeys([*looks, (plan.seeds, given)])]
        journal.write("looks", looks)
        cost = {"seconds": round(course.seconds, 2), "step_seconds": course.time_steps(finals)}
        record = make_record(plan, described, course.tried, tuned, finals, cost, looks)
        journal.write("record", record)
    return Result(record, out, len(finished & course.used))


def admitted(plan: Plan, described: dict[str, Any], journal: Journal, out: Path | None) -> tuple[list[Look], float]:
    """Whether a plan may be run where a race is kept: the looks that were taken there, and the level of this one.

    Raises:
        OtherRaceError: when the race there is another one.
        NoLookLeftError: when more seeds were looked at too often.
    """
    before = journal.read("plan")
    looks: list[Look] = [(seeds, given) for seeds, given in journal.read("looks") or ()]
    elsewhere = f"Keep this one elsewhere, such as in {out}-2 (--out)"
    for key, what in (("fingerprint", "on another task"), ("compiled", "in another form")):
        if before is not None and before.get(key) != described[key]:
            raise OtherRaceError(f"{out} holds a race {what} ({before['task']}). {elsewhere}, or delete that one.")
    if looks and before is not None and before["baseline"] != plan.baseline:
        raise OtherRaceError(
            f"the race in {out} was looked at with {_compared(before['baseline'])}: what is compared is fixed before "
            f"anything is seen. {elsewhere}, and on other seeds (--seed)."
        )
    return looks, level(looks, plan.seeds)


def _compared(baseline: str | None) -> str:
    return "all pairs" if baseline is None else f"the baseline {baseline}"


@dataclass
class _Course:
    """A race under way: what is finished, and how to get what is not."""

    plan: Plan
    form: Form
    journal: Journal
    engine: Engine
    watch: Watch
    finished: dict[str, Outcome] = field(default_factory=dict)
    tried: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.finished = self.journal.finished()
        self.seconds = self.journal.read("seconds") or 0.0
        self.tried = {entry.name: [] for entry in self.plan.entries}

    def outcomes(self, stage: str, trials: list[Trial]) -> list[Outcome]:
        """What comes of the trials: from the journal where it is there, else from running them."""
        self.used |= {trial.key for trial in trials}
        missing = {trial.key: trial for trial in trials if trial.key not in self.finished}
        before = self.done

        def watch(share: float) -> None:
            self.watch(stage, before + share, self.plan.runs)

        watch(0.0)
        started = time.perf_counter()
        todo = list(missing.values())
        for lane, outcomes in self.engine.run(self.plan.task, todo, watch, self.form) if todo else ():
            self.journal.finish(lane, outcomes)
            self.seconds, started = self.seconds + time.perf_counter() - started, time.perf_counter()
            self.journal.write("seconds", self.seconds)
            self.finished |= {trial.key: outcome for trial, outcome in zip(lane, outcomes, strict=True)}
        return [self.finished[trial.key] for trial in trials]

    def score(self, outcome: Outcome) -> Score:
        """How a tuning run did, the smaller the better."""
        if outcome.diverged is not None:
            return Score(math.inf, math.inf)
        turn = -1 if self.plan.task.metric.higher_is_better else 1
        return Score(outcome.valid_loss, turn * outcome.valid_metric)

    @property
    def done(self) -> int:
        return sum(len(tried) for tried in self.tried.values())

    def tune(self) -> dict[str, Found]:
        """Tune all entries side by side: what each wants next is run together with what the others want."""
        entries = {entry.name: entry for entry in self.plan.entries}
        tuners = {name: self.plan.tuner(entry) for name, entry in entries.items()}
        tuned: dict[str, Found] = {}
        asked = {name: next(tuner) for name, tuner in tuners.items()}
        spread = True  # the first points are the same whatever comes of them
        while asked:
            wanted = [(name, point, seed) for name, pairs in asked.items() for point, seed in pairs]
            trials = [self.plan.tuning_trial(entries[name], dict(point), seed) for name, point, seed in wanted]
            results = self.outcomes("tuning", trials)
            answers: dict[str, Scores] = {name: {} for name in asked}
            for (name, point, seed), trial, outcome in zip(wanted, trials, results, strict=True):
                answers[name][point, seed] = self.score(outcome)
                self.tried[name].append(
                    {
                        **dict(point),
                        "seed": trial.seed,
                        "first": seed == 0,
                        "spread": spread,
                        "loss": outcome.valid_loss,
                        "metric": outcome.valid_metric,
                        "diverged": outcome.diverged,
                    }
                )
            for name in list(asked):
                try:
                    asked[name] = tuners[name].send(answers[name])
                except StopIteration as done:
                    tuned[name] = done.value
                    del asked[name]
            spread = False
        return tuned

    def finish(self, tuned: dict[str, Found]) -> Finals:
        """Run every entry at its tuned point on the final seeds."""
        trials = [
            self.plan.final_trial(entry, dict(tuned[entry.name].point), seed)
            for entry in self.plan.entries
            for seed in range(self.plan.seeds)
        ]
        pairs = list(zip(trials, self.outcomes("final", trials), strict=True))
        n = self.plan.seeds
        return {entry.name: pairs[i * n : (i + 1) * n] for i, entry in enumerate(self.plan.entries)}

    def time_steps(self, finals: Finals) -> dict[str, float | None]:
        """How long a step of each tuned optimizer takes by itself; None where a step is a loop's own business."""
        if not isinstance(self.plan.task, Task):
            return dict.fromkeys(finals)
        trials = {name: runs[0][0] for name, runs in finals.items()}
        known = self.journal.read("step_seconds") or {}
        missing = [trial for trial in trials.values() if trial.key not in known]
        if missing:
            took = self.engine.ask(seconds_of_steps, self.plan.task, missing)
            known |= {trial.key: seconds for trial, seconds in zip(missing, took, strict=True)}
            self.journal.write("step_seconds", known)
        return {name: known[trial.key] for name, trial in trials.items()}
