"""Node classification by a graph network of torch_geometric.  gradprix race examples/integrations/gcn.py"""

import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

import gradprix as gp

images, digit = load_digits(return_X_y=True)
rows, columns = kneighbors_graph(images, 5).nonzero()  # each image and its five nearest neighbors
edges = torch.stack([torch.from_numpy(rows), torch.from_numpy(columns)])


class GCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(64, 32), GCNConv(32, 10)
        self.register_buffer("x", torch.tensor(images / 16).float())
        self.register_buffer("edges", edges)

    def forward(self, nodes: Tensor) -> Tensor:  # all nodes pass messages; the loss is that of some
        return self.second(self.first(self.x, self.edges).relu(), self.edges)[nodes]


accuracy = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01, percent=True)
data = gp.Data(torch.arange(len(digit)), digit)
task = gp.Task("gcn", GCN, nn.functional.cross_entropy, accuracy, 0.1, lambda: data, batch_size=2_000, epochs=100)
