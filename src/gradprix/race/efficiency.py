"""Tuning budget and speed: scores with fewer trials, with default settings, and with fewer examples."""

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
from gradprix.tasks.rng import init_model
from gradprix.tasks.task import called_with
from gradprix.training.loop_runner import changed, maker
from gradprix.training.torch_optimizer_adapter import constructor_arguments, switch_mode
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.learning_rate_grid import MANTISSAS
from gradprix.tuning.response_curve import ResponseCurve
from gradprix.utils.devices import placed, wait

from .entry import Entry
from .record import Efficiency
from .run_records import TuningRun

BUDGET_DRAWS = 4_000
"""Number of draws that estimate the probability of being best."""
MIN_TIMINGS, MIN_TIMING_SECONDS, MAX_TIMING_SECONDS = 5, 0.02, 1.0
"""Timing of a step: minimum repetitions, minimum total seconds, and total seconds after which to stop in any case."""


def measure_efficiency(
    entries: Sequence[Entry],
    points: Mapping[str, Mapping[str, Any]],
    tuning_runs: Mapping[str, Sequence[TuningRun]],
    finals: Mapping[str, Sequence[Outcome]],
    metric: Metric,
    chance_level: float,
    curves: Mapping[str, ResponseCurve | None],
) -> Efficiency:
    """Return the scores at smaller budgets.

    Args:
        entries: the entries of the race.
        points: tuned values of each entry.
        tuning_runs: tuning runs of each entry, in order.
        finals: outcomes of the final runs of each entry.
        metric: the metric of the task.
        chance_level: score of a diverged run.
        curves: response curve of each entry.

    Returns:
        `expected`: expected best validation metric of each entry after 1, 2, ... trials, drawn at random from its
        spread points. `probability_best`: probability of being the best entry then. `default` and `tuned`: validation
        metric at the default and at the tuned settings; None where the default was not tried. `target`: median over
        entries of the validation metric at the tuned settings, less the margin. `examples`: for each final run the
        number of examples until it reached the target, or None.
    """
    sign = 1 if metric.higher_is_better else -1

    def scored(run: TuningRun) -> float:
        return chance_level if run.diverged is not None else run.metric

    spread = {name: [(run.loss, scored(run)) for run in runs if run.spread] for name, runs in tuning_runs.items()}

    def score_at(name: str, point: Mapping[str, Any]) -> float:
        """Return the mean score of the runs at a point; that of the response curve at a rate that was not tried."""
        if scores := [scored(run) for run in tuning_runs[name] if run.point == point]:
            return float(np.mean(scores))
        curve = curves[name]
        return chance_level if curve is None else -sign * curve(point["lr"])

    tuned = {name: score_at(name, points[name]) for name in tuning_runs}
    usual = median(tuned.values())
    target = usual - sign * metric.least(usual)
    default_runs = {entry.name: default_run(entry, tuning_runs[entry.name]) for entry in entries}
    return Efficiency(
        expected={name: tuple(expected_best(scores)) for name, scores in spread.items()},
        probability_best=probability_best(spread, sign),
        default={name: None if run is None else score_at(name, run.point) for name, run in default_runs.items()},
        tuned=tuned,
        target=target,
        examples={
            name: tuple(
                None if run.diverged is not None else examples_to_target(run.curve, target, sign) for run in runs
            )
            for name, runs in finals.items()
        },
    )


def expected_best(points: Sequence[tuple[float, float]]) -> list[float]:
    """Return the expected metric of the point with the best loss among 1, 2, ... points drawn without replacement.

    The unbiased estimator of Tang et al. 2020, arXiv:2004.12710, for the expected validation performance of Dodge et
    al. 2019, arXiv:1909.03004. As in tuning, the loss selects and the metric is reported.

    Args:
        points: (loss, metric) of each point.
    """
    metrics, n = [metric for _, metric in sorted(points)], len(points)
    # The i-th best of n is the best of k drawn when the k - 1 others are all worse.
    return [
        sum(math.comb(n - 1 - i, k - 1) * value for i, value in enumerate(metrics)) / math.comb(n, k)
        for k in range(1, n + 1)
    ]


def probability_best(spread: Mapping[str, Sequence[tuple[float, float]]], sign: int) -> dict[str, tuple[float, ...]]:
    """Return each entry's probability of being the best when each is tuned with 1, 2, ... of its points at random."""
    rng, most = np.random.default_rng(0), min(map(len, spread.values()))
    drawn = np.array([_best_of_first(list(points), most, rng) for points in spread.values()])  # [entries, k, draws]
    best = (sign * drawn).max(0)
    ahead = sign * drawn == best
    shares = (ahead / ahead.sum(0)).mean(-1)
    return dict(zip(spread, map(tuple, shares.tolist()), strict=True))


def _best_of_first(points: list[tuple[float, float]], most: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the metric of the best by loss among the first 1, 2, ... points in random order, `[most, draws]`."""
    order = rng.permuted(np.tile(np.arange(len(points)), (BUDGET_DRAWS, 1)), axis=1)[:, :most]
    place = np.argsort(np.argsort([loss for loss, _ in points], kind="stable"))  # 0 is the smallest loss
    metrics = np.array([metric for _, metric in sorted(points, key=lambda pair: pair[0])])
    return np.asarray(metrics[np.minimum.accumulate(place[order], axis=1)].T, np.float64)


def default_run(entry: Entry, runs: Sequence[TuningRun]) -> TuningRun | None:
    """Return the run at an entry's default settings, the learning rate within half a grid step; None without one."""
    usual = {**entry.rule.hyperparameters, **entry.fixed}
    others = [name for name in entry.space if name != "lr" and name in usual]
    runs = [run for run in runs if all(_close(run.point[name], usual[name]) for name in others)]
    if not runs:
        return None
    rate = entry.default_rate
    distances = [abs(math.log10(run.learning_rate / rate)) if rate > 0 else math.inf for run in runs]
    nearest = min(range(len(runs)), key=distances.__getitem__)
    return runs[nearest] if distances[nearest] <= 0.5 / len(MANTISSAS) else None


def _close(value: Any, usual: Any) -> bool:
    if isinstance(value, float) and isinstance(usual, int | float):
        return math.isclose(value, usual, rel_tol=0.02)
    return bool(value == usual)


def examples_to_target(curve: Sequence[Sequence[float]], target: float, sign: int) -> float | None:
    """Return the number of examples until the validation metric reached the target; None if it never did."""
    return next((float(seen) for seen, _, _, metric in curve if sign * metric >= sign * target), None)


def seconds_of_steps(task: Task, trials: Sequence[Trial], device: str = "cpu") -> list[float]:
    """Return the seconds of a step in an ordinary training loop: one model, on all cores.

    Args:
        task: the problem.
        trials: the trials to time; the forward and backward pass is timed once per batch size.
        device: the device of the model.

    Returns:
        Seconds of each trial's step: forward, backward and the optimizer.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    try:
        on = torch.device(device)
        model, passes = init_model(task.model, trials[0].seed).to(on), {}
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
    optimizer = maker(trial)(parameters, **constructor_arguments(trial.rule, changed(trial)))
    switch_mode(optimizer, "train")
    return lambda: optimizer.step()


def _seconds(run: Callable[[], object], on: torch.device) -> float:
    run()
    wait(on)
    times: list[float] = []
    while (len(times) < MIN_TIMINGS or sum(times) < MIN_TIMING_SECONDS) and sum(times) < MAX_TIMING_SECONDS:
        started = time.perf_counter()
        run()
        wait(on)
        times.append(time.perf_counter() - started)
    return median(times)
