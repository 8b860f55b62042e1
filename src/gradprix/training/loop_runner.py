"""Runs a training loop of somebody's own."""

import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from gradprix import optim
from gradprix.rules import Rule
from gradprix.tasks.loop import Loop
from gradprix.tasks.rng import Luck
from gradprix.tasks.task import TaskError, first_line
from gradprix.tasks.user_code import find_users_frame

from .optimizer_errors import explain_optimizer_error
from .param_groups import build_optimizer
from .torch_optimizer_adapter import Anyone, constructor_arguments
from .trial import Outcome, Trial

NAN = float("nan")


class Stopped(BaseException):
    """Raised in a training loop, at a step of its optimizer, to end it early; no error, so that no loop handles it."""


def run_loop(loop: Loop, trial: Trial, most: int | None = None, stop: Callable[[int], bool] | None = None) -> Outcome:
    """Train one network as its own loop does.

    Args:
        loop: whose.
        trial: with which optimizer, learning rate and seed.
        most: stop after so many epochs.
        stop: tells before each step, from the number of steps so far, whether to end there.

    Raises:
        TaskError: when the loop fails, or yields something else than numbers.
        Stopped: when `stop` says so.
    """
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        if stop is not None and stop(steps):
            raise Stopped
        steps += 1

    made: list[torch.optim.Optimizer] = []
    tuned = constructor_arguments(trial.rule, changed(trial))

    def refuse(own: Iterable[str]) -> None:
        if own:
            raise TaskError(
                f"{loop.name} gives make_optimizer a {', '.join(sorted(own))} of its own, which is what the race "
                'decides. Leave it out. In a parameter group, "lr_factor": 0.1 and "weight_decay_factor": 0.1 multiply '
                'what the race decides, and "weight_decay": 0.0 switches decay off.'
            )

    def check(group: Mapping[str, Any]) -> None:
        refuse({name for name in group.keys() & tuned.keys() if name != "weight_decay" or group[name] != 0})

    def make_optimizer(params: Any, **given: Any) -> torch.optim.Optimizer:
        refuse(given.keys() & tuned.keys())
        made.append(build_optimizer(maker(trial), params, {**given, **tuned}, check))
        if stop is not None:
            made[-1].register_step_pre_hook(count)
        return made[-1]

    curve: list[tuple[int, float, float, float]] = []
    test: float | None = None
    diverged: int | None = None
    turn = -1 if loop.metric.higher_is_better else 1
    with Luck(torch.Generator().manual_seed(trial.seed)):
        torch.set_num_threads(1)
        try:
            points = loop.train(make_optimizer, trial.seed)
            for epoch, point in enumerate(each_report(loop, points), start=1):
                numbers = finite_numbers(loop, point)
                valid, test = numbers["valid"], numbers.get("test")
                if _lost(made) or not all(map(math.isfinite, (valid, valid if test is None else test))):
                    diverged = epoch
                    break
                curve.append((epoch, numbers.get("train", NAN), turn * valid, valid))
                if epoch == most:
                    break
        except TaskError:
            raise
        except Exception as error:
            if not _lost(made):
                raise TaskError(_said(loop, trial, error)) from error
            diverged = len(curve) + 1  # what fails on numbers that are none, has not failed by itself
    if not made:
        raise TaskError(f"{loop.name} never calls make_optimizer(params), so that there is nothing to race.")
    if not curve and diverged is None:
        raise TaskError(f'{loop.name} yields nothing: it must yield a mapping such as {{"valid": 0.9}} each epoch.')
    if diverged is not None:
        return Outcome([*curve, (len(curve) + 1, NAN, NAN, NAN)], None, loop.baseline, diverged)
    return Outcome(curve, None, curve[-1][3] if test is None else test, None, tested=test is not None)


def maker(trial: Trial) -> Any:
    """The class that a trial's optimizer is made of."""
    return optim.of(trial.rule) if isinstance(trial.rule, Rule) else trial.rule.make


def changed(trial: Trial) -> dict[str, Any]:
    """A trial's hyperparameters, but for those that are the rule's own."""
    own = trial.rule.hyperparameters
    return {name: value for name, value in trial.values.items() if name == "lr" or value != own.get(name)}


def each_report(loop: Loop, points: Any) -> Iterable[Any]:
    """Return what a training loop reports, one mapping at a time, whether it returns or yields."""
    if isinstance(points, Mapping):
        return [points]
    if not isinstance(points, Iterable):
        raise TaskError(f'{loop.name} returns {points!r}: it must yield a mapping such as {{"valid": 0.9}} each epoch.')
    return points


def finite_numbers(loop: Loop, point: Any) -> dict[str, float]:
    """Return the numbers of one report.

    Raises:
        TaskError: when it is no mapping of numbers with `"valid"`.
    """
    if not isinstance(point, Mapping) or "valid" not in point:
        raise TaskError(f'{loop.name} yields {point!r}: it must be a mapping with "valid", such as {{"valid": 0.9}}.')
    found = {}
    for name in ("train", "valid", "test"):
        if name in point:
            try:
                found[name] = float(point[name])
            except (TypeError, ValueError) as error:
                raise TaskError(f"{loop.name} yields {name} = {point[name]!r}: it must be a number.") from error
    return found


def _lost(made: list[torch.optim.Optimizer]) -> bool:
    """Whether some weight is no number any more."""
    groups = [group for optimizer in made for group in optimizer.param_groups]
    return any(not bool(x.detach().isfinite().all()) for group in groups for x in group["params"])


def _said(loop: Loop, trial: Trial, error: Exception) -> str:
    frame = find_users_frame(error) or traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {first_line(error) if str(error) else ''}"
    if isinstance(trial.rule, Anyone) and (explained := explain_optimizer_error(error)) != first_line(error):
        what = explained
    return (
        f"{loop.name} failed with {trial.entry_name}, lr = {trial.values['lr']:g}, seed {trial.seed}: "
        f"{what} ({frame.filename}:{frame.lineno})"
    )
