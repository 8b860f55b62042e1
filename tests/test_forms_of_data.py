"""Forms in which numbers come: each becomes a tensor that torch can compute with, or is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp
from gradprix.race import ENTRIES
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trainer import train_stack
from gradprix.training.trial import Trial

N = np.arange(24.0).reshape(12, 2)
Y = torch.arange(12) % 2
FEW: dict[str, Any] = {"trials": 1, "seeds": 6, "epochs": 1, "processes": 1}


def read_only() -> Any:
    array = N.copy()
    array.flags.writeable = False
    return array


FORMS: dict[str, tuple[Callable[[], Any], torch.dtype]] = {
    "float64": (lambda: N, torch.float32),
    "float32": (lambda: N.astype(np.float32), torch.float32),
    "float16": (lambda: N.astype(np.float16), torch.float16),
    "long double": (lambda: N.astype(np.longdouble), torch.float32),
    "big-endian float": (lambda: N.astype(">f8"), torch.float32),
    "big-endian integer": (lambda: N.astype(">i4"), torch.int32),
    "uint8": (lambda: N.astype(np.uint8), torch.uint8),
    "uint16": (lambda: N.astype(np.uint16), torch.int32),
    "uint32": (lambda: N.astype(np.uint32), torch.int64),
    "uint64": (lambda: N.astype(np.uint64), torch.int64),
    "uint16 of torch": (lambda: torch.tensor(N).to(torch.uint16), torch.int32),
    "complex": (lambda: N.astype(np.complex128), torch.complex64),
    "long complex": (lambda: N.astype(np.clongdouble), torch.complex64),
    "read-only": (read_only, torch.float32),
    "backwards": (lambda: N[::-1, ::-1].copy()[::-1, ::-1], torch.float32),
    "columns first": (lambda: np.asfortranarray(N), torch.float32),
    "mask of nothing": (lambda: np.ma.masked_array(N), torch.float32),
    "list": (N.tolist, torch.float32),
    "frame": (lambda: pd.DataFrame(N), torch.float32),
    "frame of integers that may be missing": (lambda: pd.DataFrame(N).astype("Int64"), torch.int64),
    "frame of floats that may be missing": (lambda: pd.DataFrame(N).astype("Float64"), torch.float32),
    "frame of several kinds": (
        lambda: pd.DataFrame({"a": pd.array(N[:, 0], dtype="Int32"), "b": N[:, 1].astype(np.float64)}),
        torch.float32,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_in_any_form_are_the_same_numbers(form: str) -> None:
    make, dtype = FORMS[form]
    inputs = gp.Data(make(), Y).inputs
    assert inputs.dtype is dtype
    assert inputs.is_contiguous()
    assert torch.equal(inputs.to(torch.complex128), torch.tensor(N, dtype=torch.complex128))
    if "frame" not in form and form != "list":
        items = gp.Data.from_dataset(list(zip(make(), Y, strict=True))).inputs
        assert items.dtype is dtype
        assert torch.equal(items, inputs)


def test_one_value_for_all_examples_may_be_an_expanded_array() -> None:
    data = gp.Data(np.broadcast_to(np.array([[1.0, 2.0]]), (12, 2)), Y)
    assert torch.equal(data.inputs, torch.tensor([[1.0, 2.0]]).expand(12, 2))


# Sparse tensors

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
LABELS = (X.sum(1) > 0).long()
EDGES = (torch.rand(60, 60, generator=torch.Generator().manual_seed(1)) < 0.1).float() + torch.eye(60)


class Graph(nn.Module):
    """A graph network: the adjacency is held as a buffer, an attribute or a global, in any layout."""

    def __init__(self, edges: Tensor, held: str) -> None:
        super().__init__()
        self.layer, self.held = nn.Linear(4, 2), held
        self.register_buffer("x", X.clone())
        if held == "buffer":
            self.register_buffer("edges", edges)
        else:
            self.edges = edges

    def forward(self, node: Tensor) -> Any:
        return (self.edges @ self.layer(self.x))[node]


def graph(edges: Tensor, held: str) -> gp.Task:
    return gp.Task(
        name="graph",
        model=lambda: Graph(edges, held),
        loss=functional.cross_entropy,
        metric=gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01),
        baseline=0.5,
        data=lambda: gp.Data(torch.arange(60), LABELS),
        batch_size=16,
        epochs=2,
    )


def trial(name: str = "minibatch") -> Trial:
    entry = ENTRIES[name]
    return Trial(entry.rule, entry.values(0.1), 3, 16, 2, "constant", True)


@pytest.mark.filterwarnings("ignore:Sparse (CSR|invariant)")
@pytest.mark.parametrize("held", ["buffer", "attribute"])
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_tensor_that_a_model_holds_computes_as_a_dense_one(layout: torch.layout, held: str) -> None:
    sparse = EDGES.to_sparse(layout=layout)
    (found,), (dense,) = (
        train_stack(graph(e, held), [trial()], mode=ExecutionMode(stacked=False)) for e in (sparse, EDGES)
    )
    assert found.test_loss == pytest.approx(dense.test_loss, rel=1e-5)
    assert [point[1] for point in found.curve] == pytest.approx([point[1] for point in dense.curve], rel=1e-5)


@pytest.mark.filterwarnings("ignore:Sparse (CSR|invariant)")
@pytest.mark.parametrize(
    ("layout", "held"),
    [(torch.sparse_coo, "buffer"), (torch.sparse_csr, "buffer"), (torch.sparse_csr, "attribute")],
)
def test_a_model_with_a_sparse_tensor_races_one_at_a_time(layout: torch.layout, held: str) -> None:
    result = gp.race(graph(EDGES.to_sparse(layout=layout), held), "adam,minibatch", **FEW)
    assert not result.record.plan.mode.stacked
    assert "sparse" in result.record.plan.mode.stack_rejection.message
    assert not result.record.failed


@pytest.mark.parametrize("stacked", [True, False])
def test_sparse_gradients_count_as_dense_ones(stacked: bool) -> None:
    def task(sparse: bool) -> gp.Task:
        return gp.Task(
            name="words",
            model=lambda: nn.Sequential(nn.Embedding(9, 4, sparse=sparse), nn.Flatten(), nn.Linear(8, 2)),
            loss=functional.cross_entropy,
            metric=gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01),
            baseline=0.5,
            data=lambda: gp.Data(torch.arange(120).view(60, 2) * 7 % 9, LABELS),
            batch_size=16,
            epochs=2,
        )

    for name in ("minibatch", "adam"):
        (found,), (dense,) = (
            train_stack(task(kind), [trial(name)], mode=ExecutionMode(stacked=stacked)) for kind in (True, False)
        )
        assert found.test_loss == pytest.approx(dense.test_loss, rel=1e-5)
