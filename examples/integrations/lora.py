"""LoRA, by peft, of a frozen BERT classifier.  gradprix race examples/integrations/lora.py"""

from copy import deepcopy

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

import gradprix as gp

words = torch.randint(1, 256, (1_000, 16), generator=torch.Generator().manual_seed(0))
data = {"input_ids": words, "labels": (words < 100).sum(1) // 4 % 2}
config = BertConfig(vocab_size=256, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
base = BertForSequenceClassification(config)  # here: random weights; else .from_pretrained(...)
lora = LoraConfig("SEQ_CLS", r=4, target_modules=["query", "value"])


def model() -> PreTrainedModel:
    return get_peft_model(deepcopy(base), lora)


task = gp.integrations.transformers.task(model, data, batch_size=32, name="lora")
