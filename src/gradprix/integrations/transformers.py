"""transformers: a `PreTrainedModel` with its own loss as a task, and `Trainer` in a training loop."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from gradprix.tasks import Data, Metric, Task
from gradprix.tasks.rng import RngState

from .labelled_data import Source
from .optional import require
from .reports import Report, add_test_score, iterate_reports
from .transformers_scores import METRICS, OwnLossModel, chance_level, find_kind

__all__ = ["task", "train"]


def task(
    model: Callable[[], Any],
    data: Any,
    test: Any = None,
    *,
    metric: Metric | None = None,
    baseline: float | None = None,
    name: str | None = None,
    batch_size: int = 8,
    epochs: float = 3,
    schedule: str = "linear",
    collate_fn: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Task:
    """Return a `gradprix.Task` that trains a model of transformers with the loss that the model computes.

    Batch size, epochs and schedule are those of `transformers.TrainingArguments`, unless they are given. Nothing is
    downloaded.

    Args:
        model: function that returns a new model with random initial weights, such as
            `lambda: BertForSequenceClassification(BertConfig())`. It may wrap the model by
            `peft.get_peft_model`. For weights that are equal for every seed, give `pretrained=True` as well.
        data: mapping of tensors, as a tokenizer returns it, with `labels`; or a dataset of such mappings; or a function
            that returns either. Values that the model does not take are ignored. `label` is renamed `labels`; for
            a causal language model, they are the `input_ids` if they are missing.
        test: the official test examples, as `data`; if None, a fifth of the examples is held out.
        metric: metric of the model's output and the labels. By default, accuracy for classification, the mean squared
            error for regression, and the perplexity, over all tokens of the examples, for language models.
        baseline: metric of the best constant answer. It is computed from the labels if metric and baseline are None.
        name: name of the task; the `model_type` of the configuration if None.
        batch_size: examples per step.
        epochs: number of epochs.
        schedule: learning-rate schedule, as in `Task`.
        collate_fn: function that makes a batch of a list of items, such as `DataCollatorWithPadding(tokenizer)`.
        options: other arguments of `Task`.

    Raises:
        ImportError: if transformers is not installed.
        TypeError: if `model` is not a function that returns a `PreTrainedModel`.
        ValueError: if there is no default metric for the model, or metric without baseline.
    """
    with RngState(torch.Generator()):
        base = _base_model(model)
    kind = None if metric is not None else find_kind(base)
    accepted = tuple(inspect.signature(type(base).forward).parameters)
    is_causal = find_kind(base) == "causal language model"
    loaded = partial(_load, Source(accepted, is_causal, collate_fn), data, test)
    if metric is None:
        if kind is None:
            raise ValueError(
                f"there is no default metric for {type(base).__name__}: give metric=gradprix.Metric(...) and baseline."
            )
        metric = METRICS[kind]
        baseline = chance_level(kind, loaded()) if baseline is None else baseline
    if baseline is None:
        raise ValueError("a metric of your own needs a baseline: the metric of the best constant answer.")
    return Task(
        name=name or base.config.model_type,
        model=partial(_build, model, kind),
        loss=_own_loss,
        metric=metric,
        baseline=baseline,
        data=loaded,
        batch_size=batch_size,
        epochs=epochs,
        schedule=schedule,
        **options,
    )


def train(
    trainer: Any, *, valid: str = "eval_loss", test: str | None = None, test_dataset: Any = None
) -> Iterator[Mapping[str, float]]:
    """Train with a `transformers.Trainer` in a training loop, and yield a score for each evaluation.

    The trainer gets the racing optimizer as `optimizers=(make_optimizer(model.parameters()), None)`, and its arguments
    `eval_strategy="epoch"`, `seed=seed`, `report_to="none"` and `save_strategy="no"`. Its learning-rate schedule
    multiplies the learning rate of the trial.

    Args:
        trainer: the `Trainer`.
        valid: name of the evaluated quantity that is the score of the run, such as `"eval_accuracy"`.
        test: name of the test quantity, such as `"test_accuracy"`, for the final comparison.
        test_dataset: the test examples; needed for `test`.

    Raises:
        ImportError: if transformers is not installed.
        ValueError: if the quantity is not evaluated, or `test` is given without test examples.
    """
    require("transformers", "transformers")
    if test is not None and test_dataset is None:
        raise ValueError(
            f"test={test!r} needs test_dataset=...: without it, the trainer would evaluate the examples that are used "
            "for tuning."
        )
    from .transformers_callback import EvaluationReports

    def run(report: Report) -> None:
        trainer.add_callback(EvaluationReports(report, valid))
        trainer.train()

    def evaluate(name: str) -> float:
        scores = trainer.evaluate(test_dataset, metric_key_prefix=name.partition("_")[0])
        if name not in scores:
            raise ValueError(f"test={name!r}: the trainer evaluates {', '.join(sorted(scores))}.")
        return float(scores[name])

    reports = iterate_reports(run)
    return reports if test is None else add_test_score(reports, partial(evaluate, test))


def _base_model(model: Callable[[], Any]) -> Any:
    """Build a model once, and return it without the wrapper of peft."""
    base = require("transformers", "transformers").PreTrainedModel
    if isinstance(model, nn.Module):
        raise TypeError(
            f"the model is a {type(model).__name__}, and every run needs new initial weights: give a function that "
            "returns a new one, as in model=lambda: BertForSequenceClassification(config)."
        )
    instance = model()
    if not isinstance(instance, base) and hasattr(instance, "get_base_model"):
        instance = instance.get_base_model()
    if not isinstance(instance, base):
        raise TypeError(f"model() returns a {type(instance).__name__}, not a PreTrainedModel of transformers.")
    return instance


def _build(model: Callable[[], Any], kind: str | None) -> OwnLossModel:
    return OwnLossModel(model(), kind)


def _own_loss(outputs: Mapping[str, Any], targets: Any) -> Any:
    return outputs["loss"]


def _load(source: Source, data: Any, test: Any) -> Data:
    return source.load(data() if callable(data) else data, test() if callable(test) else test)
