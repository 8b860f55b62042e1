"""Tuning budget and speed: scores with fewer trials, with default settings, and with fewer examples."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_map

from gradprix.tasks import Metric, Task
from gradprix.tasks.rng import init_model
from gradprix.training.plain_step import (
    compute_plain_gradients,
    make_plain_optimizer,
    read_micro_batches,
    take_plain_step,
)
from gradprix.training.torch_optimizer_adapter import needs_closure
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.learning_rate_grid import MANTISSAS
from gradprix.tuning.response_curve import ResponseCurve
from gradprix.utils.devices import wait

from .entry import Entry
from .record import Efficiency
from .run_records import TuningRun

BUDGET_DRAWS = 4_000
"""Number of random orders of the trials from which the probability of being the best is estimated."""
MIN_TIMINGS, MIN_TIMING_SECONDS, MAX_TIMING_SECONDS = 5, 0.02, 1.0
"""Timing of a step: minimum number of repetitions, minimum total seconds, and maximum total seconds."""
MAX_WAITING_SECONDS, RUNNING_SHARE = 10.0, 0.9
"""Maximum total seconds while every call waited for a processor, and the share of processor time in the duration of a
call below which it waited."""


def measure_efficiency(
    entries: Sequence[Entry],
    points: Mapping[str, Mapping[str, Any]],
    tuning_runs: Mapping[str, Sequence[TuningRun]],
    finals: Mapping[str, Sequence[Outcome]],
    metric: Metric,
    chance_level: float,
    curves: Mapping[str, ResponseCurve | None],
) -> Efficiency:
    """Compute the scores of all entries at smaller budgets: fewer trials, default settings, or fewer examples.

    Args:
        entries: entries of the race.
        points: tuned values of each entry.
        tuning_runs: tuning runs of each entry, in order.
        finals: outcomes of the final runs of each entry.
        metric: metric of the task.
        chance_level: score of a diverged run.
        curves: response curve of each entry; None if all of its runs diverged.

    Returns:
        `expected` is the expected best validation metric of each entry after 1, 2, ... trials, which are drawn at
        random from the first phase of tuning. `probability_best` is the probability that the entry is then the best of
        all. `default` and `tuned` are the validation metric at the default and at the tuned settings; `default` is None
        if tuning did not try the default settings. `target` is one margin worse than the median of `tuned` over the
        entries. `examples` has, for each final run, the number of examples until its validation metric reached the
        target; None if it did not.
    """
    sign = 1 if metric.higher_is_better else -1

    def scored(run: TuningRun) -> float:
        """Return the metric of a tuning run, or the chance level if it diverged."""
        return chance_level if run.diverged is not None else run.metric

    spread = {name: [(run.loss, scored(run)) for run in runs if run.spread] for name, runs in tuning_runs.items()}

    def score_at(name: str, point: Mapping[str, Any]) -> float:
        """Return the score of an entry at given hyperparameter values.

        This is the mean over its tuning runs with these values. If there are none, the value of its response curve at
        the learning rate is returned.
        """
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
    """Return the expected metric of the best of k points drawn at random without replacement, for k = 1, 2, ...

    This is the unbiased estimator of Tang et al. 2020, arXiv:2004.12710, for the expected validation performance of
    Dodge et al. 2019, arXiv:1909.03004. As in tuning, the best point is the one with the smallest loss.

    Args:
        points: (loss, metric) of each point.
    """
    metrics, n = [metric for _, metric in sorted(points)], len(points)
    # The i-th best of n points is the best of k drawn points if the other k - 1 drawn points are all worse.
    return [
        sum(math.comb(n - 1 - i, k - 1) * value for i, value in enumerate(metrics)) / math.comb(n, k)
        for k in range(1, n + 1)
    ]


def probability_best(spread: Mapping[str, Sequence[tuple[float, float]]], sign: int) -> dict[str, tuple[float, ...]]:
    """Estimate the probability that each entry is the best of all after k random trials each, for k = 1, 2, ...

    A tie counts for all tied entries in equal shares.

    Args:
        spread: (loss, metric) of each point in an entry's first phase of tuning.
        sign: 1 if a higher metric is better, else -1.
    """
    rng, most = np.random.default_rng(0), min((len(each) for each in spread.values() if len(each) > 1), default=1)
    # An optimizer without tuned hyperparameters has one trial, and the same score with any number.
    spread = {name: [*each] * most if len(each) == 1 else each for name, each in spread.items()}
    drawn = np.array([_best_of_first(list(points), most, rng) for points in spread.values()])  # [entries, k, draws]
    best = (sign * drawn).max(0)
    ahead = sign * drawn == best
    shares = (ahead / ahead.sum(0)).mean(-1)
    return dict(zip(spread, map(tuple, shares.tolist()), strict=True))


def _best_of_first(points: list[tuple[float, float]], most: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw random orders of the points, and return the metric of the best among the first k points, `[most, draws]`.

    The best point is the one with the smallest loss.

    Args:
        points: (loss, metric) of each point.
        most: largest k.
        rng: random number generator.
    """
    order = rng.permuted(np.tile(np.arange(len(points)), (BUDGET_DRAWS, 1)), axis=1)[:, :most]
    place = np.argsort(np.argsort([loss for loss, _ in points], kind="stable"))  # rank by loss, from 0
    metrics = np.array([metric for _, metric in sorted(points, key=lambda pair: pair[0])])
    return np.asarray(metrics[np.minimum.accumulate(place[order], axis=1)].T, np.float64)


def default_run(entry: Entry, runs: Sequence[TuningRun]) -> TuningRun | None:
    """Return the tuning run at the default settings of an entry.

    The learning rate may differ from the default by half a grid step, and other hyperparameters by 2 %. Returns None if
    there is no such run.
    """
    usual = {**entry.rule_defaults, **entry.fixed}
    others = [name for name in entry.space if name != "lr" and name in usual]
    runs = [run for run in runs if all(_close(run.point[name], usual[name]) for name in others)]
    if not runs:
        return None
    if "lr" not in entry.space:
        return runs[0]
    rate = entry.default_rate
    distances = [abs(math.log10(run.learning_rate / rate)) if rate > 0 else math.inf for run in runs]
    nearest = min(range(len(runs)), key=distances.__getitem__)
    return runs[nearest] if distances[nearest] <= 0.5 / len(MANTISSAS) else None


def _close(value: Any, usual: Any) -> bool:
    """Return True if a hyperparameter equals its default; floats may differ by 2 %."""
    if isinstance(value, float) and isinstance(usual, int | float):
        return math.isclose(value, usual, rel_tol=0.02)
    return bool(value == usual)


def examples_to_target(curve: Sequence[Sequence[float]], target: float, sign: int) -> float | None:
    """Return the number of examples until the validation metric of a run reached the target; None if it never did.

    Args:
        curve: learning curve, with rows of (examples seen, training loss, validation loss, validation metric).
        target: value of the metric to reach.
        sign: 1 if a higher metric is better, else -1.
    """
    return next((float(seen) for seen, _, _, metric in curve if sign * metric >= sign * target), None)


def seconds_of_steps(task: Task, trials: Sequence[Trial], device: str = "cpu") -> list[float]:
    """Measure the duration of a training step in a plain PyTorch training loop: one model, on all cores.

    Args:
        task: task to train on.
        trials: trials to time. Forward and backward passes are timed once for each batch size.
        device: device of the model.

    Returns:
        Seconds of a step of each trial, including forward pass, backward pass and optimizer.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    try:
        on = torch.device(device)
        model, gradients = init_model(task.build, trials[0].seed).to(on), {}
        model.train()
        seconds, read = [], cache(partial(_read_batch, task, trials[0].seed, on))
        for trial in trials:
            batches, optimizer = read(trial.batch_size), make_plain_optimizer(task, model, trial)
            if trial.sam_rho is not None or needs_closure(trial.rule):
                seconds.append(_seconds(partial(take_plain_step, task, model, batches, optimizer, trial), on))
                continue
            if trial.batch_size not in gradients:
                compute = partial(compute_plain_gradients, task, model, batches, trial.clip_norm)
                gradients[trial.batch_size] = _seconds(compute, on)
            seconds.append(gradients[trial.batch_size] + _seconds(optimizer.step, on))
        return seconds
    finally:
        torch.set_num_threads(threads)


def _read_batch(task: Task, seed: int, on: torch.device, size: int) -> list[tuple[float, Any, Any]]:
    """Return the micro-batches of a batch of `size` examples (0 for all)."""
    train = task.loaded.split(seed).train

    def read(index: torch.Tensor) -> Any:
        return tree_map(lambda rows: rows.to(on)[0], task.loaded.take(index[None]))

    return read_micro_batches(task, train[: size or len(train)], read)


def _seconds(run: Callable[[], object], on: torch.device) -> float:
    """Return the shortest duration of a call, after one call to warm up: other processes can only lengthen it.

    On a busy machine, every call within `MAX_TIMING_SECONDS` may have waited for a processor, which makes a step of a
    millisecond take hundreds. The calls are then repeated until one has not waited, up to `MAX_WAITING_SECONDS`.
    """
    run()
    wait(on)
    times: list[float] = []
    has_waited = on.type == "cpu"
    while ((len(times) < MIN_TIMINGS or sum(times) < MIN_TIMING_SECONDS) and sum(times) < MAX_TIMING_SECONDS) or (
        has_waited and sum(times) < MAX_WAITING_SECONDS
    ):
        started, cpu_started = time.perf_counter(), time.process_time()
        run()
        wait(on)
        times.append(time.perf_counter() - started)
        has_waited = has_waited and time.process_time() - cpu_started < RUNNING_SHARE * times[-1]
    return min(times)
