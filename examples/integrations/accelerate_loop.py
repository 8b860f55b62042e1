"""A loop with accelerate.  gradprix race examples/integrations/accelerate_loop.py:train --direction max"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

images, digit = map(torch.tensor, load_digits(return_X_y=True))
digits = TensorDataset(images.float() / 16, digit)


def train(make_optimizer, seed):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    loader = DataLoader(TensorDataset(*digits[:1400]), batch_size=16, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, make_optimizer(model.parameters()), loader)
    for _ in range(5):
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.cross_entropy(model(x), y))
                optimizer.step()
                optimizer.zero_grad()
        x, y = digits[1400:]
        yield {"valid": (model(x).argmax(-1) == y).float().mean()}
