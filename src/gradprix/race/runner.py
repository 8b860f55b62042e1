"""A plan carried out: what is in its journal is used, and the rest is run."""

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gradprix.executors.executor import Engine
from gradprix.stats.alpha_spending import Look, level
from gradprix.tasks import Task
from gradprix.text.answer import listed, unrepeated
from gradprix.training.model_stack import Form
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.learning_rate import Score
from gradprix.tuning.search import Found, Scores

from .budget import stages
from .efficiency import seconds_of_steps
from .journal import Journal, OtherRaceError
from .plan import Plan
from .preflight import preflight
from .progress_display import Watch
from .record import Finals, make_record
from .replicate import PATIENCE, SHARE, prepare, repeat
from .result import Result


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
        EngineError: when a machine of a cluster must not take part.
    """
    with Journal(out) as journal:
        described = plan.describe()
        looks, given = admitted(plan, described, journal, out)
        before, kept = journal.read("plan"), journal.read("form")
        # A race goes on in the form in which it began: it is found out by a trial, which need not end the same twice.
        form = None if kept is None else Form(**kept)
        if form is None or before is None or before["entries"] != described["entries"]:
            tried = preflight(plan, engine, watch)
            form = form or tried
        if plan.device not in ("auto", form.device):
            raise OtherRaceError(
                f"{out} holds a race whose networks are trained on {form.device}. Keep this one elsewhere (--out), or "
                "delete that one."
            )
        journal.made = engine.describe_provenance(plan, form.device)
        described |= {"form": form.describe()}
        journal.write("plan", described)
        journal.write("form", asdict(form))
        course = Course(plan, form, journal, engine, watch)
        finished = set(course.finished)
        tuned = course.tune()
        finals = course.finish(tuned)
        looks = [*dict.fromkeys([*looks, (plan.seeds, given)])]
        journal.write("looks", looks)
        journal.write("compared", compared(plan))
        cost = {"seconds": round(course.seconds, 2), "step_seconds": course.time_steps(finals)}
        record = make_record(plan, described, course.tried, tuned, finals, cost, looks)
        if course.reruns:
            record["reruns"] = list(course.reruns.values())
            record["verdict"]["text"] = "\n".join([record["verdict"]["text"], *unrepeated(record["reruns"])])
        explained = journal.read("why")
        if explained is not None and explained["of"][0] == plan.key:
            record["why"] = explained
        journal.write("record", record)
    return Result(record, out, len(finished & course.used))


def admitted(plan: Plan, described: dict[str, Any], journal: Journal, out: Path | None) -> tuple[list[Look], float]:
    """Whether a plan may be run where a race is kept: the looks that were taken there, and the level of this one.

    Raises:
        OtherRaceError: when the race there is another one.
        NoLookLeftError: when more seeds were looked at too often.
    """
    before, seen = journal.read("plan"), journal.read("compared")
    looks: list[Look] = [(seeds, given) for seeds, given in journal.read("looks") or ()]
    elsewhere = f"Keep this one elsewhere, such as in {out}-2 (--out)"
    for key, what in (("fingerprint", "on another task"), ("compiled", "in another form")):
        if before is not None and before.get(key) != described[key]:
            raise OtherRaceError(f"{out} holds a race {what} ({before['task']}). {elsewhere}, or delete that one.")
    if looks and seen is not None:
        mine = compared(plan)
        was = [key for key in ("baseline", "margin", "relative") if seen[key] != mine[key]]
        was += ["optimizers"] * (not set(seen["entries"]) <= set(mine["entries"]))
        if was:
            # Chosen after a look, they would be chosen by what came out.
            raise OtherRaceError(
                f"the race in {out} was looked at with another {' and '.join(was)} ({_said(seen)}): what is compared "
                "is fixed before anything is seen; only more optimizers may join. "
                f"{elsewhere}, on other seeds (--seed)."
            )
    return looks, level(looks, plan.seeds)


def compared(plan: Plan) -> dict[str, Any]:
    """What a look at a race is a look at."""
    metric = plan.task.metric
    names = [entry.name for entry in plan.entries]
    return {"entries": names, "margin": metric.margin, "relative": metric.relative, "baseline": plan.baseline}


def _said(seen: dict[str, Any]) -> str:
    who = listed(seen["entries"])
    return f"{who}, margin {seen['margin']:g}, " + (f"baseline {seen['baseline']}" if seen["baseline"] else "all pairs")


@dataclass
class Course:
    """A race under way: what is finished, and how to get what is not."""

    plan: Plan
    form: Form
    journal: Journal
    engine: Engine
    watch: Watch
    finished: dict[str, Outcome] = field(default_factory=dict)
    tried: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    reruns: dict[str, Any] = field(default_factory=dict)
    later: int = 0

    def __post_init__(self) -> None:
        self.later = len(list(stages(self.plan)))
        self.finished = self.journal.finished()
        self.seconds = self.journal.read("seconds") or 0.0
        self.tried = {entry.name: [] for entry in self.plan.entries}

    def outcomes(self, stage: str, trials: list[Trial]) -> list[Outcome]:
        """What comes of the trials: from the journal where it is there, else from running them."""
        self.used |= {trial.key for trial in trials}
        missing = {trial.key: trial for trial in trials if trial.key not in self.finished}
        before, self.later = self.done, self.later - 1

        def watch(share: float) -> None:
            self.watch(f"{stage}{self.engine.state}", before + share, self.plan.runs)

        watch(0.0)
        started = time.perf_counter()
        todo = list(missing.values())
        good = bool(self.finished)
        runs = self.engine.run(self.plan.task, todo, watch, self.form, self.later, good) if todo else ()
        for lane, outcomes in runs:
            if outcomes[0].error is None:  # else it is tried again when the race is
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
        """The number of training runs that are finished."""
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
                        "start": outcome.start,
                        "loss": outcome.valid_loss,
                        "metric": outcome.valid_metric,
                        "diverged": outcome.diverged,
                        **({} if outcome.error is None else {"error": outcome.error}),
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
        prepare(self.plan, self.form, self.engine)
        new, before = sum(trial.key not in self.finished for trial in trials), self.seconds
        pairs = list(zip(trials, self.outcomes("final", trials), strict=True))
        n = self.plan.seeds
        finals = {entry.name: pairs[i * n : (i + 1) * n] for i, entry in enumerate(self.plan.entries)}
        seconds = (self.seconds - before) / new if new else self.seconds / max(1, self.done)
        known, each = self.journal.read("reruns") or {}, seconds * self.engine.workers
        patience = max(PATIENCE, SHARE * self.seconds)
        self.reruns = repeat(self.plan, self.form, self.engine, finals, each, patience, known)
        self.journal.write("reruns", self.reruns)
        return finals

    def time_steps(self, finals: Finals) -> dict[str, float | None]:
        """How long a step of each tuned optimizer takes by itself; None where that cannot be found out.

        A step is a training loop's own business, and one that fails is not timed.
        """
        if not isinstance(self.plan.task, Task):
            return dict.fromkeys(finals)
        whole = {name: runs for name, runs in finals.items() if all(found.error is None for _, found in runs)}
        trials = {name: runs[0][0] for name, runs in whole.items()}
        known = self.journal.read("step_seconds") or {}
        missing = [trial for trial in trials.values() if trial.key not in known]
        if missing:
            try:
                took = self.engine.ask(seconds_of_steps, self.plan.task, missing, self.form.device)
            except Exception:  # the race is done, and its answer is not to be lost
                return dict.fromkeys(finals)
            known |= {trial.key: seconds for trial, seconds in zip(missing, took, strict=True)}
            self.journal.write("step_seconds", known)
        return {name: known[trials[name].key] if name in trials else None for name in finals}
