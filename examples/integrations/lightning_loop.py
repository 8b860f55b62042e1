"""Lightning's Trainer as a loop.  gradprix race examples/integrations/lightning_loop.py:train --direction max"""

import lightning.pytorch as pl
from sklearn.datasets import load_digits
from torch import nn, tensor
from torch.utils.data import DataLoader, TensorDataset

import gradprix as gp


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self.layers(batch[0]).argmax(-1) == batch[1]).float().mean())


x, y = load_digits(return_X_y=True)
digits = TensorDataset(tensor(x / 16).float(), tensor(y))
loaders = DataLoader(TensorDataset(*digits[:1400]), 32, shuffle=True), DataLoader(TensorDataset(*digits[1400:]), 400)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def train(make_optimizer, seed):
    trainer = pl.Trainer(max_epochs=5, gradient_clip_val=1.0, accelerator="cpu", **quiet)
    yield from gp.integrations.lightning.fit(trainer, Net(), make_optimizer, loaders, valid="val_acc")
