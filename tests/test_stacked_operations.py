"""Functions of torch in a stack run their stacked versions, however they are called."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

from gradprix.training.batched_ops import StackedOperations

ROWS = 7
CELLS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nn.LSTMCell(5, 6),
    "gru": lambda: nn.GRUCell(5, 6),
    "gru without bias": lambda: nn.GRUCell(5, 6, bias=False),
    "tanh": lambda: nn.RNNCell(5, 6),
    "relu": lambda: nn.RNNCell(5, 6, nonlinearity="relu"),
}


class OperationNames(TorchDispatchMode):
    """Records the names of the operations that torch computes with."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function._schema.name.removeprefix("aten::"))
        return function(*args, **(kwargs or {}))


def operation_names(run: Callable[..., Tensor], *stacks: Tensor) -> set[str]:
    with OperationNames() as operations, StackedOperations():
        vmap(run)(*stacks)
    return operations.names


@pytest.mark.parametrize("run", [functional.linear, linear, torch._C._nn.linear], ids=["attribute", "name", "builtin"])
def test_a_linear_layer_is_one_product_whatever_name_it_is_called_by(run: Callable[..., Tensor]) -> None:
    names = operation_names(run, torch.ones(ROWS, 3, 5), torch.ones(ROWS, 6, 5), torch.ones(ROWS, 6))

    assert "baddbmm" in names
    assert "add" not in names


def test_linear_layers_within_torchs_own_functions_are_stacked() -> None:
    attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=3, batch_first=True)

    names = operation_names(lambda x, y: attention(x, y, y)[0], torch.ones(ROWS, 2, 5, 4), torch.ones(ROWS, 2, 5, 3))

    assert "baddbmm" in names
    assert "mm" not in names
    assert "addmm" not in names


def test_a_function_with_its_own_check_is_called_once() -> None:
    x = torch.randn(ROWS, 2, 3, 8, 8)
    with StackedOperations():
        area = vmap(lambda image: functional.interpolate(image, size=4, mode="area"))(x)
        sampled = vmap(lambda image: functional.max_pool2d(image, 2, return_indices=True)[0])(x)
    torch.testing.assert_close(area, functional.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, (ROWS, 2)))
    torch.testing.assert_close(sampled, functional.max_pool2d(x.flatten(0, 1), 2).unflatten(0, (ROWS, 2)))


def test_torch_is_left_as_it_is() -> None:
    before = functional.linear, functional.cross_entropy, torch.zeros, Tensor.to, torch.autograd.Function.apply
    with StackedOperations():
        during = functional.linear, functional.cross_entropy, torch.zeros, Tensor.to, torch.autograd.Function.apply
        plain = functional.linear(torch.ones(2, 3), torch.ones(4, 3))
    assert during == before
    assert plain.tolist() == [[3.0] * 4] * 2


@pytest.mark.parametrize("kind", CELLS)
def test_a_recurrent_cell_in_a_stack_is_that_of_torch(kind: str) -> None:
    torch.manual_seed(0)
    cells = [CELLS[kind]().double() for _ in range(3)]
    x = torch.randn(4, 5, dtype=torch.float64)

    def forward(parameters: dict[str, Tensor]) -> Tensor:
        state = None
        for _ in range(3):
            state = functional_call(cells[0], parameters, (x, state))
        assert state is not None
        return state if isinstance(state, Tensor) else torch.cat(state)

    parameters = {name: y.detach().requires_grad_() for name, y in stack_module_state(cells)[0].items()}
    with StackedOperations():
        outputs = vmap(forward)(parameters)
    gradients = torch.autograd.grad((outputs**2).sum(), list(parameters.values()))
    for row, cell in enumerate(cells):
        output = forward(dict(cell.named_parameters()))
        (output**2).sum().backward()
        ours = [outputs[row], *(g[row] for g in gradients)]
        for one, other in zip(ours, [output, *(y.grad for y in cell.parameters())], strict=True):
            torch.testing.assert_close(one, other)
