"""A LightningModule as a task.  gradprix race examples/integrations/lightning_task.py"""

import lightning.pytorch as pl
from sklearn.datasets import load_digits
from torch import Tensor, nn, tensor
from torch.utils.data import DataLoader, TensorDataset

import gradprix as gp


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_acc", (self.layers(batch[0]).argmax(-1) == batch[1]).float().mean())


x, y = load_digits(return_X_y=True)
digits = TensorDataset(tensor(x / 16).float(), tensor(y))
loaders = DataLoader(TensorDataset(*digits[:1400]), batch_size=32), DataLoader(TensorDataset(*digits[1400:]))
task = gp.integrations.lightning.task(Net, loaders, metric="val_acc", baseline=0.1, epochs=10)
