"""Train with the result of `gradprix race task.py`: the script of the tutorial."""

import torch
from task import data, loss, model

import gradprix as gp

torch.manual_seed(0)
wines = data()
inputs, targets = torch.as_tensor(wines.inputs), torch.as_tensor(wines.targets)
order = torch.randperm(len(targets))
training, held_out = order[:142], order[142:]

network = model()
result = gp.load("runs/wine")
optimizer = result.best.make(network.parameters())

epochs, batches = 20, training.split(16)
schedule = gp.schedule(result.best.schedule, epochs * len(batches))
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)

for _ in range(epochs):
    for batch in training[torch.randperm(len(training))].split(16):
        optimizer.zero_grad()
        loss(network(inputs[batch]), targets[batch]).backward()
        optimizer.step()
        scheduler.step()

correct = network(inputs[held_out]).argmax(1) == targets[held_out]
print(result.best.code)
print(f"{correct.sum()} of {len(correct)} held-out wines classified correctly")
