"""A loop with skorch.  gradprix race examples/integrations/skorch_loop.py:train --direction max"""

from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn

images, digit = load_digits(return_X_y=True)
images = (images / 16).astype("float32")


def train(make_optimizer, seed):
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    net = NeuralNetClassifier(
        model,
        criterion=nn.CrossEntropyLoss,
        optimizer=lambda parameters, lr: make_optimizer(parameters),  # its lr is that of the trial
        max_epochs=1,
        batch_size=32,
        train_split=None,
        verbose=0,
    )
    for _ in range(5):
        net.partial_fit(images[:1400], digit[:1400])
        yield {"valid": net.score(images[1400:], digit[1400:])}
