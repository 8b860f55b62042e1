"""transformers' Trainer as a loop.  gradprix race examples/integrations/trainer_loop.py:train --direction min"""

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import gradprix as gp

words = torch.randint(1, 256, (500, 16), generator=torch.Generator().manual_seed(0))
items = [{"input_ids": x, "labels": x[0] % 2} for x in words]
config = BertConfig(vocab_size=256, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
settings = {"num_train_epochs": 3, "eval_strategy": "epoch", "save_strategy": "no", "report_to": "none"}
settings |= {
    "use_cpu": True,
    "per_device_train_batch_size": 16,
    "disable_tqdm": True,
    "logging_strategy": "no",
    "output_dir": tempfile.gettempdir(),
}


def train(make_optimizer, seed):
    model = BertForSequenceClassification(config)
    arguments = TrainingArguments(seed=seed, **settings)
    optimizers = (make_optimizer(model.parameters()), None)
    trainer = Trainer(model, arguments, train_dataset=items[:400], eval_dataset=items[400:], optimizers=optimizers)
    yield from gp.integrations.transformers.train(trainer, valid="eval_loss")
