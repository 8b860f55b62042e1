"""Classification of whole graphs with torch_geometric.  gradprix race examples/integrations/graphs.py"""

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCNConv, global_mean_pool
from torch_geometric.utils import degree, erdos_renyi_graph

import gradprix as gp


class GraphNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.out = GCNConv(1, 16), nn.Linear(16, 2)

    def forward(self, graphs: Batch) -> Tensor:
        return self.out(global_mean_pool(self.convolution(graphs.x, graphs.edge_index).relu(), graphs.batch))


def make_graph(label: int) -> Data:  # of 10 to 20 nodes, with few or many edges
    size = int(torch.randint(10, 21, ()))
    edges = erdos_renyi_graph(size, (0.2, 0.35)[label])
    return Data(x=degree(edges[0], size)[:, None], edge_index=edges, y=torch.tensor([label]))


accuracy = gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01, percent=True)
data = gp.Data.from_dataset([make_graph(number % 2) for number in range(300)])
task = gp.Task("graphs", GraphNet, nn.functional.cross_entropy, accuracy, 0.5, lambda: data, batch_size=30, epochs=10)
