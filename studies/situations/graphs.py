"""Situations with graphs and sparse matrices."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp

from .registry import Classes, integers, random, situation, table

NODES = 60


def edges() -> Tensor:
    """Return the edges of a ring with random chords, in both directions, `[2, edges]`."""
    ring = torch.stack([torch.arange(NODES), (torch.arange(NODES) + 1) % NODES])
    chords = integers(NODES, 2, 40)
    pairs = torch.cat([ring, chords], 1)
    return torch.cat([pairs, pairs.flip(0)], 1)


@situation("torch_geometric")
def gcn() -> gp.Task:
    """GCN of PyG on one graph, held in buffers."""
    from torch_geometric.nn import GCNConv

    class GCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = GCNConv(8, 16), GCNConv(16, 4)
            self.register_buffer("x", random(NODES, 8))
            self.register_buffer("edges", edges())

        def forward(self, node: Tensor) -> Tensor:
            return self.second(self.first(self.x, self.edges).relu(), self.edges)[node]

    return Classes(name="gcn", model=GCN, data=lambda: gp.Data(torch.arange(NODES), integers(4, NODES)))


ADJACENCY = (torch.eye(12) + torch.eye(12).roll(1, 0)).to_sparse()


class SparseGlobal(nn.Module):
    """Network that multiplies by a sparse matrix that is a global variable."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((ADJACENCY @ x.T).T)


class SparseBuffer(SparseGlobal):
    """Network that multiplies by a sparse matrix that is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("adjacency", ADJACENCY)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.adjacency @ x.T).T)


@situation()
def sparse_global() -> gp.Task:
    """A sparse matrix as a global variable."""
    return Classes(name="sparse-global", model=SparseGlobal, data=lambda: gp.Data(*table()))


@situation()
def sparse_buffer() -> gp.Task:
    """A sparse matrix as a buffer."""
    return Classes(name="sparse-buffer", model=SparseBuffer, data=lambda: gp.Data(*table()))


@situation("torch_geometric")
def graph_list() -> gp.Task:
    """A list of graphs of PyG with different numbers of nodes."""
    from torch_geometric.data import Data as Graph
    from torch_geometric.nn import GCNConv, global_mean_pool

    def graphs() -> list[Any]:
        made = []
        for i in range(96):
            nodes = 5 + i % 6
            ring = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
            x = random(nodes, 4, seed=i) + i % 4
            made.append(Graph(x=x, edge_index=torch.cat([ring, ring.flip(0)], 1), y=torch.tensor([i % 4])))
        return made

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.head = GCNConv(4, 16), nn.Linear(16, 4)

        def forward(self, batch: Any) -> Tensor:
            h = self.convolution(batch.x, batch.edge_index).relu()
            return self.head(global_mean_pool(h, batch.batch))

    return Classes(
        name="graphs", model=Classifier, loss=functional.cross_entropy, data=lambda: gp.Data.from_dataset(graphs())
    )
