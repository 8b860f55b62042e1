"""What an optimizer reaches with less: fewer trials, its default settings, fewer examples."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_map

from gradprix.tasks import Metric, Task
from gradprix.tasks.rng import fresh
from gradprix.tasks.task import called_with
from gradprix.training.loop_runner import changed, maker
from gradprix.training.torch_optimizer_adapter import constructor_arguments, switch_mode
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.learning_rate import STEPS
from gradprix.utils.devices import placed, wait

from .entry import Entry

Run = Mapping[str, Any]
DRAWS = 4_000
"""Draws from which the chance of being best is counted."""
STEADY, LONG, ENOUGH = 5, 0.05, 1.0
"""A step is timed so many times, and for so many seconds; fewer times if it takes so many."""


def with_less(
    entries: Sequence[Entry],
    points: Mapping[str, Mapping[str, Any]],
    tried: Mapping[str, Sequence[Run]],
    finals: Mapping[str, Sequence[Outcome]],
    metric: Metric,
    trivial: float,
) -> dict[str, Any]:
    """All of it, as JSON.

    Args:
        entries: what raced.
        points: each one's tuned values.
        tried: each one's tuning runs, in order.
        finals: each one's final runs.
        metric: what is compared.
        trivial: what a run that diverged scores.

    Returns:
        `expected`: for each entry, the validation metric to expect of the best of 1, 2, ... of its spread points, drawn
        at random. `chance`: likewise, of its being the best of all entries then. `default` and `tuned`: its metric on
        the first tuning seed at its default settings and at the tuned ones. `target`: the validation metric that the
        median entry's tuning reached, less the smallest difference that matters. `examples`: for each final run how
        many it had seen when it reached that, or None.
    """
    turn = 1 if metric.higher_is_better else -1

    def scored(run: Run) -> float:
        return trivial if run["diverged"] is not None else float(run["metric"])

    spread = {name: [(run["loss"], scored(run)) for run in runs if run["spread"]] for name, runs in tried.items()}
    reached = {name: float(np.mean([scored(run) for run in at(points[name], tried[name])])) for name in tried}
    usual = median(reached.values())
    target = usual - turn * metric.least(usual)
    return {
        "expected": {name: expected(found) for name, found in spread.items()},
        "chance": chance(spread, turn),
        "default": {e.name: scored(run) if (run := default(e, tried[e.name])) else None for e in entries},
        "tuned": {name: scored(next(at(points[name], runs))) for name, runs in tried.items()},
        "target": target,
        "examples": {
            name: [None if run.diverged is not None else until(run.curve, target, turn) for run in runs]
            for name, runs in finals.items()
        },
    }


def expected(found: Sequence[tuple[float, float]]) -> list[float]:
    """The metric to expect of the best by loss of 1, 2, ..., all of some points drawn without replacement.

    The unbiased form of Tang et al. 2020, arXiv:2004.12710, of what Dodge et al. 2019, arXiv:1909.03004, ask for;
    chosen by loss and told by metric, as tuning is.

    Args:
        found: (loss, metric) of each point.
    """
    metrics, n = [metric for _, metric in sorted(found)], len(found)
    # The i-th best of n is the best of k drawn when the k - 1 others are all worse.
    return [
        sum(math.comb(n - 1 - i, k - 1) * value for i, value in enumerate(metrics)) / math.comb(n, k)
        for k in range(1, n + 1)
    ]


def chance(spread: Mapping[str, Sequence[tuple[float, float]]], turn: int) -> dict[str, list[float]]:
    """How likely each entry is the best of all when each has the best by loss of 1, 2, ... of its points at random."""
    rng, most = np.random.default_rng(0), min(map(len, spread.values()))
    drawn = np.array([_best_of_first(list(found), most, rng) for found in spread.values()])  # [entries, k, draws]
    best = (turn * drawn).max(0)
    ahead = turn * drawn == best
    shares = (ahead / ahead.sum(0)).mean(-1)
    return dict(zip(spread, shares.tolist(), strict=True))


def _best_of_first(found: list[tuple[float, float]], most: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The metric of the best by loss of the first 1, 2, ... of the points in random order, `[most, draws]`."""
    order = rng.permuted(np.tile(np.arange(len(found)), (DRAWS, 1)), axis=1)[:, :most]
    place = np.argsort(np.argsort([loss for loss, _ in found], kind="stable"))  # 0 is the least loss
    metrics = np.array([metric for _, metric in sorted(found, key=lambda pair: pair[0])])
    return np.asarray(metrics[np.minimum.accumulate(place[order], axis=1)].T, np.float64)


def default(entry: Entry, runs: Sequence[Run]) -> Run | None:
    """The run at an entry's default settings, the rate within half a rung of its own; None if there was none."""
    usual = {**entry.rule.hyperparameters, **entry.fixed}
    runs = [run for run in runs if all(name not in usual or _close(run[name], usual[name]) for name in _others(entry))]
    if not runs:
        return None
    apart = [abs(math.log10(run["lr"] / entry.default_rate)) if entry.default_rate > 0 else math.inf for run in runs]
    nearest = min(range(len(runs)), key=apart.__getitem__)
    return runs[nearest] if apart[nearest] <= 0.5 / len(STEPS) else None


def _others(entry: Entry) -> list[str]:
    return [name for name in entry.space if name != "lr"]


def _close(value: Any, usual: Any) -> bool:
    if isinstance(value, float) and isinstance(usual, int | float):
        return math.isclose(value, usual, rel_tol=0.02)
    return bool(value == usual)


def at(point: Mapping[str, Any], runs: Sequence[Run]) -> Any:
    """The runs at some values, the first seed's first."""
    return (run for run in runs if all(run[name] == value for name, value in point.items()))


def until(curve: Sequence[Sequence[float]], target: float, turn: int) -> float | None:
    """Examples seen when the validation metric first was as good as the target; None if it never was."""
    return next((float(seen) for seen, _, _, metric in curve if turn * metric >= turn * target), None)


def seconds_of_steps(task: Task, trials: Sequence[Trial], device: str = "cpu") -> list[float]:
    """How long a step takes in a training loop of the user's own: one network, as many threads as torch takes.

    Args:
        task: the problem.
        trials: whose steps; what is the same for all, forward and backward at one batch size, is timed once.
        device: where it trains.

    Returns:
        Seconds of each trial's step: forward, backward and the optimizer.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    try:
        on = torch.device(device)
        model, passes = fresh(task.model, trials[0].seed).to(on), {}
        for size in dict.fromkeys(trial.batch_size for trial in trials):
            passes[size] = _seconds(_pass(task, model, size, trials[0].seed, on), on)
        return [passes[trial.batch_size] + _seconds(_step(model, trial), on) for trial in trials]
    finally:
        torch.set_num_threads(threads)


def _pass(task: Task, model: torch.nn.Module, size: int, seed: int, on: torch.device) -> Callable[[], object]:
    train = task.loaded.split(seed).train
    examples = tree_map(itemgetter(0), task.loaded.take(train[None, : size or len(train)]))
    inputs, targets = placed(examples, on)
    args, kwargs = called_with(inputs)
    model.train()

    def run() -> None:
        model.zero_grad()
        task.loss(model(*args, **kwargs), targets).backward()  # type: ignore[no-untyped-call]

    return run


def _step(model: torch.nn.Module, trial: Trial) -> Callable[[], object]:
    parameters = [x for x in model.parameters() if x.requires_grad]
    made = maker(trial)(parameters, **constructor_arguments(trial.rule, changed(trial)))
    switch_mode(made, "train")
    return lambda: made.step()


def _seconds(run: Callable[[], object], on: torch.device) -> float:
    run()
    wait(on)
    times: list[float] = []
    while (len(times) < STEADY or sum(times) < LONG) and sum(times) < ENOUGH:
        started = time.perf_counter()
        run()
        wait(on)
        times.append(time.perf_counter() - started)
    return median(times)
