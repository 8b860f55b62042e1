"""Models of several trials that are trained together: parameters, examples and optimizers, with one row per model."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from gradprix.tasks import Task
from gradprix.tasks.parameter_groups import parameter_groups
from gradprix.tasks.rng import init_model
from gradprix.tasks.schedules import count_steps

from .closures import Batch, RowGradients
from .execution_mode import STACKED, ExecutionMode
from .faults import failed_on_nan, task_error
from .gradient_accumulation import Gradients, MicroBatch, accumulate_gradients
from .gradient_clipping import GradientClipper
from .optimizers import StackedOptimizers
from .outputs import Output
from .param_groups import group_hyperparameters
from .per_row_optimizers import IndexGroup, RowBuilder
from .row_step import RowStep, leaves, prepare_row_step
from .sequential_models import SequentialModels
from .sharpness_aware import SharpnessAwareWeights
from .stack_data import StackData
from .stack_sizes import stack_size
from .stack_tensors import stack_tensors
from .stacked_models import StackedModels
from .torch_optimizer_adapter import needs_closure
from .trace_step import TracedStep
from .trial import Trial

logger = logging.getLogger(__name__)


class ModelStack:
    """Models of several trials that are trained together.

    A stack that runs as one program has one of a few sizes (see `stack_size`). Its additional rows are idle copies of
    the last trial.

    Args:
        task: the task.
        trials: trials with equal `stack_key`, sorted so that trials with equal `update_key` are adjacent.
        mode: the execution mode of the race.

    Attributes:
        count: number of trials. Entries of `trials` from this index on belong to idle rows.
        trials: the trial of each row of the initial stack, including idle rows.
        rows: for each current row, the index of its trial in `trials`; rows of diverged models may be removed.
        data: examples of each row.
        parameters: the trained parameters, `[rows, ...]` each.
        buffers: the buffers and the parameters that are not trained, `[rows, ...]` each.
        optimizers: the optimizers of all rows; None before the first step.
        groups: the parameter groups of a model.
        clipper: clips the gradients of all rows; None if they are not clipped.
        sharpness: perturbs the weights of all rows for the gradient of SAM; None for the gradient at the weights.
        extra_gradients: for each trial, the number of gradients that were computed besides the first of each step.

    Raises:
        ValueError: if the model has no trainable parameters, or cannot be stacked.
    """

    def __init__(self, task: Task, trials: Sequence[Trial], mode: ExecutionMode = STACKED) -> None:
        self.count = len(trials)
        idle = stack_size(self.count) - self.count if mode.stacked else 0
        self.trials = [*trials, *[trials[-1]] * idle]
        self.task, self.mode, self.device = task, mode, torch.device(mode.device)
        self.rows = torch.arange(len(self.trials))
        self.data = StackData(task, self.trials, self.device, mode.stacked)
        seeds = [trial.seed for trial in self.trials]
        models = {seed: init_model(task.build, seed) for seed in self.data.seeds}
        self.parameters, self.buffers = stack_tensors(models, seeds, self.device, mode.stacked)
        self.groups = parameter_groups(task.groups, models[seeds[0]])
        self._buffer_names = {name for name, _ in models[seeds[0]].named_buffers(remove_duplicate=False)}
        max_norms, rho = ([getattr(each, name) for each in self.trials] for name in ("clip_norm", "sam_rho"))
        self.clipper = None if not any(max_norms) else GradientClipper(self._by_row(max_norms, float("inf")))
        self.sharpness = None if not any(rho) else SharpnessAwareWeights(self._by_row(rho, 0.0))
        self.optimizers: StackedOptimizers | None = None
        self.extra_gradients = [0] * len(self.trials)
        self._uses_closures = any(needs_closure(trial.rule) for trial in self.trials)
        self._batch: Batch | None = None
        self._row_steps: dict[Any, RowStep | None] = {}
        self.models = (
            StackedModels(task, seeds, mode.compiled)
            if mode.stacked
            else SequentialModels(task, seeds, self.device, models)
        )

    def _by_row(self, values: Sequence[float | None], default: float) -> Tensor:
        """Return a value for each row, `[rows]`, with a default for None."""
        return torch.tensor([default if value is None else value for value in values], device=self.device)

    def gradients(self, inputs: Any, targets: Any) -> tuple[Tensor, list[Tensor | None]]:
        """Return the losses, `[rows]`, and the gradient of each parameter, as they are before clipping.

        The gradient of a parameter that the loss does not use is None or zero.
        """
        return self.models.gradients(self.parameters, self.buffers, inputs, targets)

    def batch_gradients(self, index: Tensor) -> Gradients:
        """Return the losses and gradients of a batch as `gradients` does, accumulated over its micro-batches.

        Args:
            index: indices of the batch, `[seeds, batch]`.
        """
        return accumulate_gradients(self._micro_batches(index), self.gradients)

    def _micro_batches(self, index: Tensor) -> Iterator[MicroBatch]:
        """Read the micro-batches of a batch, one after the other."""
        for part in torch.split(index, self.task.micro_batch(index.shape[1]), dim=1):
            yield part.shape[1] / index.shape[1], *self.data.read(part)

    @contextmanager
    def evaluation_streams(self) -> Iterator[None]:
        """Draw random numbers in an evaluation from streams of their own, which start anew.

        Training thus depends neither on the number nor on the size of the evaluations, and evaluations of equal
        weights agree.
        """
        with self.data.evaluation_streams(), self.models.evaluation_streams():
            yield

    def outputs(self, inputs: Any, targets: Any) -> tuple[list[Output], Tensor]:
        """Run the models in evaluation mode and return the output of each row, on the CPU, and the losses, `[rows]`."""
        return self.models.outputs(self.parameters, self.buffers, inputs, targets)

    def traced_step(self, kind: str, inputs: Any, targets: Any) -> TracedStep:
        """Return the traced step for inputs and targets of these shapes; the stack must run as one program.

        Args:
            kind: `"train"` or `"score"`, see `StepSpec`.
            inputs: inputs of each row.
            targets: targets of each row.
        """
        assert isinstance(self.models, StackedModels)
        return self.models.traced_step(kind, self.parameters, self.buffers, inputs, targets)

    def compute_gradients(self, index: Tensor) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return the losses of a batch, `[rows]`, and the gradients by parameter name, those of SAM if it is used.

        The first call moves parameters that the loss does not use to `buffers`, so that neither updates nor weight
        decay change them.

        Args:
            index: indices of the batch, `[seeds, batch]`.

        Returns:
            The losses and the gradients; NaN and None if the stack has a single model, whose code fails because the
            model has diverged.

        Raises:
            TaskError: if the task's code fails for another reason.
        """
        self._forget_gradients()
        batches: Iterable[MicroBatch] = self._micro_batches(index)
        if self.sharpness is not None or self._uses_closures:
            batches = list(batches)  # they are used again
        losses, gradients = accumulate_gradients(batches, self._try_gradients)
        if self.sharpness is not None and gradients:
            buffers = {name: x for name, x in self.buffers.items() if name in self._buffer_names}
            with self.sharpness.perturbed(self.parameters, buffers, gradients):
                self._forget_gradients()
                _, gradients = accumulate_gradients(batches, self._try_gradients)
            for trial in self.rows.tolist():
                self.extra_gradients[trial] += 1
        if self._uses_closures:
            self._batch = Batch(losses, partial(self._recompute, batches))
        return self._finish_gradients(losses, gradients)

    def _recompute(self, batches: Iterable[MicroBatch], row: int) -> RowGradients:
        """Return the loss and the gradients of a row at its current weights, for closures; they are clipped.

        Args:
            batches: the micro-batches of the batch.
            row: index of the row in the current stack.
        """
        assert isinstance(self.models, SequentialModels)
        run = partial(self.models.row_gradients, row, self.parameters, self.buffers)

        def compute(inputs: Any, targets: Any) -> Gradients:
            try:
                loss, gradients = run(inputs, targets)
            except Exception as error:
                self.raise_unless_diverged("its model or loss", error, partial(run, inputs, targets))
                loss, gradients = torch.tensor(float("nan"), device=self.device), [None] * len(self.parameters)
            return loss[None], [None if g is None else g[None] for g in gradients]

        losses, gradients = accumulate_gradients(batches, compute)
        known = {k: g.contiguous() for k, g in enumerate(gradients) if g is not None}
        if self.clipper is not None and known:
            clipper = self.clipper.select_rows(torch.tensor([row]))
            known = dict(zip(known, clipper(list(known.values())), strict=True))
        self.extra_gradients[int(self.rows[row])] += 1
        return losses[0], [known[k][0] if k in known else None for k in range(len(gradients))]

    def _try_gradients(self, inputs: Any, targets: Any) -> Gradients:
        """Return the losses and gradients; NaN and no gradients if the code of a single, diverged model fails."""
        try:
            return self.gradients(inputs, targets)
        except Exception as error:
            self.raise_unless_diverged("its model or loss", error, partial(self.gradients, inputs, targets))
            return torch.full((len(self.rows),), float("nan"), device=self.device), []

    def _finish_gradients(
        self, losses: Tensor, gradients: Sequence[Tensor | None]
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return the losses, and the gradients by parameter name after clipping; create the optimizers if needed."""
        if len(gradients) < len(self.parameters):
            return losses, None
        pairs = dict(zip(self.parameters, gradients, strict=True))
        if self.optimizers is None:
            self.buffers |= {name: self.parameters.pop(name) for name, g in pairs.items() if g is None}
            pairs = {name: g for name, g in pairs.items() if g is not None}
            self.optimizers = self.make_optimizers(self.trials)
        by_name = {
            name: torch.zeros_like(self.parameters[name]) if g is None else g.contiguous() for name, g in pairs.items()
        }
        if self.clipper is not None:
            by_name = dict(zip(by_name, self.clipper(list(by_name.values())), strict=True))
        return losses, by_name

    def _forget_gradients(self) -> None:
        """Forget which parameters got a gradient in the last step."""
        if isinstance(self.models, SequentialModels):
            self.models.received.clear()

    def _missing_gradients(self) -> set[tuple[int, int]]:
        """Return index and row of each parameter that got no gradient in this step, if the models run one by one."""
        if not isinstance(self.models, SequentialModels):
            return set()
        received, rows = self.models.received, range(len(self.rows))
        return {
            (k, row) for k, name in enumerate(self.parameters) for row in set(rows).difference(received.get(name, rows))
        }

    def make_optimizers(self, trials: Sequence[Trial]) -> StackedOptimizers:
        """Return new optimizers of the stack's parameters, with the task's parameter groups.

        Args:
            trials: the trial of each row.
        """
        places = {name: place for place, name in enumerate(self.parameters)}
        groups = [
            IndexGroup([places[name] for name in group.names if name in places], group.settings)
            for group in self.groups
        ]
        used = [group for group in groups if group.indices] if self.task.groups else ()
        steps = count_steps(self.data.train.shape[1], trials[0].batch_size, trials[0].epochs)
        model = cache(lambda: init_model(self.task.build, trials[0].seed))
        builder = RowBuilder(list(places), used, steps, model)
        return StackedOptimizers(trials, list(self.parameters.values()), self.mode.compiled, builder)

    def hyperparameters(self, trial: Trial, name: str) -> dict[str, Any]:
        """Return the hyperparameters of a trial's rule for a parameter, which depend on its parameter group."""
        group = next(group for group in self.groups if name in group.names)
        return group_hyperparameters(group.settings, trial.values)

    @torch.no_grad()
    def apply_gradients(self, gradients: Mapping[str, Tensor], factor: float) -> None:
        """Perform one optimizer step of every model, with its learning rate multiplied by `factor`."""
        assert self.optimizers is not None
        self.optimizers.step(list(gradients.values()), factor, self._missing_gradients(), self._batch)

    def step(self, index: Tensor, factor: float) -> Tensor:
        """Perform one training step of every model.

        Args:
            index: indices of the batch, `[seeds, batch]`.
            factor: the schedule's multiplier of the learning rates.

        Returns:
            The losses of the batch before the step, `[rows]`.
        """
        is_plain = self.sharpness is None and not self._uses_closures
        if is_plain and self.task.micro_batch(index.shape[1]) == index.shape[1]:
            batch = self.data.read(index)
            if (row_losses := self._step_row_by_row(batch, factor)) is not None:
                return row_losses
            self._forget_gradients()
            losses, gradients = self._finish_gradients(*self._try_gradients(*batch))
        else:
            losses, gradients = self.compute_gradients(index)
        if gradients is not None:
            self.apply_gradients(gradients, factor)
        return losses

    def _step_row_by_row(self, batch: tuple[Any, Any], factor: float) -> Tensor | None:
        """Perform a training step row by row: update each row as soon as its gradients are computed.

        Idle rows are skipped, since no result depends on them.

        Returns:
            The losses, `[rows]`. None if the gradients or an optimizer cannot run as machine code, if the preparation
            fails, or in the first step, which creates the optimizers.
        """
        if self.optimizers is None or not isinstance(self.models, StackedModels):
            return None
        shapes = tuple(x.shape for part in batch for x in leaves(part))
        try:
            step = self._row_steps.get(shapes)
            if shapes in self._row_steps and (step is None or step.uses(self.parameters, self.buffers)):
                if step is not None:
                    step.replace_batch(batch)
            else:
                active = int((self.rows < self.count).sum())
                step = self._row_steps[shapes] = prepare_row_step(
                    self.models, self.optimizers, self.clipper, self.parameters, self.buffers, batch, active
                )
        except Exception as error:  # the caller computes the step in another way, which raises a better explanation
            logger.debug("a step of %s is not run row by row: %s: %s", self.task.name, type(error).__name__, error)
            return None
        if step is None:
            return None
        try:
            losses = step.run(factor)
        except IndexError:
            self._row_steps.clear()
            return self._try_gradients(*batch)[0]  # raises an error with an explanation, unless a model diverged
        if not step.is_reusable:
            del self._row_steps[shapes]
        return losses

    def rule_state(self, place: int) -> dict[str, dict[str, Any]]:
        """Return the optimizer state of a row by parameter name.

        Args:
            place: index of the row in the current stack.

        Returns:
            The state; empty before the first step, or if the optimizer of the row is not a rule.
        """
        names = list(self.parameters)
        state = {} if self.optimizers is None else self.optimizers.rule_state(place)
        return {names[index]: tensors for index, tensors in state.items()}

    def select_rows(self, index: Tensor) -> None:
        """Remove all rows except those at `index`, which is in ascending order."""
        self.rows = self.rows[index]
        self.data.select_rows(index)
        self._row_steps.clear()
        self.parameters = {name: x[index] for name, x in self.parameters.items()}
        self.buffers = {name: x[index] for name, x in self.buffers.items()}
        self.models.select_rows(index)
        self.clipper = None if self.clipper is None else self.clipper.select_rows(index)
        self.sharpness = None if self.sharpness is None else self.sharpness.select_rows(index)
        if self.optimizers is not None:
            self.optimizers.select_rows(index, list(self.parameters.values()))

    def raise_unless_diverged(self, what: str, error: Exception, run: Callable[[], Any]) -> None:
        """Raise a `TaskError` for an exception in the task's code.

        No error is raised if the stack has a single model and the exception is due to the model's divergence.

        Args:
            what: the part of the task that failed.
            error: the exception that the task's code raised.
            run: runs the failing code again.

        Raises:
            TaskError: with the part of the task and the cause.
        """
        if self.count > 1 or not failed_on_nan((x[0] for x in self.parameters.values()), run):
            raise task_error(self.task, what, self.trials, error) from error
