"""Tasks that are wrong: each is found out before the race, with a message that says what to do."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp
from gradprix.race import TaskError
from gradprix.race.validate_task import validate_task

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(-1) == target).double().mean()


def task(**given: Any) -> gp.Task:
    score = given.pop("score", accuracy)
    metric = gp.Metric("accuracy", score, higher_is_better=True, margin=0.01)
    usual = {"model": lambda: nn.Linear(4, 2), "loss": functional.cross_entropy, "data": lambda: gp.Data(X, Y)}
    numbers = {"baseline": 0.5, "batch_size": 8, "epochs": 2}
    return gp.Task(**{"name": "mine", "metric": metric, **numbers, **usual, **given})


def fixed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 2)


SHARED = nn.Linear(4, 2)


def raising(error: Exception) -> Any:
    raise error


class Detached(nn.Module):
    """Its outputs know nothing of its weights."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(4, 2), how

    def forward(self, x: Tensor) -> Tensor:
        output = self.layer(x)
        return output.detach() if self.how == "detach" else output * 0


class Listed(nn.Module):
    """Keeps layers in a list, of which PyTorch knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.layers = nn.Linear(4, 2), [nn.Linear(4, 4)]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers[0](x))


class WithTensor(nn.Module):
    """Has a tensor to be trained that is no parameter."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.head, scale = nn.Linear(4, 2), torch.ones(4, requires_grad=True)
        if buffer:
            self.register_buffer("scale", scale)
        else:
            self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * self.scale)


class WithGlobal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(SHARED(x))


class Temperature(nn.Module):
    def __init__(self, trained: bool = True) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()), trained)
        self.register_buffer("weight", torch.tensor([1.0, 2.0]))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output * self.temperature, target, self.weight)


def closing(scale: Tensor) -> Any:
    return lambda o, y: functional.cross_entropy(o * scale, y)


def scaled(output: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    return functional.cross_entropy(output * scale, target)


class Differentiating(nn.Module):
    """Computes with the derivative by its inputs, which are leaves of the graph, made anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            output = self.layer(x).tanh()
            (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        return output + slope.sum(1, keepdim=True)


def without_missing(output: Tensor, target: Tensor) -> Tensor:
    """Of gradients that are finite, too: those of `nanmean` are not."""
    error = output[:, 0] - target.nan_to_num()
    return torch.where(target.isnan(), 0.0, error.square()).mean()


def with_nan(x: Tensor, row: int, value: float = float("nan")) -> Tensor:
    x = x.clone()
    x[row].view(-1)[-1] = value
    return x


class Pairs(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, x: Tensor = X) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.x[i], Y[i]


class Endless(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return iter(Pairs())


FRAME = pd.DataFrame({"a": X[:, 0].numpy(), "b": pd.array([1, 2, 3] * 20, dtype="Int64")})


class Filled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.nan_to_num()


def materialised(net: nn.Module) -> nn.Module:
    net(X[:1])
    return net


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({"data": lambda: raising(FileNotFoundError("no x.csv"))}, "its data cannot be loaded: no x.csv"),
    "data that is none": ({"data": lambda: (X, Y)}, r"data\(\) returns a tuple. Return gp.Data"),
    "few examples": ({"data": lambda: gp.Data(X[:3], Y[:3])}, "there are 3 examples"),
    "test within training": (
        {"data": lambda: gp.Data(torch.cat([X, X]), torch.cat([Y, Y]), test=torch.arange(60, 120))},
        "100% of its test examples",
    ),
    "classes that are none": ({"data": lambda: gp.Data(X, X[:, 0], stratify=True)}, "stratify requires targets"),
    "no model": ({"model": lambda: raising(ImportError("no torchvision"))}, r"model\(\) fails: no torchvision"),
    "model that is none": ({"model": lambda: 3}, r"model\(\) returns a int. Return a new torch.nn.Module"),
    "the same model": ({"model": lambda: SHARED}, "the same model at each call"),
    "nothing to train": ({"model": nn.Identity}, "no trainable parameter"),
    "the same weights": ({"model": fixed}, "same initial weights"),
    "shapes that do not fit": (
        {"model": lambda: nn.Linear(3, 2)},
        r"its model fails on a batch \(inputs float32 \(8, 4\), targets int64 \(8,\)\)",
    ),
    "float64": ({"data": lambda: gp.Data(X.double(), Y)}, r"fails on a batch \(inputs float64 .*the same dtype"),
    "loss that fails": ({"loss": functional.mse_loss}, r"its loss fails \(outputs float32 \(8, 2\), inputs"),
    "classes that the model has not": (
        {"data": lambda: gp.Data(X, Y + 5)},
        r"its loss fails .*out of bounds",
    ),
    "loss that is a number": ({"loss": lambda o, t: functional.cross_entropy(o, t).item()}, "its loss is a float"),
    "loss of each": (
        {"loss": lambda o, t: functional.cross_entropy(o, t, reduction="none")},
        r"shape \(8,\)\. Reduce it to a scalar",
    ),
    "loss that is none": ({"data": lambda: gp.Data(X / 0, Y)}, "the loss of a batch at initialization is nan"),
    "detached": ({"model": lambda: Detached("detach")}, "does not depend on the weights"),
    "no gradient": ({"model": lambda: Detached("zero")}, "the gradient of every weight is zero"),
    "metric that fails": ({"score": lambda o, t: raising(KeyError("acc"))}, "its metric fails: 'acc'"),
    "metric of each": ({"score": lambda o, t: o.argmax(-1) == t}, "its metric fails: .*only one element"),
    "metric that is none": ({"score": lambda o, t: float("nan")}, "its metric is nan"),
    # Parameters that nothing trains
    "layers in a list": ({"model": Listed}, r"layers\[0\].weight \(4, 4\) and 1 more tensor .* nn.ModuleList"),
    "tensor that is no parameter": ({"model": lambda: WithTensor(False)}, r"scale \(4,\) .* nn.Parameter"),
    "buffer to be trained": ({"model": lambda: WithTensor(True)}, r"scale \(4,\) .* nn.Parameter"),
    "layer of the module": ({"model": WithGlobal}, r"SHARED.weight \(2, 4\) .* nn.ModuleList"),
    "loss that closes over one": ({"loss": closing(nn.Parameter(torch.ones(())))}, r"its loss .* scale \(\) "),
    "loss with one given": ({"loss": partial(scaled, scale=nn.Parameter(torch.ones(2)))}, r"its loss .*\(2,\)"),
    "method of one": ({"loss": Temperature().forward}, r"its loss .* temperature \(\) "),
    # Missing values
    "nan input": ({"data": lambda: gp.Data(with_nan(X, 51), Y)}, r"row 51 of its inputs has nan in column 3 \(1 of 60"),
    "infinite input": ({"data": lambda: gp.Data(with_nan(X, 7, float("inf")), Y)}, "row 7 of its inputs has inf"),
    "nan among several inputs": (
        {"data": lambda: gp.Data({"input": with_nan(X, 5)}, Y)},
        r"row 5 of its inputs\['input'\] has nan in column 3",
    ),
    "nan target": (
        {
            "model": lambda: nn.Linear(4, 1),
            "loss": lambda o, y: functional.mse_loss(o[:, 0], y),
            "data": lambda: gp.Data(X, with_nan(Y.float(), 33)),
        },
        r"row 33 of its targets has nan \(1 of 60",
    ),
    "nan in a frame": (
        {"data": lambda: gp.Data(pd.DataFrame(with_nan(X, 9).numpy(), columns=list("abcd")), Y)},
        "row 9 of its inputs has nan in column 3",
    ),
    "nan in the official test": (
        {"data": lambda: gp.Data.from_dataset(Pairs(), Pairs(with_nan(X[:10] + 1, 3)))},
        r"row 63 \(row 3 of the test set\) of its inputs has nan",
    ),
    "nan in a dataset that is read when needed": (
        {"data": lambda: gp.Data.from_dataset(Pairs(with_nan(X, 44)), memory=0.0)},
        "row 44 of its inputs has nan",
    ),
    "loss whose gradient nan targets make nan": (
        {
            "model": lambda: nn.Linear(4, 1),
            "loss": lambda o, y: (o[:, 0] - y).square().nanmean(),
            "data": lambda: gp.Data(X, with_nan(Y.float(), 33)),
        },
        "the gradient of a batch .* is not finite: row 33 of its targets",
    ),
    "metric that nan targets make nan": (
        {
            "model": lambda: nn.Linear(4, 1),
            "loss": without_missing,
            "score": lambda o, y: (o[:, 0] - y).abs().mean(),
            "data": lambda: gp.Data(X, with_nan(Y.float(), 33)),
        },
        "its metric is nan, .*row 33 of its targets",
    ),
    # Data in other forms
    "masked array": (
        {"data": lambda: gp.Data(np.ma.masked_less(X.numpy(), -1), Y)},
        r"inputs is a masked array, .* inputs.filled\(",
    ),
    "missing value of pandas": (
        {"data": lambda: gp.Data(FRAME.assign(b=FRAME.b.mask(FRAME.index == 4)), Y)},
        r"column 'b' of inputs has no value in row 4 \(<NA>; 1 of 60 rows\): .*fillna",
    ),
    "text column": ({"data": lambda: gp.Data(FRAME.assign(c="x"), Y)}, "column 'c' of inputs holds .*get_dummies"),
    "category": (
        {"data": lambda: gp.Data(FRAME.assign(c=pd.Categorical(["x", "y"] * 30)), Y)},
        "column 'c' of inputs holds category.*codes",
    ),
    "dates": (
        {"data": lambda: gp.Data(FRAME.assign(c=pd.Timestamp("2020-01-01")), Y)},
        "column 'c' of inputs holds datetime.*total_seconds",
    ),
    "sparse tensor": ({"data": lambda: gp.Data(X.to_sparse(), Y)}, r"inputs is a sparse tensor: give inputs.to_dense"),
    "sparse matrix": ({"data": lambda: gp.Data(scipy.sparse.csr_array(X.numpy()), Y)}, r"give inputs.toarray\(\)"),
    "too large integers": ({"data": lambda: gp.Data(X, np.full(60, 2**63, np.uint64))}, "integers of 2⁶³ or more"),
    "a dataset": ({"data": Pairs}, r"data\(\) returns a Pairs. Give gp.Data.from_dataset\(dataset\)"),
    "a loader": ({"data": lambda: torch.utils.data.DataLoader(Pairs())}, r"gp.Data.from_loader\(loader\)"),
    "data of a loader": (
        {"data": lambda: gp.Data.from_dataset(torch.utils.data.DataLoader(Pairs()))},
        r"gp.Data.from_loader\(loader\)",
    ),
    "a loader as inputs": (
        {"data": lambda: gp.Data(torch.utils.data.DataLoader(Pairs()), Y)},
        r"from_loader",
    ),
    "a loader alone": ({"data": lambda: gp.Data(torch.utils.data.DataLoader(Pairs()))}, r"from_loader"),
    "a loader for a function": ({"data": torch.utils.data.DataLoader(Pairs())}, r"not a function.*from_loader"),
    "data for a function": ({"data": gp.Data(X, Y)}, r"not a function.*data=lambda"),
    "a dataset alone": ({"data": lambda: gp.Data(Pairs())}, r"gp.Data.from_dataset\(dataset\)"),
    "an endless dataset": ({"data": Endless}, "race a training loop of your own"),
    "data of an endless dataset": (
        {"data": lambda: gp.Data.from_dataset(Endless())},
        "race a training loop of your own",
    ),
    "a loader of an endless dataset": (
        {"data": lambda: gp.Data.from_dataset(torch.utils.data.DataLoader(Endless()))},
        "race a training loop of your own",
    ),
    # Models
    "lazy layer": (
        {"model": lambda: nn.LazyLinear(2)},
        r"weight of its model is initialized by the first batch. Run a batch",
    ),
    "lazy buffer": (
        {"model": lambda: nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d(), nn.Linear(4, 2))},
        r"1.weight of its model is initialized by the first batch",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_wrong_task_says_what_is_wrong(kind: str) -> None:
    given, says = BROKEN[kind]
    with pytest.raises(TaskError, match=f"task 'mine' cannot be raced: .*{says}"):
        validate_task(task(**given))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"model": fixed, "pretrained": True},
        {"data": lambda: gp.Data(X, Y, test=torch.arange(40, 60))},
        {"data": lambda: gp.Data.from_dataset([(x, y) for x, y in zip(X, Y, strict=True)], memory=0.0)},
        {"loss": Temperature(trained=False)},
        {"loss": Temperature()},
        {"model": Differentiating},
        {
            "model": lambda: nn.Linear(4, 1),
            "loss": without_missing,
            "score": lambda o, y: (o[:, 0] - y).abs().nanmean(),
            "data": lambda: gp.Data(X, with_nan(Y.float(), 33)),
        },
        {"model": lambda: nn.Sequential(Filled(), nn.Linear(4, 2)), "data": lambda: gp.Data(with_nan(X, 3), Y)},
        {"model": lambda: materialised(nn.LazyLinear(2))},
    ],
    ids=[
        *("plain", "fine-tuned", "official test", "streamed", "loss with buffers"),
        *("loss with a trained parameter", "derivatives in the model"),
        *("missing targets that loss and metric leave out", "missing inputs that the model fills in", "lazy"),
    ],
)
def test_a_sound_task_passes(given: dict[str, Any]) -> None:
    validate_task(task(**given))


def test_a_wrong_task_is_refused_before_the_race() -> None:
    wrong: Callable[[], nn.Module] = lambda: nn.Linear(3, 2)  # noqa: E731
    with pytest.raises(TaskError, match="its model fails on a batch"):
        gp.race(task(model=wrong), "adam,minibatch", trials=1, seeds=6)
