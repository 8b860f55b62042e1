"""Simulate how busy the scheduler keeps the workers of clusters far larger than this machine.

A hundred races, ten on each built-in task, share a thousand workers. The scheduler that all executors use assigns a
stack to each free worker, and a simulated clock determines when the stack ends or fails. The durations of stacks were
measured with one process on one machine (`--measure`). The scheduler learns a duration only when the stack has ended.

    python benchmarks/scale.py            # about a minute; writes benchmarks/scale.json
    python benchmarks/scale.py --measure  # measure durations first: some minutes more, on an idle machine

A worker is *busy* while it trains a stack. The *useful* share of this time is what its networks would have taken at the
most efficient stack width.
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

from _simulation import Cost, Race, Simulation
from gradprix.executors.scheduler import OVERHEAD, Scheduler, TrialGroup
from gradprix.race import Local, Plan, entries, twin
from gradprix.race.cost_measurement import seconds_to_evaluate
from gradprix.race.preflight import check
from gradprix.race.suite_runner import suite_plans
from gradprix.tasks import ALL, Task
from gradprix.training import ModelStack
from gradprix.training.autotune import MAX_TIME_RATIO, WIDTHS, seconds_of_one
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.runtime_settings import runtime_settings
from gradprix.training.trial import Trial
from gradprix.utils.run_info import describe_run

FILE = Path(__file__).with_suffix(".json")
WORKERS, RACES, TRIALS = 1_000, 100, 100_000
MACHINE = 64
"""Number of workers that are lost for good after a third of the makespan."""
ROUNDS = 4
"""Number of times that each duration is measured. The minimum is used, because other processes may be running."""
NARROW = (2, 4, 8)
"""Stack widths that are measured in addition to those that a race tries."""
ALONE = ("digits", "segment")
"""Tasks of the races that are also simulated alone: the task with the smallest networks and that with the largest."""
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
    """Return races by the full protocol, with so many optimizers that the number of trials is about `trials` in total.

    Args:
        number: number of races.
        trials: approximate total number of trials.
    """
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
    """Baseline: stacks of the most efficient width, in the order in which their trials were submitted."""

    def _urgency(self, group: TrialGroup) -> tuple[bool, float]:
        return False, 0.0

    def _take_trials(self, group: TrialGroup) -> list[Any]:
        cut, group.trials = group.trials[: group.width], group.trials[group.width :]
        return cut


class EqualStacks(FullStacks):
    """Baseline: the trials of each race are divided evenly among all workers, as if there were no other race."""

    def _take_trials(self, group: TrialGroup) -> list[Any]:
        groups, running = self.groups, self.running
        self.groups, self.running = [group], [stack for stack in running if stack.group is group]
        try:
            return Scheduler._take_trials(self, group)
        finally:
            self.groups, self.running = groups, running


def read(tasks: Mapping[str, Any]) -> dict[str, Cost]:
    """Convert recorded durations to `Cost` objects, by name of the task.

    Args:
        tasks: durations as recorded in `scale.json`.
    """
    return {
        name: Cost(**{**task, "step": {int(width): seconds for width, seconds in task["step"].items()}})
        for name, task in tasks.items()
    }


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure the durations of each task on this machine, as a race does before it starts, and for narrower stacks.

    Yields:
        Name of the task, and its durations for `scale.json`.
    """
    engine = Local(1)
    for plan in suite_plans():
        task = plan.task
        assert isinstance(task, Task)
        mode = engine.call(check, plan)
        trials = [plan.careful_trial(entry, seed) for entry in plan.entries for seed in range(2)]
        (durations,) = engine.call_workers(1, measure_durations, task, trials, mode)
        examples = len(task.loaded.split(0).train)
        steps = task.epochs * -(-examples // (task.batch_size or examples))
        yield task.name, {"stacked": mode.stacked, "steps": steps, "epochs": task.epochs, **durations}


def measure_durations(task: Task, trials: list[Trial], mode: ExecutionMode) -> dict[str, Any]:
    """Measure how long it takes to build a stack, to perform a step by stack width, and to evaluate a network.

    This runs in a worker.
    """

    def time_steps(*widths: int) -> dict[int, float]:
        rounds = [[width * seconds_of_one(task, trials, mode, width) for width in widths] for _ in range(ROUNDS)]
        return {width: min(seconds) for width, seconds in zip(widths, zip(*rounds, strict=True), strict=True)}

    step, best = time_steps(*NARROW, *WIDTHS[:2]), WIDTHS[0]
    for wider in WIDTHS[1:]:  # a race selects its width in the same way
        step = step if wider in step else step | time_steps(wider)
        if step[wider] / wider > MAX_TIME_RATIO * step[best] / best:
            break
        best = wider
    rows = sorted((trials[i % len(trials)] for i in range(WIDTHS[0])), key=attrgetter("update_key"))
    builds = []
    with runtime_settings():
        for _ in range(ROUNDS):
            began = time.perf_counter()
            ModelStack(task, rows, mode)
            builds.append(time.perf_counter() - began)
    evaluation = min(seconds_to_evaluate(task, trials, mode, WIDTHS[0]) for _ in range(ROUNDS))
    fixed = {name: float(f"{seconds:.3g}") for name, seconds in (("start", min(builds)), ("evaluation", evaluation))}
    return {"width": best, **fixed, "step": {width: float(f"{seconds:.4g}") for width, seconds in step.items()}}


def simulations(costs: Mapping[str, Cost]) -> Iterator[tuple[str, Simulation]]:
    """Simulate many races on many workers, and then single races on few and on many workers.

    Yields:
        Description of the scenario, and the simulation.
    """
    many = races()
    usual = Simulation(costs, many, WORKERS)
    yield "1 % of stacks fail", usual
    yield "no stack fails", Simulation(costs, many, WORKERS, failing=0)
    yield "5 % of stacks fail", Simulation(costs, many, WORKERS, failing=0.05)
    yield "another random seed", Simulation(costs, many, WORKERS, seed=1)
    yield "durations vary by 30 %", Simulation(costs, many, WORKERS, noise=0.3)
    yield f"{MACHINE} workers are lost", Simulation(costs, many, WORKERS, gone=(usual.makespan / 3, MACHINE))
    slow = next(i for i, race in enumerate(many) if race.task == "segment")
    yield "a trial that always fails", Simulation(costs, many, WORKERS, poison=[(slow, 0, 7)])
    yield "full stacks, in order of request", Simulation(costs, many, WORKERS, planning=FullStacks)
    yield "equal stacks, in order of request", Simulation(costs, many, WORKERS, planning=EqualStacks)
    for task in ALONE:
        race = next(race for race in many if race.task == task)
        for workers in (1, 2, 10, 100):
            yield f"{task} alone on {workers}", Simulation(costs, [race], workers, failing=0)
        yield f"{task} alone on 2, full stacks", Simulation(costs, [race], 2, failing=0, planning=FullStacks)


def main() -> None:
    """Run the simulations and write their results, with the durations that they used."""
    began = time.perf_counter()
    if "--measure" in sys.argv:
        tasks = dict(measure())
        seconds = round(time.perf_counter() - began, 1)
        durations = {
            **describe_run("python benchmarks/scale.py --measure", seconds),
            "load": os.getloadavg()[2],
            "tasks": tasks,
        }
    else:
        durations = json.loads(FILE.read_text())["lanes"]
    costs = read(durations["tasks"])
    print(f"{'task':15} {'width':>5} {'a network':>9} {'fixed cost, networks':>20}")
    for name, cost in costs.items():
        note = "" if cost.stacked else " one at a time"
        print(f"{name:15} {cost.width:5} {cost.best:7.3f} s {cost.overhead:20.1f}{note}")
    overhead = median(cost.overhead for cost in costs.values())
    print(f"median fixed cost {overhead:.1f} networks; the scheduler assumes {OVERHEAD}\n")
    print(f"{'':30}" + "".join(f"{name:>11}" for name in SHOWN))
    began, summaries = time.perf_counter(), {}
    for name, simulation in simulations(costs):
        row = summaries[name] = simulation.summary()
        print(f"{name:30}" + "".join(f"{style.format(row[key]):>11}" for key, style in SHOWN.items()), flush=True)
    head = describe_run("python benchmarks/scale.py", round(time.perf_counter() - began, 1))
    trials = sum(sum(race.stages) for race in races())
    record = {
        **head,
        "races": RACES,
        "trials": trials,
        "overhead": round(overhead, 2),
        "lanes": durations,
        "played": summaries,
    }
    FILE.write_text(json.dumps(record, indent=1) + "\n")
    usual = summaries["1 % of stacks fail"]
    print(
        f"\n{RACES} races, {trials:,} trials, {WORKERS:,} workers, 1 % of stacks fail: {usual['busy']:.1%} of workers "
        f"busy until the last 5 % of the makespan (goal: 95 %), at least {usual['least_busy']:.1%} in any hundredth"
    )
    sys.exit(usual["busy"] < 0.95)


if __name__ == "__main__":
    main()
