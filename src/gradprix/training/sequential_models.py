"""Models of a stack that run one after the other, for models that cannot run as one program."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gradprix.tasks import Task
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.tasks.task import called_with
from gradprix.tasks.tensors import dense
from gradprix.utils.devices import CPU, placed

from .gradient_mode import needs_gradients
from .outputs import Output
from .rng import use_rng_state

Tensors = Mapping[str, Tensor]


class SequentialModels:
    """Rows that run one after the other as ordinary models, for models that cannot be stacked.

    The parameters and buffers of the models alias the rows of stacked tensors, which the optimizers update.

    Args:
        task: the task, with its model and loss.
        seeds: the seed of each row.
        device: the device of the rows.
        initialized: models by seed that the caller has initialized; they are used instead of initializing models again,
            which may be slow.

    Attributes:
        received: for each parameter, the rows in which it got a gradient since this was last cleared.
    """

    def __init__(
        self,
        task: Task,
        seeds: Sequence[int],
        device: torch.device = CPU,
        initialized: Mapping[int, nn.Module] | None = None,
    ) -> None:
        self.task, self.device = task, device
        unused = dict(initialized or {})
        models = [unused.pop(seed) if seed in unused else init_model(task.build, seed) for seed in seeds]
        self.models = [model.to(device) for model in models]
        self.seeds, self.rng_states = list(seeds), _start_noise(seeds, "noise")
        self.stacks: dict[str, Tensor] = {}
        self.received: dict[str, set[int]] = {}

    @contextmanager
    def evaluation_streams(self) -> Iterator[None]:
        """Draw the random numbers of an evaluation; see `ModelStack`."""
        training, self.rng_states = self.rng_states, _start_noise(self.seeds, "evaluation noise")
        try:
            yield
        finally:
            self.rng_states = training

    def gradients(
        self, parameters: Tensors, buffers: Tensors, inputs: Any, targets: Any
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the losses, `[rows]`, and the stacked gradients of the parameters; those of unused ones are zero."""
        losses, gradients = [], [torch.zeros_like(x) for x in parameters.values()]
        for row in range(len(self.models)):
            loss, row_gradients = self.row_gradients(row, parameters, buffers, inputs, targets)
            losses.append(loss)
            for name, stacked_gradient, g in zip(parameters, gradients, row_gradients, strict=True):
                rows = self.received.setdefault(name, set())
                if g is not None:
                    rows.add(row)
                    stacked_gradient[row] = g
        return torch.stack(losses), list(gradients)

    def row_gradients(
        self, row: int, parameters: Tensors, buffers: Tensors, inputs: Any, targets: Any
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the loss of a row, without dimensions, and its gradients; those of unused parameters are None."""
        model, gradients = self.models[row], []
        self._alias_rows(parameters, buffers, [row])
        model.train()
        with use_rng_state(self.rng_states[row], self.device):
            output = self._output(model, row, inputs)
            loss = self.task.loss_of(model)(output, tree_map(itemgetter(row), targets))
            if loss.dim() != 0:
                raise ValueError(f"the loss of a batch has the shape {tuple(loss.shape)}, not one number")
            loss.backward()  # type: ignore[no-untyped-call]
        own_parameters = dict(model.named_parameters(remove_duplicate=False))
        for name in parameters:
            x = own_parameters[name]
            gradients.append(None if x.grad is None else dense(x.grad))
            x.grad = None
        self._alias_rows(parameters, buffers, [row])
        return loss.detach(), gradients

    def outputs(self, parameters: Tensors, buffers: Tensors, inputs: Any, targets: Any) -> tuple[list[Output], Tensor]:
        """Return the output of each row, on the CPU, and the losses, `[rows]`."""
        outputs, losses = [], []
        self._alias_rows(parameters, buffers)
        for row, model in enumerate(self.models):
            model.eval()
            with use_rng_state(self.rng_states[row], self.device), torch.set_grad_enabled(needs_gradients(self.task)):
                output = self._output(model, row, inputs)
                losses.append(self.task.loss_of(model)(output, tree_map(itemgetter(row), targets)).detach())
            usable_output = Output.from_value(output).usable()
            outputs.append(Output(placed(usable_output.leaves, CPU), usable_output.build))
        self._alias_rows(parameters, buffers)
        return outputs, torch.stack(losses)

    def select_rows(self, index: Tensor) -> None:
        """Keep only the rows at `index`."""
        chosen = index.tolist()
        self.models, self.seeds, self.rng_states = (
            [values[i] for i in chosen] for values in (self.models, self.seeds, self.rng_states)
        )

    def _output(self, model: nn.Module, row: int, inputs: Any) -> Any:
        args, kwargs = called_with(tree_map(itemgetter(row), inputs))
        return model(*args, **kwargs)

    def _alias_rows(self, parameters: Tensors, buffers: Tensors, rows: Iterable[int] | None = None) -> None:
        """Make the models' parameters and buffers alias rows of the stacked tensors.

        If a model has replaced a tensor since the last call, the new values are copied into its row.

        Args:
            parameters: the stacked parameters.
            buffers: the stacked buffers.
            rows: the rows whose models have run; all by default. All rows of new stacked tensors are aliased.
        """
        stacks = {**buffers, **parameters}
        is_same_stack = self.stacks.keys() == stacks.keys() and all(
            self.stacks[name] is stack for name, stack in stacks.items()
        )
        for row in rows if rows is not None and is_same_stack else range(len(self.models)):
            tensors = _parameters_and_buffers(self.models[row])
            for name, stack in stacks.items():
                x, row_tensor = tensors[name], stack[row]
                if x.data_ptr() != row_tensor.data_ptr():
                    if is_same_stack and x.shape != row_tensor.shape:
                        raise ValueError(f"its buffer {name} changes its shape as it runs; the rows of a race cannot")
                    if is_same_stack:
                        row_tensor.copy_(x.detach())
                    x.data = row_tensor
        self.stacks = stacks


def _start_noise(seeds: Sequence[int], purpose: str) -> list[RngState]:
    return [RngState(stream(seed, purpose)) for seed in seeds]


def _parameters_and_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a model, including a TorchScript one."""
    return dict(model.named_buffers(remove_duplicate=False)) | dict(model.named_parameters(remove_duplicate=False))
