"""A GPT-2 language model of bytes, on documentation of torch.  gradprix race examples/integrations/gpt2.py"""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import gradprix as gp

text = "\n".join(str(getattr(torch, name).__doc__) for name in dir(torch)).encode()[:20_000]
data = {"input_ids": torch.tensor(list(text[: len(text) // 32 * 32])).view(-1, 32)}
config = GPT2Config(vocab_size=256, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
task = gp.integrations.transformers.task(lambda: GPT2LMHeadModel(config), data, batch_size=32)

if __name__ == "__main__":
    print(gp.race(task, "adamw,adan,nesterov", trials=10, seeds=6, out="runs/gpt2"))
