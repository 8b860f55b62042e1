"""A Llama language model of bytes, on documentation of torch.  gradprix race examples/integrations/llama.py"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import gradprix as gp

text = "\n".join(str(getattr(torch, name).__doc__) for name in dir(torch)).encode()[:100_000]
data = {"input_ids": torch.tensor(list(text[: len(text) // 32 * 32])).view(-1, 32)}
config = LlamaConfig(vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
task = gp.integrations.transformers.task(lambda: LlamaForCausalLM(config), data, batch_size=32)
