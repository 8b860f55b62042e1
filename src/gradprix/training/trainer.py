"""Many networks trained as one stacked program.

A trial's numbers do not depend on the lane it is in, to the bit: every trial has a row of its own in every tensor, a
lane runs on one thread, and its last rows are idle.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import stack_module_state
from torch.utils._pytree import tree_map

from gradprix.tasks import Task, schedule
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.rng import Luck, fresh, stream
from gradprix.tasks.schedules import examples_a_pass, passes
from gradprix.utils.devices import CPU, placed

from .artifacts import kept
from .device_cache import near
from .faults import failed_on_nan, has_nan, task_error
from .gradient_mode import needs_gradients
from .model_stack import Apart, Form, Together, quiet
from .optimizers import Steppers
from .outputs import Combined, Output, combine
from .stack_sizes import stack_size
from .trial import Outcome, Trial, form

STACKED = Form()
NARROWEST = 2
"""Trials in a lane for which a stack is worth it."""
WORTH = 0.25
"""The share of diverged networks from which it pays to go on without them: leaving copies everything once."""
BATCHES_AT_ONCE = 8
"""Training batches' worth of examples of each network in one evaluation call: it keeps less than training does."""
PARTS = 20
"""Parts of an official test set, every 20th example each, that say how much a result depends on its examples."""
NAN = float("nan")


def run_lane(
    task: Task,
    trials: Sequence[Trial],
    report: Callable[[float], None] = lambda share: None,
    how: Form = STACKED,
) -> list[Outcome]:
    """Train every trial of a lane and say what came of it.

    Args:
        task: the problem.
        trials: alike in batch size, epochs, schedule and in whether they are judged.
        report: called now and then with the share of the lane that is done.
        how: the form of the race.

    Returns:
        One outcome a trial, in the order given.
    """
    order = sorted(range(len(trials)), key=lambda i: form(trials[i]))
    rows = [trials[i] for i in order]
    with quiet(how.device):
        outcomes = Lane(task, rows, how).run(report)
    return [outcome for _, outcome in sorted(zip(order, outcomes, strict=False), key=lambda pair: pair[0])]


@contextmanager
def _without_buffers(models: Iterable[nn.Module], names: Sequence[str]) -> Iterator[None]:
    """Remove buffers of some models temporarily."""
    removed = []
    for model in models:
        for name in names:
            path, _, last = name.rpartition(".")
            held = model.get_submodule(path)._buffers
            if last in held:  # a module may have several names
                removed.append((held, last, held.pop(last)))
    try:
        yield
    finally:
        for held, last, buffer in removed:
            held[last] = buffer


class Lane:
    """A stack of networks under way.

    A stack has one of a few sizes (`stack_size`): its last rows are idle, copies of the last trial's.

    Args:
        task: the problem.
        trials: those of one form side by side.
        how: the form of the race.

    Raises:
        ValueError: when the model has nothing to train.
    """

    def __init__(self, task: Task, trials: Sequence[Trial], how: Form = STACKED) -> None:
        self.count = len(trials)
        rows = [*trials, *[trials[-1]] * (stack_size(self.count) - self.count)] if how.stacked else list(trials)
        self.task, self.trials, self.budget = task, rows, rows[0]
        self.how, self.device = how, torch.device(how.device)
        self.data = near(task.loaded, self.device)
        self.index_device = CPU if self.data is task.loaded else self.device
        self.seeds = list(dict.fromkeys(trial.seed for trial in rows))
        splits = [task.loaded.split(seed) for seed in self.seeds]
        self.train, self.valid, self.test = (
            placed(torch.stack([getattr(split, part) for split in splits]), self.index_device)
            for part in ("train", "valid", "test")
        )
        self.orders = [stream(seed, "order") for seed in self.seeds]
        streams = isinstance(self.data, Stream)
        self.luck = [Luck(stream(seed, "examples")) for seed in self.seeds * streams]
        self.rows = torch.arange(len(rows))  # the trials that still train
        self.of_seed = placed(torch.tensor([self.seeds.index(trial.seed) for trial in rows]), self.index_device)

        models = {seed: fresh(task.model, seed) for seed in self.seeds}
        model = models[self.seeds[0]]
        named = model.named_buffers(remove_duplicate=False)
        sparse = [name for name, x in named if x.layout is not torch.strided]
        if sparse and how.stacked:
            raise ValueError(f"its buffer {sparse[0]} is sparse, which torch cannot stack")
        with _without_buffers(models.values(), sparse):
            stacked, buffers = stack_module_state([models[trial.seed] for trial in rows])
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if not trained:
            raise ValueError("the model has no parameter that can be trained")
        self.leaves = {name: placed(x.detach().clone(), self.device) for name, x in stacked.items() if name in trained}
        rest = {**{name: x.detach() for name, x in stacked.items() if name not in trained}, **buffers}
        self.rest = placed(rest, self.device)
        self.steppers: Steppers | None = None
        own = [trial.seed for trial in rows]
        self.network = Together(task, own, how.compiled) if how.stacked else Apart(task, own, self.device, models)
        self.diverged: list[int | None] = [None] * len(rows)
        self.at_start = [NAN] * len(rows)

    def run(self, report: Callable[[float], None]) -> list[Outcome]:
        """Train to the end, and say what came of each trial."""
        every, epochs = self.train.shape[1], passes(self.budget.epochs)
        count = examples_a_pass(every, self.budget.epochs)
        batch = self.budget.batch_size or count
        starts = range(0, count, batch)
        sizes = torch.tensor([min(batch, count - start) for start in starts], dtype=torch.float64)
        factor = schedule(self.budget.schedule, epochs * len(starts))
        curves: list[list[tuple[int, float, float, float]]] = [[] for _ in self.trials]
        for epoch in range(epochs):
            order = torch.stack([torch.randperm(every, generator=generator) for generator in self.orders])
            shuffled = self.train.gather(1, placed(order[:, :count], self.index_device))
            losses = []
            for i, start in enumerate(starts):
                losses.append(self.step(shuffled[:, start : start + batch], factor(epoch * len(starts) + i)))
                if i % 64 == 0:
                    report((epoch + i / len(starts)) / epochs)
            found = placed(torch.stack(losses), CPU)  # once an epoch: until then, nothing waits for a GPU
            self._note(found, epoch * len(starts))
            if epoch == 0:
                self.at_start = found[0].tolist()
            mean = (found.double().T @ (sizes / count)).tolist()
            points = dict(zip(self.rows.tolist(), zip(mean, *self.evaluate(self.valid), strict=True), strict=True))
            for row, curve in enumerate(curves):
                point = (NAN, NAN, NAN) if self.diverged[row] is not None else points[row]
                curve.append((count * (epoch + 1), *point))
            self._leave()
        for row, curve in enumerate(curves):
            if self.diverged[row] is None and not (math.isfinite(curve[-1][2]) and math.isfinite(curve[-1][3])):
                self.diverged[row] = epochs * len(starts)  # the last step did it
        return self._outcomes(curves, epochs * len(starts))

    def step(self, index: Tensor, factor: float) -> Tensor:
        """One step of every network on its own batch, `[seeds, batch]`; returns each one's loss before it."""
        batch = self.batch(index)
        run = partial(self.network.gradients, self.leaves, self.rest, *batch)
        try:
            losses, gradients = run()
        except Exception as error:
            self._raise_unless_diverged("its model or loss", error, run)
            return torch.full((len(self.rows),), NAN, device=self.device)
        with torch.no_grad():
            if self.steppers is None:
                # What nothing uses has no gradient, and is not stepped, nor decayed.
                self.leaves, idle = (
                    {n: x for (n, x), g in zip(self.leaves.items(), gradients, strict=True) if (g is None) is unused}
                    for unused in (False, True)
                )
                self.rest |= idle
                gradients = [g for g in gradients if g is not None]
                self.steppers = Steppers(self.trials, list(self.leaves.values()), self.how.compiled)
            found = zip(gradients, self.leaves.values(), strict=True)
            self.move([torch.zeros_like(x) if g is None else g.contiguous() for g, x in found], factor)
        return losses

    def move(self, gradients: list[Tensor], factor: float) -> None:
        """Move every network's parameters by its gradients."""
        assert self.steppers is not None
        self.steppers.step(gradients, factor)

    def evaluate(self, part: Tensor) -> tuple[list[float], list[float]]:
        """Each network's loss and metric on its own examples, `[seeds, examples]`."""
        loss, outputs, targets = self.outputs(part)
        return loss, self.scores(outputs, targets)

    def scores(self, outputs: Sequence[Combined], targets: Any, examples: slice | None = None) -> list[float]:
        """Each network's metric, of some of the examples it was evaluated on."""
        found = []
        for row, output in enumerate(outputs):
            chosen = output.whole if examples is None else output.part(examples)
            wanted = tree_map(lambda x, row=row: x[row, slice(None) if examples is None else examples], targets)
            try:
                found.append(float(self.task.metric.score(chosen, wanted)))
            except Exception as error:
                if not has_nan(output.leaves):
                    raise task_error(self.task, "its metric", [self.trials[self.rows[row]]], error) from error
                found.append(NAN)  # as the network has diverged
        return found

    def _raise_unless_diverged(self, what: str, error: Exception, run: Callable[[], Any]) -> None:
        """Raise an error of the task's code, unless the only network of the lane has diverged and failed for it."""
        if self.count > 1 or not failed_on_nan((x[0] for x in self.leaves.values()), run):
            raise task_error(self.task, what, self.trials, error) from error

    @torch.no_grad()
    def outputs(self, part: Tensor) -> tuple[list[float], list[Combined], Any]:
        """Each network's loss on its own examples, `[seeds, examples]`, its output for them, and their targets.

        All are on the CPU, where metrics are computed.
        """
        if self.steppers is not None:
            self.steppers.turn("eval")
        at_once = (self.budget.batch_size or part.shape[1]) * BATCHES_AT_ONCE
        outputs, targets, losses, sizes = [], [], [], []
        failed: list[Output] = []
        for index in torch.split(part, at_once, dim=1):
            inputs, wanted = self.batch(index)
            run = partial(self.network.outputs, self.leaves, self.rest, inputs, wanted)
            try:
                output, loss = run()
            except Exception as error:
                self._raise_unless_diverged("its model or loss in evaluation", error, run)
                nan = torch.full((len(self.rows),), NAN)
                failed, loss = [Output.of(x) for x in nan], nan
                output = failed
            outputs.append(output)
            targets.append(placed(wanted, CPU))
            sizes.append(index.shape[1])
            losses.append(placed(loss, CPU).double() * sizes[-1])
        if self.steppers is not None:
            self.steppers.turn("train")
        loss = torch.stack(losses).sum(0) / part.shape[1]
        rows = [[each] for each in failed] if failed else zip(*outputs, strict=True)
        combined = [combine(batches, sizes[: len(batches)]) for batches in rows]
        return loss.tolist(), combined, tree_map(lambda *parts: torch.cat(parts, dim=1), *targets)

    def batch(self, index: Tensor) -> tuple[Any, Any]:
        """The examples of each row: taken once for each seed and dealt out, where seeds are shared."""
        try:
            if 2 * len(self.seeds) > len(self.rows) and not isinstance(self.data, Stream):
                inputs, targets = self.data.take(index[self.of_seed])
            else:
                inputs, targets = tree_map(itemgetter(self.of_seed), self.data.take(index, self.luck))
        except Exception as error:
            raise task_error(self.task, "reading its examples", self.trials, error) from error
        return placed(inputs, self.device), placed(targets, self.device)

    def _note(self, losses: Tensor, before: int) -> None:
        """Note the trials whose loss is not a finite number for the first time, at its step, counted from 1."""
        lost = ~losses.isfinite()
        if not lost.any():
            return
        for row, first in zip(self.rows.tolist(), lost.int().argmax(0).tolist(), strict=True):
            if self.diverged[row] is None and bool(lost[first, (self.rows == row).nonzero()]):
                self.diverged[row] = before + first + 1

    def _leave(self) -> None:
        """Go on without those that diverged, if they are many, in a stack of one of the usual sizes."""
        rows = self.rows.tolist()
        training = [i for i, row in enumerate(rows) if row < self.count and self.diverged[row] is None]
        size = stack_size(len(training)) if self.how.stacked else len(training)
        if not training or len(rows) - size < max(1, WORTH * len(rows)):
            return
        others = sorted(set(range(len(rows))) - {*training}, reverse=True)  # the idle ones first
        index = torch.tensor(sorted([*training, *others[: size - len(training)]]))
        self.rows, self.of_seed = self.rows[index], self.of_seed[index]
        self.leaves = {name: x[index] for name, x in self.leaves.items()}
        self.rest = {name: x[index] for name, x in self.rest.items()}
        self.network.keep(index)
        if self.steppers is not None:
            self.steppers.keep(index, list(self.leaves.values()))

    def _outcomes(self, curves: Sequence[list[tuple[int, float, float, float]]], steps: int) -> list[Outcome]:
        tests = self._judged() if self.budget.judged else {}
        outcomes = []
        for row, (curve, diverged) in enumerate(zip(curves[: self.count], self.diverged, strict=False)):
            loss, metric, parts = tests.get(row, (None, None, None))
            if diverged is None and not all(math.isfinite(x) for x in (loss, metric) if x is not None):
                diverged = steps
            if diverged is not None and self.budget.judged:
                loss, metric, parts = float("inf"), self.task.baseline, None
            after = self._after(row) if diverged is None and self.budget.judged else None
            outcomes.append(Outcome(curve, loss, metric, diverged, parts, after, start=self.at_start[row]))
        return outcomes

    def _after(self, row: int) -> dict[str, Any] | None:
        """What the task finds of a trained network, the row's weights in a network of its own."""
        if self.task.after is None:
            return None
        trial, place = self.trials[row], int((self.rows == row).nonzero()[0])
        model = fresh(self.task.model, trial.seed)
        with torch.no_grad():
            for own in (model.named_parameters, model.named_buffers):
                for name, x in own():
                    if x.layout is torch.strided:
                        x.copy_((self.leaves | self.rest)[name][place])
        data = self.task.loaded
        luck = [Luck(stream(trial.seed, "examples after"))]
        examples = tree_map(itemgetter(0), data.take(data.split(trial.seed).test[None], luck))
        try:
            with Luck(stream(trial.seed, "after")), torch.set_grad_enabled(needs_gradients(self.task)):
                return kept(self.task.after(model.eval(), *examples))
        except Exception as error:
            raise task_error(self.task, "its after", [trial], error) from error

    def _judged(self) -> dict[int, tuple[float, float, list[float] | None]]:
        """Each network's loss and metric on test examples, and its metric on parts of an official test set."""
        loss, outputs, targets = self.outputs(self.test)
        parts: list[Any] = [None] * len(self.rows)
        if self.data.test is not None:
            pieces = min(PARTS, self.test.shape[1])
            with suppress(Exception):  # some metrics have no value on a part, as where a class is missing
                each = [self.scores(outputs, targets, slice(first, None, pieces)) for first in range(pieces)]
                parts = [list(row) for row in zip(*each, strict=True)]
        return dict(zip(self.rows.tolist(), zip(loss, self.scores(outputs, targets), parts, strict=True), strict=True))
