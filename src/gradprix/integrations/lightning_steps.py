"""A `LightningModule` as a plain module: its steps without a `Trainer`, with the values that they log."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .optional import require
from .own_batches import LOOP

PACKAGES = frozenset(("lightning", "pytorch_lightning"))
HOOKS = (
    "backward clip_gradients configure_gradient_clipping configure_model lr_scheduler_step on_after_backward "
    "on_after_batch_transfer on_before_backward on_before_batch_transfer on_before_optimizer_step on_before_zero_grad "
    "on_fit_start on_train_batch_end on_train_batch_start on_train_epoch_end on_train_epoch_start on_train_start "
    "optimizer_step optimizer_zero_grad setup transfer_batch_to_device"
).split()
"""Hooks of a module that may change its training, and that only a `Trainer` calls."""
TRAINER_ATTRIBUTES = frozenset("trainer current_epoch global_step lr_schedulers optimizers logger".split())
"""Attributes of a module that a `Trainer` sets."""
AVERAGED = frozenset(("BinaryAccuracy", "MeanAbsoluteError", "MeanMetric", "MeanSquaredError"))
"""Classes of torchmetrics whose value is the mean over batches, weighted by their sizes."""


class StepModel(nn.Module):
    """Model that returns the loss of `training_step`, and in evaluation the metric that `validation_step` logs.

    Args:
        module: the `LightningModule`.
        metric: name of the logged metric; None to return the outputs of `forward` instead.
    """

    def __init__(self, module: Any, metric: str | None) -> None:
        super().__init__()
        self.module, self.metric = module, metric

    def forward(self, batch: Any) -> dict[str, Any]:
        """Return the loss of a batch and, in evaluation, its metric or outputs.

        Raises:
            ValueError: if a step returns no loss, or does not log the metric.
        """
        if self.training:
            return {"loss": self._loss(self._run("training_step", batch)[0])}
        if self.metric is None:
            return {"loss": self._loss(self._run("training_step", batch)[0]), "outputs": self._outputs(batch)}
        returned, logged = self._run("validation_step", batch)
        if self.metric not in logged:
            raise ValueError(
                f"validation_step of {type(self.module).__name__} logs {', '.join(sorted(logged)) or 'nothing'}, and "
                f"not {self.metric}"
            )
        is_scalar = isinstance(returned, Tensor) and returned.dim() == 0  # others are predictions
        has_loss = is_scalar or (isinstance(returned, Mapping) and "loss" in returned)
        loss = self._loss(returned if has_loss else self._run("training_step", batch)[0])
        return {"loss": loss, "metric": logged[self.metric]}

    def _run(self, step: str, batch: Any) -> tuple[Any, dict[str, Any]]:
        """Return what a step returns, and the names that it logs, with the value of the metric."""
        run, where = getattr(self.module, step), f"{step} of {type(self.module).__name__}"
        index = BatchIndex(where) if step == "training_step" else 0
        takes_index = len(inspect.signature(run).parameters) > 1 or _takes_any(run)
        with _captured_logs(self.module, where) as logged:
            returned, is_scored = run(*(batch, index) if takes_index else (batch,)), step == "validation_step"
            return returned, {
                name: read() if is_scored and name == self.metric else None for name, read in logged.items()
            }

    def _loss(self, returned: Any) -> Tensor:
        loss = returned.get("loss") if isinstance(returned, Mapping) else returned
        if not isinstance(loss, Tensor):
            raise ValueError(f"training_step of {type(self.module).__name__} returns no loss, but {loss!r}; {LOOP}")
        return loss

    def _outputs(self, batch: Any) -> Any:
        if isinstance(batch, Mapping):
            return self.module(**batch)
        return self.module(*batch[:-1]) if isinstance(batch, tuple) else self.module(batch)


class BatchIndex:
    """Argument `batch_idx` of `training_step`, which a task does not count: computing with it raises an error.

    Args:
        where: the step, in the error message.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def refuse(self, *_: Any) -> Any:
        """Raise a ValueError."""
        raise ValueError(f"{self.where} uses batch_idx, which only a Trainer counts; {LOOP}")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __int__ = __index__ = __float__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = refuse
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __pow__ = __rpow__ = __neg__ = refuse
    __hash__ = object.__hash__


class NoTrainer:
    """Trainer of a module whose step runs without one: the use of its attributes raises an error.

    Args:
        where: the step, in the error message.
    """

    logger, loggers = None, ()

    def __init__(self, where: str) -> None:
        self.where = where

    def __getattr__(self, name: str) -> Any:
        """Raise a ValueError."""
        if name.startswith("__"):
            raise AttributeError(name)
        raise ValueError(f"{self.where} uses {name} of the Trainer; {LOOP}")


class LoggedMetric:
    """Score of a task: the logged metric, averaged over batches."""

    def __call__(self, outputs: Mapping[str, Any], targets: Any) -> float:
        """Return the metric."""
        return float(outputs["metric"])


@contextmanager
def _captured_logs(module: Any, where: str) -> Iterator[dict[str, Callable[[], Any]]]:
    """Collect the values that `log` and `log_dict` of a module get, which without a `Trainer` are lost.

    Yields:
        Functions that return the values, or raise a ValueError, by name.
    """
    logged: dict[str, Callable[[], Any]] = {}

    def log(name: str, value: Any, *more: Any, **options: Any) -> None:
        reduction = options.get("reduce_fx", more[4] if len(more) > 4 else "mean")
        logged[name] = partial(_number, name, value, reduction)

    def log_dict(values: Mapping[str, Any], *more: Any, **options: Any) -> None:
        for name, value in values.items():
            log(name, value, *more, **options)

    meters = [each for each in module.modules() if _is_torchmetric(each)]
    for meter in meters:
        meter.reset()
    trainer = module._trainer
    vars(module).update(log=log, log_dict=log_dict, _trainer=NoTrainer(where))
    try:
        yield logged
    finally:
        vars(module)["_trainer"] = trainer
        for name in ("log", "log_dict"):
            del vars(module)[name]
        for meter in meters:  # its state belongs to this batch alone
            meter.reset()


def _is_torchmetric(value: Any) -> bool:
    return any(base.__module__ == "torchmetrics.metric" and base.__name__ == "Metric" for base in type(value).__mro__)


def _takes_any(function: Callable[..., Any]) -> bool:
    """Return True if a function takes any number of positional arguments."""
    return any(each.kind is each.VAR_POSITIONAL for each in inspect.signature(function).parameters.values())


def _number(name: str, value: Any, reduction: Any) -> Any:
    """Return a logged value as a 0-d tensor or a number.

    Args:
        name: name of the value.
        value: the value.
        reduction: the argument `reduce_fx` of `log`.

    Raises:
        ValueError: if the value over all examples is not the mean over batches.
    """
    if reduction not in ("mean", torch.mean):
        raise ValueError(
            f"{name} is logged with reduce_fx={getattr(reduction, '__name__', reduction)}, and a task takes the mean "
            "over batches. Log a mean, or give metric=gradprix.Metric(...) with a function of all outputs and targets"
        )
    if _is_torchmetric(value):
        kind = type(value).__name__
        is_micro = kind.endswith("Accuracy") and getattr(value, "average", None) == "micro"
        if kind not in AVERAGED and not is_micro:
            raise ValueError(
                f"{name} is logged as {kind} of torchmetrics, which is not a mean over batches. Give "
                "metric=gradprix.Metric(...) with a function of all outputs and targets"
            )
        value = value.compute()
    return value.reshape(()) if isinstance(value, Tensor) else value


def is_overridden(module: Any, method: str) -> bool:
    """Return True if a `LightningModule` or `LightningDataModule` overrides a method."""
    base = lightning_base(module)
    return base is not None and getattr(type(module), method) is not getattr(base, method)


def lightning_base(value: Any) -> type | None:
    """Return the class of Lightning of which a value is an instance, or None if it is not one of Lightning's."""
    bases = (base for base in type(value).__mro__ if base.__name__ in ("LightningModule", "LightningDataModule"))
    return next((base for base in bases if base.__module__.partition(".")[0] in PACKAGES), None)


def is_lightning_module(value: Any) -> bool:
    """Return True if a value is a `LightningModule`."""
    base = lightning_base(value)
    return base is not None and base.__name__ == "LightningModule"


def check_module(module: Callable[[], Any], ignore_hooks: tuple[str, ...], allow_groups: bool) -> Any:
    """Build a module, and check that a task can train it.

    Args:
        module: function that returns the module.
        ignore_hooks: overridden hooks that are accepted.
        allow_groups: True if the task has parameter groups, so that those of `configure_optimizers` may be replaced.

    Returns:
        The module.

    Raises:
        TypeError: if `module` is no function, or does not return a `LightningModule`.
        ValueError: if the module needs a `Trainer`.
    """
    if not any(sys.modules.get(package) for package in PACKAGES):
        require("lightning", "lightning")
    if is_lightning_module(module):
        raise TypeError(
            f"the module is a {type(module).__name__}, and every run needs new initial weights: give a function that "
            f"returns a new one, such as {type(module).__name__} itself or a functools.partial of it."
        )
    instance = module()
    if not is_lightning_module(instance):
        raise TypeError(f"module() returns a {type(instance).__name__}, not a LightningModule.")
    name = type(instance).__name__
    if not instance.automatic_optimization:
        raise ValueError(f"{name} uses manual optimization; {LOOP}.")
    if hooks := [each for each in HOOKS if is_overridden(instance, each) and each not in ignore_hooks]:
        raise ValueError(
            f"{name} overrides {', '.join(hooks)}, which only a Trainer calls. If this does not affect training, give "
            f"ignore_hooks={tuple(hooks)!r}; otherwise, {LOOP}."
        )
    for step in ("training_step", "validation_step"):
        code = getattr(type(instance), step).__code__
        if is_overridden(instance, step) and (used := sorted(TRAINER_ATTRIBUTES.intersection(code.co_names))):
            raise ValueError(f"{step} of {name} uses self.{used[0]}, which only a Trainer sets; {LOOP}.")
    _check_optimizers(instance, allow_groups)
    return instance


def _check_optimizers(module: Any, allow_groups: bool) -> None:
    """Check that a module has one optimizer, without groups of its own, for all parameters that require a gradient."""
    name = type(module).__name__
    if not is_overridden(module, "configure_optimizers"):
        return
    try:
        configured = module.configure_optimizers()
    except Exception:  # it may need a Trainer, for the number of steps
        return
    if isinstance(configured, tuple) and len(configured) == 2 and isinstance(configured[0], list | tuple):
        configured = configured[0]
    optimizers = configured if isinstance(configured, list | tuple) else [configured]
    optimizers = [each["optimizer"] if isinstance(each, Mapping) else each for each in optimizers]
    optimizers = [each for each in optimizers if isinstance(each, torch.optim.Optimizer)]
    if len(optimizers) > 1:
        raise ValueError(f"configure_optimizers of {name} returns {len(optimizers)} optimizers; {LOOP}.")
    if not optimizers:
        return
    groups = optimizers[0].param_groups
    if len(groups) > 1 and not allow_groups:
        raise ValueError(
            f"configure_optimizers of {name} makes {len(groups)} parameter groups, which the race replaces by one. "
            f"Give the task groups of its own, or {LOOP}."
        )
    given = {id(parameter) for group in groups for parameter in group["params"]}
    if left := [key for key, x in module.named_parameters() if x.requires_grad and id(x) not in given]:
        raise ValueError(
            f"configure_optimizers of {name} leaves out {left[0]}, which requires a gradient. Freeze it in the module, "
            f"by requires_grad_(False), or {LOOP}."
        )
