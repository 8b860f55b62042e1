"""A task's training loss as a function of the weights, on new random samples of examples for each measurement."""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from gradprix.race.diagnosis_record import MeasurementKind
from gradprix.tasks import Task
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.model_with_loss import ModelWithLoss
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.tasks.task import called_with
from gradprix.training.outputs import Output, combine

Tensors = Mapping[str, Tensor]
Examples = tuple[Any, Any]
FEWEST, MOST, ALL = 32, 256, 2_048
"""Limits of the sample size. A sample has the size of eight batches, but at least `FEWEST` and at most `MOST` examples;
for full batches it has at most `ALL`."""
HARDEST = 0.1
"""Share of examples, those with the largest losses, that count as hard."""
RARE = 0.4
"""A class is rare if its frequency is below this share of a uniform one."""
FEW = 5
"""Minimum number of a group's examples in a sample; smaller groups are not measured."""


class LossProbe:
    """A task's training loss for one seed.

    The network is in training mode: batch norm uses the sample's statistics, and dropout uses the same noise throughout
    one measurement.

    Args:
        task: the problem.
        seed: seed of the run.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed, self.measurements = task, seed, 0
        self.model: nn.Module = init_model(task.build, seed).train()
        self.buffers = {name for name, _ in self.model.named_buffers()}
        self.train = task.loaded.split(seed).train
        self.random = stream(seed, "explain")
        self.rare = self._rare()

    def sample(self, batch_size: int) -> list[Examples]:
        """Draw two samples of training examples, independent of each other and of the batches of the run.

        Independence makes the product of the samples' gradients unbiased, and their product with the update as well.
        The samples may overlap: disjoint samples would be negatively correlated.

        Args:
            batch_size: batch size of the run; 0 for full batches, in which case both samples hold all examples, up to a
                limit.
        """
        self.measurements += 1
        count = ALL if batch_size == 0 else min(max(8 * batch_size, FEWEST), MOST)
        return self.batches(count, 2)

    def batches(self, size: int, count: int) -> list[Examples]:
        """Draw `count` independent batches of `size` training examples, each without replacement."""
        orders = (torch.randperm(len(self.train), generator=self.random)[:size] for _ in range(count))
        return [self._take(self.train[order]) for order in orders]

    def loss(self, weights: Tensors, inputs: Any, targets: Any) -> Tensor:
        """Return the mean loss of a batch of examples at the given weights."""
        return self._loss(weights, self._outputs(weights, inputs), targets)

    @torch.no_grad()
    def groups(self, weights: Tensors, inputs: Any, targets: Any) -> dict[MeasurementKind, Tensor]:
        """Select groups of examples that an optimizer may neglect: the hardest tenth, and the rare classes.

        Args:
            weights: weights at which the hardest examples are selected, those with the largest losses. They must come
                from an earlier step than the measurement: otherwise the effect of the last steps on an example would be
                mistaken for neglect.
            inputs: inputs of the examples.
            targets: targets of the examples.

        Returns:
            Indices of each group's examples by the measurement of the group. Groups with fewer than `FEW` examples are
            left out. The result is empty if the loss cannot be computed for single examples, or if examples cannot be
            selected from the inputs, such as a batch of graphs.
        """
        parts = [*tree_leaves(inputs), targets]
        if not all(isinstance(x, Tensor) and x.dim() > 0 and len(x) == len(targets) for x in parts):
            return {}
        outputs, count = self._outputs(weights, inputs), len(targets)
        output = Output.from_value(outputs).usable()
        combined = combine([output], [count])
        try:
            losses = torch.stack(
                [self._loss(weights, combined.part(slice(i, i + 1)), targets[i : i + 1]) for i in range(count)]
            )
        except TypeError:  # the loss is defined for whole batches only, as with models that compute their own
            return {}
        groups = {MeasurementKind.HARDEST_TENTH: losses.topk(max(1, round(HARDEST * count))).indices}
        classes = isinstance(outputs, Tensor) and outputs.dim() == 2 and len(self.rare) > 0
        if classes and outputs.shape[1] > int(self.rare.max()):
            groups[MeasurementKind.RARE_CLASSES] = torch.isin(targets, self.rare).nonzero()[:, 0]
        return {name: index for name, index in groups.items() if len(index) >= FEW}

    def _loss(self, weights: Tensors, output: Any, targets: Any) -> Tensor:
        if isinstance(self.model, ModelWithLoss):
            loss: Tensor = self.model.loss_at(weights, output, targets)
            return loss
        return self.task.loss(output, targets)

    def _outputs(self, weights: Tensors, inputs: Any) -> Any:
        # The forward pass may update buffers in place: pass copies.
        tensors = {name: x.clone() if name in self.buffers else x for name, x in weights.items()}
        args, kwargs = called_with(inputs)
        with RngState(stream(self.seed, f"explain noise {self.measurements}")):
            return functional_call(self.model, tensors, args, kwargs)

    def _take(self, index: Tensor) -> Examples:
        examples = [RngState(stream(self.seed, "explain examples"))]
        inputs, targets = tree_map(itemgetter(0), self.task.loaded.take(index[None], examples))
        return inputs, targets

    def _rare(self) -> Tensor:
        """Return the rare classes among the training examples; empty if the targets are not class indices."""
        data, none = self.task.loaded, torch.tensor([], dtype=torch.long)
        targets = None if isinstance(data, Stream) else data.targets
        if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.dtype is not torch.long:
            return none
        classes, counts = targets[self.train].unique(return_counts=True)  # type: ignore[no-untyped-call]
        is_rare = counts < RARE * len(self.train) / len(classes)
        return none if int(classes.min()) < 0 else classes[is_rare]
