"""Whether a task can be raced, and in what form: found out in a moment, before the race."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import joblib
import torch
from torch import Tensor

from gradprix.executors.executor import Engine
from gradprix.tasks import Task
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.loop import Loop, home
from gradprix.tasks.task import TaskError
from gradprix.training.autotune import seconds_of_one
from gradprix.training.faults import describe_error
from gradprix.training.first_step import ARITHMETIC_BOUND, FirstStep, known_first_step, measure_first_step
from gradprix.training.model_stack import Form, Together, quiet
from gradprix.training.optimizer_errors import explain_optimizer_error
from gradprix.training.optimizers import Steppers
from gradprix.training.rng import Drawing
from gradprix.training.stack_sizes import capacities
from gradprix.training.stacking_errors import explain
from gradprix.training.torch_optimizer_adapter import Anyone
from gradprix.training.trainer import BATCHES_AT_ONCE, NARROWEST, Lane
from gradprix.training.trial import Trial
from gradprix.utils.devices import CPU, accelerator_type, free, placed, require, wait

from .last_batch import check_last_batches
from .loop_check import check_loop
from .plan import Plan
from .progress_display import Watch
from .validate_task import sound

EXAMPLES = 64
WIDTH = 8
"""Networks in a trial stack: enough that stacking has something to gain."""
WIDTHS = (2, 7)
"""Of stacks in which every model must come out the same, where all operations are known to see to it."""
WIDEST, CHECKED = 32, 20.0
"""Models in a stack at most where an operation is not known: all sizes of stacks up to there are checked, for no more
than about so many seconds."""
SLOWER = 1.25
"""How many times as long a stack must take as one at a time, or a GPU as the CPU, before it is given up: far enough
from 1 that a noisy machine does not decide."""
TURNS, LONG = (3, 20), 5.0
"""How often they are timed against each other: at least, and at most, while a stack still looks slower and for no more
than so many seconds."""
WIDE = 64
"""Networks in the stack by which a GPU is measured, which does so many in about the time of one."""


def preflight(plan: Plan, engine: Engine, watch: Watch = lambda *_: None) -> Form:
    """Check a plan where its models are trained, and say meanwhile what is done; known results are used again.

    Args:
        plan: what is to be raced.
        engine: where it is trained.
        watch: hears what is done.

    Returns:
        How the race's models are trained.

    Raises:
        TaskError, ValueError: as `check`.
    """
    what = f"Checking {plan.task.name!r}"
    key = (plan.task.fingerprint, plan.task.batch_size, plan.compiled, plan.device, plan.seed)
    known = engine.checked.get(key)
    if known is not None and all(entry in known[0] for entry in plan.entries):
        return known[1]
    watch(what, 0.0, 0)
    first = None
    if isinstance(plan.task, Task):
        first = known_first_step(plan.task, _first_trial(plan), "cpu", lambda: engine.ask(first_step, plan))
        watch(f"{what} ({first.describe()})", 0.0, -1 if first.seconds > ARITHMETIC_BOUND else 0)
    form: Form = engine.ask(check, plan, first, engine.memory)
    engine.checked[key] = plan.entries, form
    return form


def first_step(plan: Plan) -> FirstStep:
    """Check the parts of a task, then measure a step of one model.

    Raises:
        TaskError: when the model, the loss or the metric does not work.
        ValueError: when the device is not there.
    """
    task = home(plan.task)
    if plan.device != "auto":
        require(plan.device)
    with quiet():
        sound(task)
        check_last_batches(task, plan)
    return _measured(plan, task, "cpu")


def _first_trial(plan: Plan) -> Trial:
    """A trial of the entry with the smallest batch, so that one with all examples does not decide for the others."""
    return plan.careful_trial(min(plan.entries, key=lambda entry: plan.batch_size(entry) or math.inf), 0)


def _measured(plan: Plan, task: Task, device: str) -> FirstStep:
    step: FirstStep = _try(plan, partial(measure_first_step, task, _first_trial(plan), device), device)
    return step


def check(plan: Plan, first: FirstStep | None = None, memory: float | None = None) -> Form:
    """Train a few networks of the task for a step, stacked and one at a time, and score them on a few examples.

    A model of which one step takes long, or of which a small stack takes too much memory, is tried by itself alone.

    Args:
        plan: what is to be raced.
        first: what `first_step` returns, if that is known.
        memory: bytes that the race may take; half of what is free when None.

    Returns:
        How the race's networks are trained. One at a time where a stack of them does not work, is wrong, or is slower.
        On the device that the plan names; where it leaves that open, on a GPU if there is one, it works and it pays.

    Raises:
        TaskError: when the model, the loss, the metric or one of the optimizers does not work.
        ValueError: when the device is not there.
    """
    if isinstance(plan.task, Loop):
        return check_loop(plan, plan.task)
    task, asked = home(plan.task), plan.device != "auto"
    first = first_step(plan) if first is None else first
    device = plan.device if asked else accelerator_type()
    here = _tried(plan, task, "cpu", first, memory)
    if device is None or device == "cpu":
        return here.form
    try:
        there = _tried(plan, task, device, _measured(plan, task, device), memory)
        _try(plan, partial(_agree, here, there), device)
        if not asked and (longer := _longer(plan, task, here.form, there.form)) > SLOWER:
            raise ValueError(f"it takes {longer:.1f} times as long")
    except Exception as error:
        if asked:
            raise
        return replace(here.form, refused=f"{device}: {explain(error.__cause__ or error)}")
    return there.form


@dataclass(frozen=True)
class _Tried:
    """How networks are trained on a device, with the losses and gradients of a step there."""

    form: Form
    losses: Tensor
    gradients: list[Tensor]


def _tried(plan: Plan, task: Task, device: str, first: FirstStep, memory: float | None) -> _Tried:
    """Find out how networks are trained on a device."""
    if why := first.reason_against_stack(WIDTH + 1, free(device) / 2 if memory is None else memory):
        return _tried_alone(plan, task, Form(stacked=False, why=why, device=device))
    entry = next((entry for entry in plan.entries if not isinstance(entry.rule, Anyone)), plan.entries[0])
    trials = [plan.careful_trial(entry, row % 2) for row in range(WIDTH)]
    apart = Form(stacked=False, device=device)
    with quiet(device):
        losses, gradients, one_at_a_time = _try(plan, partial(_probe, task, trials, apart), device)
        try:
            form = Form(compiled=plan.compiled, device=device)
            stacked_losses, stacked_gradients, at_once = _probe(task, trials, form)
        except Exception as error:
            form = replace(apart, why=explain(error))
        else:
            if not (_close([losses], [stacked_losses]) and _close(gradients, stacked_gradients)):
                form = replace(apart, why="a stack of it gives other gradients")
            elif (longer := _times_as_long(at_once, one_at_a_time)) > SLOWER:
                form = replace(apart, why=f"a stack of it takes {longer:.1f} times as long")
            elif device == "cpu":
                bound = free(device) / 2 if memory is None else memory

                def fits(count: int) -> bool:
                    return not first.reason_against_stack(count, bound)

                widest = min(_widest(task, trial, fits) for trial in _of_each_batch(plan))
                if widest < NARROWEST:
                    form = replace(apart, why="where in a stack a network is would change its last digits")
                elif widest < math.inf:
                    form = replace(form, widest=int(widest))
        for entry in plan.entries:
            if isinstance(entry.rule, Anyone):
                own = [plan.careful_trial(entry, seed) for seed in range(2)]
                _try(plan, partial(_probe, task, own, form), device, f"optimizer {entry.name!r} on ")
    return _Tried(form, losses, gradients)


def _tried_alone(plan: Plan, task: Task, form: Form) -> _Tried:
    """Train one model for a step, and have every optimizer of another package step its weights once."""
    others = [entry for entry in plan.entries if isinstance(entry.rule, Anyone)]
    trial = plan.careful_trial(plan.entries[0], 0)
    with quiet(form.device):
        lane = Lane(task, [trial], form)
        index = lane.train[:, : min(EXAMPLES, trial.batch_size or EXAMPLES)]
        with Drawing(torch.default_generator):  # as a stack draws
            losses, found = lane.network.gradients(lane.leaves, lane.rest, *lane.batch(index))
        gradients = [torch.zeros_like(x) if g is None else g for g, x in zip(found, lane.leaves.values(), strict=True)]
        kept = placed(losses, CPU), placed(gradients, CPU)

        def step(own: Trial) -> None:
            with torch.no_grad():
                steppers = Steppers([own], list(lane.leaves.values()))
                steppers.step(gradients, 1.0)
                steppers.turn("eval")
                steppers.turn("train")

        for entry in others:
            own = plan.careful_trial(entry, 0)
            _try(plan, partial(step, own), form.device, f"optimizer {entry.name!r} on ")
        _try(plan, partial(lane.evaluate, lane.valid[:, : _few(task)]), form.device)
    return _Tried(form, *kept)


def _few(task: Task) -> int:
    """Return how many examples an evaluation is tried on: fewer where reading them may take long."""
    return min(EXAMPLES, task.batch_size) if isinstance(task.loaded, Stream) else EXAMPLES


def _agree(here: _Tried, there: _Tried) -> None:
    """Raise ValueError unless a step has the same losses and gradients there."""
    if not _close([here.losses, *here.gradients], [there.losses, *there.gradients]):
        raise ValueError("it gives other gradients than the CPU")


def _try(plan: Plan, probe: Callable[[], Any], device: str, what: str = "") -> Any:
    try:
        return probe()
    except TaskError:
        raise
    except Exception as error:
        where, said = ("", describe_error(error)) if device == "cpu" else (f" on {device}", explain(error))
        if what:
            said = explain_optimizer_error(error)
        raise TaskError(f"{what}task {plan.task.name!r} cannot be raced{where}: {said}.") from error


def _longer(plan: Plan, task: Task, here: Form, there: Form) -> float:
    """How many times as long a GPU takes for a step of a network as the CPU, all of which work at once."""
    trials = [plan.careful_trial(entry, 0) for entry in plan.entries]
    alike = [trial for trial in trials if trial.batch_size == trials[0].batch_size]
    # One at a time, the time of a model does not depend on how many there are.
    wide, narrow = WIDE if there.stacked else 1, WIDTH if here.stacked else 1
    on_cpu: float = seconds_of_one(task, alike, here, narrow) / joblib.cpu_count()
    return seconds_of_one(task, alike, there, wide) / on_cpu


def _times_as_long(one: Callable[[], None], other: Callable[[], None]) -> float:
    """How many times as long one takes as the other, by the least of several times in turn, for noise only adds."""
    least, begun = [math.inf, math.inf], time.perf_counter()
    for turn in range(1, TURNS[1] + 1):
        for i, run in enumerate((one, other)):
            started = time.perf_counter()
            run()
            least[i] = min(least[i], time.perf_counter() - started)
        if turn >= TURNS[0] and (least[0] <= SLOWER * least[1] or time.perf_counter() - begun > LONG):
            break
    return least[0] / least[1]


def _probe(task: Task, trials: Sequence[Trial], form: Form) -> tuple[Tensor, list[Tensor], Callable[[], None]]:
    """Losses and gradients of a step, and what computes them again; what comes after is tried, too."""
    lane = Lane(task, trials, form)
    index = lane.train[:, : min(EXAMPLES, trials[0].batch_size or EXAMPLES)]
    batch = lane.batch(index)
    with contextlib.nullcontext() if form.stacked else Drawing(torch.default_generator):  # as a stack draws
        losses, each = lane.network.gradients(lane.leaves, lane.rest, *batch)
    every = zip(each, lane.leaves.values(), strict=True)
    gradients = [(torch.zeros_like(x) if g is None else g)[: len(trials)] for g, x in every]
    lane.step(index, 1.0)
    lane.evaluate(lane.valid[:, :EXAMPLES])

    def again() -> None:
        lane.network.gradients(lane.leaves, lane.rest, *batch)
        wait(lane.device)

    return placed(losses[: len(trials)], CPU), placed(gradients, CPU), again


def _of_each_batch(plan: Plan) -> list[Trial]:
    """A trial of each batch size of the race."""
    first = {plan.batch_size(entry): entry for entry in reversed(plan.entries)}
    return [plan.careful_trial(entry, 0) for entry in first.values()]


def _widest(task: Task, trial: Trial, fits: Callable[[int], bool]) -> float:
    """Return how many models a stack can have at most so that none depends on the others; 0 if there are none.

    Args:
        task: the problem.
        trial: what is trained.
        fits: whether memory has room for a stack of so many.
    """
    lane = Lane(task, [trial] * WIDTHS[0])
    assert isinstance(lane.network, Together)
    batch = lane.batch(lane.train[:, : trial.batch_size or lane.train.shape[1]])
    programs = [lane.network.program(what, lane.leaves, lane.rest, *batch) for what in ("train", "score")]
    if not any(program.unreviewed for program in programs):
        return math.inf if _same_in_every_row(task, trial, WIDTHS) else 0
    begun, widest = time.perf_counter(), 0
    for width in capacities(WIDEST):
        if not _same_in_every_row(task, trial, dict.fromkeys((WIDTHS[0], width))):
            return 0
        widest = width
        if width >= NARROWEST and (time.perf_counter() - begun > CHECKED or not fits(2 * width + 1)):
            break
    return widest


def _same_in_every_row(task: Task, trial: Trial, widths: Iterable[int]) -> bool:
    """Whether stacks of one model make the same of each to the bit, in batches of every size that the race has."""
    known: list[Tensor] = []
    for width in widths:
        results = _results(task, trial, width)
        known = known or [x[0] for x in results]
        pairs = zip(results, known, strict=True)
        if not all(torch.equal(x[row], own) or own.isnan().any() for x, own in pairs for row in range(width)):
            return False
    return True


def _results(task: Task, trial: Trial, width: int) -> list[Tensor]:
    """Losses, gradients, buffers and losses in evaluation of a stack of one model, in batches of every size."""
    lane = Lane(task, [trial] * width)
    batch, count = trial.batch_size or lane.train.shape[1], lane.train.shape[1]
    many, valid = batch * BATCHES_AT_ONCE, lane.valid.shape[1]
    results = []
    for size in dict.fromkeys((batch, count % batch or batch)):
        losses, gradients = lane.network.gradients(lane.leaves, lane.rest, *lane.batch(lane.train[:, :size]))
        results += [losses, *(g for g in gradients if g is not None)]
    for size in dict.fromkeys((min(many, valid), valid % many or many)):
        results += lane.network.outputs(lane.leaves, lane.rest, *lane.batch(lane.valid[:, :size]))[1:]
    return [*results, *lane.rest.values()]


def _close(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    """Whether two results differ by rounding alone, measured against the largest numbers of each network."""
    flat = [[x.double().reshape(len(x), -1) for x in results if x.numel()] for results in (first, second)]
    pairs = list(zip(*flat, strict=True))
    largest = torch.stack([a.abs().amax(1) for a, _ in pairs]).amax(0).clamp(min=1e-12)[:, None]
    # What should be zero, as the gradient of a bias before a norm, is rounding alone, whatever its own size.
    return all(bool(((a - b).abs() <= 1e-2 * a.abs().amax(1, True) + 1e-3 * largest).all()) for a, b in pairs)
