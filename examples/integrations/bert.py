"""Is it a name of torch or of NumPy? BERT with its own loss.  gradprix race examples/integrations/bert.py"""

import numpy
import torch
from transformers import BertConfig, BertForSequenceClassification

import gradprix as gp

names = [(name.encode()[:16], i) for i, library in enumerate((torch, numpy)) for name in dir(library)]
data = {
    "input_ids": torch.tensor([[*name, *[0] * (16 - len(name))] for name, _ in names]),
    "attention_mask": torch.tensor([[1] * len(name) + [0] * (16 - len(name)) for name, _ in names]),
    "labels": torch.tensor([label for _, label in names]),
}
config = BertConfig(vocab_size=256, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
task = gp.integrations.transformers.task(lambda: BertForSequenceClassification(config), data, batch_size=32)
