"""Node classification by a graph network of torch_geometric.  gradprix race examples/integrations/gcn.py"""

import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from torch import Tensor, nn
from torch_geometric.nn import GCNConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import from_scipy_sparse_matrix

import gradprix as gp

images, digit = load_digits(return_X_y=True)
graph = gcn_norm(from_scipy_sparse_matrix(kneighbors_graph(images, 5))[0])  # normalized once, not in every step


class GCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(64, 32, normalize=False), GCNConv(32, 10, normalize=False)
        for name, buffer in zip(("x", "edges", "weights"), (torch.tensor(images / 16).float(), *graph), strict=True):
            self.register_buffer(name, buffer)

    def forward(self, nodes: Tensor) -> Tensor:  # all nodes pass messages; the loss is that of some
        hidden = self.first(self.x, self.edges, self.weights).relu()
        return self.second(hidden, self.edges, self.weights)[nodes]


accuracy = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01, percent=True)
data = gp.Data(torch.arange(len(digit)), digit)
task = gp.Task("gcn", GCN, nn.functional.cross_entropy, accuracy, 0.1, lambda: data, batch_size=2_000, epochs=100)
