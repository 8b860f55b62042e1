"""A task's training loss as a function of the weights, on samples of examples that are new at each look."""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from gradprix.tasks import Task
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.rng import Luck, fresh, stream
from gradprix.tasks.task import called_with
from gradprix.training.outputs import Output, combine

Tensors = Mapping[str, Tensor]
Examples = tuple[Any, Any]
FEWEST, MOST, ALL = 32, 256, 2_048
"""Examples of a sample: eight batches' worth, within the first two; up to so many where a step is of all examples."""
HARDEST = 0.1
"""The share of examples with the largest losses."""
RARE = 0.4
"""The share of an even part of the examples below which a class is rare."""
FEW = 5
"""Examples of a group in a sample below which it is not looked at."""


class Looked:
    """A task's training loss under one seed.

    The network is in training mode, as when it is trained: batch norm by the sample, dropout with the same noise for
    all of a look.

    Args:
        task: the problem.
        seed: of the run.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed, self.looks = task, seed, 0
        self.model: nn.Module = fresh(task.model, seed).train()
        self.buffers = {name for name, _ in self.model.named_buffers()}
        self.train = task.loaded.split(seed).train
        self.random = stream(seed, "explain")
        self.rare = self._rare()

    def sample(self, batch_size: int) -> list[Examples]:
        """Two samples of training examples, new at each look and drawn without regard to each other or to the step.

        Only so are products of their gradients, and with the step, unbiased: samples that avoid each other, or the
        examples of the step, are less alike than chance would have it.

        Args:
            batch_size: of the run; 0 for all, of which both samples then are, if there are not too many.
        """
        self.looks += 1
        count = ALL if batch_size == 0 else min(max(8 * batch_size, FEWEST), MOST)
        return self.batches(count, 2)

    def batches(self, size: int, count: int) -> list[Examples]:
        """Batches of training examples, without replacement within each."""
        orders = (torch.randperm(len(self.train), generator=self.random)[:size] for _ in range(count))
        return [self._take(self.train[order]) for order in orders]

    def loss(self, weights: Tensors, inputs: Any, targets: Any) -> Tensor:
        """The mean loss of some examples."""
        return self.task.loss(self._outputs(weights, inputs), targets)

    @torch.no_grad()
    def groups(self, weights: Tensors, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """Which of some examples a step may leave behind: the hardest tenth, and rare classes where there are such.

        Args:
            weights: by which examples are hard: earlier ones than those that are measured, or what made an example
                hard, the last steps, would be taken for a neglect of it.
            inputs: of the examples.
            targets: likewise.
        """
        if not isinstance(targets, Tensor) or targets.dim() == 0:
            return {}
        outputs, count = self._outputs(weights, inputs), len(targets)
        output = Output.of(outputs).usable()
        combined = combine([output], [count])
        try:
            each = torch.stack(
                [self.task.loss(combined.part(slice(i, i + 1)), targets[i : i + 1]) for i in range(count)]
            )
        except TypeError:  # the loss is of whole batches, as that of a model that computes its own
            return {}
        found = {"the hardest tenth": each.topk(max(1, round(HARDEST * count))).indices}
        classes = isinstance(outputs, Tensor) and outputs.dim() == 2 and len(self.rare) > 0
        if classes and outputs.shape[1] > int(self.rare.max()):
            found["rare classes"] = torch.isin(targets, self.rare).nonzero()[:, 0]
        return {name: index for name, index in found.items() if len(index) >= FEW}

    def _outputs(self, weights: Tensors, inputs: Any) -> Any:
        # What changes buffers changes copies of them.
        own = {name: x.clone() if name in self.buffers else x for name, x in weights.items()}
        args, kwargs = called_with(inputs)
        with Luck(stream(self.seed, f"explain noise {self.looks}")):
            return functional_call(self.model, own, args, kwargs)

    def _take(self, index: Tensor) -> Examples:
        examples = [Luck(stream(self.seed, "explain examples"))]
        inputs, targets = tree_map(itemgetter(0), self.task.loaded.take(index[None], examples))
        return inputs, targets

    def _rare(self) -> Tensor:
        """The rare ones of the training examples' classes, where targets are class numbers."""
        data, none = self.task.loaded, torch.tensor([], dtype=torch.long)
        targets = None if isinstance(data, Stream) else data.targets
        if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.dtype is not torch.long:
            return none
        classes, counts = targets[self.train].unique(return_counts=True)  # type: ignore[no-untyped-call]
        chosen = counts < RARE * len(self.train) / len(classes)
        return none if int(classes.min()) < 0 else classes[chosen]
