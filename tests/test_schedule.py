"""Which trials go together, on how many workers: planning, without any training."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradprix.executors.scheduler import LOSSES, OVERHEAD, Scheduler, TrialGroup, TrialStack

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def group(count: int, width: int = 32, steps: float = 100, kind: str = "a", later_phases: int = 0) -> TrialGroup:
    return TrialGroup(list(range(count)), kind, steps, width, later_phases)


def schedule(workers: int, *groups: TrialGroup) -> Scheduler:
    made = Scheduler(workers)
    made.groups += groups
    return made


def taken(made: Scheduler) -> list[TrialStack]:
    """What workers that are free get."""
    return list(iter(made.next, None))


def seconds(stack: TrialStack) -> float:
    return stack.group.steps * (OVERHEAD + len(stack.trials))


def played(made: Scheduler) -> Iterator[tuple[float, TrialStack]]:
    """When each part ends, if every worker that is free gets another at once."""
    now, ends = 0.0, {stack: seconds(stack) for stack in taken(made)}
    while ends:
        stack = min(ends, key=lambda each: ends[each])
        for other in ends:
            other.share = 1 - (ends[other] - ends[stack]) / seconds(other)
        now = ends.pop(stack)
        made.finished(stack, seconds(stack))
        yield now, stack
        ends |= {new: now + seconds(new) for new in taken(made)}


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 5, 14, 33, 70, 300])
def test_every_trial_is_given_once_in_lanes_of_a_fit_width(workers: int, count: int) -> None:
    stacks = [stack for _, stack in played(schedule(workers, group(count)))]

    assert sorted(trial for stack in stacks for trial in stack.trials) == list(range(count))
    assert all(2 <= len(stack.trials) <= 32 for stack in stacks) or count == 1


@pytest.mark.parametrize(("count", "lanes"), [(14, [7, 7]), (15, [8, 7]), (64, [32, 32]), (70, [18, 18, 17, 17])])
def test_like_trials_are_shared_out_evenly(count: int, lanes: list[int]) -> None:
    assert sorted((len(stack.trials) for _, stack in played(schedule(2, group(count)))), reverse=True) == lanes


def test_trainers_hold_trials_of_one_kind() -> None:
    one, other = group(10, kind="a"), group(6, kind="b", steps=10)
    stacks = taken(schedule(16, one, other))

    assert {id(stack.group) for stack in stacks} == {id(one), id(other)}
    assert one.waiting == other.waiting == 0


def test_what_takes_longest_goes_first() -> None:
    short, long = group(8, steps=10, kind="a"), group(8, steps=100, kind="b")
    assert schedule(1, short, long).next().group is long  # type: ignore[union-attr]
    late = group(8, steps=10, kind="c", later_phases=20)
    assert schedule(1, long, late).next().group is late, "its race goes on longest"  # type: ignore[union-attr]


def test_what_things_took_is_learnt() -> None:
    made = schedule(2)
    for kind, took in (("a", 1.0), ("b", 9.0)):
        made.groups[:] = [group(4, kind=kind)]
        stack = made.next()
        assert stack is not None
        made.finished(stack, took)
    made.groups[:] = [group(4, kind=kind) for kind in "abc"]
    first, second = taken(made)
    assert first.group.kind == "c", "nobody has tried it: it may be the slowest"
    assert second.group.kind == "b"


def test_trainers_grow_narrow_towards_the_end() -> None:
    ends = list(played(schedule(10, *(group(100, kind=str(i), steps=50 + 10 * i) for i in range(10)))))
    widths = [len(stack.trials) for _, stack in ends]
    busy = sum(seconds(stack) for _, stack in ends) / (10 * ends[-1][0])

    assert max(widths[:10]) > 2 * max(widths[-5:])
    assert busy > 0.95


def test_what_is_lost_is_tried_again_in_halves_and_by_itself_a_few_times() -> None:
    made = schedule(1, group(8))
    bad, lost, done = 5, 0, []
    while (stack := made.next()) is not None:
        if bad not in stack.trials:
            made.finished(stack, 1.0)
            done += stack.trials
        elif made.failed(stack):
            assert stack.trials == [bad], "it takes no other with it"
        else:
            lost += len(stack.trials)
    assert sorted(done) == [0, 1, 2, 3, 4, 6, 7]
    assert lost == 8 + 4 + 2 + LOSSES - 1
    assert made.lost == lost + 1


def test_work_that_is_dropped_is_forgotten_and_what_is_under_way_is_told() -> None:
    one, other = group(4), group(4)
    made = schedule(3, one, other)
    stacks = taken(made)

    assert made.drop(one) == [stack for stack in stacks if stack.group is one]
    assert made.running == [stack for stack in stacks if stack.group is other]
    assert made.left(other) == 4
    assert made.groups == [other]


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark that plays races on a cluster."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("scale")


def test_races_keep_workers_busy_while_lanes_fail_and_a_machine_goes(scale: Any) -> None:
    costs = scale.read(json.loads((BENCHMARKS / "scale.json").read_text())["lanes"]["tasks"])
    racing = scale.races(10, 3_500)
    wanted = [(i, k, j) for i, race in enumerate(racing) for k, n in enumerate(race.stages) for j in range(n)]
    bad = (4, 2, 1)
    calm = scale.Simulation(costs, racing, 50)
    rough = scale.Simulation(costs, racing, 50, gone=(calm.makespan / 3, 10), poison=[bad])

    for play in (calm, rough):
        assert play.summary()["busy"] > 0.95
        assert sorted(play.done + play.given_up) == wanted
        assert not play.scheduler.groups
        assert not play.scheduler.running
    assert calm.given_up == []
    assert rough.given_up == [bad], "it takes no other with it"
    assert rough.summary()["lost"] < 0.05
    assert calm.makespan < 1.25 * calm.ideal


def test_what_was_found_at_scale_is_what_is_planned_with() -> None:
    record = json.loads((BENCHMARKS / "scale.json").read_text())
    usual = record["played"]["1 % of stacks fail"]

    assert round(record["overhead"]) == OVERHEAD
    assert record["trials"] == 99_995, "2,857 optimizers by the whole protocol of 19 + 16: no other number is nearer"
    assert usual["workers"] == 1_000
    assert min(usual["busy"], usual["least_busy"]) > 0.95
    assert usual["given_up"] == 0
