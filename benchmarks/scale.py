"""How busy planning keeps workers, on clusters far larger than this machine.

A hundred races, ten on each built-in task, are played on a thousand workers. The schedule that every engine plans with
is asked what each free worker should do, and a clock that is only counted says when that ends, or fails. What lanes
take was measured (`--measure`: one process on one machine); the planning sees none of it before lanes have ended.

    python benchmarks/scale.py            # about a minute; writes benchmarks/scale.json
    python benchmarks/scale.py --measure  # what lanes take, before that: some minutes more, on an idle machine

Workers are *busy* when they are at a lane; *useful* is what its networks would have taken of that at the best width.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any

from _played import Cost, Play, Race
from gradprix.executors.scheduler import OVERHEAD, Scheduler, TrialGroup
from gradprix.race import Local, Plan, entries, twin
from gradprix.race.cost_measurement import seconds_to_evaluate
from gradprix.race.preflight import check
from gradprix.race.suite_runner import suite_plans
from gradprix.tasks import ALL, Task
from gradprix.training import ModelStack
from gradprix.training.autotune import BETTER, WIDTHS, seconds_of_one
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.runtime_settings import runtime_settings
from gradprix.training.trial import Trial
from gradprix.utils.run_info import describe_run

FILE = Path(__file__).with_suffix(".json")
WORKERS, RACES, TRIALS = 1_000, 100, 100_000
MACHINE = 64
"""Workers of a machine that goes, a third of the way, and does not come back."""
ROUNDS = 4
"""How often everything is measured, one width after the other: the least counts, for others may be at work."""
NARROW = (2, 4, 8)
ALONE = ("digits", "segment")
"""The tasks of the races that are played by themselves: the one of the smallest networks, and the one of the largest.
"""
SHOWN = {
    "makespan": "{:.0f} s",
    "over": "{:.2f}",
    "busy": "{:.1%}",
    "least_busy": "{:.1%}",
    "useful": "{:.1%}",
    "lost": "{:.1%}",
    "lanes": "{:,}",
    "given_up": "{}",
}


def races(number: int = RACES, trials: int = TRIALS) -> list[Race]:
    """Races by the whole protocol, as their tuners ask, of so many optimizers that the trials are about so many."""
    task_plans = suite_plans()
    family = entries()
    each = [int(trials * (i + 1) / number / 35) - int(trials * i / number / 35) for i in range(number)]
    shapes: dict[int, tuple[int, ...]] = {}
    for entered in set(each):
        racing = [twin(family[i % len(family)], i) for i in range(entered)]
        plan = Plan(task_plans[0].task, tuple(racing))
        shapes[entered] = tuple(sum(phase.runs.values()) for phase in plan.phases)
    return [Race(list(ALL)[i % len(ALL)], shapes[entered]) for i, entered in enumerate(each)]


class FullStacks(Scheduler):
    """The plainest planning: lanes as wide as pays, in the order in which they are asked for."""

    def _urgency(self, group: TrialGroup) -> tuple[bool, float]:
        return False, 0.0

    def _take_trials(self, group: TrialGroup) -> list[Any]:
        cut, group.trials = group.trials[: group.width], group.trials[group.width :]
        return cut


class EqualStacks(FullStacks):
    """Each race shared out evenly over all workers, as if it were alone."""

    def _take_trials(self, group: TrialGroup) -> list[Any]:
        groups, running = self.groups, self.running
        self.groups, self.running = [group], [stack for stack in running if stack.group is group]
        try:
            return Scheduler._take_trials(self, group)
        finally:
            self.groups, self.running = groups, running


def read(tasks: Mapping[str, Any]) -> dict[str, Cost]:
    """What lanes take, as it is kept."""
    return {
        name: Cost(**{**task, "step": {int(width): seconds for width, seconds in task["step"].items()}})
        for name, task in tasks.items()
    }


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    """What lanes of each task take here, as a race would find out before it begins, and for narrower lanes as well."""
    engine = Local(1)
    for plan in suite_plans():
        task = plan.task
        assert isinstance(task, Task)
        form = engine.call(check, plan)
        trials = [plan.careful_trial(entry, seed) for entry in plan.entries for seed in range(2)]
        (found,) = engine.call_workers(1, times, task, trials, form)
        examples = len(task.loaded.split(0).train)
        steps = task.epochs * -(-examples // (task.batch_size or examples))
        yield task.name, {"stacked": form.stacked, "steps": steps, "epochs": task.epochs, **found}


def times(task: Task, trials: list[Trial], form: ExecutionMode) -> dict[str, Any]:
    """What a lane takes, in a worker: to build it, for a step by its width, and to evaluate each network."""

    def steps(*widths: int) -> dict[int, float]:
        rounds = [[width * seconds_of_one(task, trials, form, width) for width in widths] for _ in range(ROUNDS)]
        return {width: min(took) for width, took in zip(widths, zip(*rounds, strict=True), strict=True)}

    step, best = steps(*NARROW, *WIDTHS[:2]), WIDTHS[0]
    for wider in WIDTHS[1:]:  # as a race finds its width
        step = step if wider in step else step | steps(wider)
        if step[wider] / wider > BETTER * step[best] / best:
            break
        best = wider
    rows = sorted((trials[i % len(trials)] for i in range(WIDTHS[0])), key=attrgetter("update_key"))
    builds = []
    with runtime_settings():
        for _ in range(ROUNDS):
            began = time.perf_counter()
            ModelStack(task, rows, form)
            builds.append(time.perf_counter() - began)
    evaluation = min(seconds_to_evaluate(task, trials, form, WIDTHS[0]) for _ in range(ROUNDS))
    found = {"start": min(builds), "evaluation": evaluation}
    digits = {name: float(f"{seconds:.3g}") for name, seconds in found.items()}
    return {"width": best, **digits, "step": {width: float(f"{seconds:.4g}") for width, seconds in step.items()}}


def plays(costs: Mapping[str, Cost]) -> Iterator[tuple[str, Play]]:
    """What is played: many races on many workers, and then one by itself on few and on many."""
    many = races()
    usual = Play(costs, many, WORKERS)
    yield "1 % of stacks fail", usual
    yield "no stack fails", Play(costs, many, WORKERS, failing=0)
    yield "5 % of stacks fail", Play(costs, many, WORKERS, failing=0.05)
    yield "another random seed", Play(costs, many, WORKERS, seed=1)
    yield "durations vary by 30 %", Play(costs, many, WORKERS, noise=0.3)
    yield f"{MACHINE} workers are lost", Play(costs, many, WORKERS, gone=(usual.makespan / 3, MACHINE))
    slow = next(i for i, race in enumerate(many) if race.task == "segment")
    yield "a trial that always fails", Play(costs, many, WORKERS, poison=[(slow, 0, 7)])
    yield "full stacks, in order of request", Play(costs, many, WORKERS, planning=FullStacks)
    yield "equal stacks, in order of request", Play(costs, many, WORKERS, planning=EqualStacks)
    for task in ALONE:
        race = next(race for race in many if race.task == task)
        for workers in (1, 2, 10, 100):
            yield f"{task} alone on {workers}", Play(costs, [race], workers, failing=0)
        yield f"{task} alone on 2, full stacks", Play(costs, [race], 2, failing=0, planning=FullStacks)


def main() -> None:
    """Play, and write what came of it beside what lanes took."""
    began = time.perf_counter()
    if "--measure" in sys.argv:
        tasks = dict(measure())
        took = round(time.perf_counter() - began, 1)
        lanes = {
            **describe_run("python benchmarks/scale.py --measure", took),
            "load": os.getloadavg()[2],
            "tasks": tasks,
        }
    else:
        lanes = json.loads(FILE.read_text())["lanes"]
    costs = read(lanes["tasks"])
    print(f"{'a network takes':15} {'width':>5} {'at best':>9} {'a lane as many more':>20}")
    for name, cost in costs.items():
        how = "" if cost.stacked else " one at a time"
        print(f"{name:15} {cost.width:5} {cost.best:7.3f} s {cost.overhead:20.1f}{how}")
    overhead = median(cost.overhead for cost in costs.values())
    print(f"in the median {overhead:.1f} networks more; planning counts on {OVERHEAD}\n")
    print(f"{'':30}" + "".join(f"{name:>11}" for name in SHOWN))
    began, played = time.perf_counter(), {}
    for name, play in plays(costs):
        played[name] = play.told()
        print(f"{name:30}" + "".join(f"{how.format(played[name][key]):>11}" for key, how in SHOWN.items()), flush=True)
    head = describe_run("python benchmarks/scale.py", round(time.perf_counter() - began, 1))
    trials = sum(sum(race.stages) for race in races())
    written = {
        **head,
        "races": RACES,
        "trials": trials,
        "overhead": round(overhead, 2),
        "lanes": lanes,
        "played": played,
    }
    FILE.write_text(json.dumps(written, indent=1) + "\n")
    usual = played["1 % of stacks fail"]
    print(
        f"\n{RACES} races, {trials:,} trials, {WORKERS:,} workers, 1 % of stacks failing: {usual['busy']:.1%} busy "
        f"until the last 5 % of the makespan, wanted 95 %; {usual['least_busy']:.1%} in the worst hundredth of it"
    )
    sys.exit(usual["busy"] < 0.95)


if __name__ == "__main__":
    main()
