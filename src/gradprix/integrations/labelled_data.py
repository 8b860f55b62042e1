"""Examples of models that get their labels among the inputs, as those of transformers do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from gradprix.tasks import Data
from gradprix.tasks.tensors import as_tensor

TARGET = "target"
"""Key of the labels that the metric gets, besides those among the inputs."""
IGNORED = -100
"""Label of tokens without a loss, in transformers."""


@dataclass(frozen=True)
class Source:
    """Converter of the examples of a user to `Data`.

    Args:
        accepted: names of the arguments of the model.
        is_causal: True if labels that are missing are the `input_ids`.
        collate_fn: makes a batch of a list of items; None if items have equal shapes.
    """

    accepted: tuple[str, ...]
    is_causal: bool
    collate_fn: Callable[[Any], Any] | None = None

    def load(self, data: Any, test: Any = None) -> Data:
        """Return the examples.

        Args:
            data: mapping of tensors `[examples, ...]`, or dataset of mappings.
            test: official test examples, as `data`, or None.

        Raises:
            TypeError: for a `DataLoader`.
            ValueError: if there are test examples besides those of a `Data`.
        """
        if loader := next((each for each in (data, test) if isinstance(each, DataLoader)), None):
            raise TypeError(
                f"the data is a {type(loader).__name__}: give its dataset, and its collate_fn and batch_size, as in "
                "task(model, loader.dataset, collate_fn=loader.collate_fn, batch_size=loader.batch_size)."
            )
        if isinstance(data, Data):
            if test is not None:
                raise ValueError("test examples of a gradprix.Data belong to it: give Data(inputs, labels, test=...).")
            return data
        if isinstance(data, Mapping):
            inputs, held_out = self.add_labels(data), None
            if test is not None:
                more = self.add_labels(test)
                held_out = torch.arange(len(more["labels"])) + len(inputs["labels"])
                inputs = {name: torch.cat([value, more[name]]) for name, value in inputs.items()}
            return Data(inputs, inputs["labels"], held_out)
        sets = [None if each is None else self.items(each) for each in (data, test)]
        if self.collate_fn is None:
            return Data.from_dataset(*sets, targets=TARGET)
        options: Any = {"collate_fn": partial(self.collate, self.collate_fn)}
        return Data.from_dataset(*sets, targets=TARGET, **options)

    def items(self, dataset: Any) -> Any:
        """Return the dataset to read: with a target, unless the batch gets one after it is collated."""
        return dataset if self.collate_fn is not None else LabelledItems(dataset, self)

    def collate(self, collate_fn: Callable[[Any], Any], items: Any) -> dict[str, Any]:
        """Return a batch with its target."""
        batch = self.add_labels(collate_fn([{"labels" if k == "label" else k: v for k, v in x.items()} for x in items]))
        return {**batch, TARGET: batch["labels"]}

    def add_labels(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that the model takes, as tensors, with `labels`.

        Args:
            values: the values of one example, a batch, or all examples.

        Raises:
            ValueError: if there are no labels.
        """
        renamed = {"labels" if name == "label" else name: value for name, value in values.items()}
        inputs = {name: as_tensor(value, name) for name, value in renamed.items() if name in self.accepted}
        if "labels" in inputs:
            return inputs
        if not (self.is_causal and "input_ids" in inputs):
            raise ValueError(
                f"the examples have {', '.join(map(str, values))}, and no labels: add them under the key 'labels'."
            )
        padding = inputs["attention_mask"] == 0 if "attention_mask" in inputs else torch.tensor(False)
        return {**inputs, "labels": inputs["input_ids"].masked_fill(padding, IGNORED)}


class LabelledItems(Dataset[Any]):
    """Dataset of mappings to which labels and a target are added.

    Args:
        dataset: dataset of mappings.
        source: adds the labels.
    """

    def __init__(self, dataset: Any, source: Source) -> None:
        self.dataset, self.source = dataset, source

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> dict[str, Any]:
        item = self.source.add_labels(self.dataset[number])
        return {**item, TARGET: item["labels"]}
