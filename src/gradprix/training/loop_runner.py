"""Execution of a user's own training loop."""

import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from gradprix import optim
from gradprix.rules import Rule
from gradprix.tasks.loop import Loop
from gradprix.tasks.rng import RngState
from gradprix.tasks.task import TaskError, first_line
from gradprix.tasks.user_code import find_users_frame

from .optimizer_errors import explain_optimizer_error
from .param_groups import build_optimizer
from .torch_optimizer_adapter import TorchOptimizerAdapter, constructor_arguments
from .trial import Outcome, Trial

NAN = float("nan")


class Stopped(BaseException):
    """Raised at an optimizer step to end a training loop early; not an `Exception`, so that loops do not catch it."""


def run_loop(loop: Loop, trial: Trial, most: int | None = None, stop: Callable[[int], bool] | None = None) -> Outcome:
    """Train one model with the user's training loop.

    Args:
        loop: the training loop.
        trial: supplies the optimizer, its hyperparameters and the seed.
        most: maximum number of epochs; no limit when None.
        stop: called before each optimizer step with the number of completed steps; the loop ends if it returns True.

    Raises:
        TaskError: if the loop fails or yields something other than numbers.
        Stopped: if `stop` returns True.
    """
    steps = 0

    def count_step(*_: Any) -> None:
        nonlocal steps
        if stop is not None and stop(steps):
            raise Stopped
        steps += 1

    optimizers: list[torch.optim.Optimizer] = []
    tuned = constructor_arguments(trial.rule, changed(trial))

    def refuse(arguments: Iterable[str]) -> None:
        if arguments:
            raise TaskError(
                f"{loop.name} gives make_optimizer a {', '.join(sorted(arguments))} of its own, which is what the race "
                'decides. Leave it out. In a parameter group, "lr_factor": 0.1 and "weight_decay_factor": 0.1 multiply '
                'what the race decides, and "weight_decay": 0.0 switches decay off.'
            )

    def check(group: Mapping[str, Any]) -> None:
        refuse({name for name in group.keys() & tuned.keys() if name != "weight_decay" or group[name] != 0})

    def make_optimizer(params: Any, *, total_steps: int | None = None, **given: Any) -> torch.optim.Optimizer:
        refuse(given.keys() & tuned.keys())
        optimizers.append(build_optimizer(maker(trial), params, {**given, **tuned}, check, total_steps))
        if stop is not None:
            optimizers[-1].register_step_pre_hook(count_step)
        return optimizers[-1]

    curve: list[tuple[int, float, float, float]] = []
    test: float | None = None
    diverged: int | None = None
    sign = -1 if loop.metric.higher_is_better else 1
    with RngState(torch.Generator().manual_seed(trial.seed)):
        torch.set_num_threads(1)
        try:
            points = loop.train(make_optimizer, trial.seed)
            for epoch, point in enumerate(each_report(loop, points), start=1):
                numbers = finite_numbers(loop, point)
                valid, test = numbers["valid"], numbers.get("test")
                if _has_diverged(optimizers) or not all(map(math.isfinite, (valid, valid if test is None else test))):
                    diverged = epoch
                    break
                curve.append((epoch, numbers.get("train", NAN), sign * valid, valid))
                if epoch == most:
                    break
        except TaskError:
            raise
        except Exception as error:
            if not _has_diverged(optimizers):
                raise TaskError(_format_error(loop, trial, error)) from error
            diverged = len(curve) + 1  # an error on non-finite numbers counts as divergence
    if not optimizers:
        raise TaskError(f"{loop.name} never calls make_optimizer(params), so that there is nothing to race.")
    if not curve and diverged is None:
        raise TaskError(f'{loop.name} yields nothing: it must yield a mapping such as {{"valid": 0.9}} each epoch.')
    if diverged is not None:
        return Outcome([*curve, (len(curve) + 1, NAN, NAN, NAN)], None, loop.baseline, diverged)
    return Outcome(curve, None, curve[-1][3] if test is None else test, None, tested=test is not None)


def maker(trial: Trial) -> Any:
    """Return the class or function that makes the optimizer of a trial."""
    return optim.from_rule(trial.rule) if isinstance(trial.rule, Rule) else trial.rule.make


def changed(trial: Trial) -> dict[str, Any]:
    """Return a trial's learning rate and those of its other hyperparameters that differ from the defaults."""
    defaults = trial.rule.hyperparameters
    return {name: value for name, value in trial.values.items() if name == "lr" or value != defaults.get(name)}


def each_report(loop: Loop, points: Any) -> Iterable[Any]:
    """Return an iterable over the reports of a training loop, which returns one mapping or yields several.

    Raises:
        TaskError: if the loop returns neither a mapping nor an iterable.
    """
    if isinstance(points, Mapping):
        return [points]
    if not isinstance(points, Iterable):
        raise TaskError(f'{loop.name} returns {points!r}: it must yield a mapping such as {{"valid": 0.9}} each epoch.')
    return points


def finite_numbers(loop: Loop, point: Any) -> dict[str, float]:
    """Convert the numbers of one report to floats.

    Raises:
        TaskError: if it is not a mapping of numbers with the key `"valid"`.
    """
    if not isinstance(point, Mapping) or "valid" not in point:
        raise TaskError(f'{loop.name} yields {point!r}: it must be a mapping with "valid", such as {{"valid": 0.9}}.')
    numbers = {}
    for name in ("train", "valid", "test"):
        if name in point:
            try:
                numbers[name] = float(point[name])
            except (TypeError, ValueError) as error:
                raise TaskError(f"{loop.name} yields {name} = {point[name]!r}: it must be a number.") from error
    return numbers


def _has_diverged(optimizers: list[torch.optim.Optimizer]) -> bool:
    """Return True if any weight of the optimizers is not finite."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return any(not bool(x.detach().isfinite().all()) for group in groups for x in group["params"])


def _format_error(loop: Loop, trial: Trial, error: Exception) -> str:
    frame = find_users_frame(error) or traceback.extract_tb(error.__traceback__)[-1]
    explained = explain_optimizer_error(error) if isinstance(trial.rule, TorchOptimizerAdapter) else None
    cause = explained or f"{type(error).__name__}: {first_line(error) if str(error) else ''}"
    lr = f"lr = {trial.values['lr']:g}, " if "lr" in trial.values else ""
    return (
        f"{loop.name} failed with {trial.entry_name}, {lr}seed {trial.seed}: {cause} ({frame.filename}:{frame.lineno})"
    )
