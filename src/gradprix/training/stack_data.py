"""Training, validation and test examples of the models of a stack."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from gradprix.compiler import IndexedRows
from gradprix.tasks import Task
from gradprix.tasks.batches import RaggedRows
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.rng import RngState, stream
from gradprix.utils.devices import CPU, placed

from .device_cache import to_device
from .faults import task_error
from .trial import Trial


class StackData:
    """Examples of each model of a stack: models with equal seeds see the same examples in the same order.

    Args:
        task: the task.
        trials: the trial of each row.
        device: the device of the models.
        stacked: require batches that can be stacked.

    Attributes:
        seeds: the distinct seeds.
        seed_index: index of each row's seed in `seeds`, `[rows]`.
        train: indices of the training examples, `[seeds, examples]`.
        valid: indices of the validation examples, `[seeds, examples]`.
        test: indices of the test examples, `[seeds, examples]`.
    """

    def __init__(self, task: Task, trials: Sequence[Trial], device: torch.device, stacked: bool = True) -> None:
        self.task, self.trials, self.device, self.stacked = task, trials, device, stacked
        self.data = to_device(task.loaded, device)
        index_device = CPU if self.data is task.loaded else device
        self.seeds = list(dict.fromkeys(trial.seed for trial in trials))
        self._set_seeds(placed(torch.tensor([self.seeds.index(trial.seed) for trial in trials]), index_device))
        self._splits = [task.loaded.split(seed) for seed in self.seeds]
        self.train, self.valid, self.test = (
            placed(torch.stack([getattr(split, part) for split in self._splits]), index_device)
            for part in ("train", "valid", "test")
        )
        self._generators = [stream(seed, "order") for seed in self.seeds]
        self._rng_states = self._start_streams("examples")

    def _start_streams(self, purpose: str) -> list[RngState]:
        """Return a random state for each seed with which to read examples; none if they are in memory."""
        return [RngState(stream(seed, purpose)) for seed in self.seeds if isinstance(self.data, Stream)]

    @contextmanager
    def evaluation_streams(self) -> Iterator[None]:
        """Read randomly augmented examples with the random numbers of an evaluation; see `ModelStack`."""
        training, self._rng_states = self._rng_states, self._start_streams("evaluation examples")
        try:
            yield
        finally:
            self._rng_states = training

    def shuffled_batches(self, batch_size: int, examples: int | None = None) -> Iterator[Tensor]:
        """Shuffle the training examples and yield the indices of each batch, `[seeds, batch]`.

        Args:
            batch_size: examples per batch; the last batch may have fewer.
            examples: total number of examples of the batches; all training examples when None.

        Raises:
            TaskError: if the examples have weights, and those of all training examples of a seed are zero.
        """
        pairs = zip(self._splits, self._generators, strict=True)
        try:
            order = torch.stack([self.task.loaded.shuffle(split.train, generator) for split, generator in pairs])
        except ValueError as error:
            raise task_error(self.task, "drawing its examples", self.trials, error) from error
        shuffled = self.train.gather(1, placed(order[:, :examples], self.train.device))
        yield from shuffled.split(batch_size, dim=1)

    def read(self, index: Tensor) -> tuple[Any, Any]:
        """Return inputs and targets of each row; the examples are read once per seed.

        Args:
            index: indices of the examples, `[seeds, batch]`.

        Returns:
            Nested structures of `IndexedRows`, in which rows of one seed share their examples. They are `RaggedRows` if
            the models are trained one at a time, and the batches of the seeds cannot be stacked.

        Raises:
            TaskError: if reading the examples fails.
        """
        rng_states = [self._rng_states[seed] for seed in self._used_seeds.tolist()] if self._rng_states else []
        try:
            examples = self.data.take(index[self._used_seeds], rng_states)
            if self.stacked and any(isinstance(part, RaggedRows) for part in examples):
                raise ValueError(
                    "the batches of two seeds have different shapes. Pad all batches to one shape in collate_fn"
                )
        except Exception as error:
            raise task_error(self.task, "reading its examples", self.trials, error) from error
        inputs, targets = map(self._index_rows, examples)
        return inputs, targets

    def _index_rows(self, examples: Any) -> Any:
        """Move inputs or targets to the device and convert them to `IndexedRows`, unless they are ragged.

        Most tasks have a single tensor, for which the slow `tree_map` is avoided.
        """
        if isinstance(examples, RaggedRows):
            return examples.to(self.device).select_rows(self._place)
        there = placed(examples, self.device)
        if isinstance(there, Tensor):
            return IndexedRows(there, self._place)
        return tree_map(partial(IndexedRows, index=self._place), there)

    def load(self, index: Tensor) -> tuple[Any, Any]:
        """Return inputs and targets of each row, `[rows, batch, ...]` each; see `read`."""
        inputs, targets = tree_map(IndexedRows.expanded, self.read(index))
        return inputs, targets

    def select_rows(self, index: Tensor) -> None:
        """Keep only the rows at `index`."""
        self._set_seeds(self.seed_index[index])

    def _set_seeds(self, seed_index: Tensor) -> None:
        self.seed_index = seed_index
        self._used_seeds, place = torch.unique(seed_index, return_inverse=True)
        self._place = placed(place, self.device)
