"""Lightning: a `LightningModule` as a task, and `Trainer` in a training loop.

Both of its packages are supported, `lightning` and `pytorch_lightning`, whose classes are different.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from gradprix.tasks import Data, Metric, Task
from gradprix.tasks.rng import RngState

from .lightning_callback import epoch_reports
from .lightning_steps import LoggedMetric, StepModel, check_module, is_overridden
from .own_batches import join_loaders, load_batches
from .reports import Report, add_test_score, iterate_reports

__all__ = ["fit", "task"]


def task(
    module: Callable[[], Any],
    datamodule: Any,
    *,
    metric: str | Metric,
    baseline: float,
    epochs: float,
    direction: str = "max",
    margin: float | None = None,
    name: str | None = None,
    batch_size: int | None = None,
    targets: str | None = None,
    ignore_hooks: tuple[str, ...] = (),
    **options: Any,
) -> Task:
    """Return a `gradprix.Task` that trains a `LightningModule`.

    The loss is that of `training_step`, the metric a value that `validation_step` logs, and its mean over batches is
    weighted by their sizes, as in Lightning. The race replaces `configure_optimizers`: the optimizer, and with it the
    learning-rate schedule, which is the argument `schedule`. No `Trainer` is used. What a task cannot do is refused;
    use `fit` for it.

    Args:
        module: function that returns a new module with random initial weights, such as the class itself or
            `functools.partial(Net, width=64)`.
        datamodule: `LightningDataModule`, or tuple of two or three loaders: training, validation and, optionally, test.
            The test set of the race is the test set or, without one, the validation set. The race splits all other
            examples into training and validation examples.
        metric: name of the logged value, such as `"val_acc"`; or a `gradprix.Metric`, which is computed once over
            all examples, from the outputs of `forward` and the targets.
        baseline: metric of the best constant answer.
        epochs: number of epochs, the `max_epochs` of a `Trainer`.
        direction: `"max"` if higher values of the logged metric are better, `"min"` if lower values are better.
        margin: smallest difference of the logged metric that matters. The default is 0.005 for `"max"`; for `"min"`, it
            is 2 % of the better mean.
        name: name of the task; the class of the module if None.
        batch_size: examples per step; the batch size of the training loader if None.
        targets: key of the target if batches are mappings. By default, the target is the last part of a batch.
        ignore_hooks: overridden hooks of the module, such as `"on_train_epoch_end"`, that have no effect on training.
            Others are refused, because a task does not call them.
        options: other arguments of `Task`.

    Raises:
        ImportError: if Lightning is not installed.
        TypeError: if `module` is not a function that returns a `LightningModule`.
        ValueError: if the module needs a `Trainer`, with the reason.
    """
    if direction not in ("max", "min"):
        raise ValueError(f'direction = {direction!r}: give "max" if higher values of {metric} are better, else "min".')
    with RngState(torch.Generator()):
        instance = check_module(module, ignore_hooks, allow_groups="groups" in options)
    build = partial(_build, module, metric if isinstance(metric, str) else None)
    if isinstance(metric, str):
        if not is_overridden(instance, "validation_step"):
            raise ValueError(f"{type(instance).__name__} has no validation_step, which logs {metric}.")
        higher = direction == "max"
        default = 0.005 if higher else 0.02
        relative = margin is None and not higher
        metric = Metric(metric, LoggedMetric(), higher, default if margin is None else margin, relative)
    loaders = partial(_loaders, datamodule)
    if batch_size is None:
        batch_size = getattr(loaders()[0], "batch_size", None)
    if batch_size is None:
        raise ValueError("the loader of training examples has no batch size: give batch_size.")
    return Task(
        name=name or type(instance).__name__.lower(),
        model=build,
        loss=_own_loss,
        metric=metric,
        baseline=baseline,
        data=partial(_load, loaders, targets, {"stratify": options.pop("stratify", False)}),
        batch_size=batch_size,
        epochs=epochs,
        **options,
    )


def fit(
    trainer: Any,
    module: Any,
    make_optimizer: Callable[..., Any] | None,
    datamodule: Any,
    *,
    valid: str,
    test: str | None = None,
    groups: Callable[[Any], Any] | None = None,
    scheduler: Callable[[Any], Any] | None = None,
) -> Iterator[Mapping[str, float]]:
    """Train a module with a `Trainer` in a training loop, and yield a score for each validation.

    Example:
        def train(make_optimizer, seed):
            trainer = Trainer(max_epochs=10, logger=False, enable_checkpointing=False)
            yield from gp.integrations.lightning.fit(trainer, Net(), make_optimizer, Digits(), valid="val_acc")

    Args:
        trainer: the `Trainer`.
        module: the `LightningModule`. Its `configure_optimizers` is replaced.
        make_optimizer: the argument of the training loop. If None, `configure_optimizers` is kept, and must call
            it itself, for example for several optimizers.
        datamodule: `LightningDataModule`, or tuple of the loaders: training, validation and, optionally, test.
        valid: name of the logged value that is the score of the run.
        test: name of the value that `test_step` logs, for the final comparison; None if there are no test examples.
        groups: function of the module that returns parameters or parameter groups. By default, all parameters that
            require a gradient.
        scheduler: function of the optimizer that returns a scheduler or Lightning's `lr_scheduler` configuration. It
            must derive its learning rates from the optimizer's.

    Raises:
        ValueError: if the value is not logged, or `test` is given without test examples.
    """
    if test is not None and isinstance(datamodule, tuple | list) and len(datamodule) < 3:
        raise ValueError(f"test={test!r} needs a loader of test examples: give (training, validation, test).")
    if make_optimizer is not None:
        module.configure_optimizers = partial(_configure_optimizers, module, make_optimizer, groups, scheduler)
    data = {"datamodule": datamodule}
    if isinstance(datamodule, tuple | list):
        data = dict(zip(("train_dataloaders", "val_dataloaders"), datamodule[:2], strict=True))

    def train(report: Report) -> None:
        trainer.callbacks.append(epoch_reports(trainer, report, valid))
        trainer.fit(module, **data)

    def evaluate(name: str) -> float:
        loaders = {"dataloaders": datamodule[2]} if isinstance(datamodule, tuple | list) else data
        (scores,) = trainer.test(module, **loaders, verbose=False)
        if name not in scores:
            raise ValueError(f"test={name!r}: test_step logs {', '.join(sorted(scores)) or 'nothing'}.")
        return float(scores[name])

    reports = iterate_reports(train)
    return reports if test is None else add_test_score(reports, partial(evaluate, test))


def _configure_optimizers(
    module: Any,
    make_optimizer: Callable[..., Any],
    groups: Callable[[Any], Any] | None,
    scheduler: Callable[[Any], Any] | None,
) -> Any:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(trained if groups is None else groups(module))
    return optimizer if scheduler is None else {"optimizer": optimizer, "lr_scheduler": scheduler(optimizer)}


def _build(module: Callable[[], Any], metric: str | None) -> StepModel:
    return StepModel(module(), metric)


def _own_loss(outputs: Mapping[str, Any], targets: Any) -> Any:
    return outputs["loss"]


def _loaders(datamodule: Any) -> tuple[DataLoader[Any], ...]:
    """Return the loaders of training, validation and, if there is one, test examples."""
    if isinstance(datamodule, tuple | list):
        return tuple(datamodule)
    datamodule = datamodule() if callable(datamodule) else datamodule
    datamodule.prepare_data()
    datamodule.setup("fit")
    loaders = [datamodule.train_dataloader(), datamodule.val_dataloader()]
    if is_overridden(datamodule, "test_dataloader"):
        datamodule.setup("test")
        loaders.append(datamodule.test_dataloader())
    return tuple(loaders)


def _load(loaders: Callable[[], tuple[DataLoader[Any], ...]], targets: str | None, options: dict[str, Any]) -> Data:
    """Return the examples of the loaders; see `task`."""
    train, *held_out = loaders()
    if len(held_out) > 1:
        train = join_loaders(train, held_out[0])
    return load_batches(train, held_out[-1] if held_out else None, targets, **options)
