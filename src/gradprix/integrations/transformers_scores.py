"""Losses, default metrics and chance levels of the models of transformers."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradprix.tasks import Data, Metric
from gradprix.tasks.lazy_dataset import Stream

from .labelled_data import IGNORED

KINDS = {
    "ForSequenceClassification": "classification",
    "ForImageClassification": "classification",
    "ForAudioClassification": "classification",
    "ForVideoClassification": "classification",
    "ForMultipleChoice": "classification",
    "ForTokenClassification": "token classification",
    "ForMaskedLM": "language model",
    "ForConditionalGeneration": "language model",
    "ForCausalLM": "causal language model",
    "LMHeadModel": "causal language model",
}
"""Kinds of models that have a default metric, by the ends of the names of their classes."""


def find_kind(model: Any) -> str | None:
    """Return the kind of a model, a key of `METRICS`, or None if it has no default metric."""
    names = [base.__name__ for base in type(model).__mro__]
    kind = next((kind for name in names for end, kind in KINDS.items() if name.endswith(end)), None)
    config = model.config
    if kind == "classification" and getattr(config, "problem_type", None) == "multi_label_classification":
        return None
    if kind == "classification" and (config.num_labels == 1 or config.problem_type == "regression"):
        return "regression"
    if kind == "language model" and "ForConditionalGeneration" in names[0] and not config.is_encoder_decoder:
        return "causal language model"
    return kind


class OwnLossModel(nn.Module):
    """Model that returns the loss of a model of transformers and, in evaluation, what the metric needs.

    Args:
        model: the model, which gets the labels among its inputs.
        kind: kind of the model; None to return its whole output in evaluation.
    """

    def __init__(self, model: Any, kind: str | None) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, **inputs: Any) -> dict[str, Any]:
        """Return the loss, and what the metric needs."""
        output = self.model(**inputs)
        if self.training:
            return {"loss": output["loss"]}
        if self.kind is None:
            return dict(output)
        logits, labels = output["logits"], inputs["labels"]
        if self.kind == "causal language model":
            logits, labels = logits[:, :-1], labels[:, 1:]
        if self.kind in ("classification", "regression"):
            return {"loss": output["loss"], "logits": logits}
        if self.kind == "token classification":
            scores = (logits.argmax(-1) == labels).float()
        else:
            scores = nn.functional.cross_entropy(
                logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
            )
        # Sums over the tokens of each example: outputs of all tokens and words would take much memory.
        counts = (labels != IGNORED).float()
        return {"loss": output["loss"], "sum": (scores * counts).sum(-1), "count": counts.sum(-1)}


def _accuracy(outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
    return (outputs["logits"].argmax(-1) == targets).double().mean()


def _squared_error(outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
    return (outputs["logits"].flatten().double() - targets.flatten()).square().mean()


def _token_mean(outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
    return outputs["sum"].double().sum() / outputs["count"].double().sum()


def _perplexity(outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
    return _token_mean(outputs, targets).exp()


METRICS = {
    "classification": Metric("accuracy", _accuracy, higher_is_better=True, margin=0.01, percent=True),
    "regression": Metric("mean squared error", _squared_error, higher_is_better=False, margin=0.02, relative=True),
    "token classification": Metric("token accuracy", _token_mean, higher_is_better=True, margin=0.01, percent=True),
    "language model": Metric("perplexity", _perplexity, higher_is_better=False, margin=0.02, relative=True),
    "causal language model": Metric("perplexity", _perplexity, higher_is_better=False, margin=0.02, relative=True),
}
"""Default metrics of the kinds of models."""


def chance_level(kind: str, data: Data) -> float:
    """Return the metric of the best constant answer.

    For language models, this is the perplexity of the frequencies of all tokens, for classification the share of the
    most frequent class, and for regression the variance.

    Args:
        kind: kind of the model, a key of `METRICS`.
        data: the examples.

    Raises:
        ValueError: if the examples are not held in memory.
    """
    if isinstance(data, Stream):
        raise ValueError("the examples are read during training, so that the chance level is unknown: give baseline.")
    labels = data.targets[:, 1:] if kind == "causal language model" else data.targets
    if kind == "regression":
        return float(labels.double().var(correction=0))
    counts = torch.unique(labels[labels != IGNORED], return_counts=True)[1].double()
    shares = counts / counts.sum()
    return math.exp(-float(shares @ shares.log())) if "language" in kind else float(shares.max())
